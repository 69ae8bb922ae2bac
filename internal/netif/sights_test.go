package netif_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/netif"
)

// TestSightsRemembered: what the kernel has said of a neighbour is not asked again, for a
// second and until any of them changes: what is known then is what the kernel knows.
func TestSightsRemembered(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	s.Address("lan0", "192.168.1.1/24")
	index, host := s.Index("lan0"), netip.MustParseAddr("192.168.1.10")
	set := func(addr netip.Addr, state int, n byte) {
		s.must(s.h.NeighSet(&netlink.Neigh{LinkIndex: index, State: state, IP: addr.AsSlice(), HardwareAddr: mac(n)}))
	}
	sees := func(want byte, questions uint32) {
		t.Helper()
		before := netif.Asked(s.k)
		got, known, err := s.k.Sight(index, host)
		if err != nil || known != (want != 0) || known && got.MAC != [6]byte(mac(want)) {
			t.Errorf("%x, %v, %v; want %d", got.MAC, known, err, want)
		}
		if asked := netif.Asked(s.k) - before; asked != questions {
			t.Errorf("the kernel was asked %d times, want %d", asked, questions)
		}
	}
	set(host, netlink.NUD_PERMANENT, 7)
	sees(7, 1)
	sees(7, 0)
	set(host, netlink.NUD_PERMANENT, 8)
	sees(8, 1)
	sees(8, 0)
	set(host, netlink.NUD_PERMANENT, 9)
	synctest.Test(t, func(t *testing.T) {
		sees(9, 1)
		time.Sleep(netif.SightLife - time.Nanosecond)
		sees(9, 0)
		time.Sleep(time.Nanosecond)
		sees(9, 1)
	})
	s.must(s.h.NeighDel(&netlink.Neigh{LinkIndex: index, IP: host.AsSlice()}))
	sees(0, 1)
	sees(0, 1) // who is not known may be in a moment

	set(host, netlink.NUD_STALE, 7)
	sees(7, 1)
	sees(7, 1) // as may who has not answered

	// More changes than there is room for.
	set(host, netlink.NUD_PERMANENT, 7)
	sees(7, 1)
	addNeighbours(s, index, 1000)
	set(host, netlink.NUD_PERMANENT, 8)
	sees(8, 1)
	s.must(s.h.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}))
	sees(0, 1)
}

// TestSightsOfMany: as many neighbours as there may be are remembered, and no more.
func TestSightsOfMany(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	index := manyNeighbours(s, 300)
	for i := range 300 {
		a := netip.MustParseAddr(fmt.Sprintf("10.1.%d.%d", i/256, i%256))
		if _, known, err := s.k.Sight(index, a); !known || err != nil {
			t.Fatalf("%s: %v, %v", a, known, err)
		}
	}
	if n := netif.Remembered(s.k); n != 300-netif.MaxSights {
		t.Errorf("%d are remembered", n)
	}
}
