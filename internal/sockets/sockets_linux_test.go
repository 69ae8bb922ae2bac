package sockets_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

var loopbacks = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

func port(t *testing.T, a net.Addr) netip.AddrPort {
	t.Helper()
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestTCP(t *testing.T) {
	for _, at := range loopbacks {
		l, err := sockets.ListenTCP(t.Context(), netip.AddrPortFrom(at, 0), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := sockets.ListenTCP(t.Context(), port(t, l.Addr()), nil); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a port that is taken: %v", err)
		}
		for _, from := range []netip.Addr{{}, at} {
			c, err := sockets.DialTCP(t.Context(), from, port(t, l.Addr()), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			there, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			if there.RemoteAddr().String() != c.LocalAddr().String() {
				t.Errorf("from %v, not %v", there.RemoteAddr(), c.LocalAddr())
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if n, err := there.Read(make([]byte, 2)); n != 1 || err != nil {
				t.Errorf("%d octets, %v", n, err)
			}
		}
		nobody := port(t, l.Addr())
		l.Close()
		if c, err := sockets.DialTCP(t.Context(), netip.Addr{}, nobody, nil); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("nobody listens: %v, %v", c, err)
		}
	}
}

// A listener for all addresses of IPv6 is not one for IPv4.
func TestOneFamily(t *testing.T) {
	l, err := sockets.ListenTCP(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.AddrPortFrom(loopbacks[0], port(t, l.Addr()).Port())
	if c, err := sockets.DialTCP(t.Context(), netip.Addr{}, to, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("by IPv4: %v, %v", c, err)
	}
}

// Whoever does not answer is waited for until the context ends, and no longer.
func TestDialEnds(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: loopbacks[0].As4()}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(loopbacks[0], uint16(name.(*unix.SockaddrInet4).Port))
	c, err := sockets.DialTCP(t.Context(), netip.Addr{}, to, nil) // the queue has room for one
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	opened := make(chan int, 1)
	go func() {
		_, err := sockets.DialTCP(ctx, netip.Addr{}, to, func(fd int) error { opened <- fd; return nil })
		ended <- err
	}()
	<-opened
	select {
	case err := <-ended:
		t.Fatalf("it does not wait: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if _, err := sockets.DialTCP(ctx, netip.Addr{}, to, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestUDP(t *testing.T) {
	for _, at := range loopbacks {
		var set bool
		c, err := sockets.ListenUDP(t.Context(), netip.AddrPortFrom(at, 0), func(fd int) error {
			name, err := unix.Getsockname(fd)
			switch a := name.(type) {
			case *unix.SockaddrInet4:
				set = a.Port == 0
			case *unix.SockaddrInet6:
				set = a.Port == 0
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !set {
			t.Error("the options come after the address")
		}
		to := port(t, c.LocalAddr())
		if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Error(err)
		}
		if n, from, err := c.ReadFromUDPAddrPort(make([]byte, 2)); n != 1 || from != to || err != nil {
			t.Errorf("%d octets from %v, %v", n, from, err)
		}
	}
}

// A socket that refuses an option is none.
func TestControl(t *testing.T) {
	refuse := func(int) error { return unix.EPERM }
	_, tcp := sockets.ListenTCP(t.Context(), netip.AddrPortFrom(loopbacks[0], 0), refuse)
	_, udp := sockets.ListenUDP(t.Context(), netip.AddrPortFrom(loopbacks[0], 0), refuse)
	_, dial := sockets.DialTCP(t.Context(), netip.Addr{}, netip.AddrPortFrom(loopbacks[0], 1), refuse)
	for what, err := range map[string]error{"ListenTCP": tcp, "ListenUDP": udp, "DialTCP": dial} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
