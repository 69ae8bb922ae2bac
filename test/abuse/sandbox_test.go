package abuse

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestSandbox (K11): what the kernel says of every thread of a running daemon, and that
// `status` says the same. Where iptables is the backend its programs need more.
func TestSandbox(t *testing.T) {
	t.Parallel()
	landlock, inWords := 0, ""
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		landlock, inWords = int(abi), fmt.Sprint(", Landlock ", abi)
	}
	for name, c := range map[string]struct {
		backend, more, mode string
		held                []string
	}{
		"nftables":    {"nftables", "", "split", []string{"CAP_NET_ADMIN"}},
		"one process": {"nftables", "[sandbox]\nmode = \"single\"\n", "single", []string{"CAP_NET_ADMIN"}},
		"low port":    {"nftables", "[upnp]\nhttp_port = 80\n", "split", []string{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"}},
		"iptables":    {"iptables", "", "split", []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			settings := strings.Replace(lab.Settings, `accept_chain = "`+lab.FirewallChain+`"`, `backend = "`+c.backend+`"`, 1)
			r := &rig{testrig.StartWith(t, n, settings+c.more)}
			s, err := r.Owner.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if x := s.Sandbox; x.Mode != c.mode || !slices.Equal(x.Capabilities, c.held) || !x.NoNewPrivs || !x.Seccomp || x.Dumpable ||
				x.Landlock != landlock || (len(x.Missing) > 0) != (landlock == 0) {
				t.Errorf("status: %+v", x)
			}
			if front := slices.ContainsFunc(s.Sandbox.Missing, func(line string) bool { return strings.HasPrefix(line, "front: Landlock: ") }); front != (landlock == 0 && c.mode == "split") {
				t.Errorf("that the front lacks Landlock is shown: %v; %q", front, s.Sandbox.Missing)
			}
			line := testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config)
			for _, missing := range s.Sandbox.Missing {
				if !strings.Contains(line, "missing   "+missing+"\n") || strings.Contains(missing, "cgo") {
					t.Errorf("status says\n%s\nand %q is missing", line, missing)
				}
			}
			if want := c.mode + ": " + strings.Join(c.held, ", ") + ", no new privileges, seccomp" + inWords + ", not dumpable"; !strings.Contains(line, want) {
				t.Errorf("status says\n%s\nand not %q", line, want)
			}
			confined(t, r.Daemon.Pid(), c.held, "1")
			if c.mode == "split" {
				frontConfined(t, r, s.Sandbox.Front)
			} else if s.Sandbox.Front != nil {
				t.Errorf("a front: %+v", s.Sandbox.Front)
			}
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.Daemon.Pid()))
			if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
				t.Errorf("limits: %v\n%s", err, limits)
			}
			if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
				t.Fatal(err)
			}
			if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
				t.Error("the mapping leads nowhere")
			}
		})
	}
}

// TestSandboxElsewhere (K11): where the daemon is started with less than a shell of root has,
// it serves as well, the front holds nothing, and the status names what is missing.
func TestSandboxElsewhere(t *testing.T) {
	t.Parallel()
	const container = "chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap"
	for name, c := range map[string]struct {
		with string // options of setpriv(1)
		user uint32 // of the front
	}{
		"a container with NET_ADMIN":      {"--inh-caps=-all --bounding-set=-all,+net_admin,+" + container, frontUser},
		"root with NET_ADMIN alone":       {"--inh-caps=-all --bounding-set=-all,+net_admin", 0},
		"procd's jail with a user":        {asShared + " --no-new-privs", sharedUser},
		"a service manager with the user": {asShared, sharedUser},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			r := &rig{testrig.StartExe(t, n, privileged(t, testrig.Exe, c.with), lab.Settings)}
			s, err := r.Owner.Status(t.Context())
			if err != nil || s.Sandbox.Mode != "split" || s.Sandbox.Front == nil {
				t.Fatalf("status: %+v, %v", s.Sandbox, err)
			}
			if missing := strings.Join(s.Sandbox.Missing, "; "); c.user != 0 && missing != "" && !strings.Contains(missing, "Landlock") ||
				c.user == 0 && !strings.Contains(missing, "another user for the front") {
				t.Errorf("status says that this is missing: %s", missing)
			}
			confined(t, r.Daemon.Pid(), []string{"CAP_NET_ADMIN"}, "1")
			confined(t, s.Sandbox.Front.PID, nil, "2")
			if s.Sandbox.Front.User != c.user {
				t.Errorf("the front is user %d, want %d", s.Sandbox.Front.User, c.user)
			}
			if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
				t.Fatal(err)
			}
			if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
				t.Error("the mapping leads nowhere")
			}
		})
	}
}

// TestSandboxMissing (K11): under a filter such as a container's the daemon serves with what is
// left, and the status says what is missing, of which process, and why.
func TestSandboxMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call  int // is forbidden; the same number on every processor
		errno syscall.Errno
		mode  string
		want  []string
	}{
		"one process":           {unix.SYS_PIDFD_OPEN, unix.EPERM, "single", []string{"two processes: pidfd_open (Linux 5.4): operation not permitted"}},
		"Landlock switched off": {unix.SYS_LANDLOCK_CREATE_RULESET, unix.EOPNOTSUPP, "split", []string{"Landlock: operation not supported", "front: Landlock: operation not supported"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testrig.Network(t, "a")
			r := &rig{testrig.StartExe(t, n, without(t, c.call, c.errno), lab.Settings)}
			s, err := r.Owner.Status(t.Context())
			if err != nil || s.Sandbox.Mode != c.mode || (s.Sandbox.Front != nil) != (c.mode == "split") {
				t.Fatalf("status: %+v, %v", s.Sandbox, err)
			}
			if diff := cmp.Diff(c.want, s.Sandbox.Missing); diff != "" {
				t.Errorf("what is missing (-want +got):\n%s", diff)
			}
			if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// without returns a program that starts the daemon under a filter that refuses a system call.
func without(t *testing.T, call int, errno syscall.Errno) string {
	t.Helper()
	const script = `#!/usr/bin/python3
import ctypes, os, struct, sys
code = b"".join(struct.pack("=HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, %d), (0x06, 0, 0, 0x00050000 | %d), (0x06, 0, 0, 0x7fff0000)])
room = ctypes.create_string_buffer(code, len(code))
program = struct.pack("@HP", 4, ctypes.addressof(room))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.c_char_p(program), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(%q, [%q] + sys.argv[1:])
`
	name := filepath.Join(t.TempDir(), "portcullis")
	if err := os.WriteFile(name, fmt.Appendf(nil, script, call, int(errno), testrig.Exe, testrig.Exe), 0o700); err != nil { // #nosec G306 -- it is run
		t.Fatal(err)
	}
	return name
}

// numbers are those of capabilities.
var numbers = map[string]uint{
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW,
	"CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE,
}

// frontUser is who the front is where the daemon is root: on this machine is no user
// portcullis, and its number is taken by a test of the unit alone.
const frontUser = 64998

// frontConfined compares what the kernel says of the front, and that `status` says the
// same.
func frontConfined(t *testing.T, r *rig, f *control.Front) {
	t.Helper()
	if f == nil || f.PID == 0 {
		t.Fatalf("the front is %+v", f)
	}
	want := control.Front{PID: f.PID, User: frontUser, Capabilities: []string{}, NoNewPrivs: true, Seccomp: true}
	if diff := cmp.Diff(want, *f); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	confined(t, f.PID, nil, "2") // its own, below the warden's
	late(t, r.Daemon.Pid())
	late(t, f.PID)
	for _, pid := range []int{r.Daemon.Pid(), f.PID} {
		for _, name := range []string{"mem", "environ", "maps"} {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/%s", pid, name))
			if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
				t.Errorf("process %d: who has its %s: %v", pid, name, err)
			}
		}
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", f.PID))
	if err != nil || len(open) < 5 {
		t.Fatalf("%d files, %v", len(open), err)
	}
	for _, name := range open {
		to, err := os.Readlink(name)
		if to == "/memfd:turn (deleted)" {
			info, err := os.ReadFile(strings.Replace(name, "/fd/", "/fdinfo/", 1))
			if flags := regexp.MustCompile(`flags:\s+(\d+)`).FindSubmatch(info); err != nil || flags == nil || flags[1][len(flags[1])-1] != '0' {
				t.Errorf("%s is not for reading alone: %v\n%s", to, err, info)
			}
			continue
		}
		if err == nil && !strings.Contains(to, ":[") && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			t.Errorf("the front has %s open: %s", to, name)
		}
	}
	line := testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config)
	if want := fmt.Sprintf("process %d: user %d, no capability, no new privileges, seccomp\n", f.PID, frontUser); !strings.Contains(line, want) {
		t.Errorf("status says\n%s\nand not %q", line, want)
	}
}

// late checks that timers of a process may be so: its runtime wakes all the time otherwise.
func late(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, name := range threads {
		slack, err := os.ReadFile("/proc/" + filepath.Base(name) + "/timerslack_ns")
		if err == nil && string(slack) != "200000\n" {
			t.Errorf("%s: timers wait for %s", name, slack)
		}
	}
}

// confined compares what the kernel says of each thread of a process.
func confined(t *testing.T, pid int, held []string, filters string) {
	t.Helper()
	var bits uint64
	for _, name := range held {
		bits |= 1 << numbers[name]
	}
	none, set := fmt.Sprintf("%016x", 0), fmt.Sprintf("%016x", bits)
	want := map[string]string{
		"CapInh": none, "CapPrm": set, "CapEff": set, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": filters,
	}
	if len(held) > 0 { // without any there is none to drop others
		want["CapBnd"] = set
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) < 3 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		for _, line := range strings.Split(string(text), "\n") {
			key, value, _ := strings.Cut(line, ":")
			if w, asked := want[key]; asked && strings.TrimSpace(value) != w {
				t.Errorf("%s has %s, want %s", name, line, w)
			}
		}
	}
}

// TestSandboxOff: without it the daemon goes on with what it was started with, and says so.
func TestSandboxOff(t *testing.T) {
	t.Parallel()
	r := start(t, "[sandbox]\nmode = \"off\"\n")
	r.Logged(t, "sandbox is off")
	var s control.Status
	text := testrig.On(t, r.Gateway, testrig.Exe, "status", "--json", "--config", r.Daemon.Config)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if x := s.Sandbox; x.Mode != "off" || x.Seccomp || x.Landlock != 0 || x.NoNewPrivs || !x.Dumpable || len(x.Capabilities) < 3 {
		t.Errorf("status: %+v", x)
	}
	if line := testrig.On(t, r.Gateway, testrig.Exe, "status", "--config", r.Daemon.Config); !regexp.MustCompile(`off: (all|[0-9]+) capabilities`).MatchString(line) {
		t.Errorf("status says\n%s", line)
	}
}
