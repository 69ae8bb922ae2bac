package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/internal/special"
)

// What comes in by the WAN to a host of a LAN is answered by the way that the kernel
// chooses for packets of that host: by its rules and tables, and not because the
// connection came from there. Where that is another way, as with a VPN that everything
// leaves by, no connection comes about, though the mapping is open.
//
// A grant does not depend on it: a mark that the owner's firewall keeps for the
// connection can send answers back, and two uplinks of one provider may pass each
// other's, and neither can be told from here without a packet. The log warns, and
// doctor sends one.

// peers are hosts of the Internet, in both halves of it, that nobody has a route of
// their own for. Answers stray when those to all of them do.
var (
	peers4 = []netip.Addr{netip.MustParseAddr("20.20.20.20"), netip.MustParseAddr("150.150.150.150")}
	peers6 = []netip.Addr{netip.MustParseAddr("2a00:1450::77"), netip.MustParseAddr("2600::77")}
)

// Marks are what the owner's rules put on answers, in each family.
type Marks struct {
	IPv4, IPv6 uint32
	Port       uint16 // that answers come from, by UDP; 0: any
}

// Strays returns the hosts whose answers do not leave by the WAN: one of each network for
// all, and those that a rule treats in another way.
func Strays(k *netif.Kernel, s netif.State, r netif.Roles, m Marks) []Stray {
	var all []Stray
	for _, l := range r.LAN {
		if r.WAN.Up && r.WAN.Master == 0 {
			all = append(all, straysOf(k, s, l, r.WAN.Uplink, peers4, m.IPv4, m.Port)...)
		}
		if r.WAN6.Up {
			all = append(all, straysOf(k, s, l, r.WAN6, peers6, m.IPv6, m.Port)...)
		}
	}
	return all
}

func straysOf(k *netif.Kernel, s netif.State, l netif.LAN, wan netif.Uplink, peers []netip.Addr, mark uint32, port uint16) []Stray {
	var all []Stray
	for _, h := range hostsOf(l, s.Rules, peers[0].BitLen()) {
		x := Stray{LAN: l.Name, WAN: wan.Name, IPv6: peers[0].Is6()}
		if h.few {
			x.Hosts = h.network.String()
		}
		back := false
		for _, p := range slices.Backward(peers) { // the first is told
			f := netif.Flow{Ifindex: l.Index, From: h.addr, To: p, Mark: mark}
			if port != 0 {
				f.Protocol, f.Port = unix.IPPROTO_UDP, port
			}
			next, err := k.Lookup(f)
			back = back || err == nil && next.Ifindex == wan.Index
			x.By, x.Way = wayOf(s, l, h.addr, next, err)
		}
		if !back && !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

// wayOf names an interface, and the rule and the table that lead to it.
func wayOf(s netif.State, l netif.LAN, host netip.Addr, next netif.Next, err error) (by, way string) {
	if err != nil {
		return "", err.Error()
	}
	if out, ok := s.LinkByIndex(next.Ifindex); ok {
		by = out.Name
	}
	if next.Table == unix.RT_TABLE_MAIN {
		return by, "the main routing table"
	}
	for _, r := range s.Rules {
		if r.Table == next.Table && r.From.Addr().BitLen() == host.BitLen() && (r.From.Bits() == 0 || r.From.Contains(host)) {
			return by, fmt.Sprintf("table %d, by the rule %d: %s", next.Table, r.Priority, r.Text)
		}
	}
	return by, fmt.Sprintf("table %d", next.Table)
}

// example is a host whose answers are looked up.
type example struct {
	addr    netip.Addr
	network netip.Prefix // for which it stands
	few     bool         // not the whole network of the LAN, but what a rule names
}

// hostsOf returns an example of each network of a LAN in one family, and of what the
// rules pick out of them. Pinholes are for global addresses.
func hostsOf(l netif.LAN, rules []netif.Rule, bits int) []example {
	var all []example
	for _, p := range l.Direct {
		if p.Addr().BitLen() != bits || p.IsSingleIP() || p.Addr().Is6() && !special.Public(p.Addr()) {
			continue
		}
		a := p.Addr().Next()
		for slices.Contains(l.Addrs, a) {
			a = a.Next()
		}
		if p.Contains(a) {
			all = append(all, example{addr: a, network: p})
		}
	}
	for _, r := range rules {
		p := r.From
		if p.Bits() == 0 || p.Addr().BitLen() != bits || !l.OnLink(p.Addr()) || slices.Contains(l.Addrs, p.Addr()) {
			continue
		}
		a := p.Addr()
		if !p.IsSingleIP() {
			a = p.Masked().Addr().Next()
		}
		if !slices.ContainsFunc(all, func(e example) bool { return p.Contains(e.addr) }) {
			all = append(all, example{a, p, true})
		}
	}
	return all
}
