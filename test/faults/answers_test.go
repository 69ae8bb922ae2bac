package faults

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// distant are peers behind the provider's router: who is on the WAN's own network is
// answered there in any case.
var distant, distant6 = netip.MustParseAddr("99.9.9.9"), netip.MustParseAddr("2a00:9999::9")

// tunnelled is a home whose gateway has a tunnel to somewhere else, with these routes
// and rules.
func tunnelled(t *testing.T, lines ...string) *lab.Network {
	t.Helper()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("wg0", "provider", netip.MustParsePrefix("10.66.0.0/24")); err != nil {
		t.Fatal(err)
	}
	on(t, n.Internet, "addr add 99.9.9.9/32 dev lo", "-6 addr add 2a00:9999::9/128 dev lo nodad")
	on(t, n.Gateway, lines...)
	return n
}

// wgQuick is a tunnel for everything as wg-quick sets it up, in both families.
var wgQuick = []string{
	"route add default via 10.66.0.10 dev wg0 table 51820", "rule add not fwmark 51820 table 51820 priority 100",
	"rule add table main suppress_prefixlength 0 priority 99",
	"-6 route add default via fe80::99 dev wg0 table 51820", "-6 rule add not fwmark 51820 table 51820 priority 100",
	"-6 rule add table main suppress_prefixlength 0 priority 99",
}

// connects reports whether a peer reaches a mapping of host a by TCP, for which answers
// must come back.
func connects(t *testing.T, r *testrig.Rig, from netip.Addr, to netip.AddrPort, wait time.Duration) bool {
	t.Helper()
	return r.Reaches(t, "TCP", from, to, r.Host("a"), wait)
}

// TestAnswersStray: L18. Where answers to the Internet leave by another interface than the
// WAN, doctor names it, the rule and the table, and the log warns when it comes to be
// so; connections do not come about then.
func TestAnswersStray(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		network []string
		id      string
		level   string
		words   []string
		works   bool // for host a
		works6  bool
	}{
		"no tunnel":      {nil, "answers", "ok", []string{"wan0"}, true, true},
		"wg-quick":       {wgQuick, "answers", "failure", []string{"br-lan", "by wg0", "table 51820", "rule 100: not fwmark 0xca6c lookup 51820", "firewalls.md"}, false, false},
		"wg-quick, IPv6": {wgQuick, "answers6", "failure", []string{"by wg0", "IPv6", "rule 100: not fwmark 0xca6c lookup 51820"}, false, false},
		"OpenVPN's halves": {[]string{"route add 0.0.0.0/1 via 10.66.0.10", "route add 128.0.0.0/1 via 10.66.0.10"},
			"answers", "failure", []string{"by wg0", "the main routing table"}, false, true},
		"a LAN by its source": {[]string{"route add default via 10.66.0.10 table 7", "rule add from 192.168.77.0/24 lookup 7"},
			"answers", "failure", []string{"by wg0", "table 7", "from 192.168.77.0/24 lookup 7"}, false, true},
		"one host": {[]string{"route add default via 10.66.0.10 table 7", "rule add from 192.168.77.10 lookup 7"},
			"answers", "warning", []string{"192.168.77.10/32", "by wg0", "table 7"}, false, true},
		"no route": {[]string{"rule add from 192.168.77.0/24 prohibit"}, "answers", "failure", []string{"have no route over", "ip route get"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := tunnelled(t, c.network...)
			s, failed := examined(t, n, lab.Settings)
			if !s.has(c.id, c.level, c.words...) || failed != (c.level == "failure") {
				t.Errorf("exit %v: %+v", failed, s)
			}
			r := testrig.Start(t, n, "")
			port, six := mapped(t, r)
			if c.level == "ok" {
				if strings.Contains(r.Daemon.Log(), "mappings may not work") {
					t.Error("it warns of nothing")
				}
			} else if name != "no route" {
				r.Logged(t, `level=WARN msg="mappings may not work"`)
			}
			if got := connects(t, r, distant, port, waitFor(c.works)); got != c.works {
				t.Errorf("a peer connects by IPv4: %v", got)
			}
			if got := connects(t, r, distant6, six, waitFor(c.works6)); got != c.works6 {
				t.Errorf("a peer connects by IPv6: %v", got)
			}
		})
	}
}

func waitFor(works bool) time.Duration {
	if works {
		return soon
	}
	return 700 * time.Millisecond
}

// mapped opens a TCP port of host a in both families and gives where it is reached.
func mapped(t *testing.T, r *testrig.Rig) (four, six netip.AddrPort) {
	t.Helper()
	a := r.Host("a")
	if _, err := mapPCP(t, a, lab.MapRequest{Protocol: "TCP", Internal: 6881, Suggested: 6881, Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 6881, Lease: time.Hour}
	if _, err := mapPCP(t, a, pin); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(lab.GatewayWAN, 6881), netip.AddrPortFrom(a.Addr6, 6881)
}

// sendBack is what docs/firewalls.md says under "Answers that leave by another way".
const sendBack = `table inet send_back {
	chain marks {
		type filter hook prerouting priority mangle; policy accept;
		iifname "wan0" ct state new ct mark set ct mark or 0x10000
		iifname != "wan0" ct direction reply ct mark and 0x10000 == 0x10000 meta mark set meta mark or 0x10000
	}
}`

var sendBackRoutes = []string{
	"route add default via 203.0.113.66 dev wan0 table 77", "rule add fwmark 0x10000/0x10000 lookup 77 priority 50",
	"-6 route add default via 2001:db8:5::66 dev wan0 table 77", "-6 rule add fwmark 0x10000/0x10000 lookup 77 priority 50",
}

// TestAnswersSentBack: L18. Where a mark of the owner's rules sends answers back, doctor sees
// the mark on a packet and says that all is well; as it is.
func TestAnswersSentBack(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../docs/firewalls.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range append([]string{sendBack}, sendBackRoutes...) {
		if !strings.Contains(string(guide), part) {
			t.Errorf("the guide has another text than %s", part)
		}
	}
	n := tunnelled(t, wgQuick...)
	on(t, n.Gateway, sendBackRoutes...)
	nft(t, &testrig.Rig{Network: n}, sendBack)
	s, failed := examined(t, n, lab.Settings)
	if !s.has("answers", "ok", "wan0") || s.has("answers6", "failure") || failed {
		t.Errorf("exit %v: %+v", failed, s)
	}
	r := testrig.Start(t, n, "")
	port, six := mapped(t, r)
	if !connects(t, r, distant, port, soon) || !connects(t, r, distant6, six, soon) {
		t.Error("the remedy does not help")
	}
}

// TestAnswersStrayLater: L18. A tunnel that comes up while the gate runs is warned of, once
// each time.
func TestAnswersStrayLater(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, tunnelled(t), "")
	const warning = "mappings may not work"
	for round := 1; round <= 2; round++ {
		ip(t, r, wgQuick[:3]...)
		testrig.Eventually(t, soon, "the tunnel is warned of", func() bool { return strings.Count(r.Daemon.Log(), warning) == round })
		ip(t, r, "rule del not fwmark 51820 table 51820 priority 100") // and nothing else changes
		testrig.Eventually(t, soon, "its end is seen", func() bool { return strings.Count(r.Daemon.Log(), "leave by the WAN again") == round })
		ip(t, r, "rule del table main suppress_prefixlength 0 priority 99", "route flush table 51820")
	}
}
