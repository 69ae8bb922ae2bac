package httpd

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"portcullis/internal/http1"
)

// Bounds of the connections that are answered that there is no room.
const (
	maxTurned      = 32                     // at once; nobody waits for what the others send
	maxTurnedOfOne = 8                      // of one device
	turnTime       = time.Second            // for one
	turnRead       = http1.MaxHead + 64<<10 // octets that are read and thrown away
	turnWrite      = 10 * time.Millisecond  // for an answer that finds the socket's buffer empty
)

// gatekeeper hands out only the connections that may be read.
type gatekeeper struct {
	take   func() (c net.Conn, from, local netip.AddrPort, err error)
	accept func(remote, local netip.AddrPort) bool
	limits *limits

	mu     sync.Mutex
	turned map[string]int // connections of a device that are being turned away; guarded by mu
	all    int            // of every device; guarded by mu
	ending sync.WaitGroup
}

func newGatekeeper(l net.Listener, cfg Config, limits *limits) *gatekeeper {
	return &gatekeeper{take: taker(l), accept: cfg.Accept, limits: limits, turned: make(map[string]int)}
}

// taker returns what takes connections from a listener, with their ends.
func taker(l net.Listener) func() (c net.Conn, from, local netip.AddrPort, err error) {
	if d, ok := l.(*door); ok {
		return func() (net.Conn, netip.AddrPort, netip.AddrPort, error) {
			s, err := d.accept()
			if err != nil {
				return nil, netip.AddrPort{}, netip.AddrPort{}, err
			}
			return s, s.remote, s.local, nil
		}
	}
	return func() (net.Conn, netip.AddrPort, netip.AddrPort, error) {
		c, err := l.Accept()
		if err != nil {
			return nil, netip.AddrPort{}, netip.AddrPort{}, err
		}
		return c, addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()), nil
	}
}

// next returns the next connection that may be read. Who is not on the link is not
// told anything.
func (g *gatekeeper) next() (*counted, error) {
	for {
		conn, from, local, err := g.take()
		if err != nil {
			return nil, err
		}
		remote, local := unzoned(from), unzoned(local)
		if g.accept != nil && !g.accept(remote, local) {
			_ = conn.Close()
			continue
		}
		c := &counted{Conn: conn, remote: from, local: local}
		c.leave = sync.OnceFunc(func() { g.limits.leave(c) })
		c.device, c.known = g.limits.device(remote.Addr())
		admitted, evicted := g.limits.enter(c, time.Now())
		if evicted != nil {
			g.turnAway(evicted)
		}
		if admitted {
			return c, nil
		}
		g.turnAway(c)
	}
}

// turnAway answers a connection that there is no room, and closes it.
func (g *gatekeeper) turnAway(c *counted) {
	g.mu.Lock()
	patient := g.all < maxTurned && g.turned[c.device] < maxTurnedOfOne
	if patient {
		g.all++
		g.turned[c.device]++
	}
	g.mu.Unlock()
	if !patient {
		// It hears of it if what it sends has not come yet.
		if c.SetWriteDeadline(time.Now().Add(turnWrite)) == nil {
			_ = busy().Write(c.Conn, nil, time.Now())
		}
		_ = c.Close()
		return
	}
	g.ending.Go(func() {
		refuse(c)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.turned[c.device]--; g.turned[c.device] == 0 {
			delete(g.turned, c.device)
		}
	})
}

// refuse answers without having read the request. What the client sends is read
// and forgotten: the answer would be lost with a connection that is closed over it,
// because the kernel resets it.
func refuse(c *counted) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(turnTime)) != nil {
		return
	}
	if busy().Write(c.Conn, nil, time.Now()) != nil {
		return
	}
	_ = c.CloseWrite()
	drain(c.Conn, turnRead)
}

// addrPort returns a socket's address, IPv4 without its IPv6 form. It is the zero value
// for what is no IP socket.
func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// unzoned returns an address without its zone: the listener is bound to one interface,
// and no Host header or prefix has one.
func unzoned(p netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(p.Addr().WithZone(""), p.Port())
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	remote, local netip.AddrPort
	device        string // who caps count it for
	known         bool   // by the neighbour table
	leave         func()

	since   time.Time // guarded by limits.mu, as what follows
	arrived bool      // the whole request
}

// Close closes the connection. Its place is free before the client can know.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the sending direction: the client has the whole answer, and whoever
// is still sending can end.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
