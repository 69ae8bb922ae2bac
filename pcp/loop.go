package pcp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"portcullis/internal/datagram"
	"portcullis/portmap"
)

// loop is the state of a running Server, its datagram.Handler. What needs the engine
// is done by others meanwhile (queue).
type loop struct {
	cfg  *Config
	log  *datagram.Log
	conn datagram.Conn

	addresses datagram.Addresses
	handler   handler
	queue     *queue
	announce  *atomic.Bool // begin the series anew
	announcer announcer
	waiting   []waiting        // by the time they are due
	limits    *datagram.Limits // nil: none
}

func newLoop(s *Server) *loop {
	l := &loop{
		cfg: &s.cfg, log: s.udp.Log, conn: s.conn,
		handler:   handler{&s.cfg},
		queue:     newQueue(handler{&s.cfg}, s.udp.Wake),
		announce:  &s.announce,
		announcer: announcer{cfg: &s.cfg, conn: s.conn},
		limits:    newLimits(s.cfg.RequestsPerSecond),
	}
	l.announcer.restart(time.Now())
	return l
}

// newLimits returns nil where none are configured.
func newLimits(perSecond int) *datagram.Limits {
	if perSecond == 0 {
		return nil
	}
	return datagram.NewLimits(float64(perSecond), perSecond, totalRate, maxDevices)
}

// waiting is a request of a host that the kernel does not know yet. A UDP
// datagram may come in long before its sender's neighbour entry is there again.
type waiting struct {
	due    time.Time
	tries  int
	packet datagram.Packet
	device datagram.Device
	bytes  []byte
}

// How many requests wait for a neighbour, and how many of one device, and how long:
// after 10 ms, 20 ms and so on, 310 ms in all. Then the client asks again.
const (
	maxWaiting         = 16
	maxWaitingOfDevice = 4
	firstWait          = 10 * time.Millisecond
	maxTries           = 5
)

// Adopt implements datagram.Handler. A virtual address that has come here from another
// router is announced: its clients learn that this one knows nothing of what they had
// there (RFC 6886 section 3.6).
func (l *loop) Adopt(now time.Time, a datagram.Addresses) {
	before := speakers(l.addresses)
	l.addresses = a
	isNew := func(a netip.Addr) bool { return !slices.Contains(before, a) }
	if len(before) > 0 && slices.ContainsFunc(speakers(a), isNew) {
		l.announcer.restart(now)
	}
}

// Act implements datagram.Handler.
func (l *loop) Act(ctx context.Context, now time.Time) (next time.Time) {
	for len(l.queue.done) > 0 {
		l.finish(ctx, now, <-l.queue.done)
	}
	if l.announce.Swap(false) {
		l.announcer.restart(now)
	}
	if l.addresses.Local().IsValid() {
		if err := l.announcer.act(now, speakers(l.addresses)); err != nil {
			l.log.NotSent(now, l.addresses.Local(), err)
		}
	}
	due := func(w waiting) bool { return !w.due.After(now) }
	for i := slices.IndexFunc(l.waiting, due); i >= 0; i = slices.IndexFunc(l.waiting, due) {
		l.retry(ctx, now, l.waiting[i].packet.Source.Addr())
	}
	return l.next(now)
}

// next returns the time of the next thing to do, within an hour.
func (l *loop) next(now time.Time) time.Time {
	at := now.Add(time.Hour)
	if due, more := l.announcer.next(); more && l.addresses.Local().IsValid() && due.Before(at) {
		at = due
	}
	for _, w := range l.waiting {
		if w.due.Before(at) {
			at = w.due
		}
	}
	return at
}

// retry looks again for who sent the requests that wait for a host, in their order.
func (l *loop) retry(ctx context.Context, now time.Time, host netip.Addr) {
	if !l.awaits(host) {
		return
	}
	all := l.waiting
	l.waiting = nil
	for _, w := range all {
		if w.packet.Source.Addr() == host {
			l.identify(ctx, now, w)
		} else {
			l.waiting = append(l.waiting, w)
		}
	}
}

// awaits reports whether requests wait for a host to be known.
func (l *loop) awaits(host netip.Addr) bool {
	return slices.ContainsFunc(l.waiting, func(w waiting) bool { return w.packet.Source.Addr() == host })
}

// Receive implements datagram.Handler.
func (l *loop) Receive(ctx context.Context, now time.Time, p datagram.Packet, b []byte) {
	if !isRequest(b) {
		l.log.Ignored(now, p, "not a request")
		return
	}
	l.retry(ctx, now, p.Source.Addr())
	l.identify(ctx, now, waiting{packet: p, bytes: b})
}

// identify finds out who sent a request and serves it, or lets it wait for its
// sender to be known, and for what the same host sent before.
func (l *loop) identify(ctx context.Context, now time.Time, w waiting) {
	client, account, err := l.cfg.Identify(w.packet)
	if err == nil && l.awaits(w.packet.Source.Addr()) {
		err = portmap.ErrUnknownHost
	}
	switch unknown := errors.Is(err, portmap.ErrUnknownHost); {
	case err != nil && !unknown:
		l.log.Ignored(now, w.packet, err.Error())
	case w.tries == 0 && l.limits != nil && !l.limits.Allow(now, account, 1):
		l.log.Ignored(now, w.packet, "too many requests")
	case unknown && w.due.After(now):
		l.waiting = append(l.waiting, w)
	case unknown && (w.tries == maxTries || w.tries == 0 && !l.mayWait(account.Device)):
		l.log.Ignored(now, w.packet, err.Error())
	case unknown:
		if w.tries == 0 {
			w.bytes, w.device = slices.Clone(w.bytes), account.Device
		}
		l.cfg.Seek(w.packet)
		w.due = now.Add(firstWait << w.tries)
		w.tries++
		l.waiting = append(l.waiting, w)
	default:
		l.serve(ctx, now, job{packet: w.packet, bytes: w.bytes, client: client, device: account.Device})
	}
}

// mayWait reports whether one more request of a device may wait.
func (l *loop) mayWait(device datagram.Device) bool {
	own := 0
	for _, w := range l.waiting {
		if w.device == device {
			own++
		}
	}
	return len(l.waiting) < maxWaiting && own < maxWaitingOfDevice
}

// serve answers a request, at once where the client waits for no other answer and
// this one needs no engine.
func (l *loop) serve(ctx context.Context, now time.Time, j job) {
	if !l.handler.waits(j.bytes) && !l.queue.holds(j.client.Addr) {
		l.reply(now, j.packet, l.handler.answer(ctx, now, j.client, j.bytes))
		return
	}
	if !l.queue.add(ctx, j) {
		l.log.Ignored(now, j.packet, "too many requests queued")
	}
}

// finish sends the answer to a job that is done.
func (l *loop) finish(ctx context.Context, now time.Time, d done) {
	answers := l.queue.finish(ctx, d.job)
	if d.panicked != nil {
		l.log.Panicked(*d.panicked)
		return
	}
	for range answers {
		l.reply(now, d.job.packet, d.reply)
	}
}

// reply sends an answer from the very address that was asked; nil is silence.
func (l *loop) reply(now time.Time, asked datagram.Packet, reply []byte) {
	if reply == nil {
		l.log.Ignored(now, asked, "not a request")
		return
	}
	if err := l.conn.Send(reply, asked.Destination, asked.Source); err != nil && l.log.Room(now) {
		l.log.Debug("answer not sent", "client", asked.Source, "err", err)
	}
}
