package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside, in the environment, makes this program the one that tries: "off" without the
// sandbox, "single" and "programs" in it.
const inside = "PORTCULLIS_TEST_SANDBOX"

func TestMain(m *testing.M) {
	if how := os.Getenv(inside); how != "" {
		tryAll(how)
		return
	}
	os.Exit(m.Run())
}

// tried is what a process in the sandbox has found.
type tried struct {
	State   State
	Missing []string
	Errors  map[string]syscall.Errno
	Works   string // "" or why what it needs does not work
}

// tryAll enters the sandbox, tries, and prints what it has found.
func tryAll(how string) {
	found := tried{Errors: map[string]syscall.Errno{}}
	if how != "off" {
		found.State = Enter(Config{Capabilities: []Capability{NetAdmin}, Programs: how == "programs", Files: 256})
		for _, err := range found.State.Missing {
			found.Missing = append(found.Missing, err.Error())
		}
		found.State.Missing = nil
	}
	try := func(name string, trap uintptr, a, b, c uintptr) {
		_, _, found.Errors[name] = syscall.RawSyscall(trap, a, b, c)
	}
	parent := uintptr(os.Getppid())
	try("exec", unix.SYS_EXECVE, 0, 0, 0)
	try("ptrace", unix.SYS_PTRACE, unix.PTRACE_ATTACH, ^uintptr(0), 0) // no such process
	try("setns", unix.SYS_SETNS, ^uintptr(0), 0, 0)
	try("unshare", unix.SYS_UNSHARE, 0, 0, 0)
	try("mount", unix.SYS_MOUNT, 0, 0, 0)
	try("kill", unix.SYS_KILL, parent, 0, 0)
	try("tgkill", unix.SYS_TGKILL, parent, parent, 0)
	try("unix socket", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("core", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
	try("executable memory", unix.SYS_MPROTECT, 0, 0, unix.PROT_EXEC)
	try("clone3", unix.SYS_CLONE3, 0, 0, 0)
	if err := works(); err != nil {
		found.Works = err.Error()
	}
	if how == "programs" {
		if err := exec.Command("/bin/true").Run(); err != nil {
			found.Works += err.Error()
		}
	}
	if json.NewEncoder(os.Stdout).Encode(found) != nil {
		os.Exit(3)
	}
}

// works does what the daemon does: sockets, threads, memory, files.
func works() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	served := make(chan error, 20)
	for range cap(served) {
		go func() {
			runtime.LockOSThread() // a thread of its own, which ends with it
			conn, err := net.Dial("tcp4", l.Addr().String())
			if err == nil {
				_, err = conn.Write(make([]byte, 1))
				err = errors.Join(err, conn.Close())
			}
			served <- err
		}()
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		if err := errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	for range cap(served) {
		err = errors.Join(err, <-served)
	}
	runtime.GC()
	name := filepath.Join(os.TempDir(), "portcullis-sandbox-test")
	err = errors.Join(err, os.WriteFile(name, []byte("x"), 0o600), os.Rename(name, name+"2"), os.Remove(name+"2"))
	_, statErr := os.Stat("/proc/self/task/1")
	if statErr != nil && !os.IsNotExist(statErr) {
		err = errors.Join(err, statErr)
	}
	return err
}

// program returns this test as a program without cgo, as the daemon is built.
func program(t *testing.T) string {
	t.Helper()
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != unix.ENOTSUP {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return exe
	}
	exe := filepath.Join(t.TempDir(), "sandbox.test")
	cmd := exec.Command("go", "test", "-c", "-o", exe, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return exe
}

// from runs the program that tries, and returns what it found.
func from(t *testing.T, exe, how string) tried {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), inside+"="+how, "TMPDIR="+t.TempDir())
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var found tried
	if err := errors.Join(err, json.Unmarshal(out, &found)); err != nil {
		t.Fatalf("%s: %v\n%s%s", how, err, out, &complaint)
	}
	return found
}

// TestInside (K11): what must fail in the sandbox fails there with EPERM, and only there; what
// the daemon does works.
func TestInside(t *testing.T) {
	t.Parallel()
	exe := program(t)
	for how, refused := range map[string][]string{
		"off":      nil,
		"single":   {"core", "exec", "executable memory", "kill", "mount", "ptrace", "setns", "tgkill", "unix socket", "unshare"},
		"programs": {"mount", "ptrace", "setns", "unshare"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			found := from(t, exe, how)
			for name, errno := range found.Errors {
				if (errno == unix.EPERM) != slices.Contains(refused, name) {
					t.Errorf("%s: %v", name, errno)
				}
			}
			if found.Works != "" {
				t.Errorf("what must work does not: %s", found.Works)
			}
			s := found.State
			if how == "off" {
				return
			}
			if found.Errors["clone3"] != unix.ENOSYS || len(found.Missing) > 0 || !s.NoNewPrivs || !s.Seccomp || s.Dumpable {
				t.Errorf("clone3: %v; in force: %+v, missing %q", found.Errors["clone3"], s, found.Missing)
			}
			if os.Geteuid() == 0 && !slices.Equal(s.Capabilities, []Capability{NetAdmin}) {
				t.Errorf("capabilities: %v", s.Capabilities)
			}
		})
	}
}
