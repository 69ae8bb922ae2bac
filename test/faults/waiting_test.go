package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/control"
	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// TestChainComesLater: issue 9 item 10, field note S9. An accept chain that is named
// and not there yet, as when units start in another order, is waited for: the gate is
// ready and says so, and mapped traffic passes as soon as the chain is there.
func TestChainComesLater(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"no table": "destroy",
		"no chain": "table inet owner { }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			bare := &testrig.Rig{Network: n}
			if nft(t, bare, "flush ruleset"); before != "destroy" {
				nft(t, bare, before)
			}
			r := testrig.Start(t, n, "")
			r.Logged(t, `level=WARN msg="the accept chain is missing, mapped traffic may not pass"`)
			opened(t, r, 6000) // nobody drops it yet
			nft(t, r, ownerRules)
			working(t, r, 6000)
			r.Logged(t, "the accept chain lets mapped traffic pass again")
			if !r.Blocked(t, "UDP", 6001, r.Host("a"), 6001) {
				t.Error("what is not mapped passes")
			}
			// What was open is open again after the next start, chain or no chain.
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			nft(t, r, "delete table inet owner")
			r.Restart(t)
			nft(t, r, ownerRules)
			working(t, r, 6000)
		})
	}
}

// TestSecondDaemon: faults F5. A second gate with other paths ends because our ports
// are taken, and has touched nothing of the first one's by then.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string]string{
		"everything": "", "UPnP alone": "[pcp]\nnatpmp = false\npcp = false\n", "PCP alone": "[upnp]\nenabled = false\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			opened(t, r, 6000)
			before := testrig.On(t, r.Gateway, "nft", "-s", "list", "ruleset")
			d, err := r.Network.StartDaemonWith(t.Context(), testrig.Exe, lab.Settings+extra)
			if err == nil {
				_ = d.Halt()
				t.Fatal("a second one started")
			}
			if !strings.Contains(err.Error(), "taken") && !strings.Contains(err.Error(), "held by another program") {
				t.Errorf("it says %v", err)
			}
			if after := testrig.On(t, r.Gateway, "nft", "-s", "list", "ruleset"); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
			working(t, r, 6000)
			if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.DriftRepaired != 0 || strings.Contains(r.Daemon.Log(), "level=WARN") {
				t.Errorf("the first one had to repair: %+v, %v", s.Firewall, err)
			}
		})
	}
}

// TestStateRemoved: faults F4 (cases/faults/vanish.sh). The state directory, or a file
// in it, that is taken away while the gate runs is noticed, said, and written anew, so
// that a crash loses nothing.
func TestStateRemoved(t *testing.T) {
	t.Parallel()
	replace := func(t *testing.T, dir string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, take := range map[string]func(t *testing.T, dir string){
		"directory": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
		"directory, and another in its place": replace,
		"moved away": func(t *testing.T, dir string) {
			if err := os.Rename(dir, dir+".old"); err != nil {
				t.Fatal(err)
			}
		},
		"journal": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "leases.journal")); err != nil {
				t.Fatal(err)
			}
		},
		"journal, and another in its place": func(t *testing.T, dir string) {
			name := filepath.Join(dir, "leases.journal")
			if err := os.Rename(name, name+".bak"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"identity": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "identity.json")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			c := opened(t, r, 6000)
			location, dir := testrig.Found(t, c, lab.Search{Target: lab.IGD1}).Header.Get("Usn"), r.Daemon.State()
			take(t, dir)
			// Idle: nothing is asked for meanwhile.
			testrig.Eventually(t, 2*soon, "the state is written anew", func() bool {
				for _, f := range []string{"leases.journal", "identity.json"} {
					if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
						return false
					}
				}
				return true
			})
			if !strings.Contains(r.Daemon.Log(), "level=WARN") {
				t.Error("nobody is told")
			}
			if err := c.Add(t.Context(), udp(6001)); err != nil {
				t.Fatal(err)
			}
			before := r.List(t)
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			r.Restart(t)
			if got := ids(r.List(t)); got != ids(before) || len(before) != 2 {
				t.Errorf("before the crash %s, after %s", ids(before), got)
			}
			if again := testrig.Found(t, c, lab.Search{Target: lab.IGD1}).Header.Get("Usn"); again != location {
				t.Errorf("it was %s, and is %s", location, again)
			}
			working(t, r, 6000)
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 3 {
				t.Errorf("the directory holds %v, %v", entries, err)
			}
		})
	}
}

func ids(list []control.Mapping) (text string) {
	for _, m := range list {
		text += fmt.Sprint(m.ID, " ", m.ExternalPort, ", ")
	}
	return text
}
