package igd

// layer3Forwarding is Layer3Forwarding:1: it says which connection is the
// default one. There is one connection, so it can be read and "set" to what it
// is, and to nothing else (abuse case G12).
func layer3Forwarding() *service {
	connection := []argument{{name: "NewDefaultConnectionService", variable: "DefaultConnectionService"}}
	return &service{
		name: "Layer3Forwarding", id: "L3Forwarding1", latest: 1,
		variables: []variable{
			{name: "DefaultConnectionService", kind: text, evented: once, value: visitor.defaultConnection},
		},
		actions: []action{
			{name: "SetDefaultConnectionService", in: connection, do: setDefaultConnectionService},
			{
				name: "GetDefaultConnectionService", out: connection,
				do: func(c *call) ([]string, error) { return []string{c.defaultConnection()}, nil },
			},
		},
	}
}

func setDefaultConnectionService(c *call) ([]string, error) {
	if c.text("NewDefaultConnectionService") != c.defaultConnection() {
		return nil, fail(codeNotAuthorized)
	}
	return nil, nil
}
