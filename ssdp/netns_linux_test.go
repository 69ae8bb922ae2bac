package ssdp_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"portcullis/datagram"
	"portcullis/ssdp"
)

// patience is how long a test waits for what must come.
const patience = 5 * time.Second

// namespace is a network namespace that lives as long as the test.
type namespace struct{ handle netns.NsHandle }

// newNamespace makes one, with loopback up.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		h, err := netns.New()
		if err != nil {
			t.Error("namespace:", err)
			h = -1
		}
		made <- h
	}()
	ns := &namespace{<-made}
	if ns.handle < 0 {
		t.FailNow()
	}
	t.Cleanup(func() { _ = ns.handle.Close() })
	ns.do(t, func() error {
		return netlink.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
	})
	return ns
}

// do runs f on a thread inside the namespace. Sockets that f opens stay there.
func (ns *namespace) do(t *testing.T, f func() error) {
	t.Helper()
	if err := ns.try(f); err != nil {
		t.Fatal(err)
	}
}

func (ns *namespace) try(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns.handle); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

// parseAddr reads an interface's address, which is to be usable at once.
func parseAddr(s string) (*netlink.Addr, error) {
	addr, err := netlink.ParseAddr(s)
	if err == nil && addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr, err
}

// owns says whether a link has all its IPv6 addresses in the routing table, which
// the kernel does in its own time: until then it takes nothing sent to them.
func owns(link netlink.Link, addrs []string) (bool, error) {
	const local = 255 // the table
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: local}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, err
	}
	for _, s := range addrs {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return false, err
		}
		if addr.IP.To4() == nil && !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(addr.IP) }) {
			return false, nil
		}
	}
	return true, nil
}

// wire joins two namespaces by a veth pair, gives each end its addresses, and
// waits until it carries and they are there. The index is that of the first end.
func wire(t *testing.T, a *namespace, aName string, aAddrs []string, b *namespace, bName string, bAddrs []string) (index int) {
	t.Helper()
	a.do(t, func() error {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(b.handle)}
		return netlink.LinkAdd(pair)
	})
	up := func(name string, addrs []string) func() error {
		return func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			for _, s := range addrs {
				addr, err := parseAddr(s)
				if err != nil {
					return err
				}
				if err := netlink.AddrAdd(link, addr); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(link)
		}
	}
	carries := func(name string, addrs []string) func() error {
		return func() error {
			for began := time.Now(); ; <-time.After(time.Millisecond) {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				index = link.Attrs().Index
				if ready, err := owns(link, addrs); err != nil || ready && link.Attrs().OperState == netlink.OperUp {
					return err
				}
				if time.Since(began) > patience {
					return context.DeadlineExceeded
				}
			}
		}
	}
	a.do(t, up(aName, aAddrs))
	b.do(t, up(bName, bAddrs))
	b.do(t, carries(bName, bAddrs))
	a.do(t, carries(aName, aAddrs))
	return index
}

// home is a gateway with two LANs and a WAN, and a host on each. On lan0 the
// served address is not the one the kernel would choose to send from.
type home struct {
	gateway, a, b, x *namespace
	lan0, lan1       int // indexes in the gateway
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{gateway: newNamespace(t), a: newNamespace(t), b: newNamespace(t), x: newNamespace(t)}
	h.lan0 = wire(t, h.gateway, "lan0", []string{"192.168.1.254/24", "192.168.1.1/24"}, h.a, "eth0", []string{"192.168.1.50/24", "10.9.9.9/32"})
	h.lan1 = wire(t, h.gateway, "lan1", []string{"192.168.2.1/24"}, h.b, "eth0", []string{"192.168.2.50/24", "192.168.1.77/32"})
	wire(t, h.gateway, "wan0", []string{"203.0.113.5/24"}, h.x, "eth0", []string{"203.0.113.66/24"})
	via := func(gw string) func() error {
		return func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}) }
	}
	h.a.do(t, via("192.168.1.1"))
	h.b.do(t, via("192.168.2.1"))
	h.x.do(t, via("203.0.113.5"))
	return h
}

// endpoint is a UDP socket of a host on the network.
type endpoint struct {
	t   *testing.T
	udp *net.UDPConn
}

// bind opens a socket in a namespace with the given options set before bind;
// its multicast goes out by ifname.
func bind(t *testing.T, ns *namespace, ifname, address string, options ...int) *endpoint {
	t.Helper()
	e, err := tryBind(t, ns, ifname, address, options...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tryBind(t *testing.T, ns *namespace, ifname, address string, options ...int) (*endpoint, error) {
	t.Helper()
	e := &endpoint{t: t}
	err := ns.try(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				for _, o := range options {
					if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1); err != nil {
						t.Error(err)
					}
				}
			})
		}}
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		at := netip.MustParseAddrPort(address)
		network := "udp4"
		if at.Addr().Is6() {
			network = "udp6"
		}
		if at.Addr().IsLinkLocalUnicast() && at.Addr().Is6() || at.Addr().IsLinkLocalMulticast() {
			// By number: names are not the same in every namespace.
			at = netip.AddrPortFrom(at.Addr().WithZone(strconv.Itoa(ifi.Index)), at.Port())
		}
		pc, err := lc.ListenPacket(t.Context(), network, at.String())
		if err != nil {
			return err
		}
		e.udp = pc.(*net.UDPConn)
		t.Cleanup(func() { _ = e.udp.Close() })
		if network == "udp6" {
			return ipv6.NewPacketConn(e.udp).SetMulticastInterface(ifi)
		}
		return ipv4.NewPacketConn(e.udp).SetMulticastInterface(ifi)
	})
	return e, err
}

// join makes the endpoint hear the group.
func (e *endpoint) join(ns *namespace, ifname string) {
	e.t.Helper()
	e.joinGroup(ns, ifname, ssdp.Group)
}

func (e *endpoint) joinGroup(ns *namespace, ifname string, group netip.AddrPort) {
	e.t.Helper()
	ns.do(e.t, func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if group.Addr().Is6() {
			return ipv6.NewPacketConn(e.udp).JoinGroup(ifi, net.UDPAddrFromAddrPort(group))
		}
		return ipv4.NewPacketConn(e.udp).JoinGroup(ifi, net.UDPAddrFromAddrPort(group))
	})
}

func (e *endpoint) send(b []byte, to netip.AddrPort) {
	e.t.Helper()
	if _, err := e.udp.WriteToUDPAddrPort(b, to); err != nil {
		e.t.Fatal(err)
	}
}

// receive waits for one datagram.
func (e *endpoint) receive() (message, netip.AddrPort) {
	e.t.Helper()
	if err := e.udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
		e.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := e.udp.ReadFromUDPAddrPort(buf)
	if err != nil {
		e.t.Fatal(err)
	}
	return read(e.t, buf[:n]), netip.AddrPortFrom(from.Addr().WithZone(""), from.Port())
}

// ignored is what the server logs about a datagram it does not answer.
type ignored struct{ reason, client string }

// watcher is a log that tells tests what was ignored: proof that a datagram
// came, and was not answered for the reason meant.
type watcher struct {
	slog.Handler
	seen chan ignored
}

func newWatcher() watcher {
	return watcher{slog.DiscardHandler, make(chan ignored, 100)}
}

func (w watcher) Enabled(context.Context, slog.Level) bool { return true }
func (w watcher) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w watcher) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "datagram ignored" {
		return nil
	}
	var i ignored
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "reason":
			i.reason = a.Value.String()
		case "client":
			i.client = a.Value.String()
		}
		return true
	})
	w.seen <- i
	return nil
}

// next waits for the next ignored datagram.
func (w watcher) next(t *testing.T) ignored {
	t.Helper()
	select {
	case i := <-w.seen:
		return i
	case <-time.After(patience):
		t.Fatal("no datagram came to the server")
		return ignored{}
	}
}

// serve runs a server on a real socket of the gateway until the test ends or
// stop is called. It returns once the server has its address: Describe is asked
// in the same turn.
func serve(t *testing.T, udp *net.UDPConn, cfg ssdp.Config, local string, prefix string) (s *ssdp.Server, stop func()) {
	t.Helper()
	return serveAt(t, udp, cfg, []netip.Addr{netip.MustParseAddr(local)}, []netip.Prefix{netip.MustParsePrefix(prefix)})
}

func serveAt(t *testing.T, udp *net.UDPConn, cfg ssdp.Config, locals []netip.Addr, prefixes []netip.Prefix) (s *ssdp.Server, stop func()) {
	t.Helper()
	newConn := datagram.NewConn
	if cfg.IPv6 {
		newConn = datagram.NewConn6
	}
	conn, err := newConn(udp, cfg.Ifindex)
	if err != nil {
		t.Fatal(err)
	}
	adopted := make(chan struct{})
	var once sync.Once
	describe := cfg.Describe
	cfg.Describe = func(version int, local netip.Addr) ssdp.Description {
		once.Do(func() { close(adopted) })
		return describe(version, local)
	}
	if s, err = ssdp.New(cfg, conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error("Run:", err)
		}
	}()
	s.SetAddresses(locals, prefixes)
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	select {
	case <-adopted:
	case <-time.After(patience):
		t.Fatal("the server does not take its address")
	}
	return s, stop
}

// listen opens the discovery socket of the gateway.
func listen(t *testing.T, ns *namespace, ifname string) *net.UDPConn {
	t.Helper()
	return listenBy(t, ns, ifname, ssdp.Listen)
}

func listenBy(t *testing.T, ns *namespace, ifname string, open func(context.Context, string) (*net.UDPConn, error)) *net.UDPConn {
	t.Helper()
	var udp *net.UDPConn
	ns.do(t, func() (err error) {
		udp, err = open(t.Context(), ifname)
		return err
	})
	t.Cleanup(func() { _ = udp.Close() })
	return udp
}
