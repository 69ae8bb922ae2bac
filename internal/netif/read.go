package netif

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxDumps is how often a dump is asked for that the kernel reports as interrupted by a
// change (its result is partial).
const maxDumps = 5

// ErrInterrupted is returned when the network changed under every one of a
// bounded number of attempts to read it.
var ErrInterrupted = errors.New("the network kept changing while it was read")

// Read reads the whole State. Some dumps make it up, so a change between them
// can show in one and not in another; Watch reads again after every change, so
// that there the last word is a consistent one.
func (k *Kernel) Read(ctx context.Context) (State, error) {
	links, err := repeat(ctx, k.route.LinkList)
	if err != nil {
		return State{}, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := repeat(ctx, func() ([]netlink.Addr, error) {
		return k.route.AddrList(nil, unix.AF_UNSPEC)
	})
	if err != nil {
		return State{}, fmt.Errorf("list addresses: %w", err)
	}
	routes, err := repeat(ctx, k.routes)
	if err != nil {
		return State{}, fmt.Errorf("list routes: %w", err)
	}
	rules, err := repeat(ctx, k.rules)
	if err != nil {
		return State{}, fmt.Errorf("list rules: %w", err)
	}
	s := assemble(links, addrs, routes)
	s.Rules, s.Wide = rules, routes.wide
	return s, nil
}

// repeat asks again while the kernel says that the answer is partial.
func repeat[T any](ctx context.Context, dump func() (T, error)) (T, error) {
	var zero T
	for range maxDumps {
		if err := ctx.Err(); err != nil {
			return zero, err
		}
		v, err := dump()
		switch {
		case err == nil:
			return v, nil
		case !errors.Is(err, netlink.ErrDumpInterrupted):
			return zero, err
		}
	}
	return zero, ErrInterrupted
}

// assemble makes a State of the dumps. What belongs to an interface that
// is not there (any more) is left out.
func assemble(links []netlink.Link, addrs []netlink.Addr, routes routeDump) State {
	var s State
	for _, l := range links {
		s.Links = append(s.Links, newLink(l, routes.uplinks))
	}
	sort.Slice(s.Links, func(i, j int) bool { return s.Links[i].Index < s.Links[j].Index })
	at := func(index int) int {
		i, found := slices.BinarySearchFunc(s.Links, index, func(l Link, n int) int { return cmp.Compare(l.Index, n) })
		if !found {
			return -1
		}
		return i
	}
	for _, a := range addrs {
		i := at(a.LinkIndex)
		if addr, ok := newAddr(a); ok && i >= 0 {
			s.Links[i].Addrs = append(s.Links[i].Addrs, addr)
		}
	}
	for i := range s.Links {
		sortAddrs(s.Links[i].Addrs)
	}
	gone := func(r DefaultRoute) bool { return at(r.Index) < 0 }
	s.Default4 = slices.DeleteFunc(routes.default4, gone)
	s.Default6 = slices.DeleteFunc(routes.default6, gone)
	return s
}

func newLink(l netlink.Link, uplinks map[int]Way) Link {
	a := l.Attrs()
	link := Link{
		Index:        a.Index,
		Name:         a.Name,
		Kind:         l.Type(),
		Up:           a.RawFlags&unix.IFF_UP != 0,
		Running:      a.RawFlags&unix.IFF_RUNNING != 0,
		Loopback:     a.RawFlags&unix.IFF_LOOPBACK != 0,
		PointToPoint: a.RawFlags&unix.IFF_POINTOPOINT != 0,
		Master:       a.MasterIndex,
		Uplink:       uplinks[a.Index],
	}
	if len(a.HardwareAddr) == len(link.MAC) {
		copy(link.MAC[:], a.HardwareAddr)
	}
	return link
}

func newAddr(a netlink.Addr) (Addr, bool) {
	p, ok := prefix(a.IPNet)
	if !ok {
		return Addr{}, false
	}
	peer, _ := prefix(a.Peer)
	v6 := p.Addr().Is6()
	return Addr{
		Prefix:    p,
		Peer:      peer,
		LinkScope: a.Scope == unix.RT_SCOPE_LINK,
		// One bit, two meanings: IFA_F_SECONDARY is IFA_F_TEMPORARY.
		Secondary:  !v6 && a.Flags&unix.IFA_F_SECONDARY != 0,
		Temporary:  v6 && a.Flags&unix.IFA_F_TEMPORARY != 0,
		Tentative:  a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0,
		Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
		Dynamic:    a.Flags&unix.IFA_F_PERMANENT == 0,
	}, true
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}

// sortAddrs puts IPv4 first and leaves it in the kernel's order, which says
// which address is preferred; the order of IPv6 addresses says nothing and
// changes, so it is made canonical.
func sortAddrs(addrs []Addr) {
	sort.SliceStable(addrs, func(i, j int) bool {
		x, y := addrs[i].Prefix.Addr(), addrs[j].Prefix.Addr()
		return !(x.Is4() && y.Is4()) && x.Less(y)
	})
}
