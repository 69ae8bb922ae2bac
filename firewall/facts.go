package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Facts is what the rules must know of the machine. It has nothing to do with
// the mappings: when an interface or an address changes, a backend does the same
// small work with one mapping and with sixty thousand.
type Facts struct {
	WAN         []Uplink       // where mappings are open; empty while there is none
	WAN6        []string       // the interfaces where pinholes are open, by name; empty while there is none
	LAN         []string       // the served interfaces, by name
	LANPrefixes []netip.Prefix // the networks behind them, of both families

	// FrontUID is the user of the process that parses what the LANs send, which sends to
	// the LANs alone; 0: it has no user of its own.
	FrontUID uint32

	// AcceptChain is the owner's chain that must let mapped traffic and pinholes
	// pass, "inet fw4 forward"; "" for none. One of family ip sees no IPv6.
	AcceptChain Chain
	// AcceptChain6 is another one for pinholes, of family inet or ip6; "" for the
	// same one.
	AcceptChain6 Chain
}

// Uplink is one WAN interface. Interfaces are named, never numbered: they may
// vanish and come back (PPP) without the rules noticing.
type Uplink struct {
	Interface string
	Addrs     []netip.Addr // only IPv4 is used; the first is the source of flows that keep their port
}

// IPv4 returns the uplink's usable addresses.
func (u Uplink) IPv4() []netip.Addr {
	var out []netip.Addr
	for _, a := range u.Addrs {
		if a = a.Unmap(); a.Is4() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

// WANAddrs returns the IPv4 addresses of all uplinks, each once.
func (f Facts) WANAddrs() []netip.Addr {
	var all []netip.Addr
	for _, u := range f.WAN {
		for _, a := range u.IPv4() {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// private are the networks that no router of the Internet has a way to (RFC 6890),
// the one between a host and its own translator (RFC 7335) among them.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// Inside returns the sources that leave by a WAN under its address: what is
// translated, because it could have no answer else, and the gateway itself. A
// public subnet that is routed behind the gateway is not among them.
func (f Facts) Inside() []netip.Prefix {
	all := slices.Clone(private)
	for _, a := range f.WANAddrs() {
		if p := netip.PrefixFrom(a, a.BitLen()); !slices.ContainsFunc(private, p.Overlaps) {
			all = append(all, p)
		}
	}
	return all
}

// MaxInterfaceName is the longest interface name the kernel allows, in bytes.
const MaxInterfaceName = 15

// Validate finds what a backend could not write: a name that is no interface
// name, an accept chain that is no chain.
func (f Facts) Validate() error {
	for _, u := range f.WAN {
		if err := checkInterface(u.Interface); err != nil {
			return err
		}
	}
	for _, name := range slices.Concat(f.WAN6, f.LAN) {
		if err := checkInterface(name); err != nil {
			return err
		}
	}
	for _, p := range f.LANPrefixes {
		if !p.IsValid() {
			return fmt.Errorf("not a LAN prefix: %v", p)
		}
	}
	if f.AcceptChain != (Chain{}) {
		if err := f.AcceptChain.Check4(); err != nil {
			return err
		}
	}
	if f.AcceptChain6 != (Chain{}) {
		return f.AcceptChain6.Check6()
	}
	return nil
}

func checkInterface(name string) error {
	if name == "" || len(name) > MaxInterfaceName || strings.ContainsAny(name, "/ \t\n\x00") {
		return fmt.Errorf("not an interface name: %.32q", name)
	}
	return nil
}
