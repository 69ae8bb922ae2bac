package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"portcullis/config"
	"portcullis/firewall/nft"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Unheard returns for each LAN what a firewall of this machine keeps its devices from asking,
// by what its rules say alone: what cannot be told from them is left out, and so is
// iptables-legacy. Examine tries it with packets, where it can.
func Unheard(ctx context.Context, c config.Config, r netif.Roles) (all []Dropped, err error) {
	web := c.UPnP.HTTPPort
	if !c.UPnP.Enabled {
		web = 0
	}
	var asks []Ask
	var asked []nft.Asked
	for _, l := range r.LAN {
		for _, k := range Asked(web, c.PCP.NATPMP, c.PCP.PCP) {
			a := nft.Asked{LAN: l.Name, To: l.IPv4(), Transport: portmap.UDP, Port: k.Port}
			if k.IPv6 {
				a.To = l.IPv6()
			}
			if len(a.To) == 0 {
				continue
			}
			switch {
			case k.Transport == "tcp":
				a.Transport = portmap.TCP
			case k.Port == searchPort && k.IPv6:
				a.To = []netip.Addr{searchGroup6}
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
	for first, chain := range by {
		if chain == "" {
			continue
		}
		var lost []Ask
		lan := asked[first].LAN
		for i, a := range asked { // both families at once, where one chain drops both
			if a.LAN == lan && by[i] == chain {
				lost = append(lost, asks[i])
				by[i] = ""
			}
		}
		all = append(all, Dropped{LAN: lan, Asks: lost, Blame: []Blame{{Chain: chain, OfIPTables: builtIn(chain)}}})
	}
	return all, nil
}

// builtIn is ofIPTables of a chain's family, table and name.
func builtIn(chain string) bool {
	words := strings.Fields(chain)
	return len(words) == 3 && words[0] != "inet" && slices.Contains(hooksOfIPTables, words[2])
}

// String says it in a sentence, by which the log warns.
func (d Dropped) String() string {
	return fmt.Sprintf("what devices on %s ask this gateway (%s) is dropped by %s", d.LAN, portsOf(d.Asks), listed(d.Blame))
}
