package netif

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
)

// Listener is a port that the gateway itself listens on: a TCP socket in
// LISTEN, or a UDP socket that anybody can send to.
type Listener struct {
	Transport uint8      // IP protocol number, 6 or 17
	Port      uint16     // not 0
	Addr      netip.Addr // the local address; unspecified: every address. Never IPv4-mapped
	V6Only    bool       // Addr is "::" and IPv4 does not reach it
	Index     int        // the only interface it takes packets from (SO_BINDTODEVICE), or 0
	Inode     uint32     // of the socket; 0: the kernel's own. Of those alike in all else, one's
}

// Ports are the gateway's own listeners at one moment; a value, safe to share.
// The zero value has none.
type Ports struct {
	sorted []Listener // by transport, port, address, interface; no duplicates
}

// NewPorts makes Ports of a list, which it does not keep.
func NewPorts(list []Listener) Ports {
	sorted := slices.Clone(list)
	sort.Slice(sorted, func(i, j int) bool { return compareListeners(sorted[i], sorted[j]) < 0 })
	return Ports{sorted: slices.CompactFunc(sorted, func(a, b Listener) bool { return compareListeners(a, b) == 0 })}
}

func compareListeners(a, b Listener) int {
	v6Only := func(l Listener) int {
		if l.V6Only {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.Transport, b.Transport),
		cmp.Compare(a.Port, b.Port),
		a.Addr.Compare(b.Addr),
		cmp.Compare(v6Only(a), v6Only(b)),
		cmp.Compare(a.Index, b.Index),
	)
}

// All returns a copy of the list, sorted by transport and port.
func (p Ports) All() []Listener { return slices.Clone(p.sorted) }

// Reachable returns the listeners from which an IPv4 mapping of their port would take
// packets away (abuse case B8), sorted. A service does not stand in the way when packets
// that come in by the WAN for the WAN's addresses cannot reach it anyway: it is bound to
// another address, or to another interface. While the WAN's interface is not there, one
// that is bound to an interface is counted, because that may be the WAN.
func (p Ports) Reachable(w WAN) []Listener {
	var found []Listener
	for _, l := range p.sorted {
		if l.reachable4(w) {
			found = append(found, l)
		}
	}
	return found
}

// reachable4 reports whether IPv4 from outside gets to the socket.
func (l Listener) reachable4(w WAN) bool {
	if l.Index != 0 && w.Index != 0 && l.Index != w.Index && l.Index != w.Master {
		return false
	}
	switch {
	case l.Addr.IsUnspecified():
		return l.Addr.Is4() || !l.V6Only
	case l.Addr.Is6():
		return false
	}
	return slices.Contains(w.Addrs, l.Addr)
}
