package faults

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// configure writes the daemon's configuration: base, and more behind it.
func configure(t *testing.T, r *testrig.Rig, base []byte, more string) {
	t.Helper()
	if err := os.WriteFile(r.Daemon.Config, append(slices.Clip(base), more...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func reloaded(t *testing.T, r *testrig.Rig) control.Reloaded {
	t.Helper()
	done, err := r.Owner.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func configuration(t *testing.T, r *testrig.Rig) control.Configuration {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Configuration
}

// TestReload: a new configuration holds for what is asked for and for what is open: what it
// still allows stays, with its flows, and the rest is closed and named with the reason. A file
// with a mistake changes nothing. What needs a restart is said until there was one.
func TestReload(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	a := r.Host("a")
	base, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	c := opened(t, r, 6000)
	if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 6001, Internal: 6001, Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	pin, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	through := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6001), 6001)
	through6 := begin(t, r, netip.AddrPortFrom(a.Addr6, 9000), 9000)
	first := configuration(t, r)
	if first.File != r.Daemon.Config || len(first.SHA256) != 64 || first.Since == "" || len(first.Restart) != 0 {
		t.Errorf("at first it runs %+v", first)
	}

	before := r.World(t)
	for _, bad := range []string{"[lease]\nmax = 3\n", "[wan]\n", "\n[[rule]]\nname = \"x\"\naction = \"permit\"\n"} {
		configure(t, r, base, bad)
		_, err := r.Owner.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), r.Daemon.Config+":") || !strings.Contains(err.Error(), "the configuration stays as it is") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	configure(t, r, []byte(strings.Replace(string(base), `"br-lan"`, `"wan0"`, 1)), "") // it holds a WAN's address
	if _, err := r.Owner.Reload(t.Context()); err == nil {
		t.Error("the WAN as a LAN is no mistake")
	}
	r.Unchanged(t, before)
	if now := configuration(t, r); now.SHA256 != first.SHA256 || now.Since != first.Since {
		t.Errorf("after files with mistakes it runs %+v", now)
	}

	const stricter = `[upnp]
http_port = 5999
[lease]
max = "30m"
[[rule]]
name = "not any more"
action = "deny"
external_ports = ["6000"]
protocols = ["udp"]
`
	configure(t, r, base, stricter)
	done := reloaded(t, r)
	if len(done.Revoked) != 1 || done.Revoked[0].ExternalPort != 6000 || done.Revoked[0].Reason != "rule-denied" || !strings.Contains(done.Revoked[0].Why, "not any more") {
		t.Errorf("it revoked %+v", done.Revoked)
	}
	if !slices.Equal(done.Changed, []string{"lease.max", "rule"}) || !slices.Equal(done.Restart, []string{"upnp.http_port"}) {
		t.Errorf("it changed %v, and needs a restart for %v", done.Changed, done.Restart)
	}
	through.alive("after the reload")
	through6.alive("after the reload")
	if !r.Blocked(t, "UDP", 6000, a, 6000) {
		t.Error("the revoked mapping is open")
	}
	if err := c.Add(t.Context(), udp(6000)); err == nil {
		t.Error("what the rule denies is granted")
	}
	if err := c.Add(t.Context(), udp(6002)); err != nil || !r.Passes(t, "UDP", 6002, a, 6002) {
		t.Errorf("the next mapping: %v", err)
	}
	for _, m := range r.List(t) {
		if m.ExpiresIn > 30*60 {
			t.Errorf("%d/%s lasts %d s", m.ExternalPort, m.Protocol, m.ExpiresIn)
		}
	}
	if again, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour, Nonce: pin.Nonce}); err != nil || again.Lease > 30*time.Minute {
		t.Errorf("the pinhole is renewed: %+v, %v", again, err)
	}
	if now := configuration(t, r); now.SHA256 == first.SHA256 || !slices.Equal(now.Restart, done.Restart) {
		t.Errorf("after the reload it runs %+v", now)
	}

	// The signal does the same, and the supervisor hears of it.
	configure(t, r, base, strings.Replace(stricter, "6000", "6002", 1))
	stricterSum := configuration(t, r).SHA256
	if err := r.Daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "SIGHUP reloads", func() bool { return configuration(t, r).SHA256 != stricterSum })
	if !r.Blocked(t, "UDP", 6002, a, 6002) {
		t.Error("the mapping is open after SIGHUP")
	}
	if err := c.Add(t.Context(), udp(6000)); err != nil || !r.Passes(t, "UDP", 6000, a, 6000) {
		t.Errorf("what is allowed again: %v", err)
	}
	testrig.Eventually(t, soon, "the supervisor hears of it", func() bool {
		return strings.Count(r.Daemon.Told(), "RELOADING=1\nMONOTONIC_USEC=") == 6 && strings.Count(r.Daemon.Told(), "READY=1") == 7
	})
	if told := r.Daemon.Told(); !strings.Contains(told, "STATUS=serving br-lan; WAN wan0 "+lab.GatewayWAN.String()+"\n") {
		t.Errorf("the supervisor heard\n%s", told)
	}

	// The restart is over, and so is what needed it.
	if err := r.Daemon.HandOver(); err != nil {
		t.Fatal(err)
	}
	if told := r.Daemon.Told(); !strings.HasSuffix(told, "STOPPING=1\n") {
		t.Errorf("at the end the supervisor heard\n%s", told)
	}
	r.Restart(t)
	if now := configuration(t, r); len(now.Restart) != 0 {
		t.Errorf("after the restart it needs one for %v", now.Restart)
	}
	through.alive("after the restart")
}

// TestReloadNetworks: a LAN that the configuration does not name any more is not served, and
// its mappings end; one that it names anew is served at once.
func TestReloadNetworks(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	on(t, n.Gateway, "link add br-old type bridge", "addr add 192.168.99.1/24 dev br-old", "link set br-old up")
	r := testrig.Start(t, n, "")
	c := opened(t, r, 6000)
	base, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	away := strings.Replace(string(base), `"br-lan"`, `"br-old"`, 1)
	configure(t, r, []byte(away), "")
	done := reloaded(t, r)
	if len(done.Revoked) != 1 || done.Revoked[0].ExternalPort != 6000 || !strings.Contains(done.Revoked[0].Why, "br-lan") {
		t.Errorf("it revoked %+v", done.Revoked)
	}
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the mapping of a LAN that is not served is open")
	}
	if err := c.Add(t.Context(), udp(6000)); err == nil {
		t.Error("a LAN that is not served has a mapping")
	}
	configure(t, r, base, "")
	if done := reloaded(t, r); !slices.Equal(done.Changed, []string{"lan.interfaces"}) {
		t.Errorf("it changed %v", done.Changed)
	}
	opened(t, r, 6000)
}

// TestReloadAway: what a new rule does not allow of a LAN that is away is closed when the LAN
// is back.
func TestReloadAway(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	r := testrig.Start(t, n, "")
	c := opened(t, r, 6000)
	if err := c.Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(want bool) {
		t.Helper()
		testrig.Eventually(t, soon, "the LAN comes and goes", func() bool {
			s, err := r.Owner.Status(t.Context())
			return err == nil && want == slices.ContainsFunc(s.LAN, func(l control.LAN) bool { return slices.Contains(l.Prefixes, "192.168.77.0/24") })
		})
	}
	on(t, n.Gateway, "addr del 192.168.77.1/24 dev br-lan")
	serves(false)
	configure(t, r, base, "[[rule]]\nname = \"not any more\"\naction = \"deny\"\nexternal_ports = [\"6000\"]\n")
	if done := reloaded(t, r); len(done.Revoked) != 0 {
		t.Errorf("it revoked %+v", done.Revoked)
	}
	on(t, n.Gateway, "addr add 192.168.77.1/24 dev br-lan")
	serves(true)
	testrig.Eventually(t, soon, "the mapping is revoked", func() bool {
		list := r.List(t)
		return len(list) == 1 && list[0].ExternalPort == 6001
	})
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) || !r.Passes(t, "UDP", 6001, r.Host("a"), 6001) {
		t.Error("not that mapping alone is closed")
	}
}

// TestReloadBesideHungFront: what new terms deny is closed although the front does not take in
// the new network: one that is owned would take its time.
func TestReloadBesideHungFront(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	base, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	opened(t, r, 6000)
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.Sandbox.Front.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	configure(t, r, base, "[[rule]]\nname = \"not any more\"\naction = \"deny\"\nexternal_ports = [\"6000\"]\n")
	answered := make(chan error, 1)
	go func() {
		_, err := r.Owner.Reload(context.WithoutCancel(t.Context()))
		answered <- err
	}()
	testrig.Eventually(t, soon, "the mapping ends", func() bool { return len(r.List(t)) == 0 })
	if now, err := r.Owner.Status(t.Context()); err != nil || now.Sandbox.Front.PID != s.Sandbox.Front.PID {
		t.Errorf("the front was waited for: it was %d, and is %+v, %v", s.Sandbox.Front.PID, now.Sandbox.Front, err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the reload: %v", err)
	}
}
