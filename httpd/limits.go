package httpd

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxHosts is how many hosts' rates are remembered; an address on a LAN is
// cheap to invent. When the table is full it starts again, which gives everybody
// a fresh burst and no more.
const maxHosts = 1024

// limits counts connections and requests.
type limits struct {
	maxConns, maxPerHost int
	perSecond            int

	mu    sync.Mutex
	conns int                          // guarded by mu
	hosts map[netip.Addr]int           // connections of a host; guarded by mu
	rates map[netip.Addr]*rate.Limiter // guarded by mu
}

func newLimits(cfg Config) *limits {
	return &limits{
		maxConns: cfg.MaxConns, maxPerHost: cfg.MaxConnsPerHost, perSecond: cfg.RequestsPerSecond,
		hosts: make(map[netip.Addr]int), rates: make(map[netip.Addr]*rate.Limiter),
	}
}

// enter counts a new connection, or says that it is one too many.
func (l *limits) enter(host netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= l.maxConns || l.hosts[host] >= l.maxPerHost {
		return false
	}
	l.conns++
	l.hosts[host]++
	return true
}

func (l *limits) leave(host netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.hosts[host]--; l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
}

// request says whether the host may ask now.
func (l *limits) request(host netip.Addr, now time.Time) bool {
	if l.perSecond == 0 {
		return true
	}
	l.mu.Lock()
	r := l.rates[host]
	if r == nil {
		if len(l.rates) >= maxHosts {
			clear(l.rates)
		}
		r = rate.NewLimiter(rate.Limit(l.perSecond), 2*l.perSecond)
		l.rates[host] = r
	}
	l.mu.Unlock()
	return r.AllowN(now, 1)
}

// gatekeeper is a listener that hands out only the connections that may be
// read, and closes the others before a byte of them is.
type gatekeeper struct {
	net.Listener
	accept func(remote, local netip.AddrPort) bool
	limits *limits
}

// Accept gives the next connection that may be read.
func (g *gatekeeper) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote, local := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
		host := remote.Addr()
		if g.accept != nil && !g.accept(remote, local) || !g.limits.enter(host) {
			_ = conn.Close()
			continue
		}
		return &counted{Conn: conn, leave: sync.OnceFunc(func() { g.limits.leave(host) })}, nil
	}
}

// addrPort gives a socket's address, IPv4 without its IPv6 form, and without the
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
	leave func()
}

// Close closes the connection.
func (c *counted) Close() error {
	defer c.leave()
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
