package sockets_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// TestWriteNow: what has room is written, and what has none says so at once; so does an end
// that nobody reads any more, without a signal.
func TestWriteNow(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := sockets.WriteNow(fds[0], nil); n != 0 || err != nil {
		t.Errorf("of nothing %d octets, error %v", n, err)
	}
	sent := 0
	for err == nil {
		var n int
		if n, err = sockets.WriteNow(fds[0], []byte("octets")); err == nil && n != 6 {
			t.Fatalf("%d octets were sent", n)
		}
		sent++
	}
	if !errors.Is(err, unix.EAGAIN) || sent < 2 {
		t.Errorf("after %d messages: %v", sent, err)
	}
	in := make([]byte, 10)
	for range sent - 1 {
		if n, err := unix.Read(fds[1], in); err != nil || string(in[:n]) != "octets" {
			t.Fatalf("read %q, error %v", in[:max(n, 0)], err)
		}
	}
	if err := sockets.CloseNow(fds[1]); err != nil {
		t.Error(err)
	}
	if _, err := sockets.WriteNow(fds[0], []byte("octets")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("nobody reads it: %v", err)
	}
	if err := sockets.CloseNow(fds[0]); err != nil {
		t.Error(err)
	}
	if err := sockets.CloseNow(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("of no descriptor: %v", err)
	}
}

// TestSendNow: a datagram goes where it is sent to, from the address that its control message
// names.
func TestSendNow(t *testing.T) {
	t.Parallel()
	for at, control := range map[string]func(netip.Addr) []byte{
		"127.0.0.1": func(a netip.Addr) []byte { return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()}) },
		"::1":       func(a netip.Addr) []byte { return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()}) },
	} {
		addr := netip.MustParseAddr(at)
		to, from := udp(t, addr), udp(t, addr)
		raw, err := from.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for _, oob := range [][]byte{nil, control(addr)} {
			failed := raw.Control(func(fd uintptr) {
				err = sockets.SendNow(int(fd), []byte("octets"), oob, to.LocalAddr().(*net.UDPAddr).AddrPort())
			})
			if err := errors.Join(failed, err); err != nil {
				t.Fatal(at, err)
			}
			in := make([]byte, 10)
			n, source, err := to.ReadFromUDPAddrPort(in)
			if err != nil || string(in[:n]) != "octets" || source != from.LocalAddr().(*net.UDPAddr).AddrPort() {
				t.Errorf("%s: %q of %s, error %v", at, in[:n], source, err)
			}
		}
	}
}

func udp(t *testing.T, at netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := sockets.ListenUDP(t.Context(), netip.AddrPortFrom(at, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
