package firewall

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Gateway is what the rules must know of the machine. It has nothing to do with
// the mappings: when an interface or an address changes, a backend does the same
// small work with one mapping and with sixty thousand.
type Gateway struct {
	WAN         []Uplink       // where mappings are open; empty while there is none
	WAN6        []string       // the interfaces where pinholes are open, by name; empty while there is none
	LAN         []string       // the served interfaces, by name
	LANPrefixes []netip.Prefix // the networks behind them, of both families

	// AcceptChain is the owner's chain that must let mapped traffic and pinholes
	// pass, "inet fw4 forward"; "" for none. One of family ip sees no IPv6.
	AcceptChain string
	// AcceptChain6 is another one for pinholes, of family inet or ip6; "" for the
	// same one.
	AcceptChain6 string
}

// Uplink is one WAN interface. Interfaces are named, never numbered: they may
// vanish and come back (PPP) without the rules noticing.
type Uplink struct {
	Interface string
	Addrs     []netip.Addr // only IPv4 is used; the first is the source of flows that keep their port
}

// IPv4 gives the uplink's usable addresses.
func (u Uplink) IPv4() []netip.Addr {
	var out []netip.Addr
	for _, a := range u.Addrs {
		if a = a.Unmap(); a.Is4() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

// WANAddrs gives the IPv4 addresses of all uplinks, each once.
func (g Gateway) WANAddrs() []netip.Addr {
	var all []netip.Addr
	for _, u := range g.WAN {
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

// Inside gives the sources that leave by a WAN under its address: what is
// translated, because it could have no answer else, and the gateway itself. A
// public subnet that is routed behind the gateway is not among them.
func (g Gateway) Inside() []netip.Prefix {
	all := slices.Clone(private)
	for _, a := range g.WANAddrs() {
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
func (g Gateway) Validate() error {
	for _, u := range g.WAN {
		if err := checkInterface(u.Interface); err != nil {
			return err
		}
	}
	for _, name := range slices.Concat(g.WAN6, g.LAN) {
		if err := checkInterface(name); err != nil {
			return err
		}
	}
	for _, p := range g.LANPrefixes {
		if !p.IsValid() {
			return fmt.Errorf("not a LAN prefix: %v", p)
		}
	}
	if g.AcceptChain != "" {
		if _, err := ParseChain(g.AcceptChain); err != nil {
			return err
		}
	}
	if g.AcceptChain6 != "" {
		if _, err := ParseChain6(g.AcceptChain6); err != nil {
			return err
		}
	}
	return nil
}

func checkInterface(name string) error {
	if name == "" || len(name) > MaxInterfaceName || strings.ContainsAny(name, "/ \t\n\x00") {
		return fmt.Errorf("not an interface name: %.32q", name)
	}
	return nil
}

// Chain names a chain of an nf_tables table.
type Chain struct {
	Family string // "inet", "ip" or "ip6"
	Table  string
	Name   string
}

// String gives the form the configuration uses: "inet fw4 forward".
func (c Chain) String() string { return c.Family + " " + c.Table + " " + c.Name }

// OfIPTables says whether it is the chain of the programs of iptables that filters
// what is forwarded, by name.
func (c Chain) OfIPTables() bool {
	return (c.Family == "ip" || c.Family == "ip6") && c.Table == "filter" && c.Name == "FORWARD"
}

var chainWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_/.\\-]{0,127}$`)

// ParseChain reads "family table chain". Only inet and ip see IPv4 packets on
// their way through the machine, so no other family is accepted.
func ParseChain(s string) (Chain, error) { return parseChain(s, "IPv4", "ip") }

// ParseChain6 reads the same for IPv6, which only inet and ip6 see.
func ParseChain6(s string) (Chain, error) { return parseChain(s, "IPv6", "ip6") }

func parseChain(s, what, family string) (Chain, error) {
	words := strings.Fields(s)
	if len(words) != 3 || !chainWord.MatchString(words[1]) || !chainWord.MatchString(words[2]) {
		return Chain{}, fmt.Errorf("not a chain: %.64q; write its family, table and name, as in \"inet fw4 forward\"", s)
	}
	if words[0] != "inet" && words[0] != family {
		return Chain{}, fmt.Errorf("not a chain that forwards %s: %.64q; its family must be inet or %s", what, s, family)
	}
	return Chain{Family: words[0], Table: words[1], Name: words[2]}, nil
}
