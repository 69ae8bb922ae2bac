package datagram

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portcullis/internal/slog"
)

// Config configures a Server. All fields but Groups must be set.
type Config struct {
	// Protocol begins errors, and is the log's subsystem.
	Protocol string
	Logger   *slog.Logger
	// Ifname and Ifindex are the LAN interface; datagrams that came in by
	// another one are dropped (abuse case A2).
	Ifname  string
	Ifindex int
	// Groups are the multicast groups that are answered.
	Groups []netip.Addr
	// MaxDatagram is the octets of the longest valid datagram. Of a longer one,
	// MaxDatagram+1 octets are received.
	MaxDatagram int
	// Conn is closed by Close.
	Conn Conn
}

// Handler is the protocol that a Server speaks. The Server calls its methods from one
// goroutine. A panic in Act or Receive is logged and ends that call alone.
type Handler interface {
	// Adopt takes over the addresses that the interface has now.
	Adopt(now time.Time, a Addresses)
	// Receive decides about a datagram that a host on the link sent to an address
	// of the interface or to one of the groups. b is valid until it returns.
	Receive(ctx context.Context, now time.Time, p Packet, b []byte)
	// Act does what is due, and returns when to call it next. It is also called
	// after everything else: other calls of the Handler, and Wake.
	Act(ctx context.Context, now time.Time) (next time.Time)
}

// Server is the loop of a server on one socket: it receives what may be answered,
// keeps the addresses of the interface, and calls its Handler.
type Server struct {
	// Log is used by the goroutine of Run alone.
	Log *Log

	cfg     Config
	changed chan struct{} // one place: wanted is new
	woken   chan struct{} // one place
	// Of the goroutine of Run.
	reader  *reader
	adopted Addresses

	mu     sync.Mutex // guards what follows
	wanted Addresses
	pulse  chan struct{} // nil: nobody waits for it
}

// NewServer checks the configuration and returns a Server, which is silent until Run
// and SetAddresses were called, in whatever order.
func NewServer(cfg Config) (*Server, error) {
	switch {
	case cfg.Logger == nil || cfg.Conn == nil:
		return nil, fmt.Errorf("%s: the logger and the connection must not be nil", cfg.Protocol)
	case cfg.Ifindex <= 0:
		return nil, fmt.Errorf("%s: interface index %d", cfg.Protocol, cfg.Ifindex)
	}
	return &Server{
		Log:     NewLog(cfg.Logger.With("subsystem", cfg.Protocol, "interface", cfg.Ifname)),
		cfg:     cfg,
		changed: make(chan struct{}, 1),
		woken:   make(chan struct{}, 1),
	}, nil
}

// SetAddresses replaces the addresses of the interface. Only hosts in the prefixes are
// answered, and only where they asked one of locals or a group; without locals nobody
// is. It never waits; of several calls the last one counts.
func (s *Server) SetAddresses(locals []netip.Addr, prefixes []netip.Prefix) {
	s.mu.Lock()
	s.wanted = Addresses{Locals: slices.Clone(locals), Prefixes: slices.Clone(prefixes)}
	s.mu.Unlock()
	signal(s.changed)
}

// Wake makes Run call the Handler's Act. It never waits.
func (s *Server) Wake() { signal(s.woken) }

// Pulse returns what is closed when Run next looks for what has come: by the goroutine
// that answers, and after what it does now.
func (s *Server) Pulse() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulse == nil {
		s.pulse = make(chan struct{})
	}
	s.Wake()
	return s.pulse
}

// beat closes what Pulse has returned.
func (s *Server) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulse != nil {
		close(s.pulse)
		s.pulse = nil
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // Run has not looked yet, and will find this one
	}
}

// Run serves until ctx ends, and then returns nil; the socket still sends. It returns
// an error when the socket can no longer be read, or when the Handler panicked three
// times. It is called once.
func (s *Server) Run(ctx context.Context, h Handler) error {
	s.reader = newReader(s.cfg.Conn, s.cfg.MaxDatagram)
	select { // selects pick at random, so take the addresses before any datagram
	case <-s.changed:
		s.adopt(h)
	default:
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		next := time.Now() // after a panic: once more
		err := s.Log.Guard(func() { next = h.Act(ctx, time.Now()) })
		if err == nil {
			timer.Reset(time.Until(next))
			err = s.wait(ctx, h, timer.C)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.cfg.Protocol, s.cfg.Ifname, err)
		}
	}
	return nil
}

// wait waits for one event and hands it to h.
func (s *Server) wait(ctx context.Context, h Handler, due <-chan time.Time) error {
	select {
	case <-ctx.Done():
	case <-due:
	case <-s.woken:
		s.beat()
	case <-s.changed:
		s.adopt(h)
	case d := <-s.reader.datagrams:
		defer s.reader.release(d)
		return s.Log.Guard(func() { s.receive(ctx, h, time.Now(), d.Packet, d.bytes) })
	case err := <-s.reader.failed:
		return err
	}
	return nil
}

func (s *Server) adopt(h Handler) {
	s.mu.Lock()
	s.adopted = s.wanted
	s.mu.Unlock()
	h.Adopt(time.Now(), s.adopted)
}

// receive drops what must not be answered.
func (s *Server) receive(ctx context.Context, h Handler, now time.Time, p Packet, b []byte) {
	if p.Ifindex != s.cfg.Ifindex {
		s.Log.Ignored(now, p, "came in by another interface")
		return
	}
	if reason := s.adopted.Refuses(p, s.cfg.Groups...); reason != "" {
		s.Log.Ignored(now, p, reason)
		return
	}
	h.Receive(ctx, now, p, b)
}

// Close closes the socket and returns when no goroutine is left. It is called once,
// after Run.
func (s *Server) Close() error {
	if err := s.reader.close(); err != nil {
		return fmt.Errorf("%s: close: %w", s.cfg.Protocol, err)
	}
	return nil
}
