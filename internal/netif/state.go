package netif

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// State is the network at one moment. It is a value that nobody changes after
// Read has returned it; the slices are shared and must be treated as read-only.
type State struct {
	Links    []Link         // ascending index
	Default4 []DefaultRoute // IPv4, main table only, the one the kernel prefers first
	Default6 []DefaultRoute // IPv6, likewise
	Rules    []Rule         // of both families, each in the order in which the kernel asks them
	// Wide stands for all default routes, and parts of such, of all tables: while it
	// is the same, so are they.
	Wide uint64
}

// Link is one interface.
type Link struct {
	Index        int
	Name         string
	Kind         string  // "bridge", "veth", "wireguard", ...; "device" for hardware
	MAC          [6]byte // zero where the link has none
	Up           bool    // switched on (IFF_UP)
	Running      bool    // and able to carry packets (IFF_RUNNING: carrier, or a link that knows none)
	Loopback     bool
	PointToPoint bool
	Master       int // index of the bridge, bond or VRF it belongs to, or 0
	Uplink       Way // a route of any table that leads outside by this link; zero: none
	Addrs        []Addr
}

// Addr is one address of a link.
type Addr struct {
	Prefix     netip.Prefix // the address itself with its length, not masked, without zone
	Peer       netip.Prefix // the other end of a point-to-point address, or zero
	LinkScope  bool         // valid on this link only (fe80::/10, 169.254/16)
	Secondary  bool         // IPv4: not the one the kernel prefers in its subnet
	Temporary  bool         // IPv6: a privacy address
	Tentative  bool         // IPv6: duplicate detection is not over, or found a duplicate
	Deprecated bool         // no longer used for new connections
	Dynamic    bool         // has a limited lifetime: it was learned, not configured
}

// DefaultRoute is one next hop of a default route.
type DefaultRoute struct {
	Index   int        // of the interface
	Gateway netip.Addr // zero on a point-to-point link
	Source  netip.Addr // the preferred source address, or zero
	Metric  uint32     // the lowest wins
}

// Way is a route to the Internet, or to so much that it must be meant.
type Way struct {
	To      netip.Prefix
	Gateway netip.Addr // zero where there is none
	Table   uint32
}

// String names the route in a sentence: "the default route through 192.168.8.1 in
// table 100".
func (w Way) String() string {
	text := "the default route"
	if w.To.Bits() > 0 {
		text = "the route to " + w.To.String()
	}
	if w.Gateway.IsValid() {
		text += " through " + w.Gateway.String()
	}
	if w.Table != mainTable {
		text += fmt.Sprintf(" in table %d", w.Table)
	}
	return text
}

// before reports whether w says more plainly than o that a link leads outside: the
// wider comes first, and for the rest it is always the same one.
func (w Way) before(o Way) bool {
	return cmp.Or(cmp.Compare(w.To.Bits(), o.To.Bits()), cmp.Compare(w.Table, o.Table),
		w.To.Addr().Compare(o.To.Addr()), w.Gateway.Compare(o.Gateway)) < 0
}

// Outside returns the names of the interfaces by which a route leads outside.
func (s State) Outside() []string {
	var all []string
	for _, l := range s.Links {
		if l.Uplink != (Way{}) && !l.Loopback {
			all = append(all, l.Name)
		}
	}
	return all
}

// Equal reports whether two states are the same.
func (s State) Equal(o State) bool {
	return s.Wide == o.Wide && slices.EqualFunc(s.Links, o.Links, Link.equal) &&
		slices.Equal(s.Default4, o.Default4) &&
		slices.Equal(s.Default6, o.Default6) &&
		slices.Equal(s.Rules, o.Rules)
}

func (l Link) equal(o Link) bool {
	return l.Index == o.Index && l.Name == o.Name && l.Kind == o.Kind && l.MAC == o.MAC &&
		l.Up == o.Up && l.Running == o.Running && l.Loopback == o.Loopback &&
		l.PointToPoint == o.PointToPoint && l.Master == o.Master && l.Uplink == o.Uplink &&
		slices.Equal(l.Addrs, o.Addrs)
}

// Link finds an interface by name.
func (s State) Link(name string) (Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return s.Links[i], true
}

// LinkByIndex finds an interface by index.
func (s State) LinkByIndex(index int) (Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Index == index })
	if i < 0 {
		return Link{}, false
	}
	return s.Links[i], true
}

// Local returns every address of the gateway itself on every interface, loopback
// included and whatever its condition, sorted and without duplicates.
func (s State) Local() []netip.Addr {
	var all []netip.Addr
	for _, l := range s.Links {
		for _, a := range l.Addrs {
			all = append(all, a.Prefix.Addr())
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
	return slices.Compact(all)
}

// holdsDefault reports whether any default route, of any metric, goes out there.
func holdsDefault(routes []DefaultRoute, index int) bool {
	return slices.ContainsFunc(routes, func(r DefaultRoute) bool { return r.Index == index })
}

// port reports whether the link is a port of a bridge or a bond: packets that come
// in there are seen on the master, so it cannot be served by itself. A member
// of a VRF stays an interface in its own right.
func (s State) port(l Link) (master Link, yes bool) {
	if l.Master == 0 {
		return Link{}, false
	}
	m, ok := s.LinkByIndex(l.Master)
	return m, ok && m.Kind != "vrf"
}
