package listeners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"sync"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// Key names a listener.
type Key struct {
	LAN  string // the interface
	IPv6 bool   // else IPv4
	// Also is another IPv4 address of the LAN than the one that clients are told: of a
	// second network, or a virtual one that several routers share. There only servers
	// listen whose sockets are bound to an address; the others speak from all of them.
	// Zero: the LAN's own listener.
	Also netip.Addr
}

// Family returns 4 or 6.
func (k Key) Family() int {
	if k.IPv6 {
		return 6
	}
	return 4
}

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.LAN, o.LAN), cmp.Compare(k.Family(), o.Family()), k.Also.Compare(o.Also))
}

func sorted[V any](m map[Key]V) []Key {
	all := slices.Collect(maps.Keys(m))
	sort.Slice(all, func(i, j int) bool { return all[i].compare(all[j]) < 0 })
	return all
}

// address returns the one that clients of a listener are told.
func (k Key) address(l netif.LAN) netip.Addr {
	switch {
	case k.IPv6:
		return l.IPv6()[0]
	case k.Also.IsValid():
		return k.Also
	}
	return l.Addr
}

// Server is one protocol's server of a listener, with its socket open.
type Server struct {
	Name     string
	Run      func(context.Context) error // until the context ends; closes the socket
	Close    func() error                // in place of Run
	Follow   func(netif.LAN)             // takes other addresses and prefixes; may be nil
	Announce func()                      // has clients look at their mappings; may be nil
	// Pulse returns what is closed by the loop of Run when it next looks for what has come.
	Pulse func() <-chan struct{}
}

// Accepts reports whether a connection comes from the LAN, to an address of ours there.
type Accepts func(remote, local netip.AddrPort) bool

// Config is what a Set needs; every field must be set.
type Config struct {
	Log *slog.Logger
	// Open opens the servers of a listener, all or none. No servers and no error means
	// that there are none for this key; netif.ErrGone, that there soon will be no key.
	Open func(ctx context.Context, at Key, l netif.LAN, accepts Accepts) ([]*Server, error)
	// Failed is told when a server ended before its time. Its listener is closed then,
	// and opened again by the next Follow.
	Failed func(error)
}

// Set is the listeners of all LANs. Its methods are safe for concurrent use.
type Set struct {
	cfg  Config
	turn sync.Mutex // one at a time opens and closes

	// What follows changes with turn held.
	serving func(*listener) // begins to serve one; nil: sockets are open and nobody reads them
	closed  bool

	mu   sync.Mutex
	open map[Key]*listener // guarded by mu and, for changes, by turn as well
}

// New returns a Set without listeners.
func New(cfg Config) *Set { return &Set{cfg: cfg, open: make(map[Key]*listener)} }

// Serve begins to answer at the listeners that are open, and at once at each that opens
// from now on, until ctx ends.
func (s *Set) Serve(ctx context.Context) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.serving = func(l *listener) { s.begin(ctx, l) }
	for _, at := range sorted(s.open) {
		s.begin(ctx, s.open[at])
	}
}

// Wait waits until ctx has ended and all listeners are closed, after Serve.
func (s *Set) Wait(ctx context.Context) {
	<-ctx.Done()
	s.turn.Lock() // what is opened now will be closed as well
	defer s.turn.Unlock()
	s.closed = true
	for _, l := range s.open {
		<-l.done
	}
}

// Abandon closes listeners that were never served.
func (s *Set) Abandon() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	var failed error
	for _, l := range s.open {
		failed = errors.Join(failed, l.abandon())
	}
	return failed
}

// Announce has the clients of these families told to look at their mappings.
func (s *Set) Announce(four, six bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, l := range s.open {
		if at.IPv6 && !six || !at.IPv6 && !four {
			continue
		}
		for _, server := range l.servers {
			if server.Announce != nil {
				server.Announce()
			}
		}
	}
}

// Pulse waits until each server has looked for what has come, while Serve is in force. The
// error names one that had not when ctx ended.
func (s *Set) Pulse(ctx context.Context) error {
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.open))
	s.mu.Unlock()
	for _, l := range open {
		for _, server := range l.servers {
			select {
			case <-server.Pulse():
			case <-l.done:
			case <-ctx.Done():
				return fmt.Errorf("%s on %s (IPv%d) hangs: %w", server.Name, l.key.LAN, l.key.Family(), context.Cause(ctx))
			}
		}
	}
	return nil
}

// Follow opens, moves and closes listeners until they are those of the LANs. The error
// joins those of the listeners that cannot be opened; all others are.
func (s *Set) Follow(ctx context.Context, lans []netif.LAN) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return nil
	}
	closing, missing := s.compare(lans)
	for _, l := range closing {
		l.stop()
		<-l.done
	}
	var failed error
	for _, at := range sorted(missing) {
		l, err := s.listen(ctx, at, missing[at])
		switch {
		case err == nil && l == nil:
			continue
		case err == nil:
		case errors.Is(err, netif.ErrGone):
			s.cfg.Log.Debug("a LAN has changed while its sockets were opened", "interface", at.LAN, "err", err)
			continue
		default:
			failed = errors.Join(failed, err)
			continue
		}
		s.mu.Lock()
		s.open[at] = l
		s.mu.Unlock()
		if s.serving != nil {
			s.serving(l)
		}
	}
	return failed
}

// compare hands listeners that can stay what has changed, and takes out those that
// cannot. It returns those, and which are missing.
func (s *Set) compare(lans []netif.LAN) (closing []*listener, missing map[Key]netif.LAN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing = keys(lans)
	for at, l := range s.open {
		if lan, wanted := missing[at]; wanted && l.fits(lan) {
			l.follow(lan)
			delete(missing, at)
			continue
		}
		delete(s.open, at)
		closing = append(closing, l)
	}
	return closing, missing
}

// keys returns where there shall be listeners: on every LAN, in each family that it has
// addresses of, at every IPv4 address.
func keys(lans []netif.LAN) map[Key]netif.LAN {
	all := make(map[Key]netif.LAN, 2*len(lans))
	for _, l := range lans {
		for i, a := range l.IPv4() {
			if i == 0 {
				a = netip.Addr{}
			}
			all[Key{LAN: l.Name, Also: a}] = l
		}
		if len(l.IPv6()) > 0 {
			all[Key{LAN: l.Name, IPv6: true}] = l
		}
	}
	return all
}
