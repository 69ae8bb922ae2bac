package igd

// wanIPConnection is WANIPConnection, versions 1 and 2. Of its optional actions
// it has none: the gateway's connection is not the LAN's to end or to time.
func wanIPConnection() *service {
	return &service{
		name: "WANIPConnection", id: "WANIPConn1", latest: 2,
		variables: append(connectionVariables("Unconfigured", "IP_Routed", "IP_Bridged"),
			variable{name: "SystemUpdateID", kind: ui4, since: 2, evented: ofChange, value: visitor.systemUpdateID},
			variable{name: "A_ARG_TYPE_Manage", kind: boolean, since: 2},
			variable{name: "A_ARG_TYPE_PortListing", kind: text, since: 2},
		),
		actions: append(connectionActions(),
			action{
				name: "AddAnyPortMapping", since: 2,
				in:  mappingIn(),
				out: []argument{{name: "NewReservedPort", variable: "ExternalPort"}},
				do:  addAnyPortMapping,
			},
			action{
				name: "DeletePortMappingRange", since: 2,
				in: []argument{
					{name: "NewStartPort", variable: "ExternalPort"},
					{name: "NewEndPort", variable: "ExternalPort"},
					{name: "NewProtocol", variable: "PortMappingProtocol"},
					{name: "NewManage", variable: "A_ARG_TYPE_Manage"},
				},
				do: deletePortMappingRange,
			},
			action{
				name: "GetListOfPortMappings", since: 2,
				in: []argument{
					{name: "NewStartPort", variable: "ExternalPort"},
					{name: "NewEndPort", variable: "ExternalPort"},
					{name: "NewProtocol", variable: "PortMappingProtocol"},
					{name: "NewManage", variable: "A_ARG_TYPE_Manage"},
					{name: "NewNumberOfPorts", variable: "PortMappingNumberOfEntries"},
				},
				out: []argument{{name: "NewPortListing", variable: "A_ARG_TYPE_PortListing", cdata: true}},
				do:  getListOfPortMappings,
			},
		),
	}
}

// wanPPPConnection is WANPPPConnection:1, for clients that know no other: the
// same connection and the same mappings. It never had a version 2. Who dialled
// in with which password is nobody's business on the LAN, so the actions that
// would show or set it are left out.
func wanPPPConnection() *service {
	return &service{
		name: "WANPPPConnection", id: "WANPPPConn1", latest: 1,
		variables: append(connectionVariables("Unconfigured", "IP_Routed"),
			variable{name: "UpstreamMaxBitRate", kind: ui4},
			variable{name: "DownstreamMaxBitRate", kind: ui4},
		),
		actions: append(connectionActions(), action{
			name: "GetLinkLayerMaxBitRates",
			out: []argument{
				{name: "NewUpstreamMaxBitRate", variable: "UpstreamMaxBitRate"},
				{name: "NewDownstreamMaxBitRate", variable: "DownstreamMaxBitRate"},
			},
			do: func(c *call) ([]string, error) {
				s := c.device.wan.Status()
				return []string{bitRate(s.RateUp), bitRate(s.RateDown)}, nil
			},
		}),
	}
}

// The values that the connection's variables take here.
const (
	connected    = "Connected"
	disconnected = "Disconnected"
	routed       = "IP_Routed"
)

// connectionVariables are what WANIPConnection and WANPPPConnection share.
func connectionVariables(types ...string) []variable {
	return []variable{
		{name: "ConnectionType", kind: text, allowed: types},
		{name: "PossibleConnectionTypes", kind: text, evented: once, value: func(visitor) string { return routed }},
		{
			name: "ConnectionStatus", kind: text, allowed: []string{"Unconfigured", connected, disconnected},
			evented: ofWAN, queried: true, value: visitor.connectionStatus,
		},
		{name: "Uptime", kind: ui4},
		{name: "LastConnectionError", kind: text, allowed: []string{"ERROR_NONE", "ERROR_NO_CARRIER", "ERROR_IP_CONFIGURATION"}},
		{name: "RSIPAvailable", kind: boolean},
		{name: "NATEnabled", kind: boolean},
		{name: "ExternalIPAddress", kind: text, evented: ofWAN, value: visitor.externalAddress},
		{name: "PortMappingNumberOfEntries", kind: ui2, evented: ofCount, queried: true, value: visitor.entries},
		{name: "PortMappingEnabled", kind: boolean},
		{name: "PortMappingLeaseDuration", kind: ui4, limits: &limits{since: 2, min: 0, max: 604800}},
		{name: "RemoteHost", kind: text},
		{name: "ExternalPort", kind: ui2},
		{name: "InternalPort", kind: ui2, limits: &limits{since: 2, min: 1, max: 65535}},
		{name: "PortMappingProtocol", kind: text, allowed: []string{"TCP", "UDP"}, anyCase: true},
		{name: "InternalClient", kind: text},
		{name: "PortMappingDescription", kind: text},
	}
}

// connectionActions are what WANIPConnection:1 and WANPPPConnection:1 share.
func connectionActions() []action {
	return append([]action{
		{
			name: "SetConnectionType",
			in:   []argument{{name: "NewConnectionType", variable: "ConnectionType"}},
			do:   setConnectionType,
		},
		{
			name: "GetConnectionTypeInfo",
			out: []argument{
				{name: "NewConnectionType", variable: "ConnectionType"},
				{name: "NewPossibleConnectionTypes", variable: "PossibleConnectionTypes"},
			},
			do: func(*call) ([]string, error) { return []string{routed, routed}, nil },
		},
		{name: "RequestConnection", do: requestConnection},
		{name: "ForceTermination", do: forceTermination},
		{
			name: "GetStatusInfo",
			out: []argument{
				{name: "NewConnectionStatus", variable: "ConnectionStatus"},
				{name: "NewLastConnectionError", variable: "LastConnectionError"},
				{name: "NewUptime", variable: "Uptime"},
			},
			do: getStatusInfo,
		},
		{
			name: "GetNATRSIPStatus",
			out: []argument{
				{name: "NewRSIPAvailable", variable: "RSIPAvailable"},
				{name: "NewNATEnabled", variable: "NATEnabled"},
			},
			do: func(*call) ([]string, error) { return []string{"0", "1"}, nil },
		},
		{
			name: "GetExternalIPAddress",
			out:  []argument{{name: "NewExternalIPAddress", variable: "ExternalIPAddress"}},
			do:   func(c *call) ([]string, error) { return []string{c.externalAddress()}, nil },
		},
	}, mappingActions()...)
}

// mappingActions are those of version 1 that concern mappings.
func mappingActions() []action {
	return []action{
		{
			name: "GetGenericPortMappingEntry",
			in:   []argument{{name: "NewPortMappingIndex", variable: "PortMappingNumberOfEntries"}},
			out:  mappingIn(),
			do:   getGenericPortMappingEntry,
		},
		{name: "GetSpecificPortMappingEntry", in: mappingKey(), out: mappingRest(), do: getSpecificPortMappingEntry},
		{name: "AddPortMapping", in: mappingIn(), do: addPortMapping},
		{name: "DeletePortMapping", in: mappingKey(), do: deletePortMapping},
	}
}

// mappingIn are the eight arguments of a mapping. The two that may be empty may be
// missing: nat-puncher until 2020 sends no NewRemoteHost, nor does miniupnpc until
// 2014 with GetSpecificPortMappingEntry. A number that is missing says nothing.
func mappingIn() []argument { return append(mappingKey(), mappingRest()...) }

func mappingKey() []argument {
	return []argument{
		{name: "NewRemoteHost", variable: "RemoteHost", optional: true},
		{name: "NewExternalPort", variable: "ExternalPort", wildcard: true},
		{name: "NewProtocol", variable: "PortMappingProtocol"},
	}
}

func mappingRest() []argument {
	return []argument{
		{name: "NewInternalPort", variable: "InternalPort"},
		{name: "NewInternalClient", variable: "InternalClient"},
		{name: "NewEnabled", variable: "PortMappingEnabled"},
		{name: "NewPortMappingDescription", variable: "PortMappingDescription", optional: true},
		{name: "NewLeaseDuration", variable: "PortMappingLeaseDuration"},
	}
}
