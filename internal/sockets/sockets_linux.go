package sockets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Control sets options of a socket that has no address yet; nil is none.
type Control func(fd int) error

// ListenTCP opens a listener for the family of the address alone.
func ListenTCP(ctx context.Context, at netip.AddrPort, control Control) (net.Listener, error) {
	var l net.Listener
	f, err := open(ctx, unix.SOCK_STREAM, at, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		return control.set(fd)
	})
	if err == nil {
		defer f.Close()
		err = f.listen()
	}
	if err == nil {
		l, err = net.FileListener(f.File) // a copy
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: err}
	}
	return l, nil
}

// ListenUDP opens a socket for the family of the address alone.
func ListenUDP(ctx context.Context, at netip.AddrPort, control Control) (*net.UDPConn, error) {
	var c net.PacketConn
	f, err := open(ctx, unix.SOCK_DGRAM, at, control.set)
	if err == nil {
		defer f.Close()
		c, err = net.FilePacketConn(f.File) // a copy
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: err}
	}
	return c.(*net.UDPConn), nil // which a socket of this kind is
}

// DialTCP connects, from an address of ours unless from is zero.
func DialTCP(ctx context.Context, from netip.Addr, to netip.AddrPort, control Control) (net.Conn, error) {
	if !from.IsValid() {
		from = netip.IPv4Unspecified()
		if to.Addr().Is6() {
			from = netip.IPv6Unspecified()
		}
	}
	var c net.Conn
	f, err := open(ctx, unix.SOCK_STREAM, netip.AddrPortFrom(from, 0), control.set)
	if err == nil {
		defer f.Close()
		err = f.connect(ctx, to)
	}
	if err == nil {
		c, err = net.FileConn(f.File) // a copy
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

// socket waits by the runtime's poller.
type socket struct {
	*os.File
	fd int
}

// open makes a socket with an address, unless ctx has ended.
func open(ctx context.Context, typ int, at netip.AddrPort, control Control) (socket, error) {
	if err := ctx.Err(); err != nil {
		return socket{}, err
	}
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if err == nil {
		err = control(fd)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, address(at)))
	}
	if err != nil {
		_ = unix.Close(fd) // nothing can be lost
		return socket{}, err
	}
	return socket{os.NewFile(uintptr(fd), "socket"), fd}, nil
}

func (s socket) listen() error {
	return os.NewSyscallError("listen", unix.Listen(s.fd, unix.SOMAXCONN))
}

func (s socket) connect(ctx context.Context, to netip.AddrPort) error {
	err := unix.Connect(s.fd, address(to))
	if !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("connect", err)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	// A time that is over ends the wait with ctx.
	stop := context.AfterFunc(ctx, func() { _ = s.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		done, failed = connected(int(fd))
		return done
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return errors.Join(err, os.NewSyscallError("connect", failed))
}

// connected reports whether it is decided what becomes of a connection, and what.
func connected(fd int) (done bool, failed error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return true, err
	case errno != 0:
		return true, unix.Errno(errno)
	}
	_, err = unix.Getpeername(fd)
	return err == nil, nil // ENOTCONN: it is under way
}

func (c Control) set(fd int) error {
	if c == nil {
		return nil
	}
	return c(fd)
}

// address takes a zone that is a number; a socket that is bound to its device needs none.
func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32) // of a link that has no number the kernel knows nothing
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}
