package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	testrig "portcullis/test/rig"
)

// hookIn writes a program for the hook, where every user can run it.
func hookIn(t *testing.T, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portcullis-hook-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "hook")
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- the hook's user starts it
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil { // #nosec G306 -- likewise
		t.Fatal(err)
	}
	return path
}

func hookState(t *testing.T, r *testrig.Rig) control.Hook {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil || s.Hook == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	return *s.Hook
}

// TestHook: the owner's program is told of what waits, once, a JSON object on a line; it is
// nobody on this machine: another user, without capabilities, environment and files that it
// could write, and not by a unix socket; and it ends with the daemon.
func TestHook(t *testing.T) {
	t.Parallel()
	program := hookIn(t, `
echo "pid $$ env $(tr '\0' ' ' < /proc/self/environ)"
grep -E '^(Uid|Gid|Groups|SigIgn|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
ls -l /proc/self/fd | grep -c socket
for f in /tmp/hook-was-here $(dirname $0)/hook-was-here; do (echo x > $f) 2>/dev/null && echo "writes $f"; done
/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX)' 2>/dev/null && echo unix
/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET)' && echo inet
kill -0 $PPID 2>/dev/null && echo signals
while read -r line; do echo "$line"; done
echo over
`)
	r := testrig.Start(t, testrig.Network(t, "a"), asking+fmt.Sprintf("[hook]\ncommand = [%q, \"twice\", \"twice\"]\nevents = [\"pending\", \"approved\", \"granted\"]\n", program))
	r.Logged(t, `line="pid `)
	r.Logged(t, `line="Seccomp:\t2"`)
	r.Logged(t, `line="Uid:\t64996\t64996\t64996\t64996"`)
	ask := askers(t, r, r.Host("a"), "a")["upnp"]
	for range 3 {
		if err := ask(3074); !isRefusal(err) {
			t.Fatal(err)
		}
	}
	p := waiting(t, r, r.Host("a"), 3074)
	answered[control.Approval](t, r, "approve", fmt.Sprint(p.ID))
	if err := ask(3074); err != nil {
		t.Fatal(err)
	}
	r.Logged(t, `\"event\":\"granted\"`)
	log := r.Daemon.Log()
	for _, want := range []string{
		`line="pid ` + fmt.Sprint(hookState(t, r).PID) + ` env "`, `line="Gid:\t64996\t64996\t64996\t64996"`, `line="CapEff:\t0000000000000000"`, `line="CapAmb:\t0000000000000000"`,
		`line="NoNewPrivs:\t1"`, `line=0`, `line=inet`, fmt.Sprintf(`\"pending\":%d`, p.ID), `\"event\":\"approved\"`, `\"approval\":{`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	// The first of libc's own signals, which posix_spawn(3) leaves ignored, as by make.
	if !strings.Contains(strings.ReplaceAll(log, `SigIgn:\t0000000080000000`, `SigIgn:\t0000000000000000`), `line="SigIgn:\t0000000000000000"`) {
		t.Error("it begins with signals that are ignored")
	}
	if n := strings.Count(log, `\"event\":\"pending\"`); n != 1 {
		t.Errorf("it was told %d times of what waits", n)
	}
	for _, bad := range []string{"writes ", "line=signals", "line=unix"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log has %q", bad)
		}
	}
	pid := hookState(t, r).PID
	if err := r.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the hook ends with the daemon", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

// parent returns the parent of a process.
func parent(t *testing.T, pid int) (ppid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text[strings.LastIndexByte(string(text), ')')+1:]), " %c %d", new(rune), &ppid); err != nil || ppid <= 1 {
		t.Fatalf("%v: %s", err, text)
	}
	return ppid
}

// TestHookFlood: a device that asks for every port is told of a few times, and takes no
// notice from another.
func TestHookFlood(t *testing.T) {
	t.Parallel()
	tells := hookIn(t, "while read -r line; do echo \"$line\"; done\n")
	r := testrig.Start(t, testrig.Network(t, "a", "b"), asking+fmt.Sprintf("[limits]\nrequests_per_second = 0\n[hook]\ncommand = [%q]\n", tells))
	const flood = 60
	ask := askers(t, r, r.Host("a"), "a")["pcp"]
	for i := range uint16(flood) {
		if err := ask(6000 + i); !isRefusal(err) {
			t.Fatal(err)
		}
	}
	if err := askers(t, r, r.Host("b"), "b")["pcp"](3074); !isRefusal(err) {
		t.Fatal(err)
	}
	r.Logged(t, `\"internal_port\":3074,`)
	// Six more are told of in a minute, if it takes so long.
	if told := strings.Count(r.Daemon.Log(), `\"event\":\"pending\"`); told < 2 || told > flood/2 {
		t.Errorf("it is told %d times of %d", told, flood+1)
	}
	if s := hookState(t, r); s.Missed < flood/2 {
		t.Errorf("%d are missed", s.Missed)
	}
}

// processes returns what /proc says of each process in a file.
func processes(t *testing.T, file string) (all []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil { // or it has ended
			all = append(all, string(text))
		}
	}
	return all
}

// TestHookLeavesNothing: what the program leaves running in a session of its own ends when it does,
// what it leaves that ends is not kept as a zombie, and it can have only so many processes.
func TestHookLeavesNothing(t *testing.T) {
	t.Parallel()
	left := fmt.Sprint(time.Now().UnixNano()%1e9, ".25")
	leaves := hookIn(t, fmt.Sprintf(`
grep '^Max processes' /proc/self/limits
(setsid /usr/bin/printf 'gone\n' &)
(setsid sh -c 'setsid sleep %[1]s & sleep %[1]s' </dev/null >/dev/null 2>&1 &)
read -r line
exit 3
`, left))
	sleeping := func() (n int) {
		for _, line := range processes(t, "cmdline") {
			if line == "sleep\x00"+left+"\x00" {
				n++
			}
		}
		return n
	}
	r := testrig.Start(t, testrig.Network(t, "a"), fmt.Sprintf("[hook]\ncommand = [%q]\nevents = [\"granted\", \"renewed\"]\n", leaves))
	r.Logged(t, `line="Max processes             256                  256 `)
	r.Logged(t, "line=gone")
	keeper := parent(t, hookState(t, r).PID)
	testrig.Eventually(t, soon, "no zombie is kept", func() bool {
		for _, of := range processes(t, "stat") {
			state, of, ppid := "", of[strings.LastIndexByte(of, '(')+1:], 0
			if rest, is := strings.CutPrefix(of, "printf) "); is {
				_, _ = fmt.Sscan(rest, &state, &ppid)
			}
			if ppid == keeper {
				return false
			}
		}
		return true
	})
	opened(t, r, 6000) // it is told of that, and ends
	testrig.Eventually(t, soon, "only the next one has left some", func() bool { s := hookState(t, r); return s.Ended > 0 && s.PID != 0 && sleeping() == 2 })
	if err := r.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "nothing is left", func() bool { return sleeping() == 0 })
}

// TestHookHangs: a program that dies is started again, one that does not read loses events, which
// are counted, and neither keeps anybody waiting; without one there is no such process.
func TestHookHangs(t *testing.T) {
	t.Parallel()
	dies := hookIn(t, "read -r line; exit 3\n")
	r := testrig.Start(t, testrig.Network(t, "a"), fmt.Sprintf("[hook]\ncommand = [%q]\nevents = [\"granted\", \"renewed\"]\n", dies))
	c := opened(t, r, 6000)
	testrig.Eventually(t, soon, "it ends and is started again", func() bool {
		if err := c.Add(t.Context(), udp(6000)); err != nil {
			t.Fatal(err)
		}
		s := hookState(t, r)
		return s.Ended >= 2 && s.LastEnd == "exit status 3"
	})
	if out, ok := said(t, "status", "--config", r.Daemon.Config); !ok || !strings.Contains(out, "the last: exit status 3") {
		t.Errorf("the status says\n%s", out)
	}

	hangs := hookIn(t, "exec sleep 1000\n")
	n := testrig.Start(t, testrig.Network(t, "a"), fmt.Sprintf("[limits]\nrequests_per_second = 0\ngrants_per_second = 0\n[hook]\ncommand = [%q]\nevents = [\"granted\", \"renewed\"]\n", hangs))
	c = opened(t, n, 6000)
	description := udp(6000)
	description.Description = strings.Repeat("x", 200)
	slowest := time.Duration(0)
	for missed := uint64(0); missed == 0; missed = hookState(t, n).Missed {
		began := time.Now()
		if err := c.Add(t.Context(), description); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 5*time.Second {
		t.Errorf("a client waited %v", slowest)
	}
	pid := hookState(t, n).PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "another one is started", func() bool { s := hookState(t, n); return s.PID != 0 && s.PID != pid })
	if err := syscall.Kill(parent(t, hookState(t, n).PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "it is over when what starts it has died", func() bool { s := hookState(t, n); return s.Over && s.PID == 0 })
	if out, ok := said(t, "status", "--config", n.Daemon.Config); !ok || !strings.Contains(out, "not running until portcullis is started again: the process that starts it has ended: signal 9 (killed)") {
		t.Errorf("the status says\n%s", out)
	}
	if err := c.Add(t.Context(), description); err != nil {
		t.Error(err)
	}
	if err := n.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Daemon.Config, text[:strings.Index(string(text), "[hook]")], 0o600); err != nil {
		t.Fatal(err)
	}
	n.Restart(t)
	s, err := n.Owner.Status(t.Context())
	if err != nil || s.Hook != nil {
		t.Errorf("%+v, %v", s.Hook, err)
	}
}
