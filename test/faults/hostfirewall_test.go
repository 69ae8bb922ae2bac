package faults

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// hostFirewall is one that gateways have, and what docs/firewalls.md says that its
// owner must configure for us.
type hostFirewall struct {
	section  string // of the configuration, in place of accept_chain
	start    func(*testing.T, *testrig.Rig) []reload
	forwards bool // it forwards UDP port 7070 itself
}

// reload is one way in which a firewall writes all of its rules anew.
type reload struct {
	name string
	do   func(*testing.T)
}

// byNFT loads a ruleset, as nftables.service does.
func byNFT(ruleset string) func(*testing.T, *testrig.Rig) []reload {
	return func(t *testing.T, r *testrig.Rig) []reload {
		t.Helper()
		load := func(t *testing.T) { t.Helper(); nft(t, r, ruleset) }
		load(t)
		return []reload{{"loaded again", load}}
	}
}

const (
	oneTable = `flush ruleset
table inet filter {
	chain input { type filter hook input priority filter; policy accept; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "br-lan" oifname "wan0" accept
		meta l4proto ipv6-icmp accept
	}
}
table ip nat {
	chain prerouting { type nat hook prerouting priority dstnat; iifname "wan0" udp dport { 7069, 7070 } dnat to 192.168.77.20; }
	chain postrouting { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
}
`
	// besideIPTables leaves the tables of iptables alone, of which Docker's drop, too.
	besideIPTables = `table inet filter {
	chain input { type filter hook input priority filter; policy accept; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "br-lan" oifname "wan0" accept
		meta l4proto ipv6-icmp accept
	}
}
`
	twoTables = `flush ruleset
table ip filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "br-lan" oifname "wan0" accept
	}
}
table ip6 filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "br-lan" oifname "wan0" accept
		meta l4proto ipv6-icmp accept
	}
}
table ip nat {
	chain postrouting { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
}
`
)

// TestHostFirewalls: with what docs/firewalls.md says, a mapping and a pinhole pass the
// host's own firewall, nothing else does, and after its reload they pass again without
// anybody doing anything. A clean stop leaves the owner's rules as they were.
func TestHostFirewalls(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]hostFirewall{
		"nftables.service, one table for both families": {`accept_chain = "inet filter forward"`, byNFT(oneTable), true},
		"nftables.service, a table for each": {
			"accept_chain = \"ip filter forward\"\naccept_chain6 = \"ip6 filter forward\"", byNFT(twoTables), false,
		},
		"Docker beside iptables": {`backend = "iptables"`, startDocker, false},
		"Docker beside nftables.service": {"backend = \"iptables\"\naccept_chain = \"inet filter forward\"", func(t *testing.T, r *testrig.Rig) []reload {
			t.Helper()
			nft(t, r, besideIPTables)
			return append(startDocker(t, r), byNFT("flush table inet filter\n"+besideIPTables)(t, r)...)
		}, false},
		"firewalld":                              {`accept_chain = "inet firewalld filter_FORWARD"`, startFirewalld, true},
		"firewalld on iptables":                  {`backend = "iptables"`, startFirewalldOnIPTables, true},
		"ufw":                                    {`backend = "iptables"`, startUFW("nft", ""), true},
		"ufw on iptables-legacy":                 {"", startUFW("legacy", ""), true},
		"ufw, which manages the built-in chains": {`backend = "iptables"`, startUFW("nft", "MANAGE_BUILTINS=yes\n"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a", "b")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			reloads := h.start(t, &testrig.Rig{Network: n})
			before := rules(t, n.Gateway)
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, h.section, 1))
			a, b := r.Host("a"), r.Host("b")
			closed(t, r, a, b)
			c := opened(t, r, 6000)
			pinhole(t, a)
			both(t, r, a)
			var refused *lab.UPnPError
			if h.forwards {
				if err := c.Add(t.Context(), udp(7070)); !errors.As(err, &refused) || refused.Code != 718 {
					t.Errorf("a port that the firewall forwards is asked for: %v", err)
				}
			}
			for _, again := range reloads {
				said := len(r.Daemon.Log())
				lost := during(t, r, a, func() { again.do(t) })
				end := time.Now()
				both(t, r, a)
				// What is mended in a moment calls nobody. A restart takes seconds.
				log := r.Daemon.Log()[said:]
				if strings.Contains(log, "level=ERROR") || strings.HasSuffix(again.name, "--reload") && strings.Contains(log, "the accept chain;") {
					t.Errorf("%s alarms:\n%s", again.name, log)
				}
				t.Logf("%s: %s, open again at most %v later", again.name, lost, time.Since(end))
				if n := len(r.List(t)); n != 2 {
					t.Errorf("%s: the owner sees %d", again.name, n)
				}
				for _, to := range []netip.AddrPort{netip.AddrPortFrom(a.Addr6, 9001), netip.AddrPortFrom(b.Addr6, 9000)} {
					if through(t, r, to, b, 300*time.Millisecond) {
						t.Errorf("%s: %s is reached", again.name, to)
					}
				}
			}
			if err := r.Daemon.Stop(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, rules(t, n.Gateway)); diff != "" {
				t.Errorf("the owner's rules before and after (-before +after):\n%s", diff)
			}
		})
	}
}

// TestHostFirewallsUntold: without what docs/firewalls.md says, they are closed: IPv6
// with all, and IPv4 but for firewalld, which accepts what was translated.
func TestHostFirewallsUntold(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]struct {
		start func(*testing.T, *testrig.Rig) []reload
		ipv4  bool
	}{
		"nftables.service": {byNFT(oneTable), false},
		"firewalld":        {startFirewalld, true},
		"ufw":              {startUFW("nft", ""), false},
		"Docker":           {startDocker, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			h.start(t, &testrig.Rig{Network: n})
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, "", 1))
			a := r.Host("a")
			if err := r.Point(t, "a", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(6000)); err != nil {
				t.Fatal(err)
			}
			pinhole(t, a)
			for i, to := range holes(a) {
				if got, want := through(t, r, to, a, 300*time.Millisecond), i == 0 && h.ipv4; got != want {
					t.Errorf("%s is reached: %v, want %v", to, got, want)
				}
			}
		})
	}
}

// pinhole opens UDP port 9000 of a host.
func pinhole(t *testing.T, h *lab.Host) {
	t.Helper()
	pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: h.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, h, pin); err != nil {
		t.Fatal(err)
	}
}

// both wants the mapping and the pinhole of host a to let packets in, soon.
func both(t *testing.T, r *testrig.Rig, a *lab.Host) {
	t.Helper()
	for _, to := range holes(a) {
		testrig.Eventually(t, soon, to.String()+" is reached", func() bool { return through(t, r, to, a, 300*time.Millisecond) })
	}
}

// holes are the mapping and the pinhole, as the Internet sees them.
func holes(a *lab.Host) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(lab.GatewayWAN, 6000), netip.AddrPortFrom(a.Addr6, 9000)}
}

// closed wants the firewall to be one.
func closed(t *testing.T, r *testrig.Rig, a, b *lab.Host) {
	t.Helper()
	for _, h := range []*lab.Host{a, b} {
		if through(t, r, netip.AddrPortFrom(h.Addr6, 9000), h, 300*time.Millisecond) {
			t.Errorf("%s is reached before anybody asked", h.Name)
		}
	}
}

// rules returns what packets meet on a host: the rules of each chain, without what
// counts and changes by itself. The order of the chains says nothing.
func rules(t *testing.T, h *lab.Host) map[string]string {
	t.Helper()
	all, table, chain := make(map[string]string), "", ""
	for line := range strings.Lines(testrig.Ruleset(t, h)) {
		switch {
		case strings.HasPrefix(line, "table "):
			table = line
		case strings.Contains(line, "jump RFC3964_IPv4"):
			// firewalld puts it into the chain as the fifth rule, whoever has put others
			// there before firewalld started.
		case strings.HasPrefix(line, "\t\t"):
			all[table+chain] += line
		case strings.HasSuffix(line, "{\n"):
			chain = line
			all[table+chain] = ""
		}
	}
	counters := regexp.MustCompile(`\[\d+:\d+\]`)
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for line := range strings.Lines(testrig.On(t, h, program)) {
			if !strings.HasPrefix(line, "#") {
				all[program] += counters.ReplaceAllString(line, "")
			}
		}
	}
	return all
}

// through reports whether a UDP packet from the Internet arrives at a host, at the port
// that it was sent to.
func through(t *testing.T, r *testrig.Rig, to netip.AddrPort, h *lab.Host, wait time.Duration) bool {
	t.Helper()
	in, _, err := lab.Probe(t.Context(), "UDP", r.Internet, to, h, to.Port(), wait)
	var slow net.Error // this machine had no time to send anything
	if err != nil && !(errors.As(err, &slow) && slow.Timeout()) {
		t.Error(err)
	}
	return in
}

// during sends datagrams through the holes, each a new flow, while f runs, and tells
// how many were lost.
func during(t *testing.T, r *testrig.Rig, a *lab.Host, f func()) string {
	t.Helper()
	done := make(chan struct{})
	var senders sync.WaitGroup
	lost := make([]string, len(holes(a)))
	for i, to := range holes(a) {
		senders.Go(func() {
			sent, missed := 0, 0
			for ended := false; !ended; sent++ {
				if !through(t, r, to, a, 100*time.Millisecond) {
					missed++
				}
				select {
				case <-done:
					ended = true
				default:
				}
			}
			lost[i] = fmt.Sprintf("%d of %d new flows to %s lost", missed, sent, to)
		})
	}
	finish := sync.OnceFunc(func() {
		close(done)
		senders.Wait()
	})
	defer finish() // where f ends the test
	f()
	finish()
	return strings.Join(lost, ", ")
}
