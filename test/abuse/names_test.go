package abuse

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

// dhcpServer is the lease file of a dnsmasq.
type dhcpServer struct{ path string }

// lease is a line of it that holds for an hour.
func lease(mac fmt.Stringer, addr netip.Addr, name string) string {
	return fmt.Sprintf("%d %s %s %s 01:%[2]s\n", time.Now().Add(time.Hour).Unix(), mac, addr, name)
}

func (d dhcpServer) gives(t *testing.T, leases ...string) {
	t.Helper()
	if err := os.WriteFile(d.path, []byte(strings.Join(leases, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// called waits until the owner's list has a name for the host of a port.
func (r *rig) called(t *testing.T, port uint16, name string) {
	t.Helper()
	testrig.Eventually(t, soon, fmt.Sprintf("the host of %d is called %q", port, name), func() bool {
		for _, m := range r.List(t) {
			if m.ExternalPort == port {
				return m.ClientHost == name
			}
		}
		return false
	})
}

// startNamed starts a gate that has a rule for consoles, and a DHCP server for which
// host a is one and host b is not.
func startNamed(t *testing.T) (*rig, dhcpServer) {
	t.Helper()
	server := dhcpServer{filepath.Join(t.TempDir(), "leases")}
	n := testrig.Network(t, "a", "b")
	a, b := n.Host("a"), n.Host("b")
	server.gives(t, lease(a.MAC, a.Addr, "Console-A"), lease(b.MAC, b.Addr, "laptop"))
	settings := strings.Replace(lab.Settings, "[wan]", fmt.Sprintf("leases = [%q]\n[wan]", server.path), 1)
	return &rig{testrig.StartWith(t, n, settings+noRates+`[[rule]]
name = "consoles"
action = "allow"
clients = ["host:console-*"]
external_ports = ["443"]
internal_ports = ["443"]
`)}, server
}

// web is what only the rule allows.
var web = lab.Mapping{Protocol: "TCP", External: 443, Internal: 443, Lease: time.Hour}

// TestRulesByName: DHCP gives names, rules go by them, and a name is only for the host
// that has the lease's MAC and address.
func TestRulesByName(t *testing.T) {
	t.Parallel()
	r, server := startNamed(t)
	a, b := r.Host("a"), r.Host("b")
	ca, cb := r.v1(t, "a"), r.v1(t, "b")
	// What anybody may have, to see the names by.
	for c, port := range map[*lab.ControlPoint]uint16{ca: 6000, cb: 7000} {
		if err := c.Add(t.Context(), lab.Mapping{Protocol: "UDP", External: port, Internal: port, Lease: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	r.called(t, 6000, "Console-A")
	r.called(t, 7000, "laptop")
	r.refused(t, cb, web, 606)
	if err := ca.Add(t.Context(), web); err != nil {
		t.Fatalf("the console: %v", err)
	}
	if !r.Passes(t, "TCP", 443, a, 443) {
		t.Error("no packet reaches the console")
	}
	for _, m := range r.List(t) {
		if m.ExternalPort == 443 && (m.ClientHost != "Console-A" || m.Rule != "consoles") {
			t.Errorf("listed as %+v", m)
		}
	}

	// One rule holds for both families, whatever the address of IPv6.
	ask := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Protocol: "TCP", Internal: 443, Lease: time.Hour}
	for h, want := range map[*lab.Host]int{a: 0, b: 2} {
		ask.Source = h.Addr6
		if _, err := mapBy(t, h, ask); refusal(err) != want {
			t.Errorf("%s asks for a pinhole: %v, want %d", h.Name, err, want)
		}
	}

	if err := ca.Delete(t.Context(), 443, "TCP"); err != nil {
		t.Fatal(err)
	}
	server.gives(t, lease(a.MAC, a.Addr, "toaster"), lease(b.MAC, b.Addr, "laptop"))
	r.called(t, 6000, "toaster")
	r.refused(t, ca, web, 606)

	// Nobody can keep a host from taking another's name: it gets what the rule gives.
	server.gives(t, lease(a.MAC, a.Addr, "toaster"), lease(b.MAC, b.Addr, "console-a"))
	r.called(t, 7000, "console-a")
	r.refused(t, ca, web, 606)
	if err := cb.Add(t.Context(), web); err != nil {
		t.Fatalf("the liar: %v", err)
	}
	if err := cb.Delete(t.Context(), 443, "TCP"); err != nil {
		t.Fatal(err)
	}

	// A lease of another device's names neither of them.
	server.gives(t, lease(b.MAC, a.Addr, "console-a"))
	r.called(t, 7000, "laptop") // as it was when it asked
	r.refused(t, ca, web, 606)
	r.refused(t, cb, web, 606)
}

// TestNamesAfterCrash: a mapping by a rule for a name is taken over by the name that
// its host had, unless it has another by now.
func TestNamesAfterCrash(t *testing.T) {
	t.Parallel()
	r, server := startNamed(t)
	a := r.Host("a")
	if err := r.v1(t, "a").Add(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	crash := func() {
		t.Helper()
		if err := r.Daemon.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	crash()
	if err := os.Remove(server.path); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if list := r.List(t); len(list) != 1 || list[0].ClientHost != "Console-A" || list[0].Rule != "consoles" {
		t.Errorf("without its lease file it has %+v", list)
	}
	if !r.Passes(t, "TCP", 443, a, 443) {
		t.Error("no packet reaches the console")
	}
	crash()
	server.gives(t, lease(a.MAC, a.Addr, "toaster"))
	r.Restart(t)
	if list := r.List(t); len(list) != 0 {
		t.Errorf("what is no console has %+v", list)
	}
	if !r.Blocked(t, "TCP", 443, a, 443) {
		t.Error("a packet reaches what is no console")
	}
}
