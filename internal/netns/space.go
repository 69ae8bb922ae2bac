package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/internal/enter"
	"portcullis/internal/program"
)

// Space is a network namespace: one machine of a network. New makes it.
type Space struct {
	name   string
	fd     int
	socket *nl.SocketHandle // rtnetlink's
}

// New makes a namespace, under a name for messages only. Nothing in it is up. It ends
// with Close, or when the last process in it has ended.
func New(name string) (*Space, error) {
	s := &Space{name: name, fd: -1}
	err := enter.OnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err == nil {
		s.socket = new(nl.SocketHandle)
		s.socket.Socket, err = nl.GetNetlinkSocketAt(netns.NsHandle(s.fd), netns.None(), unix.NETLINK_ROUTE)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	return s, nil
}

// Close ends the namespace. It may be nil, or closed already.
func (s *Space) Close() {
	if s == nil || s.fd < 0 {
		return
	}
	if s.socket != nil {
		s.socket.Close()
	}
	_ = unix.Close(s.fd) // nothing can be done about it
	s.fd = -1
}

// FD is a file descriptor of the namespace, open until Close.
func (s *Space) FD() int { return s.fd }

// In runs f on a thread inside the namespace. The sockets that f opens stay there.
func (s *Space) In(f func() error) error { return enter.In(s.fd, f) }

// Thread runs functions inside a namespace, one after another.
type Thread struct {
	work  chan func()
	ended chan struct{}
}

// Thread starts a thread in the namespace, which lives until Close.
func (s *Space) Thread() (*Thread, error) {
	t := &Thread{work: make(chan func()), ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(t.ended)
		err := s.In(func() error {
			started <- nil
			for f := range t.work {
				f()
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return t, <-started
}

// Do runs f on the thread, when those before it are done.
func (t *Thread) Do(f func() error) error { return <-t.Go(f) }

// Go is Do that does not wait: the error comes when f is done.
func (t *Thread) Go(f func() error) <-chan error {
	done := make(chan error, 1)
	select {
	case t.work <- func() { done <- f() }:
	case <-t.ended:
		done <- os.ErrClosed
	}
	return done
}

// Close ends the thread when what it does is done. Nobody may call Do any more.
func (t *Thread) Close() {
	close(t.work)
	<-t.ended
}

// Sysctl writes a setting of the namespace: "net/ipv4/ip_forward".
func (s *Space) Sysctl(path, value string) error {
	return s.In(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
}

// Output runs a program in the namespace and returns what it prints; what it complains
// of is in the error.
func (s *Space) Output(ctx context.Context, stdin string, argv ...string) (string, error) {
	var said program.Output
	err := s.In(func() (err error) {
		said, err = program.Run(ctx, stdin, argv...)
		return err
	})
	if err != nil {
		return string(said.Out), fmt.Errorf("%s: %w: %.1000s", argv[0], err, bytes.TrimSpace(said.Complaint))
	}
	return string(said.Out), nil
}

// UDP opens a socket in the namespace, for the family of the address.
func (s *Space) UDP(at netip.AddrPort) (conn *net.UDPConn, err error) {
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6"
	}
	err = s.In(func() error {
		conn, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
		return err
	})
	return conn, err
}
