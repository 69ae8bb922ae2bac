package netif_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

var compareAddrs = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}),
	cmpopts.EquateEmpty(),
}

func TestReadLinks(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Bridge("br-lan", nil, "lan0")
	s.Up("lan0", "host0")
	s.must(s.h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wan0", TxQLen: -1}, PeerName: "isp0"}))

	state := s.read()
	lo, ok := state.Link("lo")
	if !ok || !lo.Loopback || !lo.Up || !lo.Running || lo.MAC != [6]byte{} {
		t.Errorf("lo: %+v", lo)
	}
	lan0, _ := state.Link("lan0")
	br, _ := state.Link("br-lan")
	if lan0.MAC != [6]byte(mac(1)) || lan0.Kind != "veth" || !lan0.Up || lan0.Master != br.Index || lan0.Loopback {
		t.Errorf("lan0: %+v, the bridge has index %d", lan0, br.Index)
	}
	if br.Kind != "bridge" || br.Master != 0 {
		t.Errorf("br-lan: %+v", br)
	}
	wan0, _ := state.Link("wan0")
	if wan0.Up || wan0.Running {
		t.Errorf("wan0 was never switched on: %+v", wan0)
	}
	s.Up("wan0") // its peer is down: no carrier
	wan0, _ = s.read().LinkByIndex(wan0.Index)
	if !wan0.Up || wan0.Running {
		t.Errorf("wan0 is on without carrier: %+v", wan0)
	}
}

func TestReadAddresses(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	s.Address("lan0", "192.168.1.9/24")
	s.Address("lan0", "192.168.1.1/24") // lower, but second: secondary
	s.Address("lan0", "2001:db8::2/64")
	s.Address("lan0", "2001:db8::1/64")
	s.must(s.h.AddrAdd(s.link("host0"), &netlink.Addr{
		IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 7).To4(), Mask: net.CIDRMask(32, 32)},
		Peer:  &net.IPNet{IP: net.IPv4(198, 51, 100, 1).To4(), Mask: net.CIDRMask(32, 32)},
	}))
	s.must(s.h.AddrAdd(s.link("host0"), &netlink.Addr{
		IPNet:    &net.IPNet{IP: net.IPv4(10, 0, 0, 7).To4(), Mask: net.CIDRMask(8, 32)},
		ValidLft: 3600, PreferedLft: 0, Scope: unix.RT_SCOPE_LINK,
	}))

	state := s.read()
	ignoreLinkLocal := cmpopts.IgnoreSliceElements(func(a netif.Addr) bool {
		return a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
	})
	check := func(name string, want []netif.Addr) {
		t.Helper()
		l, _ := state.Link(name)
		if diff := cmp.Diff(want, l.Addrs, compareAddrs, ignoreLinkLocal); diff != "" {
			t.Errorf("addresses of %s (-want +got):\n%s", name, diff)
		}
	}
	p := netip.MustParsePrefix
	check("lan0", []netif.Addr{
		{Prefix: p("192.168.1.9/24")},
		{Prefix: p("192.168.1.1/24"), Secondary: true},
		{Prefix: p("2001:db8::1/64")},
		{Prefix: p("2001:db8::2/64")},
	})
	check("host0", []netif.Addr{
		{Prefix: p("10.0.0.7/8"), LinkScope: true, Deprecated: true, Dynamic: true}, // the kernel's order: by scope
		{Prefix: p("198.51.100.7/32"), Peer: p("198.51.100.1/32")},
	})
	local := state.Local()
	for _, a := range addrs("127.0.0.1", "::1", "192.168.1.1", "2001:db8::1", "198.51.100.7") {
		if !contains(local, a) {
			t.Errorf("Local() lacks %s: %v", a, local)
		}
	}
	if contains(local, netip.MustParseAddr("198.51.100.1")) {
		t.Error("Local() has the peer's address")
	}
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, x := range list {
		if x == a {
			return true
		}
	}
	return false
}

func TestReadTentative(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("host0")
	s.Sysctl("net/ipv6/conf/lan0/accept_dad", "1")
	s.Sysctl("net/ipv6/conf/lan0/dad_transmits", "100")
	s.Up("lan0")
	a, err := netlink.ParseAddr("2001:db8::1/64")
	s.must(err)
	s.must(s.h.AddrAdd(s.link("lan0"), a))
	l, _ := s.read().Link("lan0")
	for _, a := range l.Addrs {
		if a.Prefix.Addr() == netip.MustParseAddr("2001:db8::1") {
			if !a.Tentative {
				t.Errorf("duplicate detection runs, but the address is not tentative: %+v", a)
			}
			return
		}
	}
	t.Errorf("address not found: %+v", l)
}

// spaceWithUplinks has wan0 and lte0, each with a network.
func spaceWithUplinks(t *testing.T) *space {
	s := newSpace(t)
	s.veth("wan0", "isp0", 1)
	s.veth("lte0", "isp1", 3)
	s.Up("wan0", "isp0", "lte0", "isp1")
	s.Address("wan0", "203.0.113.5/24")
	s.Address("lte0", "198.51.100.5/24")
	s.Address("wan0", "2001:db8:1::5/64")
	return s
}

func TestReadDefaultRoutes(t *testing.T) {
	t.Parallel()
	s := spaceWithUplinks(t)
	wan, lte := s.Index("wan0"), s.Index("lte0")
	s.addRoute("0.0.0.0/0", "lte0", "198.51.100.1", 20)
	s.addRoute("0.0.0.0/0", "wan0", "203.0.113.1", 10)
	s.addRoute("::/0", "wan0", "2001:db8:1::1", 5)
	other := s.route("0.0.0.0/0", "lte0", "198.51.100.2", 1)
	other.Table = 100
	s.must(s.h.RouteAdd(other))
	large := s.route("0.0.0.0/0", "lte0", "198.51.100.2", 1)
	large.Table = 100000 // does not fit the header: only the attribute tells
	s.must(s.h.RouteAdd(large))
	s.must(s.h.RouteAdd(&netlink.Route{Dst: s.route("0.0.0.0/0", "lo", "", 0).Dst, Type: unix.RTN_UNREACHABLE, Priority: 1}))

	state := s.read()
	want4 := []netif.DefaultRoute{
		{Index: wan, Gateway: netip.MustParseAddr("203.0.113.1"), Metric: 10},
		{Index: lte, Gateway: netip.MustParseAddr("198.51.100.1"), Metric: 20},
	}
	if diff := cmp.Diff(want4, state.Default4, compareAddrs); diff != "" {
		t.Errorf("IPv4 (-want +got):\n%s", diff)
	}
	want6 := []netif.DefaultRoute{{Index: wan, Gateway: netip.MustParseAddr("2001:db8:1::1"), Metric: 5}}
	if diff := cmp.Diff(want6, state.Default6, compareAddrs); diff != "" {
		t.Errorf("IPv6 (-want +got):\n%s", diff)
	}
}

func TestReadOtherShapesOfDefaultRoute(t *testing.T) {
	t.Parallel()
	s := spaceWithUplinks(t)
	wan, lte := s.Index("wan0"), s.Index("lte0")
	both := s.route("0.0.0.0/0", "wan0", "", 0)
	both.LinkIndex = 0
	both.MultiPath = []*netlink.NexthopInfo{
		{LinkIndex: wan, Gw: net.IPv4(203, 0, 113, 1)},
		{LinkIndex: lte, Gw: net.IPv4(198, 51, 100, 1)},
	}
	s.must(s.h.RouteAdd(both))
	ppp := s.route("0.0.0.0/0", "lte0", "", 7) // no gateway, as on a point-to-point link
	ppp.Scope = unix.RT_SCOPE_LINK
	ppp.Src = net.IPv4(198, 51, 100, 5)
	s.must(s.h.RouteAdd(ppp))
	via := s.route("0.0.0.0/0", "wan0", "", 9)
	via.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("fe80::1")}
	s.must(s.h.RouteAdd(via))

	want := []netif.DefaultRoute{
		{Index: wan, Gateway: netip.MustParseAddr("203.0.113.1")},
		{Index: lte, Gateway: netip.MustParseAddr("198.51.100.1")},
		{Index: lte, Source: netip.MustParseAddr("198.51.100.5"), Metric: 7},
		{Index: wan, Gateway: netip.MustParseAddr("fe80::1"), Metric: 9},
	}
	if diff := cmp.Diff(want, s.read().Default4, compareAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReadUplink: what leads outside is found in every table and both families, with or
// without a rule that leads to the table.
func TestReadUplink(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, route string // what follows "ip route add", or "-6 ..."
		want        string // "": none
	}{
		{"a host route to a VPN server", "198.51.100.99/32 via 192.168.7.1 dev eth1", "the route to 198.51.100.99/32 through 192.168.7.1"},
		{"half a default route", "0.0.0.0/1 via 192.168.7.1 dev eth1", "the route to 0.0.0.0/1 through 192.168.7.1"},
		{"the other half, without gateway", "128.0.0.0/1 dev eth1", "the route to 128.0.0.0/1"},
		{"a default route", "default via 192.168.7.1 dev eth1", "the default route through 192.168.7.1"},
		{"mwan, pbr, systemd's RouteTable", "default via 192.168.7.1 dev eth1 table 100", "the default route through 192.168.7.1 in table 100"},
		{"wg-quick", "default dev eth1 table 51820", "the default route in table 51820"},
		{"one of several next hops", "default table 7 nexthop via 192.168.7.1 dev eth1 nexthop via 192.168.7.3 dev eth1", "the default route through 192.168.7.1 in table 7"},
		{"half a default route in a table", "128.0.0.0/1 via 192.168.7.1 dev eth1 table 9", "the route to 128.0.0.0/1 through 192.168.7.1 in table 9"},
		{"a public address in a table", "198.51.100.0/24 via 192.168.7.1 dev eth1 table 9", "the route to 198.51.100.0/24 through 192.168.7.1 in table 9"},
		{"by a router of the other family", "default via inet6 fe80::1 dev eth1 table 9", "the default route through fe80::1 in table 9"},
		{"IPv6, in a table", "-6 default via fe80::1 dev eth1 table 100", "the default route through fe80::1 in table 100"},
		{"IPv6, half", "-6 8000::/1 dev eth1 table 100", "the route to 8000::/1 in table 100"},
		{"IPv6, all that is global", "-6 2000::/3 dev eth1", "the route to 2000::/3"},

		{"a private network behind an inner router", "192.168.8.0/24 via 192.168.7.1 dev eth1", ""},
		{"the same in a table", "10.0.0.0/8 via 192.168.7.1 dev eth1 table 100", ""},
		{"the connected network in a table, as mwan copies it", "192.168.7.0/24 dev eth1 table 100", ""},
		{"public, but on-link", "198.51.100.0/24 dev eth1", ""},
		{"multicast", "224.0.0.0/4 dev eth1", ""},
		{"what is delivered here, for a transparent proxy", "local default dev eth1 table 100", ""},
		{"what is thrown away", "unreachable default table 100", ""},
		{"IPv6 prefix behind an inner router", "-6 2001:db8:7::/48 via fe80::1 dev eth1", ""},
		{"IPv6, unique local", "-6 fc00::/7 via fe80::1 dev eth1 table 100", ""},
		{"IPv6, multicast", "-6 ff00::/8 dev eth1 table 100", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.veth("eth1", "peer", 1)
			s.Up("eth1", "peer")
			s.Address("eth1", "192.168.7.2/24")
			argv := []string{"ip", "-4", "route", "add"}
			route, six := strings.CutPrefix(tc.route, "-6 ")
			if six {
				argv[1] = "-6"
			}
			_, err := s.Run("", append(argv, strings.Fields(route)...)...)
			s.must(err)
			state := s.read()
			l, _ := state.Link("eth1")
			if l.Uplink == (netif.Way{}) != (tc.want == "") || tc.want != "" && l.Uplink.String() != tc.want {
				t.Errorf("Uplink is %+v, want %q", l.Uplink, tc.want)
			}
			if outside := state.Outside(); tc.want == "" && len(outside) > 0 || tc.want != "" && !slices.Equal(outside, []string{"eth1"}) {
				t.Errorf("outside: %q", outside)
			}
		})
	}
}

// TestReadUplinkIsStable: of several routes always the same one is told, the widest,
// or every reading would be a change.
func TestReadUplinkIsStable(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("eth1", "peer", 1)
	s.Up("eth1", "peer")
	s.Address("eth1", "192.168.7.2/24")
	for _, table := range []string{"300", "100", "200"} {
		for _, to := range []string{"198.51.100.0/24", "default"} {
			_, err := s.Run("", "ip", "route", "add", to, "via", "192.168.7.1", "dev", "eth1", "table", table)
			s.must(err)
		}
	}
	before := s.read()
	if l, _ := before.Link("eth1"); l.Uplink.String() != "the default route through 192.168.7.1 in table 100" {
		t.Errorf("told is %s", l.Uplink)
	}
	if !before.Equal(s.read()) {
		t.Error("two readings of one network differ")
	}
	s.addRoute("0.0.0.0/1", "eth1", "192.168.7.1", 0)
	if before.Equal(s.read()) {
		t.Error("another way outside by the same link is not seen")
	}
	s.delRoute("0.0.0.0/1", "eth1", "192.168.7.1", 0)
	if !before.Equal(s.read()) {
		t.Error("it is gone, and all is not as it was")
	}
}

func TestReadEnds(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.k.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestInterruptedDumpIsRepeated(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		bad   int
		err   error
		calls int
		want  error
	}{
		{"clean", 0, netlink.ErrDumpInterrupted, 1, nil},
		{"twice interrupted", 2, netlink.ErrDumpInterrupted, 3, nil},
		{"always interrupted", 1000, netlink.ErrDumpInterrupted, netif.MaxDumps, netif.ErrInterrupted},
		{"another error is not repeated", 1000, io.ErrUnexpectedEOF, 1, io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			err := netif.Repeat(context.Background(), func() error {
				if calls++; calls <= tc.bad {
					return tc.err
				}
				return nil
			})
			if calls != tc.calls || !errors.Is(err, tc.want) {
				t.Errorf("%d calls, error %v", calls, err)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	base := func() netif.State {
		return netif.State{
			Links: []netif.Link{{Index: 2, Name: "wan0", Up: true, Addrs: []netif.Addr{
				{Prefix: netip.MustParsePrefix("203.0.113.5/24")},
			}}},
			Default4: []netif.DefaultRoute{{Index: 2}},
		}
	}
	if !base().Equal(base()) {
		t.Fatal("a state is not equal to itself")
	}
	for name, change := range map[string]func(*netif.State){
		"name":          func(s *netif.State) { s.Links[0].Name = "wan1" },
		"index":         func(s *netif.State) { s.Links[0].Index = 3 },
		"kind":          func(s *netif.State) { s.Links[0].Kind = "veth" },
		"MAC":           func(s *netif.State) { s.Links[0].MAC[5] = 1 },
		"up":            func(s *netif.State) { s.Links[0].Up = false },
		"running":       func(s *netif.State) { s.Links[0].Running = true },
		"loopback":      func(s *netif.State) { s.Links[0].Loopback = true },
		"pointopoint":   func(s *netif.State) { s.Links[0].PointToPoint = true },
		"master":        func(s *netif.State) { s.Links[0].Master = 9 },
		"uplink":        func(s *netif.State) { s.Links[0].Uplink.Table = 100 },
		"address":       func(s *netif.State) { s.Links[0].Addrs[0].Prefix = netip.MustParsePrefix("203.0.113.6/24") },
		"address flag":  func(s *netif.State) { s.Links[0].Addrs[0].Deprecated = true },
		"no address":    func(s *netif.State) { s.Links[0].Addrs = nil },
		"no link":       func(s *netif.State) { s.Links = nil },
		"route metric":  func(s *netif.State) { s.Default4[0].Metric = 1 },
		"route6":        func(s *netif.State) { s.Default6 = s.Default4 },
		"wide routes":   func(s *netif.State) { s.Wide = 1 },
		"rule":          func(s *netif.State) { s.Rules = []netif.Rule{{Priority: 100}} },
		"route removed": func(s *netif.State) { s.Default4 = nil },
	} {
		other := base()
		change(&other)
		if base().Equal(other) || other.Equal(base()) {
			t.Errorf("%s: a difference is not seen", name)
		}
	}
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, want := range []bool{true, false} {
		text := "0"
		if want {
			text = "1"
		}
		s.Sysctl("net/ipv4/ip_forward", text)
		if got, err := s.k.Forwarding(); err != nil || got != want {
			t.Errorf("Forwarding() = %v, %v, want %v", got, err, want)
		}
	}
}

func TestOpenWithoutLogger(t *testing.T) {
	t.Parallel()
	if k, err := netif.Open(nil); err == nil {
		k.Close()
		t.Error("a Kernel without logger was made")
	}
}

// In production nothing is entered and nobody is root: whoever runs the test,
// the sockets of its own namespace can be read.
func TestOpenHere(t *testing.T) {
	t.Parallel()
	k, err := netif.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	state, err := k.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lo, ok := state.Link("lo"); !ok || !lo.Loopback {
		t.Errorf("no loopback interface: %+v", state)
	}
	if _, err := k.Listening(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := k.Forwarding(); err != nil {
		t.Error(err)
	}
	if _, ok, err := k.Neighbour(1, netip.MustParseAddr("192.0.2.1")); ok || err != nil {
		t.Errorf("neighbour on lo: %v, %v", ok, err)
	}
}

func TestOpenAtNothing(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	if k, err := netif.OpenAt(log, 99999); err == nil {
		k.Close()
		t.Error("opened in a namespace that is not there")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if k, err := netif.OpenAt(log, int(file.Fd())); err == nil {
		k.Close()
		t.Error("opened in a namespace that is a file")
	}
}
