package httpd

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxRates is how many devices' rates are remembered; an address on a LAN is
	// cheap to invent. When the table is full it starts again, which gives
	// everybody a fresh burst and no more.
	maxRates = 1024

	// reserve is how much of the server is kept for devices that hold nothing of
	// it: one part in so many.
	reserve = 8

	// slow is how long a request may take to arrive before its connection must make
	// room for another one's. Whole requests arrive within milliseconds.
	slow = time.Second
)

// limits counts connections and requests, by device: one machine is one machine,
// whatever addresses it has taken (abuse case K2).
type limits struct {
	device             func(netip.Addr) (key string, known bool)
	maxConns, maxOfOne int
	perSecond          int

	mu    sync.Mutex
	open  []*counted               // the oldest first; guarded by mu
	held  map[string]int           // connections of a device; guarded by mu
	rates map[string]*rate.Limiter // guarded by mu
}

func newLimits(cfg Config) *limits {
	return &limits{
		device: cfg.Device, maxConns: cfg.MaxConns, maxOfOne: cfg.MaxConnsPerDevice, perSecond: cfg.RequestsPerSecond,
		held: make(map[string]int), rates: make(map[string]*rate.Limiter),
	}
}

// enter takes a new connection in, or reports that it is one too many. Where there is
// no room, the greediest device's slowest connection makes it, if there is one that
// should: that one is out of the count, and for the caller to end.
func (l *limits) enter(c *counted, now time.Time) (admitted bool, evicted *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if among := l.full(c); among != nil {
		if evicted = l.slowest(c, now, among); evicted == nil {
			return false, nil
		}
		l.remove(evicted)
	}
	c.since = now
	l.open = append(l.open, c)
	l.held[c.device]++
	return true, evicted
}

// full returns which connections a new one competes with, nil where there is room: with
// those of its own device; those of whom the neighbour table does not know, which
// share half of the places; all, but for the reserve of who holds nothing.
func (l *limits) full(c *counted) (among func(*counted) bool) {
	most := l.maxConns
	if l.held[c.device] > 0 {
		most -= most / reserve
	}
	switch {
	case l.held[c.device] >= l.maxOfOne:
		return func(o *counted) bool { return o.device == c.device }
	case !c.known && l.strangers() >= max(1, l.maxConns/2):
		return func(o *counted) bool { return !o.known }
	case len(l.open) >= most:
		return func(*counted) bool { return true }
	}
	return nil
}

func (l *limits) strangers() (n int) {
	for _, c := range l.open {
		if !c.known {
			n++
		}
	}
	return n
}

// slowest returns the connection that makes room: of the device that holds most, the
// oldest one whose request has not arrived. It must have been slow, or its device
// must hold more than the newcomer's would.
func (l *limits) slowest(c *counted, now time.Time, among func(*counted) bool) (found *counted) {
	for _, o := range l.open {
		fair := l.held[o.device] > l.held[c.device]+1
		if o.arrived || !among(o) || !fair && now.Sub(o.since) < slow {
			continue
		}
		if found == nil || l.held[o.device] > l.held[found.device] {
			found = o
		}
	}
	return found
}

func (l *limits) leave(c *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c)
}

// remove takes c out of the count, where it is in it; l.mu is held.
func (l *limits) remove(c *counted) {
	i := slices.Index(l.open, c)
	if i < 0 {
		return
	}
	l.open = slices.Delete(l.open, i, i+1)
	if l.held[c.device]--; l.held[c.device] == 0 {
		delete(l.held, c.device)
	}
}

// arrived notes that the whole request is there: it is answered, and makes room for
// nobody. It is false when the connection has made room already.
func (l *limits) arrived(c *counted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.arrived = slices.Contains(l.open, c)
	return c.arrived
}

// end closes the open connections of a kind.
func (l *limits) end(which func(*counted) bool) {
	l.mu.Lock()
	var all []*counted
	for _, c := range l.open {
		if which(c) {
			all = append(all, c)
		}
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// request reports whether the device may ask now.
func (l *limits) request(device string, now time.Time) bool {
	if l.perSecond == 0 {
		return true
	}
	l.mu.Lock()
	r := l.rates[device]
	if r == nil {
		if len(l.rates) >= maxRates {
			clear(l.rates)
		}
		r = rate.NewLimiter(rate.Limit(l.perSecond), 2*l.perSecond)
		l.rates[device] = r
	}
	l.mu.Unlock()
	return r.AllowN(now, 1)
}
