package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestCleanup: S6. What a daemon that died has left is removed without its configuration,
// the owner's rules and his own sets stay as they were, and connections are over; not while
// a daemon runs.
func TestCleanup(t *testing.T) {
	t.Parallel()
	const choice = `accept_chain = "` + lab.FirewallChain + `"`
	for _, c := range []struct{ name, flavour, section, removed string }{
		{"nftables", "", choice, "chain inet hostfw portcullis_forward"},
		{"accept_chain of iptables-nft", "nft", "accept_chain = \"ip filter FORWARD\"\naccept_chain6 = \"ip6 filter FORWARD\"", "rule in FORWARD of ip6tables-nft"},
		{"iptables-nft", "nft", `backend = "iptables"`, "rule in FORWARD of iptables-nft"},
		{"iptables-legacy", "legacy", `backend = "iptables"`, "rule in FORWARD of iptables-legacy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var n *lab.Network
			if c.flavour == "" {
				n = testrig.Network(t, "a")
			} else if n = chainsHome(t, c.flavour); n == nil {
				return
			}
			rules := func() string {
				all := testrig.On(t, n.Gateway, "nft", "-s", "list", "ruleset")
				for _, program := range []string{"iptables", "ip6tables"} {
					if c.flavour != "" {
						all += testrig.On(t, n.Gateway, program+"-"+c.flavour, "--list-rules")
					}
				}
				return all
			}
			before := rules()
			r := testrig.StartWith(t, n, strings.Replace(lab.Settings, choice, c.section, 1))
			four, six := mapped(t, r)
			flows := []*flow{begin(t, r, four, four.Port()), begin(t, r, six, six.Port())}
			for args, want := range map[string]string{"": "process ", "--config " + r.Daemon.Config: "it answers on " + r.Daemon.Socket} {
				if out, err := cleanup(r, strings.Fields(args)...); err == nil || !strings.Contains(out, "a daemon runs here ("+want) {
					t.Errorf("cleanup %s while it runs: %v\n%s", args, err, out)
				}
			}
			flows[0].alive("the refusal")

			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			flows[0].alive("the death of the daemon")
			kept := filepath.Join(t.TempDir(), "kept.toml")
			if err := os.WriteFile(kept, []byte("[firewall]\nkeep_on_stop = true\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			testrig.Eventually(t, soon, "it is left where it is to be kept", func() bool {
				out, err := cleanup(r, "--unless-kept", "--config", kept)
				return err == nil && out == "firewall.keep_on_stop is set, and nothing is removed\n"
			})
			flows[0].alive("a cleanup that keeps")
			testrig.Eventually(t, soon, "the front has ended, too", func() bool {
				out, err := cleanup(r, "--json", "--unless-kept")
				var gone struct{ Removed []string }
				return err == nil && json.Unmarshal([]byte(out), &gone) == nil && slices.Contains(gone.Removed, c.removed) &&
					slices.Contains(gone.Removed, "table inet portcullis") && slices.Contains(gone.Removed, "table inet portcullis_frames")
			})
			if after := rules(); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
			// As after a stop, nothing comes in any more; what the host itself goes on to send
			// is a flow of its own.
			for i, f := range flows {
				_, _ = f.out.Write([]byte{1})
				_ = f.in.SetReadDeadline(time.Now().Add(time.Second))
				if n, err := f.in.Read(make([]byte, 1)); err == nil {
					t.Errorf("flow %d goes on: %d octets", i, n)
				}
			}
			if out, err := cleanup(r); err != nil || out != "nothing of portcullis is in the kernel\n" {
				t.Errorf("once more: %v\n%s", err, out)
			}
		})
	}
}

// cleanup runs it on the gateway.
func cleanup(r *testrig.Rig, args ...string) (string, error) {
	cmd := exec.Command(testrig.Exe, append([]string{"cleanup"}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.Gateway.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}
