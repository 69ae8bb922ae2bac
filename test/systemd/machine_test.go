package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/netns/netnstest"
	testrig "portcullis/test/rig"
)

// machine is a gateway that systemd has booted: the files of this one, and what is written
// there is gone with it; the network of a lab's gateway.
type machine struct {
	t     *testing.T
	init  int // its process 1, as this machine counts
	ended chan struct{}
}

// source and program are where the machine has the repository and the program under test.
const (
	source  = "/portcullis"
	program = "/portcullis.exe"
)

// start takes a directory, a network namespace, the repository, the program, and the control
// groups that systemd is to count in. Mounts end with the processes of their namespace. Of
// what this machine starts when it boots nothing is left but systemd's own; what forbids
// packages to start services is not there either.
const start = `set -e
dir=$1 net=$2 repository=$3 exe=$4
shift 4
for group; do
	echo $$ >"$group/cgroup.procs"
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cd "$dir/root"
rm -rf etc/systemd/system etc/fstab etc/portcullis usr/sbin/policy-rc.d var/lib/man-db/auto-update
mkdir -p etc/systemd/system
: >etc/machine-id
exec systemd-nspawn --quiet --register=no --keep-unit --console=pipe --notify-ready=yes \
	--resolv-conf=off --timezone=off --link-journal=no --machine=gateway \
	--system-call-filter='@clock landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp' \
	--capability=CAP_NET_ADMIN --network-namespace-path="$net" \
	--bind-ro="$repository:` + source + `" --bind-ro="$exe:` + program + `" \
	-D . --boot systemd.unit=sysinit.target
`

// machines counts them.
var machines atomic.Int32

// bootLimit is how long it may take, endLimit until everything of it is gone.
const (
	bootLimit = 2 * time.Minute
	endLimit  = 30 * time.Second
)

// boot starts a machine on the network of a gateway, and waits until systemd says that it
// has started. The machine ends with the test.
func boot(t *testing.T, n *lab.Network) *machine {
	t.Helper()
	needMachine(t)
	dir := t.TempDir()
	told := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: told})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	root := filepath.Join(dir, "machine")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ended: make(chan struct{})}
	console := &output{}
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", start, "boot",
		root, n.Gateway.Path(), repository, testrig.Exe}, controlGroups(t)...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+told)
	cmd.Stdout, cmd.Stderr = console, console
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // what it came to is on the console
		close(m.ended)
	}()
	t.Cleanup(func() { m.end(cmd.Process, console) })
	go func() {
		<-m.ended
		_ = notify.Close()
	}()
	if m.init, err = started(notify); err != nil {
		t.Fatalf("a machine could not be booted here: %v\n%s", err, console)
	}
	return m
}

// needMachine says what a machine needs that is not here. Root of a user namespace cannot
// mount what systemd wants.
func needMachine(t *testing.T) {
	t.Helper()
	netnstest.NeedProgram(t, "systemd-nspawn")
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(ids)); len(f) != 3 || f[2] != "4294967295" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to boot a machine")
		}
		t.Skip("needs root, to boot a machine")
	}
}

// started waits for systemd-nspawn to say that the machine has started, and returns its
// process 1.
func started(notify *net.UnixConn) (init int, err error) {
	_ = notify.SetReadDeadline(time.Now().Add(bootLimit))
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return 0, errors.New("it ended")
		}
		if err != nil {
			return 0, err
		}
		ready := false
		for line := range strings.Lines(string(buf[:n])) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch key {
			case "X_NSPAWN_LEADER_PID":
				init, err = strconv.Atoi(value)
			case "READY":
				ready = true
			}
		}
		if err != nil || ready {
			return init, err
		}
	}
}

// controlGroups makes one of the same name in each hierarchy that systemd counts in, below
// that of this process: two machines in one would take each other's processes for their own.
func controlGroups(t *testing.T) (groups []string) {
	t.Helper()
	mine, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("portcullis-machine-%d-%d", os.Getpid(), machines.Add(1))
	for line := range strings.Lines(string(mine)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		tops := []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}
		switch {
		case len(f) == 3 && f[1] == "name=systemd":
			tops = []string{"/sys/fs/cgroup/systemd"}
		case len(f) != 3 || f[1] != "":
			continue
		}
		for _, top := range tops {
			above := filepath.Join(top, f[2])
			if _, err := os.Stat(filepath.Join(above, "cgroup.procs")); err != nil {
				continue
			}
			group := filepath.Join(above, name)
			if err := os.Mkdir(group, 0o755); err != nil {
				t.Fatalf("a machine needs a control group of its own: %v", err)
			}
			t.Cleanup(func() { removeGroups(t, group) })
			groups = append(groups, group)
			break
		}
	}
	return groups
}

// removeGroups removes a control group and those below it, when what was killed last has
// gone.
func removeGroups(t *testing.T, group string) {
	t.Helper()
	testrig.Eventually(t, endLimit, "nothing runs in "+group, func() bool {
		var below []string
		_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			return nil
		})
		for i := len(below) - 1; i >= 0; i-- {
			_ = os.Remove(below[i])
		}
		_, err := os.Stat(group)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// end cuts the machine's power, shows what it said when the test has failed, and waits until it
// is gone.
func (m *machine) end(nspawn *os.Process, console *output) {
	if m.t.Failed() && m.init > 0 {
		out, err := m.try("journalctl", "--unit=portcullis", "--no-pager", "--output=cat")
		m.t.Logf("what the machine says: %v\n%s\n%s", err, out, console)
	}
	if m.init > 0 {
		_, _ = m.try("systemctl", "poweroff", "--force", "--force") // it is gone before it answers
	} else {
		_ = nspawn.Kill() // its processes go with it
	}
	select {
	case <-m.ended:
	case <-time.After(endLimit):
		m.t.Errorf("the machine did not end\n%s", console)
		_ = nspawn.Kill()
		<-m.ended
	}
}

// try runs a program on the machine as its root, and returns what it says.
func (m *machine) try(argv ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--all", "--target", strconv.Itoa(m.init), "--"}, argv...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "BIN=" + program}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try where a failure ends the test.
func (m *machine) run(argv ...string) string {
	m.t.Helper()
	out, err := m.try(argv...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// path is that of a file of the machine on this one.
func (m *machine) path(name string) string { return fmt.Sprintf("/proc/%d/root%s", m.init, name) }

// write writes a file on the machine, for all to read.
func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// processes returns the directory of /proc of each process of the service.
func (m *machine) processes() (dirs []string) {
	m.t.Helper()
	all, err := filepath.Glob(m.path("/proc/[0-9]*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, dir := range all {
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err == nil && strings.Contains(string(groups), "/system.slice/portcullis.service") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// output keeps what several write.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
