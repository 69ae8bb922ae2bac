package dhcp

import (
	"net/netip"
	"time"

	"portcullis/portmap"
)

// names is what all files together say. It never changes.
type names struct {
	at     map[netip.Addr]*Lease
	device map[portmap.MAC]*Lease // of IPv4 and with a name, the one that lasts longest
}

func newNames(sources []*source) *names {
	n := &names{at: make(map[netip.Addr]*Lease), device: make(map[portmap.MAC]*Lease)}
	var all []*Lease
	for _, s := range sources {
		for i := range s.leases {
			l := &s.leases[i]
			if other := n.at[l.Addr]; other == nil || l.outlasts(other) {
				n.at[l.Addr] = l
			}
			all = append(all, l)
		}
	}
	for _, l := range all { // in the order of the files, not of a map
		if l.Name == "" || !l.Addr.Is4() || n.at[l.Addr] != l {
			continue
		}
		if other := n.device[l.MAC]; other == nil || l.outlasts(other) {
			n.device[l.MAC] = l
		}
	}
	return n
}

// name returns what the device with the MAC is called at the address.
func (n *names) name(mac portmap.MAC, addr netip.Addr, now time.Time) string {
	if mac == (portmap.MAC{}) {
		return ""
	}
	if l := n.at[addr]; l != nil && !l.over(now) {
		switch {
		case l.MAC != mac:
			return ""
		case l.Name != "":
			return l.Name
		}
	}
	if l := n.device[mac]; l != nil && addr.Is6() && !l.over(now) {
		return l.Name
	}
	return ""
}
