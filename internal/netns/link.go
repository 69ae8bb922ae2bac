package netns

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// Cable joins two namespaces by a veth pair. Each end is its name and its
// addresses, if any: "eth0 192.168.1.10/24 2001:db8:77::10/64". When it returns
// both ends carry and take what is sent to their addresses.
func Cable(a *Space, endA string, b *Space, endB string) {
	a.t.Helper()
	wordsA, wordsB := strings.Fields(endA), strings.Fields(endB)
	a.Links(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = wordsA[0]
		return h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: wordsB[0], PeerNamespace: netlink.NsFd(b.fd)})
	})
	a.Address(wordsA[0], wordsA[1:]...)
	b.Address(wordsB[0], wordsB[1:]...)
	a.Up(wordsA[0])
	b.Up(wordsB[0])
	a.carries(wordsA[0], wordsA[1:])
	b.carries(wordsB[0], wordsB[1:])
}

// carries waits until a link carries and the kernel has all its IPv6 addresses in
// the routing table, which it does in its own time: until then it takes nothing
// that is sent to them.
func (s *Space) carries(name string, addrs []string) {
	s.t.Helper()
	ready := func(h *netlink.Handle) (bool, error) {
		link, err := h.LinkByName(name)
		if err != nil || link.Attrs().OperState != netlink.OperUp {
			return false, err
		}
		filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_LOCAL}
		routes, err := h.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		return err == nil && !slices.ContainsFunc(addrs, func(a string) bool { return !owned(routes, a) }), err
	}
	s.Links(func(h *netlink.Handle) error {
		for deadline := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
			if ok, err := ready(h); err != nil || ok {
				return err
			}
			if time.Now().After(deadline) {
				return os.ErrDeadlineExceeded
			}
		}
	})
}

func owned(local []netlink.Route, addr string) bool {
	a := netip.MustParsePrefix(addr).Addr()
	return a.Is4() || slices.ContainsFunc(local, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(a.AsSlice()) })
}

// Up brings links up.
func (s *Space) Up(names ...string) {
	s.t.Helper()
	s.Links(func(h *netlink.Handle) error {
		for _, name := range names {
			link, err := h.LinkByName(name)
			if err != nil {
				return err
			}
			if err := h.LinkSetUp(link); err != nil {
				return err
			}
		}
		return nil
	})
}

// Address adds addresses to a link: "192.168.1.1/24".
func (s *Space) Address(link string, addrs ...string) {
	s.t.Helper()
	s.Links(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err != nil {
			return err
		}
		for _, text := range addrs {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if a.IP.To4() == nil {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := h.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// Bridge makes a bridge, up, with addresses and with links as its ports.
func (s *Space) Bridge(name string, addrs []string, ports ...string) {
	s.t.Helper()
	s.Links(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := h.LinkAdd(bridge); err != nil {
			return err
		}
		for _, port := range ports {
			link, err := h.LinkByName(port)
			if err != nil {
				return err
			}
			if err := h.LinkSetMaster(link, bridge); err != nil {
				return err
			}
		}
		return nil
	})
	s.Address(name, addrs...)
	s.Up(name)
}

// Index returns the number of a link.
func (s *Space) Index(name string) (index int) {
	s.t.Helper()
	s.Links(func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// Route adds a route, or the default route where to is "". A router's link-local
// address says on which link: "fe80::1%eth0".
func (s *Space) Route(to, via string) {
	s.t.Helper()
	router := netip.MustParseAddr(via)
	index := 0
	if router.Zone() != "" {
		index = s.Index(router.Zone())
	}
	s.Links(func(h *netlink.Handle) error {
		route := &netlink.Route{Gw: router.AsSlice(), LinkIndex: index}
		if to != "" {
			_, dst, err := net.ParseCIDR(to)
			if err != nil {
				return err
			}
			route.Dst = dst
		}
		return h.RouteAdd(route)
	})
}
