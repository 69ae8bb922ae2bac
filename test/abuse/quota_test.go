package abuse

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// smallHouse has room for 128 mappings.
const smallHouse = "[limits]\nmappings = 128\nmappings_per_client = 32\ngrants_per_second = 0\nrequests_per_second = 0\n"

// invent makes up a host, which takes n mappings from a port on.
func invent(t *testing.T, f *lab.Forger, mac net.HardwareAddr, addr netip.Addr, first, n uint16) {
	t.Helper()
	f.MAC = mac
	if err := f.Claim(addr, lab.GatewayLAN); err != nil {
		t.Fatal(err)
	}
	for port := first; port < first+n; port++ {
		if err := f.Send(netip.AddrPortFrom(addr, 40000), server, pmp(1, port, port, 7200)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInventedHosts: abuse case K1. One machine makes up hosts, with an address and a
// MAC each, that take all mappings there are. Others still get theirs, the owner is
// told, and who never answers the gateway has nothing left a moment later.
func TestInventedHosts(t *testing.T) {
	t.Parallel()
	r := start(t, smallHouse)
	if err := r.v2(t, "a").Add(t.Context(), udp(5999, 5999)); err != nil {
		t.Fatal(err)
	}
	f := r.forger(t, "b")
	most := 0
	for host := range byte(12) {
		mac, addr := net.HardwareAddr{2, 0xbb, 0, 0, 0, host}, netip.AddrFrom4([4]byte{192, 168, 77, 100 + host})
		invent(t, f, mac, addr, 10000+uint16(host)*100, 32)
		most = max(most, len(r.List(t)))
	}
	testrig.Eventually(t, soon, "they have what they can get", func() bool {
		most = max(most, len(r.List(t)))
		return most > 64
	})
	if most > 97 {
		t.Errorf("of 128 mappings %d are taken by nobody", most)
	}
	for port := uint16(6000); port < 6005; port++ {
		if err := r.v2(t, "b").Add(t.Context(), udp(port, port)); err != nil {
			t.Errorf("a host gets no mapping: %v", err)
		}
	}
	r.Logged(t, "mappings are running out")
	testrig.Eventually(t, time.Minute, "what nobody answers for is gone", func() bool { return len(r.List(t)) == 6 })
	r.Logged(t, fmt.Sprintf("why=%q", "the host has never answered"))
	if !r.Passes(t, "UDP", 6000, r.Host("b"), 6000) || !r.Passes(t, "UDP", 5999, r.Host("a"), 5999) {
		t.Error("a mapping of a real host does not work")
	}
}

// TestQuietHost: abuse case K1. A host that the gateway has heard, and then forgotten, is
// no invented one when room is running out.
func TestQuietHost(t *testing.T) {
	t.Parallel()
	r := start(t, strings.NewReplacer("client = 32", "client = 128", "requests_per_second = 0", "requests_per_second = 1000").Replace(smallHouse))
	r.known(t, "a")
	b := r.talker(t, "b")
	for port := range uint16(96) {
		grant(t, b, 1, 11000+port)
	}
	a := r.Host("a")
	testrig.On(t, r.Gateway, "ip", "neigh", "del", a.Addr.String(), "dev", lab.Bridge)
	if err := r.forger(t, "a").Claim(a.Addr, lab.GatewayLAN); err != nil {
		t.Fatal(err)
	}
	grant(t, r.talker(t, "a"), 1, 6000)
}

// TestInventedHostsByTurns: abuse case K1. What was made up at one address after the
// other, with another MAC each time round, is suspended; that a machine answers there in
// the end, as itself, does not keep it for long.
func TestInventedHostsByTurns(t *testing.T) {
	t.Parallel()
	r := start(t, smallHouse)
	f := r.forger(t, "b")
	for n := range byte(12) {
		mac := net.HardwareAddr{2, 0xbb, 0, 0, 1, n}
		addr := netip.AddrFrom4([4]byte{192, 168, 77, 100 + n%3})
		invent(t, f, mac, addr, 10000+100*uint16(n), 4)
		testrig.Eventually(t, soon, "it has its mappings", func() bool {
			return slices.ContainsFunc(r.List(t), func(m control.Mapping) bool { return m.ClientMAC == mac.String() })
		})
	}
	for _, addr := range []string{"192.168.77.100/24", "192.168.77.101/24", "192.168.77.102/24"} {
		testrig.On(t, r.Host("b"), "ip", "addr", "add", addr, "dev", lab.HostPort)
	}
	testrig.Eventually(t, soon, "some are suspended", func() bool {
		return slices.ContainsFunc(r.List(t), func(m control.Mapping) bool { return m.Suspended })
	})
	testrig.Eventually(t, 3*time.Minute, "what nobody answers for is gone", func() bool { return len(r.List(t)) == 0 })
	if err := r.v2(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Errorf("a host gets no mapping: %v", err)
	}
}
