package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// watchedPrograms is a daemon whose programs of iptables write down that they run, and
// wait while they are told to.
type watchedPrograms struct {
	*testrig.Rig
	here string
}

const watchedProgram = `#!/bin/sh
echo "$0 $*" >>%[1]s/runs
while [ -e %[1]s/hang ]; do sleep 0.05; done
exec xtables-nft-multi "${0##*/}" "$@"
`

func newWatchedPrograms(t *testing.T) *watchedPrograms {
	t.Helper()
	n := chainsHome(t, "nft")
	w := &watchedPrograms{here: t.TempDir()}
	write := func(file, text string) string {
		t.Helper()
		file = filepath.Join(w.here, file)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if err := os.Mkdir(filepath.Join(w.here, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		write("bin/"+name, fmt.Sprintf(watchedProgram, w.here))
	}
	exe := write("portcullis", fmt.Sprintf("#!/bin/sh\nPATH=%s/bin:$PATH exec %s \"$@\"\n", w.here, testrig.Exe))
	config := strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "iptables"`, 1) +
		"[limits]\ngrants_per_second = 0\nrequests_per_second = 0\n"
	// The programs are in the daemon's sandbox, and write where it does.
	config = strings.Replace(config, `"%[1]s/state"`, `"`+filepath.Join(w.here, "state")+`"`, 1)
	d, err := n.StartDaemonWith(t.Context(), exe, config)
	if err != nil {
		t.Fatal(err)
	}
	w.Rig = &testrig.Rig{Network: n, Daemon: d, Owner: control.NewClient(d.Socket)}
	t.Cleanup(func() {
		_ = os.Remove(filepath.Join(w.here, "hang"))
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.Log())
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// runs counts the programs that were run.
func (w *watchedPrograms) runs(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.here, "runs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// TestNoProgramForAChange: L20. With iptables-nft, which tells of its changes, a daemon that
// has nothing to repair runs no program, be it idle or with mappings that come and go.
func TestNoProgramForAChange(t *testing.T) {
	t.Parallel()
	w := newWatchedPrograms(t)
	c := w.Point(t, "a", lab.IGD1, lab.WANIP1)
	shortly := func() { // takes 3 s: the table is looked at, and nothing else
		m := udp(7000)
		m.Lease = 3 * time.Second
		if err := c.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		testrig.Eventually(t, soon, "the lease ends", func() bool { return len(w.List(t)) == 0 })
	}
	shortly() // the look at the start is over then
	before, start := w.runs(t), time.Now()
	for port := uint16(6000); port < 6010; port++ {
		if err := c.Add(t.Context(), udp(port)); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), port, "UDP"); err != nil {
			t.Fatal(err)
		}
	}
	shortly()
	// There is an audit a minute, of two programs.
	if n, most := w.runs(t)-before, 2*int(1+time.Since(start)/time.Minute); n > most {
		t.Errorf("%d programs were run in %v, want %d at most", n, time.Since(start), most)
	}
}

// TestSlowPrograms: L10. However slow the programs of iptables are, a client is answered,
// and what it is told is so.
func TestSlowPrograms(t *testing.T) {
	t.Parallel()
	w := newWatchedPrograms(t)
	c := opened(t, w.Rig, 6000)
	a := w.Host("a")
	before := w.runs(t)
	if err := os.WriteFile(filepath.Join(w.here, "hang"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("iptables-nft", "-F", "FORWARD")
	if out, err := output(w.Rig, cmd); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testrig.Eventually(t, soon, "a program hangs", func() bool { return w.runs(t) > before })
	want := map[uint16]bool{6000: true}
	for port := uint16(6001); port < 6004; port++ {
		start := time.Now()
		if err := c.Add(t.Context(), udp(port)); err != nil {
			t.Errorf("port %d after %v: %v", port, time.Since(start), err)
			continue
		}
		want[port] = true
	}
	if err := c.Delete(t.Context(), 6003, "UDP"); err != nil {
		t.Error(err)
	}
	delete(want, 6003)
	pin := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, a, pin); err != nil {
		t.Error(err)
	}
	for _, m := range w.List(t) {
		if m.InternalPort != 9000 && !want[m.InternalPort] {
			t.Errorf("listed, and nobody was told: %+v", m)
		}
	}
	if err := os.Remove(filepath.Join(w.here, "hang")); err != nil {
		t.Fatal(err)
	}
	working(t, w.Rig, 6001)
	both(t, w.Rig, a)
}
