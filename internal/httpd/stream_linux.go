package httpd

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// stream is a connection that the poller watches from the moment on at which it has to be
// waited for, and not before. Until then a deadline needs no timer: nothing waits.
type stream struct {
	remote, local netip.AddrPort

	mu          sync.Mutex // guards what follows, and who uses fd: its number is another's after Close
	fd          int        // file has it, where that is set
	file        *os.File
	closed      bool
	read, write time.Time // deadlines
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	n, file, err := s.try(func(fd int) (int, error) { return sockets.ReadNow(fd, p) })
	switch {
	case file != nil:
		return file.Read(p)
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) {
	n, file, err := s.try(func(fd int) (int, error) { return sockets.WriteNow(fd, p) })
	if err != nil || file == nil && n == len(p) {
		return n, err
	}
	if file == nil { // the rest has to wait
		if file, err = s.watched(); err != nil {
			return n, err
		}
	}
	rest, err := file.Write(p[n:])
	return n + rest, err
}

// try reads or writes where that need not wait, or returns the file to do it with.
func (s *stream) try(do func(fd int) (int, error)) (int, *os.File, error) {
	s.mu.Lock()
	if s.closed || s.file != nil {
		defer s.mu.Unlock()
		if s.closed {
			return 0, nil, net.ErrClosed
		}
		return 0, s.file, nil
	}
	n, err := do(s.fd)
	for err == unix.EINTR {
		n, err = do(s.fd)
	}
	s.mu.Unlock()
	if err == unix.EAGAIN {
		file, err := s.watched()
		return 0, file, err
	}
	return max(0, n), nil, err
}

// watched returns the connection as a file that can be waited for.
func (s *stream) watched() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.file == nil {
		s.file = os.NewFile(uintptr(s.fd), "tcp") // #nosec G115 -- it is open
	}
	return s.file, s.setDeadlines()
}

// setDeadlines is called with mu held.
func (s *stream) setDeadlines() error {
	if s.closed {
		return net.ErrClosed
	}
	if s.file == nil {
		return nil
	}
	if s.read.Equal(s.write) {
		return s.file.SetDeadline(s.read)
	}
	if err := s.file.SetReadDeadline(s.read); err != nil {
		return err
	}
	return s.file.SetWriteDeadline(s.write)
}

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.write = t, t
	return s.setDeadlines()
}

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = t
	return s.setDeadlines()
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write = t
	return s.setDeadlines()
}

// CloseWrite ends the sending direction.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(s.fd, unix.SHUT_WR))
}

// Close implements net.Conn. Whoever reads or writes gets an error.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if s.file != nil {
		return s.file.Close()
	}
	return os.NewSyscallError("close", sockets.CloseNow(s.fd))
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }
