package faults

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// ip runs the ip program on the gateway, once for each line.
func ip(t *testing.T, r *testrig.Rig, lines ...string) {
	t.Helper()
	for _, line := range lines {
		testrig.On(t, r.Gateway, "ip", strings.Fields(line)...)
	}
}

// reached reports whether a UDP packet from the Internet to an address and port of
// the gateway arrives at host a.
func reached(t *testing.T, r *testrig.Rig, at netip.Addr, port uint16, wait time.Duration) bool {
	t.Helper()
	arrived, _, err := lab.Probe(t.Context(), "UDP", r.Internet, netip.AddrPortFrom(at, port), r.Host("a"), port, wait)
	if err != nil {
		t.Fatal(err)
	}
	return arrived
}

// TestWANAddress: another external address: the mapping works there and no more at the
// old one, and every protocol tells the new one.
func TestWANAddress(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	next := netip.MustParseAddr("203.0.113.9")
	ip(t, r, "addr del 203.0.113.5/24 dev wan0", "addr add 203.0.113.9/24 dev wan0", "route replace default via 203.0.113.66 dev wan0")
	testrig.Eventually(t, soon, "the mapping works at the new address", func() bool {
		return reached(t, r, next, 6000, 300*time.Millisecond)
	})
	if reached(t, r, lab.GatewayWAN, 6000, 300*time.Millisecond) {
		t.Error("it still works at the old one")
	}
	r.Logged(t, `is="wan0 203.0.113.9"`)
	out, err := c.Call(t.Context(), "GetExternalIPAddress")
	if err != nil || out["NewExternalIPAddress"] != next.String() {
		t.Errorf("UPnP tells %v, %v", out, err)
	}
	s, err := r.Owner.Status(t.Context())
	if err != nil || s.WAN.ExternalIP != next.String() {
		t.Errorf("the owner sees %+v, %v", s.WAN, err)
	}
}

// TestWANAway: the link goes and comes back, the device is made anew as a PPP
// session's is, the default route moves away and back.
func TestWANAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ away, back []string }{
		"link":    {[]string{"link set wan0 down"}, []string{"link set wan0 up", "route add default via 203.0.113.66 dev wan0"}},
		"address": {[]string{"addr flush dev wan0"}, []string{"addr add 203.0.113.5/24 dev wan0", "route add default via 203.0.113.66 dev wan0"}},
		"route":   {[]string{"route del default"}, []string{"route add default via 203.0.113.66 dev wan0"}},
		"renamed": {[]string{"link set wan0 down", "link set wan0 name ppp9"},
			[]string{"link set ppp9 name wan0", "link set wan0 up", "route replace default via 203.0.113.66 dev wan0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			point := opened(t, r, 6000)
			ip(t, r, c.away...)
			ip(t, r, c.back...)
			working(t, r, 6000)
			// As good as new for another mapping.
			testrig.Eventually(t, soon, "another mapping is granted", func() bool {
				return point.Add(t.Context(), udp(6001)) == nil
			})
			working(t, r, 6001)
		})
	}
}

// TestWANMadeAnew: the WAN's device is another one of the same name, as that of each
// PPP session is.
func TestWANMadeAnew(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	point := opened(t, r, 6000)
	ip(t, r, "link del wan0")
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: lab.WANInterface},
		PeerName:  lab.HostPort, PeerNamespace: netlink.NsFd(r.Internet.Namespace()),
	}
	if err := r.Gateway.Netlink().LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"link set eth0 up", "addr add 203.0.113.66/24 dev eth0", "addr add 203.0.113.67/24 dev eth0"} {
		testrig.On(t, r.Internet, "ip", strings.Fields(line)...)
	}
	ip(t, r, "link set wan0 up", "addr add 203.0.113.5/24 dev wan0", "route add default via 203.0.113.66 dev wan0")
	working(t, r, 6000)
	testrig.Eventually(t, soon, "another mapping is granted", func() bool { return point.Add(t.Context(), udp(6001)) == nil })
	working(t, r, 6001)
}

// TestLANAddress: the gateway's own address on the LAN changes: it is found and
// asked there, and what was open stays open.
func TestLANAddress(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	opened(t, r, 6000)
	ip(t, r, "addr del 192.168.77.1/24 dev br-lan", "addr add 192.168.77.254/24 dev br-lan")
	testrig.On(t, r.Host("a"), "ip", "route", "replace", "default", "via", "192.168.77.254")
	working(t, r, 6000)
	c := lab.NewControlPoint(r.Host("a"))
	testrig.Eventually(t, soon, "a search finds it at the new address", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return c.Find(ctx, lab.IGD1, lab.WANIP1) == nil && strings.Contains(c.Control, "192.168.77.254")
	})
	if err := c.Add(t.Context(), udp(6001)); err != nil {
		t.Errorf("asked at the new address: %v", err)
	}
	working(t, r, 6001)
}

// TestLANComesAndGoes: a second LAN that goes away troubles nobody, and is served
// again when it is back, as another device of the same name.
func TestLANComesAndGoes(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	prefix := netip.MustParsePrefix("192.168.88.0/24")
	if err := n.AddInterface("guest0", "guest", prefix); err != nil {
		t.Fatal(err)
	}
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "guest0"]`, 1))
	opened(t, r, 6000)
	if err := r.Point(t, "guest", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	ip(t, r, "link del guest0")
	working(t, r, 6000)
	r.Logged(t, `msg="discovery withdrawn" subsystem=ssdp interface=guest0 address=192.168.88.1`)
	if log := r.Daemon.Log(); strings.Contains(log, "announcement not sent") || strings.Contains(log, "level=WARN") {
		t.Errorf("a LAN that goes away alarms:\n%s", log)
	}
	if err := n.AddInterface("guest0", "guest again", prefix); err != nil {
		t.Fatal(err)
	}
	c := lab.NewControlPoint(r.Host("guest again"))
	testrig.Eventually(t, soon, "the LAN that is back is served", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return c.Find(ctx, lab.IGD1, lab.WANIP1) == nil && c.Add(ctx, udp(6002)) == nil
	})
	working(t, r, 6000)
}

// udp is a mapping of a UDP port to the same one inside.
func udp(port uint16) lab.Mapping {
	return lab.Mapping{Protocol: "UDP", External: port, Internal: port, Lease: time.Hour}
}

// TestStartWithoutWAN: it starts before the WAN is there, says no for the right reason,
// and works when the WAN has come.
func TestStartWithoutWAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	testrig.On(t, n.Gateway, "ip", "link", "set", "wan0", "down")
	r := testrig.Start(t, n, "")
	c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), udp(6000)); err == nil {
		t.Error("granted without a WAN")
	}
	ip(t, r, "link set wan0 up", "route replace default via 203.0.113.66 dev wan0")
	testrig.Eventually(t, soon, "a mapping is granted", func() bool { return c.Add(t.Context(), udp(6000)) == nil })
	working(t, r, 6000)
}

// TestLANWithoutIPv6: an interface that has no IPv6 turns it off for no other one.
func TestLANWithoutIPv6(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
		t.Fatal(err)
	}
	if err := n.Gateway.SetSysctl("ipv6/conf/guest0/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "guest0"]`, 1))
	a := r.Host("a")
	m := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, a, m); err != nil {
		t.Errorf("the LAN with IPv6: %v", err)
	}
	if err := r.Point(t, "guest", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6000)); err != nil {
		t.Errorf("the LAN without: %v", err)
	}
}

// TestRemoteHostSurvives: miniupnp 779 and 907. A mapping for one remote host stays
// one over a reload of the firewall, a renewal and a crash.
func TestRemoteHostSurvives(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	a := r.Host("a")
	m := lab.MapRequest{
		Protocol: "UDP", Internal: 6000, Suggested: 6000, Lease: time.Hour, Nonce: [12]byte{1},
		Options: lab.Filter(netip.PrefixFrom(lab.InternetTwo, 32), 0),
	}
	to := netip.AddrPortFrom(lab.GatewayWAN, 6000)
	restricted := func(when string) {
		t.Helper()
		testrig.Eventually(t, soon, when+": its remote host reaches it", func() bool {
			return r.Reaches(t, "UDP", lab.InternetTwo, to, a, 300*time.Millisecond)
		})
		if r.Reaches(t, "UDP", lab.InternetOne, to, a, 300*time.Millisecond) {
			t.Errorf("%s: another host reaches it", when)
		}
	}
	ask := func() {
		t.Helper()
		if _, err := mapPCP(t, a, m); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	restricted("at first")
	nft(t, r, "flush ruleset\n"+hostRules)
	restricted("after a reload")
	ask()
	restricted("renewed")
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	restricted("after a crash")
	ask()
	if n := len(r.List(t)); n != 1 {
		t.Errorf("%d mappings", n)
	}
}

// TestFlappingBridge: L15. A LAN bridge that is made anew again and again costs a bounded
// number of log lines, and is served when it stays.
func TestFlappingBridge(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
		t.Fatal(err)
	}
	made := []string{"link add br-flap type bridge", "link set guest0 master br-flap", "link set br-flap up",
		"addr flush dev guest0", "addr add 192.168.88.1/24 dev br-flap"}
	ip(t, &testrig.Rig{Network: n}, made...)
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-flap"]`, 1))
	began, before := time.Now(), strings.Count(r.Daemon.Log(), "\n")
	seen := func(state string) bool {
		s, err := r.Owner.Status(t.Context())
		return err == nil && (len(s.LAN) > 0) == (state == "there")
	}
	for range 25 {
		ip(t, r, "link del br-flap")
		testrig.Eventually(t, soon, "the bridge is gone", func() bool { return seen("gone") })
		ip(t, r, made...)
		testrig.Eventually(t, soon, "the bridge is served", func() bool { return seen("there") })
	}
	c := lab.NewControlPoint(r.Host("guest"))
	testrig.Eventually(t, soon, "the bridge that stays is served", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return c.Find(ctx, lab.IGD1, lab.WANIP1) == nil
	})
	minutes := 1 + int(time.Since(began)/time.Minute)
	if lines := strings.Count(r.Daemon.Log(), "\n") - before; lines > 70+minutes {
		t.Errorf("%d lines in %d minutes", lines, minutes)
	}
}

// TestQuotaOfLAN: K1. A LAN that has its mappings, of both families, gets no more by any
// protocol, and takes none from another; what a reload allows it gets at once.
func TestQuotaOfLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
		t.Fatal(err)
	}
	base := strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "guest0"]`, 1)
	r := testrig.StartWith(t, n, base+"[limits]\nmappings_per_lan = 2\n")
	c := opened(t, r, 6000) // of host a
	pinhole(t, r.Host("a"))

	var upnp *lab.UPnPError
	var pcp *lab.Refusal
	b := r.Point(t, "b", lab.IGD1, lab.WANIP1)
	if err := b.Add(t.Context(), udp(6001)); !errors.As(err, &upnp) {
		t.Errorf("by UPnP: %v", err)
	}
	for name, m := range map[string]lab.MapRequest{
		"IPv4": {Protocol: "UDP", Internal: 6002, Lease: time.Hour},
		"IPv6": {Gateway: lab.GatewayLinkLocal, Source: r.Host("b").Addr6, Protocol: "TCP", Internal: 9001, Lease: time.Hour},
	} {
		if _, err := mapPCP(t, r.Host("b"), m); !errors.As(err, &pcp) || pcp.Code != 8 { // NO_RESOURCES, RFC 6887 section 7.4
			t.Errorf("by PCP and %s: %v", name, err)
		}
	}
	r.Logged(t, `the hosts on br-lan have 2 of 2 mappings (limits.mappings_per_lan)`)
	if err := c.Add(t.Context(), udp(6000)); err != nil {
		t.Errorf("a renewal is refused: %v", err)
	}
	if err := r.Point(t, "guest", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6003)); err != nil {
		t.Errorf("the other LAN is refused: %v", err)
	}
	file, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	configure(t, r, []byte(strings.Replace(string(file), "mappings_per_lan = 2", "mappings_per_lan = 3", 1)), "")
	if done := reloaded(t, r); !slices.Contains(done.Changed, "limits.mappings_per_lan") {
		t.Errorf("reloaded %+v", done)
	}
	if err := b.Add(t.Context(), udp(6001)); err != nil {
		t.Errorf("after the reload: %v", err)
	}
}
