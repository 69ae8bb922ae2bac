package netif_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/netif"
)

// patience is how long a test waits for an event that must come.
const patience = 10 * time.Second

// reexecuted marks the copy of the test binary that runs inside a user
// namespace.
const reexecuted = "NETIF_TEST_IN_USER_NAMESPACE"

// TestMain runs the tests again as root of a user namespace of their own when
// they are not run by root. Fuzz workers are left alone: their parent has been
// through this already.
func TestMain(m *testing.M) {
	worker := strings.Contains(strings.Join(os.Args, " "), "-test.fuzzworker")
	if os.Geteuid() != 0 && os.Getenv(reexecuted) == "" && !worker {
		if code, ok := runInUserNamespace(); ok {
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

func runInUserNamespace() (code int, ok bool) {
	p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), reexecuted+"=1"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "no user namespace, so tests of kernel behaviour cannot run:", err)
		return 0, false
	}
	state, err := p.Wait()
	if err != nil {
		return 1, true
	}
	return state.ExitCode(), true
}

// space is a throw-away network namespace with lo up.
type space struct {
	t  testing.TB
	ns netns.NsHandle
	h  *netlink.Handle // to change it
	k  *netif.Kernel   // what is tested
}

func newSpace(t testing.TB) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root or unprivileged user namespaces, and has neither")
		}
		t.Skip("needs root or unprivileged user namespaces, and has neither")
	}
	s := &space{t: t, ns: newNamespace(t)}
	t.Cleanup(func() { _ = s.ns.Close() })
	var err error
	if s.h, err = netlink.NewHandleAt(s.ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.h.Close)
	if s.k, err = netif.OpenAt(slog.New(slog.DiscardHandler), s.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.k.Close)
	s.up("lo")
	return s
}

// newNamespace makes a namespace on a thread that ends with its goroutine.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{netns.None(), err}
			return
		}
		ns, err := netns.Get()
		made <- result{ns, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatalf("new network namespace: %v", r.err)
	}
	return r.ns
}

// inside runs f on a thread that is in the namespace.
func (s *space) inside(f func() error) {
	s.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	s.must(<-done)
}

func (s *space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) link(name string) netlink.Link {
	s.t.Helper()
	l, err := s.h.LinkByName(name)
	s.must(err)
	return l
}

func (s *space) index(name string) int {
	s.t.Helper()
	return s.link(name).Attrs().Index
}

func (s *space) up(names ...string) {
	s.t.Helper()
	for _, n := range names {
		s.must(s.h.LinkSetUp(s.link(n)))
	}
}

// veth makes a pair. Its MAC addresses are 02:00:00:00:00:n and :n+1.
func (s *space) veth(a, b string, n byte) {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	attrs.HardwareAddr = mac(n)
	s.must(s.h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerHardwareAddr: mac(n + 1)}))
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// bridge makes a bridge with the port.
func (s *space) bridge(name, port string) {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	s.must(s.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	s.must(s.h.LinkSetMaster(s.link(port), s.link(name)))
}

// address adds "192.168.1.1/24" without duplicate detection.
func (s *space) address(name, cidr string) {
	s.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	s.must(err)
	a.Flags = unix.IFA_F_NODAD
	s.must(s.h.AddrAdd(s.link(name), a))
}

// addRoute adds a route to the main table; via may be "".
func (s *space) addRoute(dst, name, via string, metric int) {
	s.t.Helper()
	s.must(s.h.RouteAdd(s.route(dst, name, via, metric)))
}

func (s *space) delRoute(dst, name, via string, metric int) {
	s.t.Helper()
	s.must(s.h.RouteDel(s.route(dst, name, via, metric)))
}

func (s *space) route(dst, name, via string, metric int) *netlink.Route {
	s.t.Helper()
	_, n, err := net.ParseCIDR(dst)
	s.must(err)
	return &netlink.Route{Dst: n, LinkIndex: s.index(name), Gw: net.ParseIP(via), Priority: metric}
}

func (s *space) read() netif.State {
	s.t.Helper()
	state, err := s.k.Read(context.Background())
	s.must(err)
	return state
}

// addrs parses a list.
func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}
