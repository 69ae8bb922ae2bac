package httpd

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Bounds of the connections that are answered that there is no room.
const (
	maxTurned      = 32                    // at once; nobody waits for what the others send
	maxTurnedOfOne = 8                     // of one device
	turnTime       = time.Second           // for one
	turnRead       = maxHeader + 64<<10    // octets that are read and thrown away
	turnWrite      = 10 * time.Millisecond // for an answer that finds the socket's buffer empty
)

// unavailable is the answer to a connection for which there is no room (RFC 9110
// section 15.6.4).
const unavailable = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// gatekeeper is a listener that hands out only the connections that may be read.
type gatekeeper struct {
	net.Listener
	accept func(remote, local netip.AddrPort) bool
	limits *limits

	mu     sync.Mutex
	turned map[string]int // connections of a device that are being turned away; guarded by mu
	all    int            // of every device; guarded by mu
	ending sync.WaitGroup
}

func newGatekeeper(l net.Listener, cfg Config, limits *limits) *gatekeeper {
	return &gatekeeper{Listener: l, accept: cfg.Accept, limits: limits, turned: make(map[string]int)}
}

// Accept returns the next connection that may be read. Who is not on the link is not
// told anything.
func (g *gatekeeper) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
		if g.accept != nil && !g.accept(remote, local) {
			_ = conn.Close()
			continue
		}
		c := &counted{Conn: conn}
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
			_, _ = io.WriteString(c.Conn, unavailable)
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
	if _, err := io.WriteString(c.Conn, unavailable); err != nil {
		return
	}
	_ = c.CloseWrite()
	_, _ = io.CopyN(io.Discard, c.Conn, turnRead)
}

// addrPort returns a socket's address, IPv4 without its IPv6 form, and without the
// zone: the listener is bound to one interface, and no Host header or prefix has
// one. It is the zero value for what is no IP socket.
func addrPort(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	device string // who caps count it for
	known  bool   // by the neighbour table
	leave  func()

	since   time.Time // guarded by limits.mu, as what follows
	arrived bool      // the whole request
}

// Close closes the connection. Its place is free before the client can know.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite ends the sending direction. net/http looks for it when it hangs up
// on a client that is still sending: without it the client waits half a second
// for the end.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connKey finds a request's connection in its context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection that a request came by.
func connOf(r *http.Request) *counted {
	c, _ := r.Context().Value(connKey{}).(*counted)
	return c
}
