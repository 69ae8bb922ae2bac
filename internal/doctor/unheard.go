package doctor

import (
	"context"
	"fmt"
	"net/netip"

	"portcullis/config"
	"portcullis/firewall/nft"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Unheard returns a sentence for each LAN whose devices a firewall of this machine keeps
// from asking, by what its rules say alone: what cannot be told from them is left out, and
// so is iptables-legacy. Examine tries it with packets.
func Unheard(ctx context.Context, c config.Config, r netif.Roles) (all []string, err error) {
	web := c.UPnP.HTTPPort
	if !c.UPnP.Enabled {
		web = 0
	}
	var asks []Ask
	var asked []nft.Asked
	for _, l := range r.LAN {
		for _, k := range Asked(web, c.PCP.NATPMP, c.PCP.PCP) {
			if k.IPv6 || !l.Addr.IsValid() {
				continue
			}
			a := nft.Asked{LAN: l.Name, To: []netip.Addr{l.Addr}, Transport: portmap.UDP, Port: k.Port}
			switch {
			case k.Transport == "tcp":
				a.Transport = portmap.TCP
			case k.Port == searchPort:
				a.To = []netip.Addr{searchGroup}
			}
			asks, asked = append(asks, k), append(asked, a)
		}
	}
	by, err := nft.Drops(ctx, asked)
	if err != nil {
		return nil, err
	}
	for _, l := range r.LAN {
		var lost []Ask
		chain := ""
		for i, a := range asked {
			if a.LAN == l.Name && by[i] != "" {
				lost, chain = append(lost, asks[i]), by[i]
			}
		}
		if len(lost) > 0 {
			all = append(all, fmt.Sprintf("what devices on %s ask this gateway (%s) is dropped by %s; `portcullis doctor` prints the rules that let it pass", l.Name, portsOf(lost), chain))
		}
	}
	return all, nil
}
