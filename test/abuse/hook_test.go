package abuse

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestSharedUserHook (M10): where the hook is the daemon's own user, it has none of what that user
// has: not the daemon's files, nor its socket, nor a signal or a limit for it, nor its capability.
func TestSharedUserHook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // #nosec G302 -- another user starts it
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "hook")
	const script = `#!/bin/sh
can() { what=$1; shift; "$@" >/dev/null 2>&1 && echo "can $what"; }
echo "begins"
grep -E '^(Uid|CapEff|CapAmb|CapPrm):' /proc/self/status
state=$(dirname "$1")/state
can "read the state" cat $state/identity.json
can "list it" ls $state
can "write there" sh -c "echo x > $state/approvals.json"
can "remove there" rm $state/identity.json
can "read the configuration" cat "$1"
can "make a unix socket" /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX)'
for pid in $(grep -l portcullis /proc/[0-9]*/comm | cut -d/ -f3); do
	can "signal $pid" kill -0 $pid
	can "signal a thread of $pid" /usr/bin/python3 -c "import ctypes; import sys; sys.exit(ctypes.CDLL(None).syscall(234, $pid, $pid, 0))"
	can "limit $pid" /usr/bin/python3 -c "import resource; resource.prlimit($pid, resource.RLIMIT_NOFILE, (1, 1))"
done
can "change the firewall" nft add table inet hookwashere
echo "ends"
cat >/dev/null
`
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil { // #nosec G306 -- likewise
		t.Fatal(err)
	}
	n := testrig.Network(t, "a", "b")
	r := testrig.StartExe(t, n, privileged(t, testrig.Exe, asShared), lab.Settings+fmt.Sprintf("[hook]\ncommand = [%q, \"%%[1]s/portcullis.toml\"]\n", program))
	r.Logged(t, "line=ends")
	log := r.Daemon.Log()
	for _, want := range []string{fmt.Sprintf(`line="Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d"`, sharedUser), `line="CapPrm:\t0000000000000000"`, `line="CapEff:\t0000000000000000"`, `line="CapAmb:\t0000000000000000"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if strings.Contains(log, `line="can `) {
		t.Error("it can what it must not")
	}
}
