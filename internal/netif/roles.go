package netif

import (
	"errors"
	"net/netip"
	"slices"
)

// Settings is what the configuration says about interfaces. The zero value means that
// everything is detected and nothing private is tolerated.
type Settings struct {
	LAN           []string       // names of the LAN interfaces; empty: detect
	ExtraPrefixes []netip.Prefix // routed networks behind the LAN; they count on every LAN interface
	WAN           string         // "": the interface with the IPv4 default route
	WAN6          string         // "": the interface with the IPv6 default route
	ExternalIP    netip.Addr     // IPv4, reported instead of the WAN's own address; zero: the WAN's own
	AllowPrivate  bool           // serve although the external address cannot be reached from the Internet
	NoIPv6        bool           // serve nobody by IPv6, and have no uplink of it

	// FormerUplinks names interfaces that led outside earlier in this run. While a
	// route is away for a moment, detection must not take the outside for a LAN;
	// the caller, who remembers, lists them. It has no effect on interfaces named
	// in LAN.
	FormerUplinks []string
}

// Roles is what Choose made of a State.
type Roles struct {
	LAN  []LAN    // the interfaces to serve, ascending index; nothing else may be served
	WAN  WAN      // Name is "" while there is none
	WAN6 Uplink   // Name is "" while there is none
	Why  []string // one sentence per choice, for the log
	Warn []string // sentences about what may be wrong, for the owner
}

// LAN is one interface to serve.
type LAN struct {
	Name     string
	Index    int
	MAC      [6]byte
	Addr     netip.Addr     // the private IPv4 address that clients are told; zero while there is none
	Addrs    []netip.Addr   // all of the gateway's addresses there that are in use, both families
	Prefixes []netip.Prefix // where its clients may be: on-link, masked, with the extra prefixes
	Direct   []netip.Prefix // of these, those in which no router stands between
	InVRF    bool           // it is a member of one, as which the kernel's hooks may see its packets
}

// OnLink reports whether a is inside one of the interface's prefixes.
func (l LAN) OnLink(a netip.Addr) bool { return within(a, l.Prefixes) }

// HasMAC reports whether a host with this address has a MAC address that Neighbour
// can give: on a link that has such addresses, with no router between. The
// gateway itself is not its own neighbour.
func (l LAN) HasMAC(a netip.Addr) bool {
	return l.MAC != [6]byte{} && within(a, l.Direct) && !slices.Contains(l.Addrs, a)
}

// IPv6 returns the gateway's IPv6 addresses on a LAN, link-local ones first: that is
// where hosts have their router, and whose announcements they heed.
func (l LAN) IPv6() []netip.Addr {
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

// IPv4 returns the gateway's IPv4 addresses on a LAN at which its clients may ask: the
// one that they are told first, and not those of a public network.
func (l LAN) IPv4() []netip.Addr {
	if !l.Addr.IsValid() {
		return nil
	}
	all := []netip.Addr{l.Addr}
	for _, a := range l.Addrs {
		if a.Is4() && a != l.Addr && l.OnLink(a) {
			all = append(all, a)
		}
	}
	return all
}

// Uplink is an interface towards the Internet.
type Uplink struct {
	Name  string
	Index int          // 0: the interface is not there
	Up    bool         // switched on, with carrier, with a usable address of the family
	Addrs []netip.Addr // its addresses that are in use, both families
}

// IPv4 returns those of its addresses.
func (u Uplink) IPv4() []netip.Addr {
	var all []netip.Addr
	for _, a := range u.Addrs {
		if a.Is4() {
			all = append(all, a)
		}
	}
	return all
}

// WAN is the IPv4 uplink.
type WAN struct {
	Uplink
	Master   int        // index of the VRF, bridge or bond it belongs to, or 0
	External netip.Addr // what clients are told; zero while the WAN has no IPv4 address
	Private  bool       // External is no address of the Internet
	Refused  bool       // Private, and the owner did not allow that: no mapping can work
}

// What can be wrong with the configuration. Choose wraps each in a Problem.
var (
	ErrNoLAN           = errors.New("no LAN interface")
	ErrLANIsWAN        = errors.New("LAN and WAN are the same")
	ErrLANDefaultRoute = errors.New("LAN interface holds a default route")
	ErrLANPublic       = errors.New("LAN interface has only public addresses")
	ErrUnusable        = errors.New("interface cannot play this role")
	ErrExtraPrefix     = errors.New("extra prefix is too wide")
	ErrExternalIP      = errors.New("external address is not usable")
)

// Problem is one fault of the configuration, as it shows against the State.
type Problem struct {
	Kind   error  // one of the errors above
	Name   string // the interface, prefix or address at fault, or ""
	Detail string // a sentence: the cause and the remedy
}

// Error returns the sentence.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the kind, so that errors.Is finds it.
func (p *Problem) Unwrap() error { return p.Kind }
