package igd

// wanIPv6FirewallControl is WANIPv6FirewallControl:1, which gateways of version 2 have:
// it opens pinholes for hosts that need no translation. But for one, its arguments have
// no "New" in front.
func wanIPv6FirewallControl() *service {
	return &service{
		name: "WANIPv6FirewallControl", id: "WANIPv6Firewall1", latest: 1, igd: 2,
		noText: true, pinholes: true,
		variables: []variable{
			{name: "FirewallEnabled", kind: boolean, evented: once, value: func(visitor) string { return firewallEnabled }},
			{name: "InboundPinholeAllowed", kind: boolean, evented: ofWAN, value: visitor.inboundAllowed},
			{name: "A_ARG_TYPE_OutboundPinholeTimeout", kind: ui4},
			{name: "A_ARG_TYPE_IPv6Address", kind: text},
			{name: "A_ARG_TYPE_Port", kind: ui2},
			{name: "A_ARG_TYPE_Protocol", kind: ui2},
			{name: "A_ARG_TYPE_LeaseTime", kind: ui4, limits: &limits{since: 1, min: minPinholeLease, max: maxPinholeLease}},
			{name: "A_ARG_TYPE_UniqueID", kind: ui2},
			{name: "A_ARG_TYPE_PinholePackets", kind: ui4},
			{name: "A_ARG_TYPE_Boolean", kind: boolean},
		},
		actions: []action{
			{
				name: "GetFirewallStatus",
				out: []argument{
					{name: "FirewallEnabled", variable: "FirewallEnabled"},
					{name: "InboundPinholeAllowed", variable: "InboundPinholeAllowed"},
				},
				do: func(c *call) ([]string, error) { return []string{firewallEnabled, c.inboundAllowed()}, nil },
			},
			{
				name: "GetOutboundPinholeTimeout",
				in:   pinholeKey(),
				out:  []argument{{name: "OutboundPinholeTimeout", variable: "A_ARG_TYPE_OutboundPinholeTimeout"}},
				do:   getOutboundPinholeTimeout,
			},
			{
				name: "AddPinhole",
				in:   append(pinholeKey(), argument{name: "LeaseTime", variable: "A_ARG_TYPE_LeaseTime"}),
				out:  uniqueID(),
				do:   whenAllowed(addPinhole),
			},
			{
				name: "UpdatePinhole",
				in:   append(uniqueID(), argument{name: "NewLeaseTime", variable: "A_ARG_TYPE_LeaseTime"}),
				do:   whenAllowed(updatePinhole),
			},
			{name: "DeletePinhole", in: uniqueID(), do: whenAllowed(deletePinhole)},
			{
				name: "GetPinholePackets",
				in:   uniqueID(),
				out:  []argument{{name: "PinholePackets", variable: "A_ARG_TYPE_PinholePackets"}},
				do:   whenAllowed(getPinholePackets),
			},
			{
				name: "CheckPinholeWorking",
				in:   uniqueID(),
				out:  []argument{{name: "IsWorking", variable: "A_ARG_TYPE_Boolean"}},
				do:   whenAllowed(checkPinholeWorking),
			},
		},
	}
}

// firewallEnabled never changes: there is no switch that lets everything in.
const firewallEnabled = "1"

func uniqueID() []argument {
	return []argument{{name: "UniqueID", variable: "A_ARG_TYPE_UniqueID"}}
}

// pinholeKey are the five arguments that tell pinholes apart. Some clients write
// the protocol as a word, as WANIPConnection has it.
func pinholeKey() []argument {
	return []argument{
		{name: "RemoteHost", variable: "A_ARG_TYPE_IPv6Address"},
		{name: "RemotePort", variable: "A_ARG_TYPE_Port"},
		{name: "InternalClient", variable: "A_ARG_TYPE_IPv6Address"},
		{name: "InternalPort", variable: "A_ARG_TYPE_Port"},
		{name: "Protocol", variable: "A_ARG_TYPE_Protocol", protocol: true},
	}
}
