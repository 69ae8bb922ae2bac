package ssdp

import (
	"context"
	"math/rand/v2"
	"time"

	"portcullis/internal/datagram"
)

// How many answers go out (abuse case E1). The bursts are what one second yields, so
// that one whole ssdp:all passes at once.
const (
	hostRate   = 20  // answers a second to one device
	totalRate  = 100 // answers a second to all
	maxDevices = 256 // remembered
)

// loop is the state of a running Server, its datagram.Handler.
type loop struct {
	cfg  *Config
	log  *datagram.Log
	conn datagram.Conn
	cat  *catalogue

	addresses datagram.Addresses
	scopes    []*scope
	queue     queue
	limits    *datagram.Limits
	buf       []byte // for the message being sent
}

func newLoop(s *Server) *loop {
	return &loop{
		cfg:  &s.cfg,
		log:  s.udp.Log,
		conn: s.conn,
		cat:  s.cat,
		scopes: scopes(s.cfg.IPv6, facts{
			maxAge: int(s.cfg.MaxAge / time.Second),
			server: s.cfg.Server,
			bootID: s.cfg.BootID,
		}),
		limits: datagram.NewLimits(hostRate, max(hostRate, len(s.cfg.Targets)), totalRate, maxDevices),
	}
}

// Act implements datagram.Handler.
func (l *loop) Act(_ context.Context, now time.Time) (next time.Time) {
	for a, ok := l.queue.pop(now); ok; a, ok = l.queue.pop(now) {
		l.respond(now, a)
	}
	for _, s := range l.scopes {
		if s.local.IsValid() && !s.announce.After(now) {
			l.alive(now, s)
		}
	}
	return l.next(now)
}

// next returns the time of the next thing to do, within an hour.
func (l *loop) next(now time.Time) time.Time {
	at := now.Add(time.Hour)
	for _, s := range l.scopes {
		if s.local.IsValid() && s.announce.Before(at) {
			at = s.announce
		}
	}
	if due, ok := l.queue.next(); ok && due.Before(at) {
		at = due
	}
	return at
}

// Receive implements datagram.Handler. The cheap questions come first.
func (l *loop) Receive(_ context.Context, now time.Time, p datagram.Packet, b []byte) {
	s := l.scopeOf(p.Source.Addr())
	if s == nil {
		l.log.Ignored(now, p, "no address")
		return
	}
	multicast := p.Destination.IsMulticast()
	search, err := Parse(b, multicast)
	if err != nil {
		l.log.Ignored(now, p, err.Error())
		return
	}
	rows := l.cat.match(search.Target)
	spread := search.Target == searchAll
	// An answer leaves from the address that was asked; to a multicast search
	// that is the address announced (abuse case E1), or one in the client's network.
	from := p.Destination
	if multicast {
		from = l.near(s, p.Source.Addr())
	}
	switch {
	case len(rows) == 0:
		l.log.Ignored(now, p, "unknown search target")
	case spread && (l.queue.holds(p.Source) || !l.queue.fits(len(rows))):
		l.log.Ignored(now, p, "answers are waiting")
	case !l.limits.Allow(now, l.cfg.Account(p), len(rows)):
		l.log.Ignored(now, p, "too many answers")
	case spread:
		l.postpone(now, answer{scope: s, from: from, to: p.Source}, rows, search.Window)
	default:
		// At once, whatever MX allows: Tailscale gives discovery 250 ms.
		for _, r := range rows {
			l.respond(now, answer{scope: s, from: from, to: p.Source, row: r})
		}
	}
}

// postpone spreads answers over the time the client allows, one at a random
// moment in each of as many equal parts. The last tenth is for the way.
func (l *loop) postpone(now time.Time, a answer, rows []row, window time.Duration) {
	part := window * 9 / 10 / time.Duration(len(rows))
	for i, r := range rows {
		a.due, a.row = now.Add(part*time.Duration(i)+upTo(part)), r
		l.queue.add(a)
	}
}

// respond sends one answer, from port 1900.
func (l *loop) respond(now time.Time, a answer) {
	if l.cfg.Plain != nil && l.cfg.Plain(a.to.Addr()) {
		a.row.version = Plain
	}
	l.buf = appendResponse(l.buf[:0], l.factsAt(a.scope, a.from), a.row, now)
	if err := l.conn.Send(l.buf, a.from, a.to); err != nil && l.log.Room(now) {
		l.log.Debug("answer not sent", "client", a.to, "target", a.row.target, "err", err)
	}
}

// upTo returns a random time from 0 to less than d; 0 for a d of 0.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
