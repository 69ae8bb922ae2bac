package netif_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNextHop: on the link, behind a router, of either family, and where there is no
// way.
func TestNextHop(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.veth("wan0", "host1", 2)
	s.Up("lan0", "host0", "wan0", "host1")
	s.Address("lan0", "192.168.1.1/24", "2001:db8:1::1/64")
	s.Address("wan0", "203.0.113.5/24")
	s.Route("10.9.9.0/24", "192.168.1.10")
	s.Route("2001:db8:9::/64", "2001:db8:1::10")
	s.Route("", "203.0.113.1")
	s.must(s.h.RouteAdd(&netlink.Route{Type: unix.RTN_UNREACHABLE, Dst: &net.IPNet{IP: net.IPv4(10, 9, 8, 0).To4(), Mask: net.CIDRMask(24, 32)}}))
	s.must(s.h.RouteAdd(&netlink.Route{LinkIndex: s.Index("lan0"), Dst: &net.IPNet{IP: net.IPv4(10, 9, 7, 0).To4(), Mask: net.CIDRMask(24, 32)}}))
	for _, x := range []struct{ from, to, link, next string }{
		{"192.168.1.1", "192.168.1.10", "lan0", "192.168.1.10"},
		{"192.168.1.1", "10.9.9.7", "lan0", "192.168.1.10"},
		{"192.168.1.1", "10.9.7.7", "lan0", "10.9.7.7"},
		{"192.168.1.1", "10.9.6.7", "wan0", "203.0.113.1"},
		{"192.168.1.1", "10.9.8.7", "", ""},
		{"2001:db8:1::1", "2001:db8:9::7", "lan0", "2001:db8:1::10"},
		{"2001:db8:1::1", "2001:db8:1::7", "lan0", "2001:db8:1::7"},
		{"2001:db8:1::1", "2001:db8:8::7", "", ""},
	} {
		index, next, err := s.k.NextHop(netip.MustParseAddr(x.from), netip.MustParseAddr(x.to))
		want := 0
		if x.link != "" {
			want = s.Index(x.link)
		}
		if err != nil || index != want || want != 0 && next != netip.MustParseAddr(x.next) {
			t.Errorf("to %s: by %d and %v, %v, want %s and %s", x.to, index, next, err, x.link, x.next)
		}
	}
}

// TestMACEnding: a machine is found by the end of its address among the neighbours of
// either family and at a bridge's ports, on its link alone, and only where it is one.
func TestMACEnding(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("port0", "host0", 1)
	s.veth("other0", "host1", 2)
	s.Up("port0", "host0", "other0", "host1")
	s.Bridge("br-lan", []string{"192.168.1.1/24"}, "port0")
	bridge, other := s.Index("br-lan"), s.Index("other0")
	neighbour := func(link int, ip string, mac net.HardwareAddr, state int) {
		s.must(s.h.NeighSet(&netlink.Neigh{LinkIndex: link, State: state, IP: net.ParseIP(ip), HardwareAddr: mac}))
	}
	neighbour(bridge, "192.168.1.10", net.HardwareAddr{2, 0, 0, 0, 0, 10}, netlink.NUD_STALE)
	neighbour(bridge, "2001:db8::11", net.HardwareAddr{2, 0, 0, 0, 0, 11}, netlink.NUD_REACHABLE)
	neighbour(other, "192.168.2.12", net.HardwareAddr{2, 0, 0, 0, 0, 12}, netlink.NUD_REACHABLE)
	neighbour(bridge, "192.168.1.13", net.HardwareAddr{2, 0, 0, 0, 0, 13}, netlink.NUD_REACHABLE)
	neighbour(bridge, "192.168.1.14", net.HardwareAddr{6, 0, 0, 0, 0, 13}, netlink.NUD_REACHABLE)
	s.must(s.h.NeighAppend(&netlink.Neigh{
		LinkIndex: s.Index("port0"), Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_REACHABLE,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 15},
	}))
	for last, want := range map[byte]bool{10: true, 11: true, 12: false, 13: false, 15: true, 16: false} {
		mac, found, err := s.k.MACEnding(bridge, []byte{0, 0, 0, last})
		if err != nil || found != want || found && mac != [6]byte{2, 0, 0, 0, 0, last} {
			t.Errorf("ending in %d: %x, %v, %v", last, mac, found, err)
		}
	}
	if mac, found, err := s.k.MACEnding(bridge, []byte{6, 0, 0, 0, 0, 13}); !found || err != nil {
		t.Errorf("by its whole address: %x, %v, %v", mac, found, err)
	}
}
