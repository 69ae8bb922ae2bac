package faults

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// hostFirewall is one that gateways have, and what docs/firewalls.md says that the
// owner must configure. The firewall's own programs run; Docker alone, which wants
// containers and images, is replayed: the test does with the kernel what its restart
// does.
type hostFirewall struct {
	section string // of the configuration, in place of accept_chain
	start   func(*testing.T, *lab.Network) (reload func())
}

// byNFT loads a ruleset, as nftables.service does.
func byNFT(ruleset string) func(*testing.T, *lab.Network) func() {
	return func(t *testing.T, n *lab.Network) func() {
		t.Helper()
		load := func() { nft(t, &testrig.Rig{Network: n}, ruleset) }
		load()
		return load
	}
}

// byDocker is the rules of a host with Docker, and what its restart makes of them.
func byDocker(t *testing.T, n *lab.Network) func() {
	t.Helper()
	byIPTables(t, n, true, docker)
	return func() { byIPTables(t, n, false, dockerAgain) }
}

// byIPTables runs iptables-restore for each family. {icmp} becomes the family's own.
func byIPTables(t *testing.T, n *lab.Network, flush bool, filter string) {
	t.Helper()
	for family, icmp := range map[string]string{"": "icmp", "6": "ipv6-icmp"} {
		rules := strings.ReplaceAll(filter, "{icmp}", icmp)
		if family == "" && flush {
			rules += "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT\n"
		}
		args := []string{"-w", "5"}
		if !flush {
			args = append(args, "--noflush")
		}
		cmd := exec.Command("ip"+family+"tables-nft-restore", args...)
		cmd.Stdin = strings.NewReader(rules)
		var out strings.Builder
		cmd.Stderr = &out
		if err := n.Gateway.Start(cmd); err != nil {
			t.Fatalf("%v (test/install brings what is missing)", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("ip%stables-restore: %v\n%s\n%s", family, err, &out, rules)
		}
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
	chain postrouting { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
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
	// Docker sets the policy and puts its jumps in front of everything.
	docker = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br-lan -o wan0 -j ACCEPT
-A FORWARD -p {icmp} -j ACCEPT
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
`
	dockerAgain = `*filter
:FORWARD DROP [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-D FORWARD -j DOCKER-USER
-D FORWARD -j DOCKER-FORWARD
-I FORWARD -j DOCKER-FORWARD
-I FORWARD -j DOCKER-USER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
`
)

// TestHostFirewalls: issue 5 item 8. With what docs/firewalls.md says, a mapping and a
// pinhole pass the host's own firewall, nothing else does, and after its reload they
// pass again without anybody doing anything.
func TestHostFirewalls(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]hostFirewall{
		"nftables.service, one table for both families": {`accept_chain = "inet filter forward"`, byNFT(oneTable)},
		"nftables.service, a table for each": {
			"accept_chain = \"ip filter forward\"\naccept_chain6 = \"ip6 filter forward\"", byNFT(twoTables),
		},
		"firewalld":                  {`accept_chain = "inet firewalld filter_FORWARD"`, byFirewalld},
		"ufw":                        {`backend = "iptables"`, byUFW},
		"Docker, which is restarted": {`backend = "iptables"`, byDocker},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a", "b")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			reload := h.start(t, n)
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.OwnerChain+`"`, h.section, 1))
			a, b := r.Host("a"), r.Host("b")
			closed(t, r, a, b)
			opened(t, r, 6000)
			pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}
			if _, err := mapPCP(t, a, pin); err != nil {
				t.Fatal(err)
			}
			both(t, r, a)
			reload()
			both(t, r, a)
			if n := len(r.List(t)); n != 2 {
				t.Errorf("the owner sees %d", n)
			}
			for _, to := range []netip.AddrPort{netip.AddrPortFrom(a.Addr6, 9001), netip.AddrPortFrom(b.Addr6, 9000)} {
				if through(t, r, to, b, 300*time.Millisecond) {
					t.Errorf("%s is reached", to)
				}
			}
		})
	}
}

// both wants the mapping and the pinhole of host a to let packets in, soon.
func both(t *testing.T, r *testrig.Rig, a *lab.Host) {
	t.Helper()
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(lab.GatewayWAN, 6000), netip.AddrPortFrom(a.Addr6, 9000)} {
		testrig.Eventually(t, soon, to.String()+" is reached", func() bool { return through(t, r, to, a, 300*time.Millisecond) })
	}
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

// through says whether a UDP packet from the Internet arrives at a host, at the port
// that it was sent to.
func through(t *testing.T, r *testrig.Rig, to netip.AddrPort, h *lab.Host, wait time.Duration) bool {
	t.Helper()
	in, _, err := lab.Probe(t.Context(), "UDP", r.Internet, to, h, to.Port(), wait)
	if err != nil {
		t.Fatal(err)
	}
	return in
}
