package ssdp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// endpoint is a UDP socket of a host on the network.
type endpoint struct {
	t   *testing.T
	udp *net.UDPConn
}

// bind opens a socket in a namespace with the given options set before bind;
// its multicast goes out by ifname.
func bind(t *testing.T, ns *netnstest.Space, ifname, address string, options ...int) *endpoint {
	t.Helper()
	e := &endpoint{t: t}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			for _, o := range options {
				if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}}
	if err := ns.In(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		at := netip.MustParseAddrPort(address)
		if at.Addr().Is4() {
			pc, err := lc.ListenPacket(t.Context(), "udp4", address)
			if err != nil {
				return err
			}
			e.udp = pc.(*net.UDPConn)
			return ipv4.NewPacketConn(e.udp).SetMulticastInterface(ifi)
		}
		if at.Addr().IsLinkLocalUnicast() || at.Addr().IsLinkLocalMulticast() {
			// By number: names are not the same in every namespace.
			at = netip.AddrPortFrom(at.Addr().WithZone(strconv.Itoa(ifi.Index)), at.Port())
		}
		pc, err := lc.ListenPacket(t.Context(), "udp6", at.String())
		if err != nil {
			return err
		}
		e.udp = pc.(*net.UDPConn)
		return ipv6.NewPacketConn(e.udp).SetMulticastInterface(ifi)
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.udp.Close() })
	return e
}

// join makes the endpoint hear a group.
func (e *endpoint) join(ns *netnstest.Space, ifname string, group netip.AddrPort) {
	e.t.Helper()
	if err := ns.In(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if group.Addr().Is6() {
			return ipv6.NewPacketConn(e.udp).JoinGroup(ifi, net.UDPAddrFromAddrPort(group))
		}
		return ipv4.NewPacketConn(e.udp).JoinGroup(ifi, net.UDPAddrFromAddrPort(group))
	}); err != nil {
		e.t.Fatal(err)
	}
}

// address is what others see datagrams come from.
func (e *endpoint) address() netip.AddrPort {
	return unzoned(e.udp.LocalAddr().(*net.UDPAddr).AddrPort())
}

func unzoned(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

func (e *endpoint) send(b []byte, to netip.AddrPort) {
	e.t.Helper()
	if _, err := e.udp.WriteToUDPAddrPort(b, to); err != nil {
		e.t.Fatal(err)
	}
}

// receive waits for one message.
func (e *endpoint) receive() (message, netip.AddrPort) {
	e.t.Helper()
	b, from := e.next()
	return read(e.t, b), from
}

// next waits for one datagram.
func (e *endpoint) next() ([]byte, netip.AddrPort) {
	e.t.Helper()
	_ = e.udp.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	n, from, err := e.udp.ReadFromUDPAddrPort(buf)
	if err != nil {
		e.t.Fatal(err)
	}
	return buf[:n], unzoned(from)
}

// refused sends to an address and gives what the network says to it: port
// unreachable is proof that a datagram came, and that no socket took it. The
// kernel limits how many of those it sends, so it is asked again.
func (e *endpoint) refused(ns *netnstest.Space, b []byte, to netip.AddrPort) error {
	e.t.Helper()
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	raw, err := e.udp.SyscallConn()
	if err != nil {
		return err
	}
	control := func(f func(fd int) error) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = f(int(fd)) })
		return errors.Join(err, failed)
	}
	if err := ns.In(func() error { return control(func(fd int) error { return unix.Connect(fd, sa) }) }); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; {
		if err := control(func(fd int) error { return unix.Send(fd, b, 0) }); err != nil {
			return err
		}
		_ = e.udp.SetReadDeadline(time.Now().Add(time.Second))
		_, _, err = e.udp.ReadFromUDPAddrPort(make([]byte, 2048))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
			return err
		}
	}
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
