package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	"portcullis/internal/netns"
)

// acceptor takes connections on a LAN host and drops them.
type acceptor struct {
	fd     int
	thread *netns.Thread
	done   <-chan error
}

func accept(h *lab.Host, port uint16) (*acceptor, error) {
	t, err := h.Thread()
	if err != nil {
		return nil, err
	}
	a := &acceptor{thread: t}
	if err := <-t.Go(func() error { return a.listen(port) }); err != nil {
		t.Close()
		return nil, err
	}
	a.done = t.Go(a.run)
	return a, nil
}

func (a *acceptor) listen(port uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}),
		unix.Listen(fd, 4096),
	)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("listen: %w", err)
	}
	a.fd = fd
	return nil
}

// run ends when the socket is shut down.
func (a *acceptor) run() error {
	for {
		fd, _, err := unix.Accept4(a.fd, unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return nil
		}
		// The other end resets the connection as soon as it has it; to do so
		// here could be before.
		_, _ = unix.Read(fd, make([]byte, 1))
		_ = unix.Close(fd)
	}
}

func (a *acceptor) close() {
	_ = unix.Shutdown(a.fd, unix.SHUT_RDWR) // wakes run
	<-a.done
	_ = unix.Close(a.fd)
	a.thread.Close()
}

// hangUp closes a connection with a reset, so that neither end keeps its port.
func hangUp(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// connections opens connections from the Internet through the mapping of a port,
// one after another.
func (g *gate) connections(ctx context.Context, port uint16, slice time.Duration) (sample, error) {
	a, err := accept(g.Host(hostName(0)), port)
	if err != nil {
		return sample{}, err
	}
	defer a.close()
	to := &unix.SockaddrInet4{Addr: lab.GatewayWAN.As4(), Port: int(port)}
	s, err := g.measure(ctx, g.wan, slice, func(int, int) error {
		fd, err := socket()
		if err != nil {
			return err
		}
		defer hangUp(fd)
		return connect(fd, to)
	})
	if err != nil {
		return s, fmt.Errorf("through %s: %w", netip.AddrPortFrom(lab.GatewayWAN, port), err)
	}
	s.CPU = 0 // the daemon has no part in it
	return s, g.forget()
}
