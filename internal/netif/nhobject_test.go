package netif_test

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
)

// uplinksByObjects has two uplinks with private addresses, which by these alone could
// be LANs, a LAN, and next-hop objects by both uplinks; compat is
// net.ipv4.nexthop_compat_mode.
func uplinksByObjects(t *testing.T, compat string) *space {
	t.Helper()
	s := newSpace(t)
	s.Sysctl("net/ipv4/nexthop_compat_mode", compat)
	for i, name := range []string{"eth1", "eth2", "lan0"} {
		s.veth(name, "peer-"+name, byte(2*i+1))
		s.Up(name, "peer-"+name)
	}
	s.Address("eth1", "192.168.7.2/24", "2001:db8:7::2/64")
	s.Address("eth2", "192.168.8.2/24", "2001:db8:8::2/64")
	s.Address("lan0", "192.168.1.1/24")
	_, err := s.Run(`nexthop add id 1 via 192.168.7.1 dev eth1
nexthop add id 2 via 2001:db8:7::1 dev eth1
nexthop add id 3 via 192.168.8.1 dev eth2
nexthop add id 4 via 2001:db8:8::1 dev eth2
nexthop add id 5 dev eth1
nexthop add id 10 group 1/3
nexthop add id 11 group 2/4
nexthop add id 12 group 1/3 type resilient buckets 8
nexthop add id 13 blackhole
`, "ip", "-batch", "-")
	s.must(err)
	return s
}

// bothModes runs a test with what a dump of routes tells of next-hop objects: their
// contents too, or the id alone.
func bothModes(t *testing.T, test func(t *testing.T, compat string)) {
	for name, compat := range map[string]string{"compatible": "1", "id alone": "0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, compat)
		})
	}
}

// TestNexthopObjects: a route that names a next-hop object leads where the object
// does, so an uplink is no LAN, and the WAN is found.
func TestNexthopObjects(t *testing.T) {
	t.Parallel()
	type def struct{ link, via string }
	for _, tc := range []struct {
		name, route string
		want4       []def
		want6       []def
		outside     []string // by which a route of any table leads outside
	}{
		{"default", "-4 route add default nhid 1", []def{{"eth1", "192.168.7.1"}}, nil, []string{"eth1"}},
		{"group", "-4 route add default nhid 10", []def{{"eth1", "192.168.7.1"}, {"eth2", "192.168.8.1"}}, nil, []string{"eth1", "eth2"}},
		{"resilient group", "-4 route add default nhid 12", []def{{"eth1", "192.168.7.1"}, {"eth2", "192.168.8.1"}}, nil, []string{"eth1", "eth2"}},
		{"router of the other family", "-4 route add default nhid 2", []def{{"eth1", "2001:db8:7::1"}}, nil, []string{"eth1"}},
		{"no gateway", "-4 route add default nhid 5", []def{{"eth1", ""}}, nil, []string{"eth1"}},
		{"IPv6", "-6 route add default nhid 2", nil, []def{{"eth1", "2001:db8:7::1"}}, []string{"eth1"}},
		{"IPv6 group", "-6 route add default nhid 11", nil, []def{{"eth1", "2001:db8:7::1"}, {"eth2", "2001:db8:8::1"}}, []string{"eth1", "eth2"}},
		{"another table", "-4 route add default nhid 3 table 100", nil, nil, []string{"eth2"}},
		{"IPv6, another table", "-6 route add default nhid 11 table 100", nil, nil, []string{"eth1", "eth2"}},
		{"half", "-4 route add 128.0.0.0/1 nhid 3", nil, nil, []string{"eth2"}},
		{"public address", "-4 route add 198.51.100.0/24 nhid 3 table 9", nil, nil, []string{"eth2"}},

		{"public, but on-link", "-4 route add 198.51.100.0/24 nhid 5", nil, nil, nil},
		{"private network", "-4 route add 10.0.0.0/8 nhid 10", nil, nil, nil},
		{"thrown away", "-4 route add default nhid 13", nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bothModes(t, func(t *testing.T, compat string) {
				s := uplinksByObjects(t, compat)
				s.ip(tc.route)
				state := s.read()
				check := func(want []def, got []netif.DefaultRoute) {
					t.Helper()
					var told []def
					for _, r := range got {
						l, _ := state.LinkByIndex(r.Index)
						d := def{link: l.Name}
						if r.Gateway.IsValid() {
							d.via = r.Gateway.String()
						}
						told = append(told, d)
					}
					slices.SortFunc(told, func(a, b def) int { return cmp.Compare(a.link, b.link) })
					if diff := gocmp.Diff(want, told, gocmp.AllowUnexported(def{})); diff != "" {
						t.Errorf("default routes (-want +got):\n%s", diff)
					}
				}
				check(tc.want4, state.Default4)
				check(tc.want6, state.Default6)
				if got := state.Outside(); !slices.Equal(got, tc.outside) {
					t.Errorf("outside: %q, want %q", got, tc.outside)
				}
				roles, err := netif.Choose(state, netif.Settings{})
				for _, lan := range roles.LAN {
					if slices.Contains(tc.outside, lan.Name) {
						t.Errorf("the uplink %s is served: %v", lan.Name, err)
					}
				}
				if len(tc.want4) > 0 && (roles.WAN.Name != tc.want4[0].link || !roles.WAN.Up) {
					t.Errorf("the WAN is %+v, want %s", roles.WAN, tc.want4[0].link)
				}
			})
		})
	}
}

// TestNexthopObjectsLookup: single questions are answered with the interface and the
// gateway, however the route is written.
func TestNexthopObjectsLookup(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, compat string) {
		for _, id := range [][2]string{{"1", "2"}, {"10", "11"}} {
			s := uplinksByObjects(t, compat)
			s.Sysctl("net/ipv4/ip_forward", "1")
			s.Sysctl("net/ipv6/conf/all/forwarding", "1")
			s.Address("lan0", "2001:db8:1::1/64")
			s.ip("-4 route add default nhid "+id[0], "-6 route add default nhid "+id[1])
			for _, q := range [][3]string{{"192.168.1.1", "192.168.1.10", "20.20.20.20"}, {"2001:db8:1::1", "2001:db8:1::10", "2a00:1450::77"}} {
				own, host, peer := netip.MustParseAddr(q[0]), netip.MustParseAddr(q[1]), netip.MustParseAddr(q[2])
				by := map[int][]netip.Addr{s.Index("eth1"): addrs("192.168.7.1", "2001:db8:7::1"), s.Index("eth2"): addrs("192.168.8.1", "2001:db8:8::1")}
				if got, err := s.k.Lookup(netif.Flow{Ifindex: s.Index("lan0"), From: host, To: peer}); err != nil || !slices.Contains(by[got.Ifindex], got.Gateway) {
					t.Errorf("object %s: from %s: %+v, %v", id, host, got, err)
				}
				if index, next, err := s.k.NextHop(own, peer); err != nil || !slices.Contains(by[index], next) {
					t.Errorf("object %s: from %s: by %d and %s, %v", id, own, index, next, err)
				}
			}
		}
	})
}

// TestNexthopObjectsWatch: what changes in an object is noticed, though no route
// says that it changed.
func TestNexthopObjectsWatch(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, compat string) {
		s := uplinksByObjects(t, compat)
		s.ip("-4 route add default nhid 1", "-6 route add default nhid 11 table 100")
		w := watch(t, s.k)
		outside := func(names ...string) func(netif.State) bool {
			return func(st netif.State) bool { return slices.Equal(st.Outside(), names) }
		}
		w.until("the first state", outside("eth1", "eth2"))
		s.ip("nexthop replace id 11 group 2")
		w.until("a group without eth2", outside("eth1"))
		s.ip("nexthop replace id 1 via 192.168.8.1 dev eth2")
		w.until("another interface", func(st netif.State) bool {
			return outside("eth1", "eth2")(st) && len(st.Default4) == 1 && st.Default4[0].Index == s.Index("eth2")
		})
		s.ip("nexthop del id 1")
		w.until("no route any more", func(st netif.State) bool { return outside("eth1")(st) && len(st.Default4) == 0 })
	})
}

// TestNexthopObjectsUnknown: where the kernel does not say where an object leads, the
// reading fails: an interface without a route outside could be taken for a LAN.
func TestNexthopObjectsUnknown(t *testing.T) {
	t.Parallel()
	s := uplinksByObjects(t, "0")
	s.ip("-4 route add 10.0.0.0/8 nhid 1") // leads to no outside by whatever way
	if err := netif.RoutesWithoutObjects(s.k, unix.EOPNOTSUPP); err != nil {
		t.Errorf("no object is needed: %v", err)
	}
	s.ip("-4 route add default nhid 1")
	if err := netif.RoutesWithoutObjects(s.k, unix.EOPNOTSUPP); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("objects are refused: %v", err)
	}
	if err := netif.RoutesWithoutObjects(s.k, nil); !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("the object is not among them: %v", err)
	}
}
