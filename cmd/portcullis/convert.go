package main

import (
	"net/netip"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/netif"
	"portcullis/policy"
)

// policyConfig gives the policy its part of the configuration.
func policyConfig(c config.Config) policy.Config {
	p := policy.Config{
		Default:           c.Policy.Default,
		MappingsPerClient: c.Limits.MappingsPerClient,
		Mappings:          c.Limits.Mappings,
		GrantsPerSecond:   float64(c.Limits.GrantsPerSecond),
		UniqueLocal:       c.Policy.UniqueLocal,
	}
	for _, r := range c.Rules {
		p.Rules = append(p.Rules, policyRule(r))
	}
	return p
}

func policyRule(r config.Rule) policy.Rule {
	rule := policy.Rule{
		Name:        r.Name,
		Action:      r.Action,
		External:    r.ExternalPorts,
		Internal:    r.InternalPorts,
		Transports:  r.Protocols,
		Via:         r.Via,
		Description: r.Description,
		MaxLifetime: r.MaxLifetime,
		MaxMappings: r.MaxMappings,
	}
	for _, c := range r.Clients {
		rule.Clients = append(rule.Clients, policy.ClientMatch{MAC: c.MAC, Prefix: c.Prefix, Host: c.Host, Interface: c.Interface})
	}
	return rule
}

// checkRule tells the configuration what only the policy knows: whether a rule
// tries to open what no rule can.
func checkRule(r config.Rule) error { return policyRule(r).Check() }

// settings gives netif what the owner said about interfaces.
func settings(c config.Config) netif.Settings {
	return netif.Settings{
		LAN:           c.LAN.Interfaces,
		ExtraPrefixes: c.LAN.ExtraPrefixes,
		WAN:           c.WAN.Interface,
		WAN6:          c.WAN.Interface6,
		ExternalIP:    c.WAN.ExternalIP,
		AllowPrivate:  c.WAN.AllowPrivateAddress,
	}
}

// firewallGateway gives the rules what they must know of the network.
func firewallGateway(c config.Config, r netif.Roles) firewall.Gateway {
	g := firewall.Gateway{
		AcceptChain:  c.Firewall.AcceptChain.String(),
		AcceptChain6: c.Firewall.AcceptChain6.String(),
	}
	if r.WAN.Name != "" && !r.WAN.Refused {
		g.WAN = []firewall.Uplink{{Interface: r.WAN.Name, Addrs: onlyIPv4(r.WAN.Addrs)}}
	}
	if r.WAN6.Name != "" {
		g.WAN6 = []string{r.WAN6.Name}
	}
	for _, l := range r.LAN {
		g.LAN = append(g.LAN, l.Name)
		g.LANPrefixes = append(g.LANPrefixes, l.Prefixes...)
	}
	return g
}

// addrs6 gives the gateway's IPv6 addresses on a LAN, link-local ones first: that
// is where hosts have their router, and whose announcements they heed.
func addrs6(l netif.LAN) []netip.Addr {
	var near, far []netip.Addr
	for _, a := range l.Addrs {
		switch {
		case a.Is4():
		case a.IsLinkLocalUnicast():
			near = append(near, a.WithZone(""))
		default:
			far = append(far, a)
		}
	}
	return append(near, far...)
}

// addrs4 gives the gateway's IPv4 addresses on a LAN at which its clients may ask: the
// one that they are told first, and not those of a public network.
func addrs4(l netif.LAN) []netip.Addr {
	if !l.Addr.IsValid() {
		return nil
	}
	all := []netip.Addr{l.Addr}
	for _, a := range onlyIPv4(l.Addrs) {
		if a != l.Addr && l.OnLink(a) {
			all = append(all, a)
		}
	}
	return all
}

func onlyIPv4(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			out = append(out, a)
		}
	}
	return out
}
