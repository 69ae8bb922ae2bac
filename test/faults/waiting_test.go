package faults

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestChainComesLater: an accept chain that is named and not there yet, as when units
// start in another order, is waited for: the gate is ready and says so, and mapped
// traffic passes as soon as the chain is there.
func TestChainComesLater(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"no table": "destroy",
		"no chain": "table inet hostfw { }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			bare := &testrig.Rig{Network: n}
			if nft(t, bare, "flush ruleset"); before != "destroy" {
				nft(t, bare, before)
			}
			r := testrig.Start(t, n, "")
			r.Logged(t, `level=WARN msg="accept chain missing; mapped traffic may be dropped"`)
			opened(t, r, 6000) // nobody drops it yet
			nft(t, r, hostRules)
			working(t, r, 6000)
			r.Logged(t, "accept chain passes mapped traffic now")
			if !r.Blocked(t, "UDP", 6001, r.Host("a"), 6001) {
				t.Error("what is not mapped passes")
			}
			// What was open is open again after the next start, chain or no chain.
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			nft(t, r, "delete table inet hostfw")
			r.Restart(t)
			nft(t, r, hostRules)
			working(t, r, 6000)
		})
	}
}

// TestSecondDaemon: L13. A second gate with other paths ends before it touches anything of
// the first one's, even where it would serve another LAN, or none yet.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	lan := func(name string) string { return strings.Replace(lab.Settings, "br-lan", name, 1) }
	for name, config := range map[string]string{
		"the same LAN": lab.Settings, "another LAN": lan("guest0"), "none yet": lan("br-none"),
		"no port": lab.Settings + "[upnp]\nenabled = false\n[pcp]\nnatpmp = false\npcp = false\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.88.0/24")); err != nil {
				t.Fatal(err)
			}
			r := testrig.Start(t, n, "")
			opened(t, r, 6000)
			before := r.World(t)
			d, err := r.Network.StartDaemonWith(t.Context(), testrig.Exe, config)
			if err == nil {
				_ = d.Halt()
				t.Fatal("a second one started")
			}
			if want := fmt.Sprintf("another portcullis is running on this machine (process %d)", r.Daemon.Pid()); !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, want %s", err, want)
			}
			r.Unchanged(t, before, "L13")
			working(t, r, 6000)
			if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.DriftRepaired != 0 || strings.Contains(r.Daemon.Log(), "level=WARN") {
				t.Errorf("the first one had to repair: %+v, %v", s.Firewall, err)
			}
		})
	}
}

// TestPortTakenAtRestart: the ports come before the kernel. A gate that finds one taken
// ends, and what its predecessor left open stays open for the next try.
func TestPortTakenAtRestart(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(h *lab.Host) (io.Closer, error){
		"control":      func(h *lab.Host) (io.Closer, error) { return h.Listen("192.168.77.1:5000") },
		"PCP":          func(h *lab.Host) (io.Closer, error) { return h.ListenPacket("0.0.0.0:5351") },
		"PCP, of IPv6": func(h *lab.Host) (io.Closer, error) { return h.ListenPacket("[::]:5351") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			opened(t, r, 6000)
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			before := testrig.Ruleset(t, r.Gateway)
			other, err := hold(r.Gateway)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Network.Restart(t.Context(), testrig.Exe, r.Daemon); err == nil {
				t.Fatal("it started")
			}
			if after := testrig.Ruleset(t, r.Gateway); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
			working(t, r, 6000)
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			r.Restart(t)
			working(t, r, 6000)
		})
	}
}

// TestClaimSquatted: L13. What another user does cannot keep the gate from starting.
func TestClaimSquatted(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	squat := exec.Command("/usr/bin/python3", "-c", "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0portcullis')\n"+
		"s.listen()\nprint('bound', flush=True)\nsys.stdin.read()")
	squat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := squat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := squat.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Gateway.Start(squat); err != nil {
		t.Skipf("cannot become another user here: %v", err)
	}
	defer func() {
		in.Close()
		_ = squat.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "bound\n" {
		t.Fatalf("the other user says %q, %v", line, err)
	}
	r := testrig.Start(t, n, "")
	r.Logged(t, "instance lock is held by another program")
	opened(t, r, 6000)
	// Nor does it decide who the front is.
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Sandbox.Front == nil || s.Sandbox.Front.User == 0 {
		t.Errorf("the front: %+v, %v", s.Sandbox.Front, err)
	}
}

// TestStateRemoved: L12. The state directory, or a file in it, that is taken away while the
// gate runs is noticed, said, and written anew, so that a crash loses nothing.
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
			r.Logged(t, "level=WARN")
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
