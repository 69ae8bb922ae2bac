package wiring

import (
	"portcullis/config"
	"portcullis/firewall"
	"portcullis/internal/netif"
	"portcullis/policy"
)

// Policy returns the policy's part of the configuration.
func Policy(c config.Config) policy.Config {
	return policy.Config{
		Default:           c.Policy.Default,
		Rules:             c.Rules,
		MappingsPerClient: c.Limits.MappingsPerClient,
		MappingsPerLAN:    c.Limits.MappingsPerLAN,
		Mappings:          c.Limits.Mappings,
		GrantsPerSecond:   float64(c.Limits.GrantsPerSecond),
		UniqueLocal:       c.Policy.UniqueLocal,
	}
}

// Network returns what the configuration says about interfaces.
func Network(c config.Config) netif.Settings {
	return netif.Settings{
		LAN:           Plain(c.LAN.Interfaces),
		ExtraPrefixes: c.LAN.Prefixes(),
		WAN:           string(c.WAN.Interface),
		WAN6:          string(c.WAN.Interface6),
		ExternalIP:    c.WAN.ExternalIP.Addr,
		NoIPv6:        !c.LAN.IPv6,
		AllowPrivate:  c.WAN.PrivateAddress == config.AllowPrivate,
	}
}

// Plain returns texts without their type.
func Plain[T ~string](texts []T) []string {
	var all []string
	for _, t := range texts {
		all = append(all, string(t))
	}
	return all
}

// Facts returns what the firewall's rules must know of the network.
func Facts(c config.Config, r netif.Roles) firewall.Facts {
	g := firewall.Facts{
		AcceptChain:  c.Firewall.AcceptChain,
		AcceptChain6: c.Firewall.AcceptChain6,
	}
	if r.WAN.Name != "" && !r.WAN.Refused {
		g.WAN = []firewall.Uplink{{Interface: r.WAN.Name, Addrs: r.WAN.IPv4()}}
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
