package faults

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// inputDrops is the ruleset that Debian has as an example for a workstation, with a gateway's
// forward chain: what devices ask is dropped.
const inputDrops = `flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname lo accept
		icmpv6 type { nd-neighbor-solicit, nd-router-advert, nd-neighbor-advert } accept
		tcp dport 22 accept
	}
	chain forward { type filter hook forward priority filter; policy accept; }
	chain output { type filter hook output priority filter; policy accept; }
}
`

// remedy returns the lines of the one finding with this id and level.
func (s seen) remedy(t *testing.T, id, level string) []string {
	t.Helper()
	for _, f := range s.Findings {
		if f.ID == id && f.Level == level {
			return strings.Split(f.Remedy, "\n")
		}
	}
	t.Fatalf("there is no %s %s in %+v", level, id, s)
	return nil
}

// TestDoctorAsks: where the host's own firewall drops what devices ask, doctor names the
// chain; the lines that it prints, and nothing else, have a device be served.
func TestDoctorAsks(t *testing.T) {
	t.Parallel()
	shell := func(t *testing.T, r *testrig.Rig) func(string) {
		t.Helper()
		return func(line string) { t.Helper(); testrig.On(t, r.Gateway, "sh", "-c", line) }
	}
	for name, c := range map[string]struct {
		section string
		start   func(*testing.T, *testrig.Rig) (paste func(line string))
		chain   string
		warned  string // the chain in the log
	}{
		"nftables.service": {"", func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			nft(t, r, inputDrops)
			return shell(t, r)
		}, "inet filter input", "inet filter input"},
		"two chains of nftables, and one of answers": {"", func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			nft(t, r, inputDrops)
			nft(t, r, `table inet other {
				chain early { type filter hook input priority -10; udp dport 5351 drop; }
				chain answers { type filter hook output priority 0; udp sport 1900 ct state new drop; udp sport 1900 drop; }
			}`)
			return shell(t, r)
		}, "inet other early", "inet filter input"},
		"iptables": {`backend = "iptables"`, func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			run(t, r.Gateway, "iptables-nft -P INPUT DROP")
			run(t, r.Gateway, "ip6tables-nft -A INPUT -p udp -j DROP")
			return func(line string) { t.Helper(); shell(t, r)(strings.ReplaceAll(line, "tables ", "tables-nft ")) }
		}, "ip6 filter INPUT", "ip filter INPUT"},
		"ufw": {`backend = "iptables"`, func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			ufw := newUFW(t, r, "nft", "")
			ufw("route allow in on br-lan out on wan0")
			ufw("--force enable")
			return func(line string) {
				t.Helper()
				args, ok := strings.CutPrefix(line, "ufw ")
				if !ok {
					t.Errorf("%q is no line for ufw", line)
				}
				ufw(args)
			}
		}, "ip filter INPUT", "ip filter INPUT"},
		"firewalld": {`accept_chain = "inet firewalld filter_FORWARD"`, func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			f := newFirewalld(t, r, "nftables")
			return func(line string) {
				t.Helper()
				args, ok := strings.CutPrefix(line, "firewall-cmd ")
				if !ok {
					t.Errorf("%q is no line for firewalld", line)
				}
				f.tell(t, args)
			}
		}, "inet firewalld filter_INPUT", "inet firewalld filter_INPUT"},
		"firewalld on iptables": {`backend = "iptables"`, func(t *testing.T, r *testrig.Rig) func(string) {
			t.Helper()
			f := newFirewalld(t, r, "iptables")
			return func(line string) { t.Helper(); f.tell(t, strings.TrimPrefix(line, "firewall-cmd ")) }
		}, "ip filter INPUT", "ip filter INPUT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			paste := c.start(t, &testrig.Rig{Network: n})
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, c.section, 1))
			if !strings.Contains(r.Daemon.Log(), "is dropped by "+c.warned) {
				t.Error("the log does not warn")
			}
			if six := strings.Contains(r.Daemon.Log(), "IPv4) is dropped by "+c.warned); six == strings.HasPrefix(c.warned, "inet ") {
				t.Errorf("a chain of both families is warned of for IPv4 alone, or one of IPv4 for both: %t", six)
			}
			s := examinedRunning(t, r)
			if s.OK || !s.has("asks", "failure", c.chain, "br-lan", "5351") {
				t.Fatalf("found %+v", s)
			}
			for _, line := range s.remedy(t, "asks", "failure") {
				if !strings.HasPrefix(line, "and the same ") {
					paste(line)
				}
			}
			if s := examinedRunning(t, r); !s.has("asks", "ok") {
				t.Errorf("after the remedy: %+v", s)
			}
			c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
			if err := c.Add(t.Context(), udp(6000)); err != nil {
				t.Error(err)
			}
			if err := r.Daemon.HandOver(); err != nil {
				t.Fatal(err)
			}
			if r.Restart(t); strings.Contains(r.Daemon.Log(), "is dropped by") {
				t.Error("it warns of what passes")
			}
			if _, err := mapPCP(t, r.Host("a"), lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: r.Host("a").Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDoctorAsksEachLAN: each LAN that is served is tried.
func TestDoctorAsksEachLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	for _, args := range []string{"link add br-guest type bridge", "addr add 192.168.88.1/24 dev br-guest", "link add guest0 type veth peer name guest1", "link set guest0 master br-guest", "link set guest0 up", "link set guest1 up", "link set br-guest up"} {
		testrig.On(t, n.Gateway, "ip", strings.Fields(args)...)
	}
	nft(t, &testrig.Rig{Network: n}, `table inet guests { chain input { type filter hook input priority 0; iifname "br-guest" udp dport != { 53, 67 } drop; }; }`)
	s, failed := examined(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "br-guest"]`, 1))
	if !failed || !s.has("asks", "failure", "br-guest", "inet guests input", "udp 1900 and 5351") || s.has("asks", "failure", "br-lan") {
		t.Errorf("found %+v", s)
	}
}

// TestDoctorNotRoot: who is not root is told so, and nothing else.
func TestDoctorNotRoot(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	for _, args := range []string{"", "--json"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "setpriv", append([]string{"--reuid=1", "--clear-groups", testrig.Exe, "doctor"}, strings.Fields(args)...)...)
		var out, complaint strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &complaint
		if err := n.Gateway.Start(cmd); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 2 || out.String() != "" || strings.Count(complaint.String(), "\n") != 1 || !strings.Contains(complaint.String(), "needs root") {
			t.Errorf("%q: exit %d, %q, %q", args, code, &out, &complaint)
		}
	}
}
