package netif

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/vishvananda/netlink/nl"
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
	var links []Link
	var addrs []linkAddr
	var routes routeDump
	var rules []Rule
	for _, dump := range []struct {
		what string
		do   func() error
	}{
		{"interfaces", func() (err error) { links, err = k.links(); return err }},
		{"addresses", func() (err error) { addrs, err = k.addrs(); return err }},
		{"routes", func() (err error) { routes, err = k.routes(); return err }},
		{"rules", func() (err error) { rules, err = k.rules(); return err }},
	} {
		if err := repeat(ctx, dump.do); err != nil {
			return State{}, fmt.Errorf("list %s: %w", dump.what, err)
		}
	}
	s := assemble(links, addrs, routes)
	s.Rules, s.Wide = rules, routes.wide
	return s, nil
}

// repeat asks again while the kernel says that the answer is partial.
func repeat(ctx context.Context, dump func() error) error {
	for range maxDumps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := dump(); !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return ErrInterrupted
}

// assemble makes a State of the dumps. What belongs to an interface that
// is not there (any more) is left out.
func assemble(links []Link, addrs []linkAddr, routes routeDump) State {
	s := State{Links: links}
	for i := range links {
		links[i].Uplink = routes.uplinks[links[i].Index]
	}
	sort.Slice(s.Links, func(i, j int) bool { return s.Links[i].Index < s.Links[j].Index })
	at := func(index int) int {
		i := sort.Search(len(s.Links), func(i int) bool { return s.Links[i].Index >= index })
		if i == len(s.Links) || s.Links[i].Index != index {
			return -1
		}
		return i
	}
	for _, a := range addrs {
		if i := at(a.index); i >= 0 {
			s.Links[i].Addrs = append(s.Links[i].Addrs, a.Addr)
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

// sortAddrs puts IPv4 first and leaves it in the kernel's order, which says
// which address is preferred; the order of IPv6 addresses says nothing and
// changes, so it is made canonical.
func sortAddrs(addrs []Addr) {
	sort.SliceStable(addrs, func(i, j int) bool {
		x, y := addrs[i].Prefix.Addr(), addrs[j].Prefix.Addr()
		return !(x.Is4() && y.Is4()) && x.Less(y)
	})
}
