package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside, in the environment, makes this program the one that tries: "off" without the
// sandbox, "managed" as "single" below a service manager, else in the role of that name.
const inside = "PORTCULLIS_TEST_SANDBOX"

func TestMain(m *testing.M) {
	if how := os.Getenv(inside); how != "" {
		tryAll(how)
		return
	}
	if how := os.Getenv(confinement); how != "" {
		tryPaths(how)
		return
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
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
	if how == "managed" {
		if err := manage(); err != nil {
			found.Works = err.Error()
		}
	}
	cfg := Config{Capabilities: []Capability{NetAdmin}, Programs: how == "programs", Files: 256}
	work := works
	switch how {
	case "front":
		cfg.Role, cfg.Capabilities = Front, nil
		var err error
		if work, err = serves(); err != nil {
			found.Works = err.Error()
		}
	case "warden":
		cfg.Role = Warden
	case "opener":
		cfg.Role, cfg.Capabilities = Opener, []Capability{DACOverride}
		var err error
		if work, err = connectsTo(os.Getenv("TMPDIR") + "/socket"); err != nil {
			found.Works = err.Error()
		}
	}
	if how != "off" {
		found.State = Enter(cfg)
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
	try("socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0)
	try("open", unix.SYS_OPENAT, ^uintptr(0), 0, 0)
	try("connect", unix.SYS_CONNECT, ^uintptr(0), 0, 0)
	if how == "front" {
		try("thread", unix.SYS_CLONE, uintptr(thread), 0, 0)
	}
	if err := work(); err != nil {
		found.Works += err.Error()
	}
	if how == "warden" {
		found.Works += startsFront()
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

// manage does what a service manager does that drops capabilities and lets through none
// of the calls by which that is done.
func manage() error {
	p := processor{audit: native.audit, calls: []call{{"capset", unix.SYS_CAPSET}, {"seccomp", unix.SYS_SECCOMP}}}
	code, err := assemble(filter(p, role{otherwise: allow, rules: []rule{{does: refuse, calls: []string{"capset", "seccomp"}}}}))
	return errors.Join(err, onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0),
		dropCapabilities([]Capability{NetAdmin}, true), install(code))
}

// works does what the daemon does: sockets, threads, memory, files, the poller. It has
// no package net, by which this would be a program with cgo.
func works() error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 20))
	at, failed := unix.Getsockname(l)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	done := make(chan error, 20)
	for range cap(done) {
		go func() {
			runtime.LockOSThread() // a thread of its own, which ends with it
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(unix.Connect(c, at), unix.Close(c))
			}
			done <- err
		}()
		c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err := errors.Join(err, <-done); err != nil {
			return err
		}
		if err := unix.Close(c); err != nil {
			return err
		}
	}
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() { _, err := to.Write(make([]byte, 1)); done <- err }()
	_, err = from.Read(make([]byte, 1))
	runtime.GC()
	name := filepath.Join(os.TempDir(), "portcullis-sandbox-test")
	err = errors.Join(err, <-done, os.WriteFile(name, []byte("x"), 0o600), os.Rename(name, name+"2"), os.Remove(name+"2"))
	if _, gone := os.Stat("/proc/self/task/1"); gone != nil && !os.IsNotExist(gone) {
		err = errors.Join(err, gone)
	}
	return err
}

// serves opens what a front has from its warden, and returns what it does with it.
func serves() (func() error, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1))
	at, failed := unix.Getsockname(l)
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	return func() error {
		got, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		done := make(chan error, 20)
		for range cap(done) {
			go func() {
				_, err := unix.Write(c, []byte{1})
				done <- err
			}()
		}
		for range cap(done) {
			_, failed := unix.Read(got, make([]byte, 1))
			err = errors.Join(err, failed, <-done)
		}
		runtime.GC()
		return errors.Join(err, unix.SetsockoptInt(got, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1), unix.Shutdown(got, unix.SHUT_WR))
	}, errors.Join(err, unix.Connect(c, at))
}

// connectsTo makes a socket with this path, and returns what an opener does with it.
func connectsTo(path string) (func() error, error) {
	at := &unix.SockaddrUnix{Name: path}
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return func() error {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Connect(c, at)
		runtime.GC()
		return errors.Join(err, unix.Close(c))
	}, errors.Join(unix.Bind(l, at), unix.Listen(l, 1))
}

// startsFront starts a front from within a warden's sandbox, and says what went wrong.
func startsFront() string {
	from, to, err := os.Pipe()
	if err != nil {
		return err.Error()
	}
	fd := -1
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"x"}, &syscall.ProcAttr{
		Env: []string{inside + "=front"}, Files: []uintptr{to.Fd(), to.Fd(), to.Fd()},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &fd},
	})
	if err := errors.Join(err, to.Close()); err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(from)
	var status syscall.WaitStatus
	_, failed := syscall.Wait4(pid, &status, 0, nil)
	var found tried
	if err := errors.Join(err, failed, json.Unmarshal(text, &found)); err != nil || status != 0 {
		return fmt.Sprintf("front: %v, status %v: %s", err, status, text)
	}
	if found.Works != "" || len(found.Missing) > 0 || len(found.State.Capabilities) > 0 || found.Errors["open"] != unix.EPERM {
		return fmt.Sprintf("front: %s", text)
	}
	return ""
}

// program returns this test as a program without cgo, as the daemon is built.
func program(t *testing.T) string {
	t.Helper()
	exe, err := static()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// static is program, once; TestMain removes what it builds.
var static = sync.OnceValues(func() (string, error) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != unix.ENOTSUP {
		return os.Executable()
	}
	dir, err := os.MkdirTemp("", "portcullis-sandbox")
	if err != nil {
		return "", err
	}
	built = dir
	cmd := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "sandbox.test"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return filepath.Join(dir, "sandbox.test"), nil
})

var built string // a directory that TestMain removes

// run runs the program that tries, with what it is to try in its environment, and reads
// what it found.
func run(t *testing.T, exe, dir, what string, found any) {
	t.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), what, "TMPDIR="+dir)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err := errors.Join(err, json.Unmarshal(out, found)); err != nil {
		t.Fatalf("%s: %v\n%s%s", what, err, out, &complaint)
	}
}

// TestInside (K11): what must fail in the sandbox fails there with EPERM, and only there; what
// the daemon does works.
func TestInside(t *testing.T) {
	t.Parallel()
	exe := program(t)
	for how, refused := range map[string][]string{
		"off":    nil,
		"single": {"core", "exec", "executable memory", "kill", "mount", "ptrace", "setns", "tgkill", "unix socket", "unshare"},
		"front": {"connect", "core", "exec", "executable memory", "kill", "mount", "open", "ptrace", "setns", "socket", "tgkill",
			"thread", "unix socket", "unshare"},
		"warden":   {"executable memory", "kill", "mount", "ptrace", "setns", "tgkill", "unix socket", "unshare"},
		"opener":   {"core", "exec", "executable memory", "kill", "mount", "open", "ptrace", "setns", "socket", "tgkill", "unshare"},
		"managed":  {"core", "exec", "executable memory", "kill", "mount", "ptrace", "setns", "tgkill", "unix socket", "unshare"},
		"programs": {"mount", "ptrace", "setns", "unshare"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			var found tried
			run(t, exe, t.TempDir(), inside+"="+how, &found)
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
			want := []Capability{NetAdmin}
			switch how {
			case "front":
				want = nil
			case "opener":
				want = []Capability{DACOverride}
			}
			if os.Geteuid() == 0 && !slices.Equal(s.Capabilities, want) {
				t.Errorf("capabilities: %v", s.Capabilities)
			}
		})
	}
}
