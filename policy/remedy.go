package policy

import (
	"fmt"
	"slices"

	"portcullis/portmap"
)

// RuleFor returns the rule that has a policy allow what r asks for, where the refusal said
// that it needs one. It is for the device, the protocol and the port of its service, and for
// an external port only if that must be named; the most that can be allowed beside r is
// another external port from 1024 up. It must stand above the rule that refused r, if one did.
// Its name is none of the rules'.
func RuleFor(r portmap.Request, rules []Rule) Rule {
	in, ext := r.Internal.Port(), r.ExternalPort
	rl := Rule{
		Action:     portmap.Allow,
		Clients:    []ClientMatch{only(&r.Client)},
		Internal:   []portmap.PortRange{{First: in, Last: in}},
		Transports: []portmap.Transport{r.Transport},
	}
	if r.Kind == portmap.NAT4 {
		if tier, _ := TierOf(External, r.Transport, ext); tier != Ordinary {
			rl.External = []portmap.PortRange{{First: ext, Last: ext}}
		}
	}
	// The name has nothing that the device chooses: it stands in the owner's file.
	name := fmt.Sprintf("%s %d for %s", r.Transport, in, r.Client.Addr)
	rl.Name = name
	for n := 2; slices.ContainsFunc(rules, func(o Rule) bool { return o.Name == rl.Name }); n++ {
		rl.Name = fmt.Sprintf("%s (%d)", name, n)
	}
	return rl
}

// only recognises one client, by its MAC address where it has one that a rule can name.
func only(c *portmap.Client) (m ClientMatch) {
	if m.UnmarshalText([]byte(c.MAC.String())) == nil {
		return m
	}
	_ = m.UnmarshalText([]byte(c.Addr.String())) // one that is on a LAN can be named
	return m
}
