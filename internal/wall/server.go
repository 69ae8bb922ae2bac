package wall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/crew"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// Warden is what a Server asks; warden.Warden is one.
type Warden interface {
	MapSet(context.Context, portmap.Request, int) ([]portmap.Mapping, error)
	Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error)
	Own(ctx context.Context, id portmap.ClientID, from, n int) (portmap.Page, error)
	OwnPorts(ctx context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error)
	External(ctx context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Internal(ctx context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error)
	Pinhole(ctx context.Context, number uint16) (portmap.Mapping, error)
	Events(ctx context.Context) <-chan portmap.Event
	Packets(ctx context.Context, m portmap.Mapping) (uint64, error)
	OutboundTimeout(portmap.Transport) (time.Duration, error)
	Uplink() (four portmap.WAN, six bool)
	LANs() map[string]netif.LAN
	Heard(portmap.MAC) bool
	Suspect()
	Resolve(lan string, addr netip.Addr) error
	KeepEpochs(four, six time.Time)
	NextBootID(last uint32) uint32
}

// ServerConfig is what a Server needs; every field but Turn must be set.
type ServerConfig struct {
	Warden   Warden
	Sockets  Sockets
	Settings Settings    // no other port than its HTTPPort has a listener
	Log      *Log        // what the front says goes here, marked as its own
	Failed   func(error) // is told that a server of the front has ended
	// Turn is that of Warden's mappings; nil: the front asks for each again.
	Turn *Turn
}

// Server is the warden's end of the wall.
type Server struct {
	cfg     ServerConfig
	warden  Warden
	sockets Sockets
	conn    *conn
	done    chan struct{} // closed by the end of Run
	room    chan struct{} // an answer that is not read yet takes room as well

	following sync.Mutex // one Follow at a time

	mu       sync.Mutex // guards what follows
	underWay map[uint32]context.CancelFunc
	turn     uint32        // of the last network
	served   chan string   // holds one; nil: nobody waits for this turn
	pong     chan struct{} // nil: no Ping is under way
	urged    bool          // one more answer may come
	confined bool          // the front has said so
	missing  []string      // of its sandbox
}

var (
	errTooMany = errors.New("more requests under way than there may be")
	errTwice   = errors.New("number of a request that is under way")
	errNoAsk   = errors.New("message that only a warden sends")
	errTurn    = errors.New("answer to a network that was not told")
	errAgain   = errors.New("sandbox that was closed before")
	errPong    = errors.New("answer to a ping that was not sent")
)

// ErrEnded says that the front's end of the wall is closed.
var ErrEnded = errors.New("the front has ended")

// NewServer takes the warden's end over, and tells the front what it is to do.
func NewServer(end *os.File, cfg ServerConfig) (*Server, error) {
	conn, err := newConn(end)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, warden: cfg.Warden, sockets: cfg.Sockets, conn: conn, done: make(chan struct{}),
		room: make(chan struct{}, 2*MaxUnderWay), underWay: make(map[uint32]context.CancelFunc),
	}
	var shared []int
	if cfg.Settings.Shared = cfg.Turn != nil; cfg.Settings.Shared {
		shared = append(shared, int(cfg.Turn.from.Fd()))
	}
	if err := conn.send(Message{Body: &cfg.Settings}, shared...); err != nil {
		return nil, errors.Join(fmt.Errorf("wall: tell the front its settings: %w", err), conn.close())
	}
	return s, nil
}

// Ping asks the front whether it serves, and waits for the answer, while Run runs; one at a
// time. The error is ErrEnded where nobody is there.
func (s *Server) Ping(ctx context.Context) error {
	pong := make(chan struct{})
	s.mu.Lock()
	s.pong = pong
	s.mu.Unlock()
	if err := s.conn.send(Message{Body: new(Ping)}); err != nil {
		return unsent("ask the front whether it serves", err)
	}
	select {
	case <-pong:
		return nil
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return fmt.Errorf("wall: the front does not answer: %w", context.Cause(ctx))
	}
}

// Urge asks once more while Ping waits: the front then ends, and says what it waits for.
func (s *Server) Urge() error {
	s.mu.Lock()
	late := s.pong != nil
	s.urged = s.urged || late
	s.mu.Unlock()
	if !late {
		return nil
	}
	return s.conn.send(Message{Body: new(Ping)})
}

// isServing notes the answer.
func (s *Server) isServing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.pong == nil && s.urged: // both have been answered
		s.urged = false
		return nil
	case s.pong == nil:
		return errPong
	}
	close(s.pong)
	s.pong = nil
	return nil
}

// isConfined notes what the front says of its sandbox, when nothing has reached it yet that
// could make it lie.
func (s *Server) isConfined(b *Confined) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.confined {
		return errAgain
	}
	s.confined, s.missing = true, b.Missing
	return nil
}

// Missing returns what the front has said that its sandbox lacks, a line each.
func (s *Server) Missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing
}

// unsent returns the error of telling a front something: ErrEnded where it has ended.
func unsent(what string, err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return ErrEnded
	}
	return fmt.Errorf("wall: %s: %w", what, err)
}

// Serve lets the front begin to answer; see the message of this name.
func (s *Server) Serve(four, six time.Time) error {
	return s.conn.send(Message{Body: &Serve{four, six}})
}

// Stop asks the front to end in its own order, while it is still answered.
func (s *Server) Stop() error { return s.conn.send(Message{Body: new(Stop)}) }

// Run answers the front until ctx ends, or the front does or sends what no front of ours
// sends: that is the error. It is called once, and closes the wall. No request is under way
// when it returns.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.done)
	inner, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	var answers crew.Crew
	context.AfterFunc(inner, func() { _ = s.conn.close() })
	failed := make(chan error, 1)
	wait.Go(func() {
		if err := s.tell(s.warden.Events(inner)); err != nil {
			failed <- err
			cancel()
		}
	})
	err := s.read(inner, &answers)
	cancel()
	wait.Wait()
	answers.Wait()
	select {
	case told := <-failed:
		if errors.Is(err, net.ErrClosed) { // by us, because of it
			err = told
		}
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("wall: %w", err)
}

// read takes requests, and answers each by itself.
func (s *Server) read(ctx context.Context, answers *crew.Crew) error {
	for {
		m, descriptors, err := s.conn.receive()
		if err != nil {
			return err
		}
		closeAll(descriptors) // of an answer, which no front sends
		switch t := typeOf(m.Body); {
		case t >= firstSaid:
			if err := s.hear(m.Body); err != nil {
				return err
			}
			continue
		case t >= firstAnswered:
			return errNoAsk
		}
		if _, left := m.Body.(*Forget); left {
			s.forget(m.Number)
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if body := s.atOnce(ctx, m.Body); body != nil {
			if err := s.say(m.Number, body); err != nil {
				return err
			}
			continue
		}
		asked, cancel := context.WithTimeout(ctx, m.Patience)
		if err := s.enter(m.Number, cancel); err != nil {
			cancel()
			return err
		}
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
			s.leave(m.Number)
			return ctx.Err()
		}
		answers.Go(func() {
			defer func() { <-s.room }()
			body, descriptors := s.answer(asked, m.Body)
			defer closeAll(descriptors)
			s.leave(m.Number)
			if err := s.conn.send(Message{Number: m.Number, Body: body}, descriptors...); err != nil {
				// What cannot be told breaks the wall: the front would wait for it.
				_ = s.conn.close()
			}
		})
	}
}

// say sends the answer to a request that was not under way.
func (s *Server) say(number uint32, body Body) error {
	s.mu.Lock()
	_, there := s.underWay[number]
	s.mu.Unlock()
	if there {
		return errTwice
	}
	return s.conn.send(Message{Number: number, Body: body})
}

// hear takes what has no answer.
func (s *Server) hear(body Body) error {
	switch b := body.(type) {
	case *Served:
		return s.isServed(b)
	case *Pong:
		return s.isServing()
	case *Confined:
		return s.isConfined(b)
	case *Failed:
		s.cfg.Failed(errors.New(b.Problem))
	case *Record:
		s.cfg.Log.write(b)
	}
	return nil
}

func (s *Server) enter(number uint32, cancel context.CancelFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.underWay[number]; there {
		return errTwice
	}
	if len(s.underWay) >= MaxUnderWay {
		return errTooMany
	}
	s.underWay[number] = cancel
	return nil
}

func (s *Server) leave(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay[number]()
	delete(s.underWay, number)
}

// forget ends a request that nobody waits for. It may have been answered meanwhile.
func (s *Server) forget(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, there := s.underWay[number]; there {
		cancel()
	}
}
