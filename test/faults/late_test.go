package faults

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestLateNetwork: what the last run held for a LAN, or for a prefix of IPv6, that is
// not there yet when the gate starts is closed, and open again when it has come: at the
// start of a machine the provider's prefix comes last.
func TestLateNetwork(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
		t.Fatal(err)
	}
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "guest0"]`, 1))
	a, guest := r.Host("a"), r.Host("guest")
	opened(t, r, 6000)
	if err := r.Point(t, "guest", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, a, pin); err != nil {
		t.Fatal(err)
	}
	before := r.List(t)
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	ip(t, r, "link set guest0 down", "addr del 2001:db8:77::1/64 dev br-lan")
	r.Restart(t)
	working(t, r, 6000)
	if list := r.List(t); len(list) != 1 {
		t.Errorf("without the LAN and the prefix: %+v", list)
	}

	ip(t, r, "link set guest0 up")
	testrig.Eventually(t, soon, "the LAN's mapping is back", func() bool { return len(r.List(t)) == 2 })
	if !r.Passes(t, "UDP", 6001, guest, 6001) {
		t.Error("the mapping of the late LAN is listed, and closed")
	}
	// Nobody asked for anything: another crash loses nothing either.
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	ip(t, r, "addr add 2001:db8:77::1/64 dev br-lan nodad")
	testrig.Eventually(t, soon, "the prefix's pinhole is back", func() bool { return len(r.List(t)) == len(before) })
	begin(t, r, netip.AddrPortFrom(a.Addr6, 9000), 9000).alive("through the pinhole")
	for i, m := range r.List(t) {
		if !sameMapping(m, before[i]) {
			t.Errorf("before %+v\nafter %+v", before[i], m)
		}
	}
	working(t, r, 6000)
}

// TestLateDeletion: a mapping whose line is deleted in the lease file while its LAN is away is
// closed for good, however often the daemon starts before the LAN is back.
func TestLateDeletion(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
		t.Fatal(err)
	}
	lease := filepath.Join(t.TempDir(), "leases")
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "guest0"]`, 1)+fmt.Sprintf("[miniupnpd]\nlease_file = %q\n", lease))
	guest := r.Point(t, "guest", lab.IGD1, lab.WANIP1)
	for _, port := range []uint16{6001, 6002} {
		if err := guest.Add(t.Context(), udp(port)); err != nil {
			t.Fatal(err)
		}
	}
	testrig.Eventually(t, soon, "the lines of both", func() bool {
		text, err := os.ReadFile(lease)
		return err == nil && strings.Count(string(text), "\n") == 2
	})
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	ip(t, r, "link set guest0 down")
	deleteRow(t, lease, 1)
	r.Restart(t)
	r.Logged(t, "its line was deleted in the lease file")
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	ip(t, r, "link set guest0 up")
	testrig.Eventually(t, soon, "what was not deleted is back", func() bool { return len(r.List(t)) > 0 })
	if list := r.List(t); len(list) != 1 || list[0].ExternalPort != 6002 {
		t.Errorf("open are %+v", list)
	}
}
