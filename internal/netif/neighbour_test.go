package netif_test

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/internal/netns/netnstest"
)

// ask asks both ways and wants the same answer.
func ask(t *testing.T, k *netif.Kernel, ifindex int, addr string, want net.HardwareAddr) {
	t.Helper()
	a := netip.MustParseAddr(addr)
	for how, f := range map[string]func(int, netip.Addr) ([6]byte, bool, error){
		"exact": k.Neighbour,
		"search": func(i int, a netip.Addr) ([6]byte, bool, error) {
			return netif.SearchNeighbour(k, i, a)
		},
	} {
		got, ok, err := f(ifindex, a)
		if err != nil || ok != (want != nil) || want != nil && got != [6]byte(want) || want == nil && got != [6]byte{} {
			t.Errorf("%s: neighbour %s = %x, %v, %v, want %s", how, addr, got, ok, err, want)
		}
	}
}

func TestNeighbourStates(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	s.Address("lan0", "192.168.1.1/24")
	index := s.Index("lan0")
	for _, tc := range []struct {
		addr  string
		state int
		want  bool
	}{
		{"192.168.1.10", netlink.NUD_PERMANENT, true},
		{"192.168.1.11", netlink.NUD_STALE, true},
		{"192.168.1.12", netlink.NUD_REACHABLE, true},
		{"192.168.1.13", netlink.NUD_NOARP, true},
		{"192.168.1.14", netlink.NUD_DELAY, true},
		{"192.168.1.15", netlink.NUD_PROBE, true},
		{"192.168.1.16", netlink.NUD_FAILED, false},
		{"192.168.1.17", netlink.NUD_INCOMPLETE, false},
		{"2001:db8::10", netlink.NUD_STALE, true},
		{"fe80::10", netlink.NUD_PERMANENT, true},
		{"2001:db8::11", netlink.NUD_FAILED, false},
	} {
		s.must(s.h.NeighSet(&netlink.Neigh{
			LinkIndex: index, State: tc.state, IP: net.ParseIP(tc.addr), HardwareAddr: mac(77),
		}))
		var want net.HardwareAddr
		if tc.want {
			want = mac(77)
		}
		ask(t, s.k, index, tc.addr, want)
	}
	ask(t, s.k, index, "192.168.1.99", nil)
	ask(t, s.k, index, "2001:db8::99", nil)
	ask(t, s.k, s.Index("host0"), "192.168.1.10", nil) // known, but on the other interface
	ask(t, s.k, 9999, "192.168.1.10", nil)
	got, ok, err := s.k.Neighbour(index, netip.MustParseAddr("fe80::10%lan0"))
	if err != nil || !ok || got != [6]byte(mac(77)) {
		t.Errorf("with a zone: %x, %v, %v", got, ok, err)
	}
}

func TestNeighbourNonsense(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("::ffff:192.168.1.1")} {
		if _, ok, err := s.k.Neighbour(1, a); ok || err == nil {
			t.Errorf("%v: no error", a)
		}
	}
	for _, index := range []int{0, -1} {
		if _, ok, err := s.k.Neighbour(index, netip.MustParseAddr("192.168.1.1")); ok || err == nil {
			t.Errorf("interface %d: no error", index)
		}
	}
}

// lanWithHost joins a gateway, 192.168.1.1, and a host, 192.168.1.10, that have not
// spoken yet. The index is that of the LAN.
func lanWithHost(t *testing.T) (gateway *space, host *netnstest.Space, index int, hostMAC net.HardwareAddr) {
	t.Helper()
	gateway, host = newSpace(t), netnstest.New(t, "host")
	netnstest.Cable(gateway.Space, "lan0 192.168.1.1/24", host, "eth0 192.168.1.10/24")
	host.Links(func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err == nil {
			hostMAC = link.Attrs().HardwareAddr
		}
		return err
	})
	index = gateway.Index("lan0")
	ask(t, gateway.k, index, "192.168.1.10", nil)
	return gateway, host, index, hostMAC
}

// A host that talks to us is known by the time that we read what it said.
func TestNeighbourLearned(t *testing.T) {
	t.Parallel()
	gateway, host, index, hostMAC := lanWithHost(t)
	server, client := gateway.UDP("192.168.1.1:5351"), host.UDP("192.168.1.10:40000")
	_, err := client.WriteTo([]byte{0, 0}, server.LocalAddr())
	gateway.must(err)
	gateway.must(server.SetReadDeadline(time.Now().Add(patience)))
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 10))
	gateway.must(err)
	ask(t, gateway.k, index, from.Addr().String(), hostMAC)
}

// A host that the kernel has forgotten is known again after Resolve; one that is
// not there is not, and asking for it is no error.
func TestNeighbourResolved(t *testing.T) {
	t.Parallel()
	gateway, _, index, hostMAC := lanWithHost(t)
	for _, a := range []string{"192.168.1.10", "192.168.1.99"} {
		if err := gateway.k.Resolve(index, netip.MustParseAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		got, known, err := gateway.k.Neighbour(index, netip.MustParseAddr("192.168.1.10"))
		if known && got == [6]byte(hostMAC) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("got %x, %v, %v", got, known, err)
		}
	}
	ask(t, gateway.k, index, "192.168.1.99", nil)

	// It has just answered, so it is here; nobody else is.
	for _, x := range []struct {
		mac    net.HardwareAddr
		family uint8
		within time.Duration
		want   bool
	}{
		{hostMAC, unix.AF_INET, time.Minute, true},
		{hostMAC, unix.AF_INET, -1, false},
		{mac(3), unix.AF_INET, time.Minute, false},
	} {
		got, err := gateway.k.Present(index, [6]byte(x.mac), x.family, x.within)
		if err != nil || got != x.want {
			t.Errorf("%s within %v: %v, %v", x.mac, x.within, got, err)
		}
	}
}

// TestSightings: what a host has said of itself is not what it has answered, and what
// the owner has written down is no sighting.
func TestSightings(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	s.Address("lan0", "192.168.1.1/24")
	index := s.Index("lan0")
	for i, tc := range []struct {
		state          int
		answered, seen bool
	}{
		{netlink.NUD_STALE, false, false},
		{netlink.NUD_REACHABLE, true, true},
		{netlink.NUD_PERMANENT, true, false},
		{netlink.NUD_NOARP, true, false},
	} {
		addr := netip.AddrFrom4([4]byte{192, 168, 1, byte(10 + i)})
		s.must(s.h.NeighSet(&netlink.Neigh{LinkIndex: index, State: tc.state, IP: addr.AsSlice(), HardwareAddr: mac(77)}))
		got, known, err := s.k.Sight(index, addr)
		if want := (netif.Sighting{MAC: [6]byte(mac(77)), Answered: tc.answered, Seen: tc.seen}); !known || err != nil || got != want {
			t.Errorf("state %#x: %+v, %v, %v, want %+v", tc.state, got, known, err, want)
		}
	}
}

// manyNeighbours makes lan0 with n neighbours from 10.1.0.0 on.
func manyNeighbours(s *space, n int) (index int) {
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	s.Address("lan0", "10.0.0.1/8")
	index = s.Index("lan0")
	addNeighbours(s, index, n)
	return index
}

func addNeighbours(s *space, index, n int) {
	s.t.Helper()
	for i := range n {
		s.must(s.h.NeighSet(&netlink.Neigh{
			LinkIndex: index, State: netlink.NUD_PERMANENT,
			IP:           net.IPv4(10, 1, byte(i>>8), byte(i)),
			HardwareAddr: net.HardwareAddr{2, 1, 0, 0, byte(i >> 8), byte(i)},
		}))
	}
}

// The exact question answers with one message, however many there are.
func TestNeighbourAmongMany(t *testing.T) { // not parallel: it counts allocations
	s := newSpace(t)
	index := manyNeighbours(s, 1)
	cost := func(addr string) float64 {
		a := netip.MustParseAddr(addr)
		return testing.AllocsPerRun(20, func() {
			if _, ok, err := s.k.Neighbour(index, a); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
	few := cost("10.1.0.0")
	addNeighbours(s, index, 3000)
	ask(t, s.k, index, "10.1.3.7", net.HardwareAddr{2, 1, 0, 0, 3, 7})
	if many := cost("10.1.3.7"); many != few {
		t.Errorf("%v allocations among 3000, %v when it is the only one", many, few)
	}
}

// A message in the form that a little-endian Linux sends: 192.168.1.11 is at 02:00:00:00:00:4d, stale.
var neighbourMessage = unhex("02000000 03000000 0400 00 01" + // AF_INET, index 3, STALE
	"08000100 c0a8010b" + "0a000200 02000000004d 0000" + "08000400 00000000" +
	"14000300 00000000 00000000 00000000 00000000")

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzNeighbour(f *testing.F) {
	f.Add(neighbourMessage)
	f.Add(neighbourMessage[:20])
	f.Fuzz(func(t *testing.T, m []byte) {
		before := slices.Clone(m)
		_, addr, mac, ok := netif.ParseNeighbour(m)
		if ok && (!addr.IsValid() || mac == [6]byte{}) {
			t.Errorf("accepted without address: %v %x", addr, mac)
		}
		if !slices.Equal(before, m) {
			t.Error("the message was changed")
		}
	})
}

func TestParseNeighbour(t *testing.T) {
	t.Parallel()
	if !littleEndian() {
		t.Skip("the example is of a little-endian machine")
	}
	index, addr, mac, ok := netif.ParseNeighbour(neighbourMessage)
	if !ok || index != 3 || addr != netip.MustParseAddr("192.168.1.11") || mac != [6]byte{2, 0, 0, 0, 0, 0x4d} {
		t.Errorf("%d %v %x %v", index, addr, mac, ok)
	}
	for n := range 30 { // the MAC address ends at byte 30
		if _, _, _, ok := netif.ParseNeighbour(neighbourMessage[:n]); ok {
			t.Errorf("accepted when cut at %d", n)
		}
	}
	long := slices.Clone(neighbourMessage)
	long[12] = 0xff // the first attribute claims more than there is
	if _, _, _, ok := netif.ParseNeighbour(long); ok {
		t.Error("accepted an attribute that is longer than the message")
	}
	if _, _, _, ok := netif.ParseNeighbour(make([]byte, unix.SizeofNdMsg)); ok {
		t.Error("accepted a message of zeros")
	}
}

func BenchmarkNeighbour(b *testing.B) {
	s := newSpace(b)
	index := manyNeighbours(s, 3000)
	a := netip.MustParseAddr("10.1.3.7")
	for b.Loop() {
		if _, ok, err := s.k.Neighbour(index, a); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// TestWatchNeighbours: what the kernel learns of neighbours is told, and who does
// not answer any more.
func TestWatchNeighbours(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.veth("lan0", "host0", 1)
	s.Up("lan0", "host0")
	index := s.Index("lan0")
	type told struct {
		ifindex int
		addr    string
		mac     [6]byte
		answers bool
	}
	began, heard := make(chan struct{}, 8), make(chan told, 8)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.k.WatchNeighbours(ctx, func(i int, a netip.Addr, s netif.Sighting) {
			heard <- told{i, a.String(), s.MAC, s.Answered}
		},
			func() { began <- struct{}{} })
	}()
	<-began
	for _, n := range []netlink.Neigh{
		{IP: net.ParseIP("192.168.1.10"), State: netlink.NUD_STALE, HardwareAddr: mac(77)},
		{IP: net.ParseIP("192.168.1.10"), State: netlink.NUD_REACHABLE, HardwareAddr: mac(78)},
		{IP: net.ParseIP("fe80::10"), State: netlink.NUD_STALE, HardwareAddr: mac(79)},
		{IP: net.ParseIP("192.168.1.10"), State: netlink.NUD_FAILED, HardwareAddr: mac(78)},
	} {
		n.LinkIndex = index
		s.must(s.h.NeighSet(&n))
	}
	for _, want := range []told{
		{index, "192.168.1.10", [6]byte(mac(77)), false}, {index, "192.168.1.10", [6]byte(mac(78)), true},
		{index, "fe80::10", [6]byte(mac(79)), false}, {index, "192.168.1.10", [6]byte{}, false},
	} {
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("told %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("not told %v", want)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
