package faults

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// on runs the ip program on a host, once for each line.
func on(t *testing.T, h *lab.Host, lines ...string) {
	t.Helper()
	for _, line := range lines {
		testrig.On(t, h, "ip", strings.Fields(line)...)
	}
}

// external is NAT-PMP's question for the external address.
var external = []byte{0, 0}

// asked waits until the gateway answers NAT-PMP and PCP at an address, from there.
func asked(t *testing.T, h *lab.Host, at netip.Addr) {
	t.Helper()
	testrig.Eventually(t, soon, "an answer from "+at.String(), func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, err := h.Exchange(ctx, at, external)
		return err == nil && len(answer) == 12
	})
	m := lab.MapRequest{Gateway: at, Protocol: "UDP", Internal: 7000, Lease: time.Hour}
	if _, err := mapPCP(t, h, m); err != nil {
		t.Errorf("PCP at %s: %v", at, err)
	}
}

// TestSecondSubnet: L17. Two networks on one bridge: a client of the second is answered at
// its own router's address, in every protocol, and told of that address; and at the
// first one as well.
func TestSecondSubnet(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	on(t, n.Gateway, "addr add 10.10.0.1/24 dev br-lan")
	a := n.Host("a")
	on(t, a, "-4 addr flush dev eth0", "addr add 10.10.0.5/24 dev eth0", "route add default via 10.10.0.1")
	a.Addr = netip.MustParseAddr("10.10.0.5")
	r := testrig.Start(t, n, "")
	own := netip.MustParseAddr("10.10.0.1")
	asked(t, a, own)
	asked(t, a, lab.GatewayLAN)
	asked(t, n.Host("b"), lab.GatewayLAN)
	for name, c := range map[string]struct {
		host   string
		search lab.Search
		at     netip.Addr
	}{
		"multicast":             {"a", lab.Search{Target: lab.IGD1}, own},
		"unicast":               {"a", lab.Search{Target: lab.IGD1, To: netip.AddrPortFrom(own, 1900)}, own},
		"unicast to the first":  {"a", lab.Search{Target: lab.IGD1, To: netip.AddrPortFrom(lab.GatewayLAN, 1900)}, lab.GatewayLAN},
		"host of the first":     {"b", lab.Search{Target: lab.IGD1}, lab.GatewayLAN},
		"everything, in a time": {"a", lab.Search{Target: "ssdp:all"}, own},
	} {
		found := testrig.Found(t, lab.NewControlPoint(n.Host(c.host)), c.search)
		if from := found.From.Addr(); from != c.at || !strings.HasPrefix(found.Location(), "http://"+c.at.String()+":5000/") {
			t.Errorf("%s: answered from %s, LOCATION %s; want %s", name, from, found.Location(), c.at)
		}
	}
	if err := r.Point(t, "a", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6000)); err != nil {
		t.Fatal(err)
	}
	working(t, r, 6000)
}

// TestVirtualAddress: L17. The same for an address that several routers share and that comes
// and goes (VRRP, CARP): it is served while it is here, announced when it comes, and
// the others do not notice.
func TestVirtualAddress(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	a := r.Host("a")
	opened(t, r, 6000)
	shared := netip.MustParseAddr("192.168.77.254")
	ear, err := a.ListenPacket("0.0.0.0:5350")
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	for _, round := range []string{"at first", "again"} {
		ip(t, r, "addr add 192.168.77.254/32 dev br-lan")
		asked(t, a, shared)
		asked(t, a, lab.GatewayLAN)
		if err := ear.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		for buf, heard := make([]byte, 64), false; !heard; {
			_, from, err := ear.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatalf("%s: nothing is announced from %s", round, shared)
			}
			heard = from.Addr() == shared
		}
		// A client that puts its router's address into the URL, as Tailscale does.
		c := lab.NewControlPoint(a)
		found := testrig.Found(t, c, lab.Search{Target: lab.IGD1})
		if found.From.Addr() != lab.GatewayLAN {
			t.Errorf("%s: found at %s", round, found.From)
		}
		location := strings.Replace(found.Location(), lab.GatewayLAN.String(), shared.String(), 1)
		if err := c.Read(t.Context(), location, lab.WANIP1); err != nil {
			t.Fatalf("%s: %v", round, err)
		}
		if err := c.Add(t.Context(), udp(6001)); err != nil {
			t.Errorf("%s: %v", round, err)
		}
		ip(t, r, "addr del 192.168.77.254/32 dev br-lan")
		r.Logged(t, "serving a LAN")
		working(t, r, 6000)
	}
}

// TestIPv6OnlyLAN: L17. A named LAN without IPv4 is served by IPv6: discovery, pinholes by
// UPnP and PCP; and by IPv4 as soon as it has that.
func TestIPv6OnlyLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	ipv4 := "addr add " + lab.GatewayLAN.String() + "/24 dev br-lan"
	on(t, n.Gateway, "-4 addr flush dev br-lan")
	r := testrig.Start(t, n, "")
	a := n.Host("a")
	m := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, a, m); err != nil {
		t.Fatal(err)
	}
	begin(t, r, netip.AddrPortFrom(a.Addr6, 9000), 9000).alive("through the pinhole of PCP")
	c := lab.NewControlPoint(a)
	search := lab.Search{Target: lab.IGD2, To: lab.Group6SiteLocal}
	testrig.Eventually(t, soon, "a search by IPv6 finds it", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return c.FindBy(ctx, search, lab.WANIPv6FC1) == nil
	})
	for _, f := range examinedRunning(t, r).Findings {
		if f.Level == "failure" {
			t.Errorf("doctor: %+v", f)
		}
	}

	on(t, n.Gateway, ipv4)
	asked(t, a, lab.GatewayLAN)
	opened(t, r, 6000)
}

// TestLANComesLater: L17. A LAN that is not there when the gate starts is waited for: it
// is ready, says what it waits for, and serves as soon as the LAN is there; by name
// and by detection.
func TestLANComesLater(t *testing.T) {
	t.Parallel()
	detect := strings.Replace(lab.Settings, `interfaces = ["br-lan"]`, "", 1)
	for name, c := range map[string]struct{ config, away, back string }{
		"down":                  {lab.Settings, "link set br-lan down", "link set br-lan up"},
		"not there":             {lab.Settings, "link set br-lan name later", "link set later name br-lan"},
		"no address":            {lab.Settings, "addr flush dev br-lan", "addr add 192.168.77.1/24 dev br-lan"},
		"detection":             {detect, "-4 addr flush dev br-lan", "addr add 192.168.77.1/24 dev br-lan"},
		"detection, after down": {detect, "link set br-lan down", "link set br-lan up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			on(t, n.Gateway, c.away)
			r := testrig.StartWith(t, n, c.config)
			r.Logged(t, `level=WARN msg="waiting for a LAN"`)
			on(t, n.Gateway, c.back)
			opened(t, r, 6000)
			r.Logged(t, "every LAN is served")
		})
	}
}
