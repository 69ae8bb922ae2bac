package faults

import (
	"context"
	"strings"
	"testing"
	"time"

	testrig "portcullis/test/rig"
)

// hostRules is the gateway's own firewall, as lab.HostFirewall has it.
const hostRules = `table inet hostfw {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "br-lan" oifname "wan0" accept
		icmpv6 type 1-4 accept
		icmpv6 type 128-129 accept
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta nfproto ipv4 oifname "wan0" masquerade
	}
}
`

// TestRulesetChanges: L9. Whatever another program does to the ruleset, the mapping that
// the owner sees works again at once; one repair is one line in the log.
func TestRulesetChanges(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"nft flush ruleset and the owner's rules again, systemctl reload nftables": "flush ruleset\n" + hostRules,
		"an fw4-like restart: the host's table is made anew":                       "table inet hostfw\ndelete table inet hostfw\n" + hostRules,
		"our table is deleted":          "delete table inet portcullis",
		"what tells senders is deleted": "delete table inet portcullis_frames",
		"our chains are flushed":        "flush chain inet portcullis forward_mapped\nflush chain inet portcullis dnat_mapped",
		"a rule is put before ours":     "insert rule inet portcullis forward_mapped udp dport 6000 drop",
		"our mappings are flushed":      "flush map inet portcullis mapped",
		"our interfaces are flushed":    "flush set inet portcullis wan_ifaces",
		"the host's chain is flushed, and filled without our jump": "flush chain inet hostfw forward\n" +
			"add rule inet hostfw forward ct state established,related accept\nadd rule inet hostfw forward iifname br-lan oifname wan0 accept",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			opened(t, r, 6000)
			nft(t, r, script)
			working(t, r, 6000)
			repaired(t, r)
			if n := len(r.List(t)); n != 1 {
				t.Errorf("the owner sees %d mappings", n)
			}
		})
	}
}

// working wants a port of host a to be reached soon.
func working(t *testing.T, r *testrig.Rig, port uint16) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for r.Blocked(t, "UDP", port, r.Host("a"), port) {
		if ctx.Err() != nil {
			t.Fatalf("port %d is not open %v later", port, soon)
		}
	}
}

// TestOwnChanges: what the gate does itself is no drift.
func TestOwnChanges(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	if err := c.Add(t.Context(), udp(6001)); err != nil {
		t.Fatal(err)
	}
	nft(t, r, "add table inet other") // seen, and nothing of ours
	nft(t, r, "delete table inet portcullis")
	working(t, r, 6001)
	repaired(t, r)
}

// repaired wants a repair, each with one line in the log. There may be two, where
// the change comes while the rules are being looked at.
func repaired(t *testing.T, r *testrig.Rig) {
	t.Helper()
	if n := repairs(t, r); n > 2 {
		t.Errorf("%d repairs of one change", n)
	}
}

// repairs waits until there are some, and the log has a line for each that the owner
// sees, whether it was a change that was seen or one that a grant ran into.
func repairs(t *testing.T, r *testrig.Rig) (n int) {
	t.Helper()
	testrig.Eventually(t, soon, "repairs are told, and each once", func() bool {
		log := r.Daemon.Log()
		n = strings.Count(log, "repaired firewall rules") + strings.Count(log, "differs from ours") + strings.Count(log, "our table is missing")
		return n > 0 && n == counted(t, r)
	})
	return n
}

// counted returns the number of repairs that the owner sees. A line of the log may come
// later.
func counted(t *testing.T, r *testrig.Rig) int {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(s.Firewall.DriftRepaired)
}

// TestNoFight: L9. A program that undoes every repair is told of once, and neither it
// nor the log is flooded.
func TestNoFight(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	opened(t, r, 6000)
	for range 12 {
		if _, err := tryNFT(r, "delete table inet portcullis"); err != nil {
			continue // it is not there yet
		}
		testrig.Eventually(t, 15*time.Second, "a repair, or no more of them", func() bool {
			out, err := tryNFT(r, "list table inet portcullis")
			return err == nil && out != "" || strings.Contains(r.Daemon.Log(), "keeps removing our rules")
		})
	}
	if n := repairs(t, r); n < 5 || n > 7 {
		t.Errorf("%d repairs:\n%s", n, r.Daemon.Log())
	}
	if n := strings.Count(r.Daemon.Log(), "keeps removing our rules"); n != 1 {
		t.Errorf("told %d times of the fight", n)
	}
}
