package httpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door accepts from a listener of TCP. Of every connection package net sets five options
// and asks for its own end; and has the poller watch it, though the request of most is there
// when they are first read (docs/performance.md).
type door struct {
	net.Listener
	file   *os.File // the listener's socket
	raw    syscall.RawConn
	local  netip.AddrPort
	closed atomic.Bool
}

// newDoor takes a listener over, which its Close closes.
func newDoor(l *net.TCPListener) (*door, error) {
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	d := &door{Listener: l, file: file, local: addrPort(l.Addr())}
	if d.raw, err = file.SyscallConn(); err == nil {
		var wrong error
		err = d.raw.Control(func(fd uintptr) {
			// Connections have it from the listener. An answer behind "100 Continue" would wait
			// for an acknowledgement of that.
			wrong = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		})
		err = errors.Join(err, wrong)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("httpd: %w", err), file.Close())
	}
	return d, nil
}

// SetDeadline has Accept end then.
func (d *door) SetDeadline(t time.Time) error { return d.file.SetReadDeadline(t) }

// Close closes both descriptors of the socket.
func (d *door) Close() error {
	d.closed.Store(true)
	return errors.Join(d.file.Close(), d.Listener.Close())
}

// accept waits for the next connection. It returns net.ErrClosed after Close.
func (d *door) accept() (*stream, error) {
	var fd int
	var from syscall.Sockaddr
	var failed error
	err := d.raw.Read(func(listener uintptr) bool {
		// That of x/sys asks for the protocol of each socket as well.
		fd, from, failed = syscall.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return failed != unix.EAGAIN
	})
	switch {
	case d.closed.Load():
		if err == nil && failed == nil {
			_ = unix.Close(fd)
		}
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, os.NewSyscallError("accept4", failed)
	}
	s := &stream{fd: fd, remote: endOf(from), local: d.local}
	if d.local.Addr().IsUnspecified() {
		at, err := syscall.Getsockname(fd)
		if err != nil {
			return nil, errors.Join(os.NewSyscallError("getsockname", err), s.Close())
		}
		s.local = endOf(at)
	}
	return s, nil
}

// endOf returns an end of a socket, IPv4 without its IPv6 form. It is the zero value for
// what is no IP socket.
func endOf(a syscall.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) // #nosec G115 -- a port
	case *syscall.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(a.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(a.Port)) // #nosec G115 -- a port
	}
	return netip.AddrPort{}
}
