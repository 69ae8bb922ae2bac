package netnstest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	handle "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/internal/netns"
)

// Space is a network namespace of a test, where an error ends the test.
type Space struct {
	*netns.Space
	t     testing.TB
	name  string
	links *netlink.Handle
}

// New makes a namespace with lo up, under a name for messages only. It ends with
// the test. An IPv6 address is usable at once: duplicates are not looked for.
func New(t testing.TB, name string) *Space {
	t.Helper()
	NeedRoot(t)
	inner, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inner.Close)
	links, err := netlink.NewHandleAt(handle.NsHandle(inner.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	s := &Space{inner, t, name, links}
	s.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	// Without a loopback, package net believes for the rest of the process that
	// there is no IPv6.
	s.Up("lo")
	return s
}

// Main runs the tests of a package as root of a user namespace where this process is
// not root, and returns their exit code. Where there is no user namespace they run as
// they are, and NeedRoot decides.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 {
		code, err := netns.AsRoot(context.Background())
		if err == nil {
			return code
		}
		fmt.Fprintln(os.Stderr, "no tests of kernel behaviour:", err)
	}
	return m.Run()
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

func (s *Space) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// Must is In where an error ends the test.
func (s *Space) Must(f func() error) {
	s.t.Helper()
	s.must(s.In(f))
}

// Links lends the netlink handle of the namespace.
func (s *Space) Links(f func(*netlink.Handle) error) {
	s.t.Helper()
	s.must(f(s.Handle()))
}

// Handle returns the netlink handle of the namespace, open until the test ends.
func (s *Space) Handle() *netlink.Handle { return s.links }

// Run runs a program in the namespace and returns what it prints.
func (s *Space) Run(stdin string, argv ...string) (string, error) {
	out, err := s.Output(context.Background(), stdin, argv...)
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return out, err
}

// Sysctl writes a setting of the namespace: "net/ipv4/ip_forward".
func (s *Space) Sysctl(path, value string) {
	s.t.Helper()
	s.must(s.Space.Sysctl(path, value))
}

// Cable joins two namespaces by a veth pair. Each end is its name and its
// addresses, if any: "eth0 192.168.1.10/24 2001:db8:77::10/64". When it returns
// both ends carry and take what is sent to their addresses.
func Cable(a *Space, endA string, b *Space, endB string) {
	a.t.Helper()
	wordsA, wordsB := strings.Fields(endA), strings.Fields(endB)
	a.must(netns.Cable(netns.End{Space: a.Space, Name: wordsA[0]}, netns.End{Space: b.Space, Name: wordsB[0]}))
	a.Address(wordsA[0], wordsA[1:]...)
	b.Address(wordsB[0], wordsB[1:]...)
	a.must(a.Carries(wordsA[0]))
	b.must(b.Carries(wordsB[0]))
}

// Up brings links up.
func (s *Space) Up(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.must(s.Space.Up(name))
	}
}

// Address adds addresses to a link: "192.168.1.1/24".
func (s *Space) Address(link string, addrs ...string) {
	s.t.Helper()
	for _, a := range addrs {
		s.must(s.Space.Address(link, netip.MustParsePrefix(a)))
	}
}

// Bridge makes a bridge, up, with addresses and with links as its ports.
func (s *Space) Bridge(name string, addrs []string, ports ...string) {
	s.t.Helper()
	s.must(s.Space.Bridge(name, nil))
	for _, port := range ports {
		s.must(s.Plug(port, name))
	}
	s.Address(name, addrs...)
	s.Up(name)
}

// Index returns the number of a link.
func (s *Space) Index(name string) int {
	s.t.Helper()
	index, err := s.Space.Index(name)
	s.must(err)
	return index
}

// Route adds a route, or the default route where to is "". A router's link-local
// address says on which link: "fe80::1%eth0".
func (s *Space) Route(to, via string) {
	s.t.Helper()
	router := netip.MustParseAddr(via)
	prefix := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if router.Is6() {
		prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if to != "" {
		prefix = netip.MustParsePrefix(to)
	}
	s.must(s.Space.Route(router.Zone(), prefix, router.WithZone("")))
}
