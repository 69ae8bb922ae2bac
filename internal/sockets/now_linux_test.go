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
		if n, err := sockets.ReadNow(fds[1], in); err != nil || string(in[:n]) != "octets" {
			t.Fatalf("read %q, error %v", in[:max(n, 0)], err)
		}
	}
	if _, err := sockets.ReadNow(fds[1], in); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("with nothing to read: %v", err)
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
			got, err := receive(t, to, in, nil)
			if want := (sockets.Datagram{Size: 6, From: from.LocalAddr().(*net.UDPAddr).AddrPort()}); err != nil || string(in[:6]) != "octets" || got != want {
				t.Errorf("%s: %q, %+v, error %v; want %+v", at, in, got, err, want)
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

func receive(t *testing.T, c *net.UDPConn, in, control []byte) (got sockets.Datagram, err error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	failed := raw.Read(func(fd uintptr) bool {
		got, err = sockets.ReceiveNow(int(fd), in, control)
		return err != unix.EAGAIN
	})
	return got, errors.Join(failed, err)
}

// TestReceiveNow: what has no room is cut and says so; control messages come with it, and a
// descriptor among them ends with execve(2).
func TestReceiveNow(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	if _, err := sockets.ReceiveNow(fds[1], nil, nil); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nothing has come: %v", err)
	}
	if err := unix.Sendmsg(fds[0], []byte("octets"), unix.UnixRights(fds[0]), nil, 0); err != nil {
		t.Fatal(err)
	}
	in, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	got, err := sockets.ReceiveNow(fds[1], in, control)
	if err != nil || got.Size != 4 || got.Flags&unix.MSG_TRUNC == 0 || got.From.IsValid() {
		t.Fatalf("%+v, error %v", got, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:got.Control])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	passed, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(passed) != 1 {
		t.Fatal(passed, err)
	}
	defer unix.Close(passed[0])
	if flags, err := unix.FcntlInt(uintptr(passed[0]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, error %v", flags, err)
	}
}

// TestAcceptNow: both ends are told, IPv4 as IPv4 also where the listener has IPv6, and a
// link-local one with its zone.
func TestAcceptNow(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		addr := netip.MustParseAddr(at)
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if addr.Is4() {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var name unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16()}
		if addr.Is4() {
			name = &unix.SockaddrInet4{Addr: addr.As4()}
		}
		if err := errors.Join(unix.Bind(fd, name), unix.Listen(fd, 1)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := sockets.AcceptNow(fd); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%s: nobody has connected: %v", at, err)
		}
		here, err := sockets.LocalNow(fd)
		if err != nil || here.Addr() != addr.Unmap() {
			t.Errorf("it listens at %s, error %v", here, err)
		}
		c, err := sockets.DialTCP(t.Context(), netip.Addr{}, here, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		taken, from, err := sockets.AcceptNow(fd)
		if err != nil {
			t.Fatal(at, err)
		}
		defer unix.Close(taken)
		if want := port(t, c.LocalAddr()); from != want {
			t.Errorf("%s: of %s, want %s", at, from, want)
		}
		if local, err := sockets.LocalNow(taken); err != nil || local != here {
			t.Errorf("%s: to %s, error %v, want %s", at, local, err, here)
		}
	}
}

// TestStartNow: what is written at the start is read there, whatever was read before.
func TestStartNow(t *testing.T) {
	t.Parallel()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, text := range []string{"octets", "others"} {
		if n, err := sockets.WriteStartNow(fd, []byte(text)); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		in := make([]byte, 10)
		if n, err := sockets.ReadStartNow(fd, in); err != nil || string(in[:n]) != text {
			t.Errorf("read %q, error %v", in[:n], err)
		}
	}
}
