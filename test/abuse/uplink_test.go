package abuse

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// ip runs the ip program on a host, once for each line.
func ip(t *testing.T, h *lab.Host, lines ...string) {
	t.Helper()
	for _, line := range lines {
		testrig.On(t, h, "ip", strings.Fields(line)...)
	}
}

// detecting is the lab's configuration without the name of the LAN.
var detecting = strings.Replace(lab.Settings, `interfaces = ["br-lan"]`, "", 1)

// secondUplink is a network with another uplink, of a modem that is a router itself.
func secondUplink(t *testing.T) *lab.Network {
	t.Helper()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("lte0", "modem", netip.MustParsePrefix("192.168.8.0/24")); err != nil {
		t.Fatal(err)
	}
	return n
}

// unserved proves that nobody answers on the modem's side.
func unserved(t *testing.T, r *rig) {
	t.Helper()
	modem := r.Host("modem")
	before := r.World(t)
	at := netip.MustParseAddr("192.168.8.1")
	for what, to := range map[string]netip.AddrPort{
		string(search(lab.IGD1)): netip.AddrPortFrom(at, 1900), "\x00\x00": netip.AddrPortFrom(at, 5351),
		"\x00\x01\x00\x00\x1a\xe1\x1a\xe1\x00\x00\x0e\x10": netip.AddrPortFrom(at, 5351),
	} {
		if hears(t, modem, to, []byte(what)) {
			t.Errorf("%s answers % x", to, what)
		}
	}
	if answer := raw(t, modem, hostPort(at, 5000), "GET / HTTP/1.1\r\nHost: 192.168.8.1:5000\r\n\r\n"); status(answer) != "" {
		t.Errorf("control answers %q", answer)
	}
	r.Unchanged(t, before, "L5")
}

// TestSecondUplink: L5. By detection, an interface with a way to the Internet in any table
// is no LAN: for mwan, pbr, systemd's RouteTable=, wg-quick, in both families, with and
// without a rule at the moment.
func TestSecondUplink(t *testing.T) {
	t.Parallel()
	for name, routes := range map[string][]string{
		"table": {"route add default via 192.168.8.10 dev lte0 table 100"},
		"table and rule": {"route add default via 192.168.8.10 dev lte0 table 100",
			"rule add from 192.168.77.3 lookup 100"},
		"wg-quick": {"route add default dev lte0 table 51820", "rule add not fwmark 51820 table 51820 priority 30001",
			"rule add table main suppress_prefixlength 0 priority 30000"},
		"halves":                   {"route add 0.0.0.0/1 via 192.168.8.10 dev lte0", "route add 128.0.0.0/1 via 192.168.8.10 dev lte0"},
		"IPv6":                     {"-6 route add default via fe80::99 dev lte0 table 100"},
		"IPv6, all that is global": {"-6 route add 2000::/3 dev lte0 table 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := secondUplink(t)
			ip(t, n.Gateway, routes...)
			r := &rig{testrig.StartWith(t, n, detecting)}
			r.Logged(t, "lte0 is not served")
			unserved(t, r)
			if name == "wg-quick" || name == "halves" {
				return // what the LAN's mappings are good for there is another matter
			}
			if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil || !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
				t.Errorf("the LAN beside it: %v", err)
			}
		})
	}
}

// TestUplinkComesAndGoes: L5. The same where the route comes while the gate serves there,
// and goes for a moment, as with a modem that connects anew: what led outside once is
// no LAN by detection.
func TestUplinkComesAndGoes(t *testing.T) {
	t.Parallel()
	n := secondUplink(t)
	r := &rig{testrig.StartWith(t, n, detecting)}
	testrig.Found(t, lab.NewControlPoint(r.Host("modem")), lab.Search{Target: lab.IGD1})
	closed := func() bool { return !strings.Contains(served(t, r), "lte0") }
	ip(t, n.Gateway, "route add default via 192.168.8.10 dev lte0 table 100")
	testrig.Eventually(t, soon, "nobody is served at the uplink", closed)
	unserved(t, r)
	ip(t, n.Gateway, "route del default via 192.168.8.10 dev lte0 table 100", "link add seen type bridge", "addr add 10.77.1.1/24 dev seen", "link set seen up")
	testrig.Eventually(t, soon, "the change is seen", func() bool { return strings.Contains(served(t, r), "seen") })
	if !closed() {
		t.Error("without its route for a moment the uplink is a LAN again")
	}
	unserved(t, r)
}

// served returns the names of the LANs as the owner sees them.
func served(t *testing.T, r *rig) (names string) {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.LAN {
		names += l.Interface + " "
	}
	return names
}

// TestNamedUplink: L5. An owner who names such an interface is served there, and warned,
// in the log and by doctor; and of a network that is on two interfaces.
func TestNamedUplink(t *testing.T) {
	t.Parallel()
	n := secondUplink(t)
	ip(t, n.Gateway, "route add default via 192.168.8.10 dev lte0 table 100", "addr add 192.168.77.200/25 dev wan0")
	config := strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "lte0"]`, 1)
	r := &rig{testrig.StartWith(t, n, config)}
	testrig.Found(t, lab.NewControlPoint(r.Host("modem")), lab.Search{Target: lab.IGD1})
	for _, warning := range []string{
		"lte0 is served because lan.interfaces names it, but the default route through 192.168.8.10 in table 100 leads to the Internet by it",
		"br-lan (192.168.77.0/24) and the WAN wan0 (192.168.77.128/25) use overlapping networks",
	} {
		line := fmt.Sprintf("level=WARN msg=\"network warning\" why=%q", warning)
		r.Logged(t, strings.TrimSuffix(line, `"`))
	}
	found := testrig.On(t, r.Gateway, testrig.Exe, "doctor", "--config", r.Daemon.Config)
	for _, warning := range []string{"warning  lte0 is served because lan.interfaces names it", "warning  br-lan (192.168.77.0/24) and the WAN"} {
		if !strings.Contains(found, warning) {
			t.Errorf("doctor does not say %q:\n%s", warning, found)
		}
	}
	ip(t, n.Gateway, "addr add 10.88.0.1/24 dev br-lan")
	testrig.Eventually(t, soon, "another reading", func() bool {
		s, err := r.Owner.Status(t.Context())
		return err == nil && slices.Contains(s.LAN[0].Prefixes, "10.88.0.0/24")
	})
	if said := strings.Count(r.Daemon.Log(), "leads to the Internet by it"); said != 1 {
		t.Errorf("said %d times", said)
	}
}
