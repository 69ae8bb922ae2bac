package dhcp

import (
	"net/netip"
	"time"

	"portcullis/portmap"
)

// names is what all files together say. It never changes.
type names struct {
	at     map[netip.Addr]Lease
	device map[portmap.MAC]Lease // of IPv4 and with a name, the one that lasts longest
}

func newNames(sources []*source) *names {
	n := &names{at: make(map[netip.Addr]Lease), device: make(map[portmap.MAC]Lease)}
	for _, s := range sources {
		for _, l := range s.leases {
			if other, known := n.at[l.Addr]; !known || l.outlasts(&other) {
				n.at[l.Addr] = l
			}
		}
	}
	// Each source in turn again, so that the order of a map decides nothing.
	for _, s := range sources {
		for _, l := range s.leases {
			if l.Name == "" || !l.Addr.Is4() || n.at[l.Addr] != l {
				continue
			}
			if other, known := n.device[l.MAC]; !known || l.outlasts(&other) {
				n.device[l.MAC] = l
			}
		}
	}
	return n
}

// name says what the device with the MAC is called at the address.
func (n *names) name(mac portmap.MAC, addr netip.Addr, now time.Time) string {
	if mac == (portmap.MAC{}) {
		return ""
	}
	if l, known := n.at[addr]; known && !l.over(now) {
		switch {
		case l.MAC != mac:
			return ""
		case l.Name != "":
			return l.Name
		}
	}
	if l, known := n.device[mac]; known && addr.Is6() && !l.over(now) {
		return l.Name
	}
	return ""
}
