package faults

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// chainsOwner writes what the owner of a gateway with iptables has, as a reload
// does: all that was there is gone.
func chainsOwner(t *testing.T, n *lab.Network, flavour string) {
	t.Helper()
	for _, family := range []string{"", "6"} {
		rules := "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n" +
			"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -i br-lan -o wan0 -j ACCEPT\n"
		if family == "6" {
			rules += "-A FORWARD -p ipv6-icmp -j ACCEPT\nCOMMIT\n"
		} else {
			rules += "COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n" +
				"-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT\n"
		}
		cmd := exec.Command("ip"+family+"tables-"+flavour+"-restore", "-w", "5")
		cmd.Stdin = strings.NewReader(rules)
		var out strings.Builder
		cmd.Stderr = &out
		if err := n.Gateway.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
	}
}

// legacyTables reports whether the kernel has them, which is a fact of the machine.
func legacyTables(t *testing.T, n *lab.Network) bool {
	t.Helper()
	cmd := exec.Command("iptables-legacy", "-t", "nat", "-S")
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("this kernel has no legacy tables: %v", err)
		return false
	}
	return true
}

// chainsHome returns a network whose owner has iptables of that flavour, nil where the
// kernel has no such tables.
func chainsHome(t *testing.T, flavour string) *lab.Network {
	t.Helper()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if flavour == "legacy" && !legacyTables(t, n) {
		return nil
	}
	chainsOwner(t, n, flavour)
	return n
}

// pinholes puts a control point for pinholes on host a, at its global address.
func pinholes(t *testing.T, r *testrig.Rig) *lab.ControlPoint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	found, err := lab.NewControlPoint(r.Host("a")).Discover(ctx, lab.Search{Target: lab.IGD2})
	if err != nil {
		t.Fatal(err)
	}
	c := lab.NewControlPoint(r.Host("a"))
	c.Source = r.Host("a").Addr6
	location := strings.Replace(found.Location(), lab.GatewayLAN.String(), "["+lab.GatewayLAN6.String()+"]", 1)
	if err := c.Read(ctx, location, lab.WANIPv6FC1); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestIPTables: the whole program with iptables: a mapping and a pinhole that packets
// prove, the owner's reload, and a clean stop.
func TestIPTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, flavour, backend, why string }{
		{"the owner has iptables-legacy, and the choice is ours", "legacy", "auto", "the rules of this machine are in iptables-legacy"},
		{"iptables-nft", "nft", "iptables", "as the configuration says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := chainsHome(t, c.flavour)
			if n == nil {
				return
			}
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "`+c.backend+`"`, 1))
			r.Logged(t, c.why)
			opened(t, r, 6000)
			to := netip.AddrPortFrom(r.Host("a").Addr6, 6001)
			reaches := func() bool { return through(t, r, to, r.Host("a"), soon) }
			blocked := func() bool { return !through(t, r, to, r.Host("a"), 300*time.Millisecond) }
			if !blocked() {
				t.Error("IPv6 passes without a pinhole")
			}
			pin := pinholes(t, r)
			id, err := pin.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 6001, Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if !reaches() {
				t.Error("the pinhole does not work")
			}
			chainsOwner(t, n, c.flavour)
			start := time.Now()
			working(t, r, 6000)
			testrig.Eventually(t, soon, "the pinhole works again", func() bool { return !blocked() })
			t.Logf("open again %v after the owner's reload", time.Since(start))
			repaired(t, r)
			if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.Backend != "iptables" {
				t.Errorf("status: %+v, %v", s, err)
			}
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) || !reaches() {
				t.Error("closed by the daemon's sudden end")
			}
			r.Restart(t)
			if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) || !reaches() {
				t.Error("closed by the restart")
			}
			pin = pinholes(t, r)
			mapped := r.Point(t, "a", lab.IGD1, lab.WANIP1)
			if err := pin.DeletePinhole(t.Context(), id); err != nil {
				t.Error(err)
			}
			if err := mapped.Delete(t.Context(), 6000, "UDP"); err != nil {
				t.Error(err)
			}
			if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) || !blocked() {
				t.Error("open after the end")
			}
			if err := r.Daemon.Stop(); err != nil {
				t.Error(err)
			}
			for _, family := range []string{"", "6"} {
				out := testrig.On(t, n.Gateway, "ip"+family+"tables-"+c.flavour+"-save")
				if strings.Contains(out, "portcullis") || !strings.Contains(out, ":FORWARD DROP") {
					t.Errorf("left behind by a clean stop:\n%s", out)
				}
			}
		})
	}
}
