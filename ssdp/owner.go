package ssdp

import (
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

// owner is the state of a running Server. Only the goroutine of Run touches it.
type owner struct {
	cfg  *Config
	log  *datagram.Log
	conn datagram.Conn
	cat  *catalogue

	view   datagram.View
	scopes []*scope
	queue  queue
	limits *datagram.Limits
	buf    []byte // for the message being sent
}

func newOwner(s *Server) *owner {
	return &owner{
		cfg:  &s.cfg,
		log:  datagram.NewLog(s.log),
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

// next returns the time of the next thing to do, within an hour.
func (o *owner) next(now time.Time) time.Time {
	at := now.Add(time.Hour)
	for _, s := range o.scopes {
		if s.local.IsValid() && s.announce.Before(at) {
			at = s.announce
		}
	}
	if due, ok := o.queue.next(); ok && due.Before(at) {
		at = due
	}
	return at
}

// act does what is due.
func (o *owner) act(now time.Time) {
	for a, ok := o.queue.pop(now); ok; a, ok = o.queue.pop(now) {
		o.respond(now, a)
	}
	for _, s := range o.scopes {
		if s.local.IsValid() && !s.announce.After(now) {
			o.alive(now, s)
		}
	}
}

// receive decides about one datagram. The cheap questions come first.
func (o *owner) receive(now time.Time, p datagram.Packet, b []byte) {
	if p.Ifindex != o.cfg.Ifindex {
		o.log.Ignored(now, p, "came in by another interface")
		return
	}
	group := o.group(p.Destination)
	if reason := o.view.Refuses(p, group); reason != "" {
		o.log.Ignored(now, p, reason)
		return
	}
	s := o.scopeOf(p.Source.Addr())
	if s == nil {
		o.log.Ignored(now, p, "no address")
		return
	}
	search, err := Parse(b, group.IsValid())
	if err != nil {
		o.log.Ignored(now, p, err.Error())
		return
	}
	rows := o.cat.match(search.Target)
	spread := search.Target == searchAll
	// An answer leaves from the address that was asked; to a multicast search
	// that is the address announced (abuse case E1), or one in the client's network.
	from := p.Destination
	if group.IsValid() {
		from = o.near(s, p.Source.Addr())
	}
	switch {
	case len(rows) == 0:
		o.log.Ignored(now, p, "nothing of ours")
	case spread && (o.queue.holds(p.Source) || !o.queue.fits(len(rows))):
		o.log.Ignored(now, p, "answers are waiting")
	case !o.limits.Allow(now, o.cfg.Account(p), len(rows)):
		o.log.Ignored(now, p, "too many answers")
	case spread:
		o.postpone(now, answer{scope: s, from: from, to: p.Source}, rows, search.Window)
	default:
		// At once, whatever MX allows: Tailscale gives discovery 250 ms.
		for _, r := range rows {
			o.respond(now, answer{scope: s, from: from, to: p.Source, row: r})
		}
	}
}

// postpone spreads answers over the time the client allows, one at a random
// moment in each of as many equal parts. The last tenth is for the way.
func (o *owner) postpone(now time.Time, a answer, rows []row, window time.Duration) {
	part := window * 9 / 10 / time.Duration(len(rows))
	for i, r := range rows {
		a.due, a.row = now.Add(part*time.Duration(i)+upTo(part)), r
		o.queue.add(a)
	}
}

// respond sends one answer, from port 1900.
func (o *owner) respond(now time.Time, a answer) {
	o.buf = appendResponse(o.buf[:0], o.factsAt(a.scope, a.from), a.row, now)
	if err := o.conn.Send(o.buf, a.from, a.to); err != nil && o.log.Room(now) {
		o.log.Debug("answer not sent", "client", a.to, "target", a.row.target, "err", err)
	}
}

// upTo returns a random time from 0 to less than d; 0 for a d of 0.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
