package iptables_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/iptables"
)

// namespace is a throw-away network namespace.
type namespace struct {
	t    testing.TB
	fd   int
	name string
}

// newNamespace makes one with lo up. It ends with the test.
func newNamespace(t testing.TB, name string) *namespace {
	t.Helper()
	needRoot(t)
	made := make(chan int, 1)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		fd, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			failed <- err
			return
		}
		made <- fd
	}()
	n := &namespace{t: t, name: name}
	select {
	case err := <-failed:
		t.Fatalf("namespace: %v", err)
	case n.fd = <-made:
	}
	t.Cleanup(func() { _ = unix.Close(n.fd) })
	n.sysctl("net/ipv6/conf/default/accept_dad", "0") // no address waits to be found free
	n.links(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	return n
}

// needRoot skips where namespaces cannot be had, and fails where they must.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root for network namespaces")
	}
	t.Skip("needs root for network namespaces")
}

// needProgram skips where a program is missing, and fails where it must be there.
func needProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs the program %s", name)
	}
	t.Skipf("needs the program %s", name)
}

// in runs f on a thread inside the namespace.
func (n *namespace) in(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (n *namespace) must(f func() error) {
	n.t.Helper()
	if err := n.in(f); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

func (n *namespace) links(f func(*netlink.Handle) error) {
	n.t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(n.fd), unix.NETLINK_ROUTE)
	if err != nil {
		n.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// run runs a program in the namespace and gives what it prints.
func (n *namespace) run(stdin string, argv ...string) (string, error) {
	var out []byte
	err := n.in(func() error {
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

// iptables runs the program in the namespace: a family ("" or "6") and a flavour.
func (n *namespace) iptables(family, flavour, args string) string {
	n.t.Helper()
	out, err := n.run("", append([]string{"ip" + family + "tables-" + flavour}, strings.Fields(args)...)...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// cable joins two namespaces by a veth pair; each end is "name address/bits",
// or "name -".
func cable(a *namespace, endA string, b *namespace, endB string) {
	a.t.Helper()
	nameA, addrA, _ := strings.Cut(endA, " ")
	nameB, addrB, _ := strings.Cut(endB, " ")
	a.links(func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.fd),
		})
	})
	for _, end := range []struct {
		n          *namespace
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		end.n.links(func(h *netlink.Handle) error {
			link, err := h.LinkByName(end.name)
			if err != nil {
				return err
			}
			if end.addr != "-" {
				addr, err := netlink.ParseAddr(end.addr)
				if err != nil {
					return err
				}
				if err := h.AddrAdd(link, addr); err != nil {
					return err
				}
			}
			return h.LinkSetUp(link)
		})
	}
}

// route adds a default route.
func (n *namespace) route(via string) {
	n.t.Helper()
	n.links(func(h *netlink.Handle) error {
		return h.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr(via).AsSlice()})
	})
}

func (n *namespace) sysctl(path, value string) {
	n.t.Helper()
	n.must(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
}

// logger hands log lines to the test.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// home is a gateway as the tests know it.
func home() firewall.Gateway {
	return firewall.Gateway{
		WAN:         []firewall.Uplink{{Interface: "wan0", Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}},
		WAN6:        []string{"wan0"},
		LAN:         []string{"lan0"},
		LANPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8:77::/64")},
		ServiceTCP:  []uint16{5000},
		ServiceUDP:  []uint16{1900, 5351},
	}
}

// flavours are those the tests run with: legacy only where the kernel has it, which
// is a fact of the machine and not of the code.
func flavours(t testing.TB) []string {
	needRoot(t)
	for _, p := range []string{"iptables-nft", "iptables-legacy"} {
		needProgram(t, p)
	}
	n := newNamespace(t, "probe")
	if out, err := n.run("", "iptables-legacy", "-t", "nat", "-S"); err != nil {
		t.Logf("this kernel has no legacy tables, iptables-nft alone is tested: %v %s", err, out)
		return []string{"nft"}
	}
	return []string{"legacy", "nft"}
}

// each runs a test with each flavour.
func each(t *testing.T, f func(t *testing.T, flavour string)) {
	t.Parallel()
	for _, flavour := range flavours(t) {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			f(t, flavour)
		})
	}
}

// open gives a backend in a namespace, configured.
func open(t testing.TB, n *namespace, flavour string, change ...func(*iptables.Config)) *iptables.Backend {
	t.Helper()
	cfg := iptables.Config{Log: logger(t), NetNS: n.fd, Program: "iptables-" + flavour}
	for _, c := range change {
		c(&cfg)
	}
	b, err := iptables.Open(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	if err := b.Configure(ctx(t), home()); err != nil {
		t.Fatal(err)
	}
	return b
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}
