package httpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
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
	var from netip.AddrPort
	var failed error
	err := d.raw.Read(func(listener uintptr) bool {
		fd, from, failed = sockets.AcceptNow(int(listener))
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
	s := &stream{fd: fd, remote: from, local: d.local}
	if d.local.Addr().IsUnspecified() {
		if s.local, err = sockets.LocalNow(fd); err != nil {
			return nil, errors.Join(os.NewSyscallError("getsockname", err), s.Close())
		}
	}
	return s, nil
}
