package netif_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/netif"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
)

// patience is how long a test waits for an event that must come.
const patience = 10 * time.Second

// TestMain runs the tests again as root of a user namespace of their own when
// they are not run by root.
func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// space is a namespace of a test, with what is tested.
type space struct {
	*netnstest.Space
	t testing.TB
	h *netlink.Handle // to change it
	k *netif.Kernel   // what is tested
}

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{Space: netnstest.New(t, "gateway"), t: t}
	s.h = s.Handle()
	var err error
	if s.k, err = netif.OpenAt(slog.New(slog.DiscardHandler), s.FD()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.k.Close)
	return s
}

func (s *space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.h.LinkByName(name)
	s.must(err)
	return l
}

// veth makes a pair. Its MAC addresses are 02:00:00:00:00:n and :n+1.
func (s *space) veth(a, b string, n byte) {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	attrs.HardwareAddr = mac(n)
	s.must(s.h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerHardwareAddr: mac(n + 1)}))
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// addRoute adds a route to the main table; via may be "".
func (s *space) addRoute(dst, name, via string, metric int) {
	s.t.Helper()
	s.must(s.h.RouteAdd(s.route(dst, name, via, metric)))
}

func (s *space) delRoute(dst, name, via string, metric int) {
	s.t.Helper()
	s.must(s.h.RouteDel(s.route(dst, name, via, metric)))
}

func (s *space) route(dst, name, via string, metric int) *netlink.Route {
	s.t.Helper()
	_, n, err := net.ParseCIDR(dst)
	s.must(err)
	return &netlink.Route{Dst: n, LinkIndex: s.Index(name), Gw: net.ParseIP(via), Priority: metric}
}

func (s *space) read() netif.State {
	s.t.Helper()
	state, err := s.k.Read(context.Background())
	s.must(err)
	return state
}

// addrs parses a list.
func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}
