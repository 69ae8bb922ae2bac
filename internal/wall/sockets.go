package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/datagram"
	"portcullis/internal/frames"
	"portcullis/internal/netif"
)

// Discovery implements front.Sockets.
func (c *Client) Discovery(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error) {
	return c.udp(ctx, &Open{Kind: Discovery, LAN: l.Name, Six: six}, l.Index)
}

// PortControl implements front.Sockets.
func (c *Client) PortControl(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error) {
	return c.udp(ctx, &Open{Kind: PortControl, LAN: l.Name, Six: six}, l.Index)
}

func (c *Client) udp(ctx context.Context, ask *Open, ifindex int) (datagram.Conn, error) {
	seen, files, err := c.open(ctx, ask)
	if err != nil {
		return nil, err
	}
	pc, err := net.FilePacketConn(files[0]) // a copy
	if err = errors.Join(err, files[0].Close()); err != nil {
		return nil, errors.Join(err, closeFiles(files[1:]))
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errAnswer, pc.Close(), closeFiles(files[1:]))
	}
	s := frames.Socket{UDP: udp, Marks: seen == ByMark}
	if seen == ByPacketSocket {
		s.Packets = files[1]
	}
	return s.Conn(ifindex, ask.Six)
}

// HTTP implements front.Sockets.
func (c *Client) HTTP(ctx context.Context, l netif.LAN, addr netip.AddrPort) (net.Listener, error) {
	at := netip.AddrPortFrom(addr.Addr().WithZone(""), addr.Port())
	seen, files, err := c.open(ctx, &Open{Kind: HTTP, LAN: l.Name, Addr: at})
	if err != nil {
		return nil, err
	}
	if seen != NotSeen {
		return nil, errors.Join(errAnswer, closeFiles(files))
	}
	listener, err := net.FileListener(files[0]) // a copy
	if err = errors.Join(err, files[0].Close()); err != nil {
		return nil, err
	}
	return listener, nil
}

// Dial implements front.Sockets.
func (c *Client) Dial(ctx context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	ask := &Connect{lan, local.WithZone(""), netip.AddrPortFrom(to.Addr().WithZone(""), to.Port())}
	seen, files, err := c.open(ctx, ask)
	if err != nil {
		return nil, err
	}
	if seen != NotSeen {
		return nil, errors.Join(errAnswer, closeFiles(files))
	}
	conn, err := net.FileConn(files[0]) // a copy
	if failed := files[0].Close(); err == nil && failed != nil {
		return nil, errors.Join(failed, conn.Close())
	}
	return conn, err
}

// open asks for a socket: as many files as passed says.
func (c *Client) open(ctx context.Context, body Body) (Seen, []*os.File, error) {
	r, err := c.ask(ctx, body)
	if err != nil {
		return NotSeen, nil, err
	}
	switch got := r.body.(type) {
	case *Socket:
		files := make([]*os.File, len(r.descriptors))
		for i, fd := range r.descriptors {
			files[i] = os.NewFile(uintptr(fd), "socket of the warden's")
		}
		return got.Seen, files, nil
	case *Refused:
		return NotSeen, nil, got.error()
	}
	return NotSeen, nil, errAnswer
}

func closeFiles(files []*os.File) (err error) {
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Sockets is what a Server opens sockets with; warden.Warden is one.
type Sockets interface {
	OpenDiscovery(ctx context.Context, l netif.LAN, six bool) (frames.Socket, error)
	OpenPortControl(ctx context.Context, l netif.LAN, six bool) (frames.Socket, error)
	HTTP(ctx context.Context, l netif.LAN, addr netip.AddrPort) (net.Listener, error)
	Dial(ctx context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error)
}

// socket opens what is asked for, on a LAN that is served, at an address of it. It returns
// copies of its descriptors, which are the caller's.
func (s *Server) socket(ctx context.Context, ask *Open) (*Socket, []int, error) {
	l, served := s.warden.LANs()[ask.LAN]
	if !served {
		return nil, nil, fmt.Errorf("%q is not served", ask.LAN)
	}
	if ask.Kind == HTTP {
		return s.listener(ctx, l, ask.Addr)
	}
	open := s.sockets.OpenDiscovery
	if ask.Kind == PortControl {
		open = s.sockets.OpenPortControl
	}
	udp, err := open(ctx, l, ask.Six)
	if err != nil {
		return nil, nil, err
	}
	seen, all := NotSeen, []syscall.Conn{udp.UDP}
	switch {
	case udp.Packets != nil:
		seen, all = ByPacketSocket, append(all, udp.Packets)
	case udp.Marks:
		seen = ByMark
	}
	fds, err := copies(all...)
	if err = errors.Join(err, udp.Close()); err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return &Socket{Seen: seen}, fds, nil
}

func (s *Server) listener(ctx context.Context, l netif.LAN, at netip.AddrPort) (*Socket, []int, error) {
	own := at.Addr() == netip.IPv6Unspecified()
	for _, a := range l.Addrs {
		own = own || a.WithZone("") == at.Addr()
	}
	if !own || at.Port() != s.cfg.Settings.HTTPPort {
		return nil, nil, fmt.Errorf("%s is not where %s is served", at, l.Name)
	}
	listener, err := s.sockets.HTTP(ctx, l, at)
	if err != nil {
		return nil, nil, err
	}
	return handOver(listener)
}

// connection connects to where it is asked to, as far as the warden sees fit.
func (s *Server) connection(ctx context.Context, ask *Connect) (*Socket, []int, error) {
	conn, err := s.sockets.Dial(ctx, ask.LAN, ask.Local, ask.To)
	if err != nil {
		return nil, nil, err
	}
	return handOver(conn)
}

// handOver returns a copy of a socket's descriptor, which is the caller's, and closes the
// socket.
func handOver(socket io.Closer) (*Socket, []int, error) {
	raw, ok := socket.(syscall.Conn)
	if !ok {
		return nil, nil, errors.Join(errors.New("socket without a descriptor"), socket.Close())
	}
	fds, err := copies(raw)
	if err = errors.Join(err, socket.Close()); err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return &Socket{Seen: NotSeen}, fds, nil
}

// passes is the answer that comes with descriptors.
func passes(answer *Socket, descriptors []int, err error) (Body, []int, error) {
	if err != nil {
		return nil, nil, err
	}
	return answer, descriptors, nil
}

// copies returns copies of descriptors.
func copies(of ...syscall.Conn) (all []int, err error) {
	for _, c := range of {
		raw, wrong := c.SyscallConn()
		if wrong == nil {
			wrong = errors.Join(raw.Control(func(fd uintptr) {
				var n int
				if n, wrong = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); wrong == nil {
					all = append(all, n)
				}
			}), wrong)
		}
		if wrong != nil {
			closeAll(all)
			return nil, wrong
		}
	}
	return all, nil
}
