package pcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portcullis/internal/datagram"
	"portcullis/portmap"
)

// Config says what a Server speaks, and for whom. All fields must be set.
type Config struct {
	Logger *slog.Logger
	// Ifname and Ifindex are the LAN interface; datagrams that came in by
	// another one are dropped (abuse case A2).
	Ifname  string
	Ifindex int
	// NATPMP and PCP say which of the two are spoken; not neither. NAT-PMP is a
	// language of IPv4 alone.
	NATPMP, PCP bool
	Mapper      Mapper
	// View returns the network as it is now, never nil.
	View func() *portmap.View
	// Identify says who sent a datagram and whom it is charged to;
	// portmap.ErrUnknownHost makes the server ask again in a moment. With another error
	// there is no answer, and nobody is charged. It must not block.
	Identify func(datagram.Packet) (portmap.Client, datagram.Account, error)
	// Seek has the kernel ask who has a datagram's source address. It must not
	// block.
	Seek func(datagram.Packet)
	// Epoch is shared by the servers of all interfaces, those of one family.
	Epoch *Epoch
	// RequestsPerSecond bounds what one device is answered; 0: no limit.
	RequestsPerSecond int
}

const (
	totalRate  = 2000 // replies a second to all hosts together
	maxDevices = 1024 // remembered for their rate
)

// Server answers the hosts of one interface.
type Server struct {
	cfg  Config
	log  *slog.Logger
	conn datagram.Conn

	changed  chan struct{} // one place: view is new
	announce chan struct{} // one place: the series begins anew

	mu   sync.Mutex
	view datagram.View // guarded by mu
}

// New checks the configuration and makes a Server, which is silent until Run and
// SetAddresses were called, in whatever order. Run closes conn.
func New(cfg Config, conn datagram.Conn) (*Server, error) {
	switch {
	case cfg.Logger == nil || cfg.Mapper == nil || cfg.View == nil || cfg.Identify == nil || cfg.Seek == nil || cfg.Epoch == nil || conn == nil:
		return nil, errors.New("pcp: Logger, Mapper, View, Identify, Seek, Epoch and conn must not be nil")
	case cfg.Ifindex <= 0:
		return nil, fmt.Errorf("pcp: interface index %d", cfg.Ifindex)
	case !cfg.NATPMP && !cfg.PCP:
		return nil, errors.New("pcp: neither NAT-PMP nor PCP is to be spoken")
	case cfg.RequestsPerSecond < 0:
		return nil, fmt.Errorf("pcp: %d requests a second", cfg.RequestsPerSecond)
	}
	return &Server{
		cfg:      cfg,
		log:      cfg.Logger.With("subsystem", "pcp", "interface", cfg.Ifname),
		conn:     conn,
		changed:  make(chan struct{}, 1),
		announce: make(chan struct{}, 1),
	}, nil
}

// SetAddresses says which addresses of the socket's family the interface has now,
// first one that is there to stay, of IPv6 the link-local ones, and which networks are on its
// link; only hosts in these are answered, and only where they asked one of these
// addresses. It never waits.
func (s *Server) SetAddresses(locals []netip.Addr, prefixes []netip.Prefix) {
	s.mu.Lock()
	s.view = datagram.View{Locals: slices.Clone(locals), Prefixes: slices.Clone(prefixes)}
	s.mu.Unlock()
	signal(s.changed)
}

func (s *Server) currentView() datagram.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

// Announce begins the series of announcements anew, as a restart of the epoch, or
// another external address, demands. It never waits.
func (s *Server) Announce() { signal(s.announce) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // Run has not looked yet, and will find this one
	}
}

// Run serves until ctx ends, closes the conn, and returns nil when no goroutine
// is left. It announces itself first. It returns an error when the socket can no
// longer be read, or when answering panicked three times. It is called once.
func (s *Server) Run(ctx context.Context) error {
	o := &owner{
		cfg: &s.cfg, log: datagram.NewLog(s.log), conn: s.conn,
		handler:   handler{&s.cfg},
		queue:     newQueue(handler{&s.cfg}),
		announcer: announcer{cfg: &s.cfg, conn: s.conn},
		limits:    newLimits(s.cfg.RequestsPerSecond),
	}
	o.announcer.restart(time.Now())
	r := datagram.NewReader(s.conn, MaxDatagram)
	err := s.serve(ctx, o, r)
	o.queue.working.Wait()
	if e := r.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("pcp: close: %w", e))
	}
	return err
}

// newLimits returns nil where the owner wants none.
func newLimits(perSecond int) *datagram.Limits {
	if perSecond == 0 {
		return nil
	}
	return datagram.NewLimits(float64(perSecond), perSecond, totalRate, maxDevices)
}

// serve is the one goroutine that owns all state. What needs the gate is done by
// others meanwhile (queue).
func (s *Server) serve(ctx context.Context, o *owner, r *datagram.Reader) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	o.view = s.currentView() // what is ready first below is a matter of chance
	for ctx.Err() == nil {
		timer.Reset(time.Until(o.next(time.Now())))
		var err error
		select {
		case <-ctx.Done():
		case <-s.changed:
			o.adopt(time.Now(), s.currentView())
		case <-s.announce:
			o.announcer.restart(time.Now())
		case <-timer.C:
			err = o.log.Guard(func() { o.act(ctx, time.Now()) })
		case d := <-r.C:
			err = o.log.Guard(func() { o.receive(ctx, time.Now(), d.Packet, d.Bytes) })
			r.Release(d)
		case d := <-o.queue.done:
			err = o.finish(ctx, time.Now(), d)
		case err = <-r.Failed:
		}
		if err != nil {
			return fmt.Errorf("pcp: %s: %w", s.cfg.Ifname, err)
		}
	}
	return nil
}

// owner is the state of a running Server. Only the goroutine of Run touches it.
type owner struct {
	cfg  *Config
	log  *datagram.Log
	conn datagram.Conn

	view      datagram.View
	handler   handler
	queue     *queue
	announcer announcer
	waiting   []waiting        // by the time they are due
	limits    *datagram.Limits // nil: none
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

// adopt takes over what the interface has now. A virtual address that has come here
// from another router is announced: its clients learn that this one knows nothing of
// what they had there (RFC 6886 section 3.6).
func (o *owner) adopt(now time.Time, v datagram.View) {
	before := speakers(o.view)
	o.view = v
	isNew := func(a netip.Addr) bool { return !slices.Contains(before, a) }
	if len(before) > 0 && slices.ContainsFunc(speakers(v), isNew) {
		o.announcer.restart(now)
	}
}

// next returns the time of the next thing to do, within an hour.
func (o *owner) next(now time.Time) time.Time {
	at := now.Add(time.Hour)
	if due, more := o.announcer.next(); more && o.view.Local().IsValid() && due.Before(at) {
		at = due
	}
	for _, w := range o.waiting {
		if w.due.Before(at) {
			at = w.due
		}
	}
	return at
}

// act does what is due.
func (o *owner) act(ctx context.Context, now time.Time) {
	if o.view.Local().IsValid() {
		if err := o.announcer.act(now, speakers(o.view)); err != nil && o.log.Room(now) {
			o.log.Warn("announcement not sent", "err", err)
		}
	}
	for {
		i := slices.IndexFunc(o.waiting, func(w waiting) bool { return !w.due.After(now) })
		if i < 0 {
			return
		}
		o.retry(ctx, now, o.waiting[i].packet.Source.Addr())
	}
}

// retry looks again for who sent the requests that wait for a host, in their order.
func (o *owner) retry(ctx context.Context, now time.Time, host netip.Addr) {
	if !o.awaits(host) {
		return
	}
	all := o.waiting
	o.waiting = nil
	for _, w := range all {
		if w.packet.Source.Addr() == host {
			o.identify(ctx, now, w)
		} else {
			o.waiting = append(o.waiting, w)
		}
	}
}

// awaits reports whether requests wait for a host to be known.
func (o *owner) awaits(host netip.Addr) bool {
	return slices.ContainsFunc(o.waiting, func(w waiting) bool { return w.packet.Source.Addr() == host })
}

// receive decides about one datagram. The cheap questions come first.
func (o *owner) receive(ctx context.Context, now time.Time, p datagram.Packet, b []byte) {
	if p.Ifindex != o.cfg.Ifindex {
		o.log.Ignored(now, p, "came in by another interface")
		return
	}
	if reason := o.view.Refuses(p, netip.Addr{}); reason != "" {
		o.log.Ignored(now, p, reason)
		return
	}
	if !isRequest(b) {
		o.log.Ignored(now, p, "not a request")
		return
	}
	o.retry(ctx, now, p.Source.Addr())
	o.identify(ctx, now, waiting{packet: p, bytes: b})
}

// identify finds out who sent a request and serves it, or lets it wait for its
// sender to be known, and for what the same host sent before.
func (o *owner) identify(ctx context.Context, now time.Time, w waiting) {
	client, account, err := o.cfg.Identify(w.packet)
	if err == nil && o.awaits(w.packet.Source.Addr()) {
		err = portmap.ErrUnknownHost
	}
	switch unknown := errors.Is(err, portmap.ErrUnknownHost); {
	case err != nil && !unknown:
		o.log.Ignored(now, w.packet, err.Error())
	case w.tries == 0 && o.limits != nil && !o.limits.Allow(now, account, 1):
		o.log.Ignored(now, w.packet, "too many requests")
	case unknown && w.due.After(now):
		o.waiting = append(o.waiting, w)
	case unknown && (w.tries == maxTries || w.tries == 0 && !o.mayWait(account.Device)):
		o.log.Ignored(now, w.packet, err.Error())
	case unknown:
		if w.tries == 0 {
			w.bytes, w.device = slices.Clone(w.bytes), account.Device
		}
		o.cfg.Seek(w.packet)
		w.due = now.Add(firstWait << w.tries)
		w.tries++
		o.waiting = append(o.waiting, w)
	default:
		o.serve(ctx, now, job{packet: w.packet, bytes: w.bytes, client: client, device: account.Device})
	}
}

// mayWait reports whether one more request of a device may wait.
func (o *owner) mayWait(device datagram.Device) bool {
	own := 0
	for _, w := range o.waiting {
		if w.device == device {
			own++
		}
	}
	return len(o.waiting) < maxWaiting && own < maxWaitingOfDevice
}

// serve answers a request, at once where the client waits for no other answer and
// this one needs no gate.
func (o *owner) serve(ctx context.Context, now time.Time, j job) {
	if !o.handler.waits(j.bytes) && !o.queue.holds(j.client.Addr) {
		o.reply(now, j.packet, o.handler.answer(ctx, now, j.client, j.bytes))
		return
	}
	if !o.queue.add(ctx, j) {
		o.log.Ignored(now, j.packet, "too many requests wait")
	}
}

// finish sends the answer to a job that is done.
func (o *owner) finish(ctx context.Context, now time.Time, d done) error {
	answers := o.queue.finish(ctx, d.job)
	if d.panicked != nil {
		return o.log.Panicked(*d.panicked)
	}
	for range answers {
		o.reply(now, d.job.packet, d.reply)
	}
	return nil
}

// reply sends an answer from the very address that was asked; nil is silence.
func (o *owner) reply(now time.Time, asked datagram.Packet, reply []byte) {
	if reply == nil {
		o.log.Ignored(now, asked, "not a request")
		return
	}
	if err := o.conn.Send(reply, asked.Destination, asked.Source); err != nil && o.log.Room(now) {
		o.log.Debug("answer not sent", "client", asked.Source, "err", err)
	}
}
