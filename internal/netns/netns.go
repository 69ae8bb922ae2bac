package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace of a test.
type Space struct {
	t    testing.TB
	fd   int
	name string
}

// New makes a namespace with lo up, under a name for messages only. It ends with
// the test. An IPv6 address is usable at once: duplicates are not looked for.
func New(t testing.TB, name string) *Space {
	t.Helper()
	NeedRoot(t)
	s := &Space{t: t, name: name}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			path := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			s.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("namespace %s: %v", name, err)
	}
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	s.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	// Without a loopback, package net believes for the rest of the process that
	// there is no IPv6.
	s.Up("lo")
	return s
}

// NeedRoot skips where namespaces cannot be had, and fails where they must.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "root, for network namespaces")
	}
}

// NeedProgram skips where a program is missing, and fails where it must be there.
func NeedProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		lacks(t, "the program "+name+", which test/install installs")
	}
}

// lacks ends a test for want of something: under CI everything must be there.
func lacks(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// FD is a file descriptor of the namespace, open until the test ends.
func (s *Space) FD() int { return s.fd }

// In runs f on a thread inside the namespace. The sockets f opens stay there.
func (s *Space) In(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("entering namespace %s: %w", s.name, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// Must is In where an error ends the test.
func (s *Space) Must(f func() error) {
	s.t.Helper()
	if err := s.In(f); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// Links lends a netlink handle of the namespace.
func (s *Space) Links(f func(*netlink.Handle) error) {
	s.t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(s.fd), unix.NETLINK_ROUTE)
	if err != nil {
		s.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// Handle returns a netlink handle of the namespace, open until the test ends.
func (s *Space) Handle() *netlink.Handle {
	s.t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(s.fd), unix.NETLINK_ROUTE)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(h.Close)
	return h
}

// Run runs a program in the namespace and gives what it prints.
func (s *Space) Run(stdin string, argv ...string) (string, error) {
	var out []byte
	err := s.In(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		var err error
		out, err = cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, exit.Stderr)
		}
		return err
	})
	return string(out), err
}

// Sysctl writes a setting of the namespace: "net/ipv4/ip_forward".
func (s *Space) Sysctl(path, value string) {
	s.t.Helper()
	s.Must(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
}
