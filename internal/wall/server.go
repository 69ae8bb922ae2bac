package wall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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

// NotServed is what the front says that it does not serve.
type NotServed string

// Error implements error.
func (n NotServed) Error() string { return string(n) }

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

// Follow tells the front what the network is now, and waits until it is served, while
// Run runs. The error is a NotServed where some of it is not,
// and ErrEnded where nobody is there.
func (s *Server) Follow(ctx context.Context) error {
	s.following.Lock()
	defer s.following.Unlock()
	served := make(chan string, 1)
	s.mu.Lock()
	s.turn++
	s.served = served
	n := &Network{Turn: s.turn, LANs: s.lans()}
	s.mu.Unlock()
	n.WAN, n.Six = s.warden.Uplink()
	s.cfg.Log.tell(n.fit())
	if err := s.conn.send(Message{Body: n}); err != nil {
		return unsent("tell the front of the network", err)
	}
	select {
	case problem := <-served:
		if problem != "" {
			return NotServed(problem)
		}
		return nil
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return fmt.Errorf("wall: the front does not follow the network: %w", context.Cause(ctx))
	}
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

// lans returns those to serve, in the order of their names.
func (s *Server) lans() []netif.LAN {
	var all []netif.LAN
	for _, l := range s.warden.LANs() {
		l.Addrs = bare(l.Addrs)
		all = append(all, l)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// fit leaves out of a network what a message has no room for, and returns how much: the
// front serves the rest. No LAN has more of anything than any other that is cut, so that
// those that have little keep it all.
func (b *Network) fit() leftOut {
	all := b.LANs
	left := leftOut{lans: max(0, len(all)-maxLANs)}
	all = all[:len(all)-left.lans]
	cut := sort.Search(maxAddrs, func(cut int) bool {
		b.LANs = cutTo(all, maxAddrs-cut)
		_, err := Encode(Message{Body: b})
		return !errors.Is(err, errLong)
	})
	b.LANs = cutTo(all, maxAddrs-cut)
	for i := range all {
		left.addresses += size(&all[i]) - size(&b.LANs[i])
	}
	return left
}

// cutTo returns LANs with at most so many addresses each, and networks.
func cutTo(all []netif.LAN, most int) []netif.LAN {
	all = slices.Clone(all)
	for i := range all {
		l := &all[i]
		l.Addrs, l.Prefixes, l.Direct = first(l.Addrs, most), first(l.Prefixes, most), first(l.Direct, most)
	}
	return all
}

func first[T any](all []T, most int) []T { return all[:min(len(all), most)] }

func size(l *netif.LAN) int { return len(l.Addrs) + len(l.Prefixes) }

// isServed notes what the front says of a network. It may pass over a network that
// another has followed, and never speaks of one that was not told.
func (s *Server) isServed(b *Served) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.Turn > s.turn:
		return errTurn
	case b.Turn == s.turn && s.served != nil:
		s.served <- b.Problem
		s.served = nil
	}
	return nil
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

// tell passes on whose mappings changed.
func (s *Server) tell(events <-chan portmap.Event) error {
	for ev := range events {
		switch ev.Type {
		case portmap.Granted, portmap.Renewed, portmap.Deleted, portmap.Expired, portmap.RevokedEvent, portmap.Resync:
			b := &Event{Type: ev.Type, Kind: ev.Mapping.Kind, Client: ev.Mapping.Client.ID()}
			if err := s.conn.send(Message{Body: b}); err != nil {
				return err
			}
		}
	}
	return nil
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

// atOnce answers what the published table says, for which no goroutine is worth while; nil
// for all else.
func (s *Server) atOnce(ctx context.Context, body Body) Body {
	switch body.(type) {
	case *Own, *External, *Internal, *Pinhole:
		answer, _ := s.answer(ctx, body)
		return answer
	}
	return nil
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

// answer does what is asked.
func (s *Server) answer(ctx context.Context, body Body) (Body, []int) {
	answer, descriptors, err := s.do(ctx, body)
	if err != nil {
		return refused(err), nil
	}
	return answer, descriptors
}

func (s *Server) do(ctx context.Context, body Body) (Body, []int, error) {
	switch b := body.(type) {
	case *Map:
		got, err := s.warden.MapSet(ctx, b.Request, b.N)
		return &Mappings{shown(got)}, nil, err
	case *Unmap:
		_, err := s.warden.Unmap(ctx, b.Selector)
		return new(Done), nil, err
	case *Open:
		return passes(s.socket(ctx, b))
	case *Connect:
		return passes(s.connection(ctx, b))
	case *Resolve:
		return new(Done), nil, s.warden.Resolve(b.LAN, b.Addr)
	case *Suspect:
		s.warden.Suspect()
		return new(Done), nil, nil
	case *KeepEpochs:
		s.warden.KeepEpochs(b.Four, b.Six)
		return new(Done), nil, nil
	}
	answer, err := s.tells(ctx, body)
	return answer, nil, err
}

// tells answers what changes nothing, but for the number of a boot.
func (s *Server) tells(ctx context.Context, body Body) (Body, error) {
	switch b := body.(type) {
	case *Own:
		return page(s.warden.Own(ctx, b.Client, b.From, b.N))
	case *OwnPorts:
		return page(s.warden.OwnPorts(ctx, b.Client, b.Transport, b.Ports, b.From, b.N))
	case *External:
		return one(s.warden.External(ctx, b.Transport, b.Port, b.Remotes))
	case *Internal:
		return one(s.warden.Internal(ctx, b.Client, b.Transport, b.Port, b.Remotes))
	case *Pinhole:
		return one(s.warden.Pinhole(ctx, b.ID))
	case *Packets:
		n, err := s.warden.Packets(ctx, portmap.Mapping{ID: b.ID})
		return &Value{n}, err
	case *OutboundTimeout:
		d, err := s.warden.OutboundTimeout(b.Transport)
		return &Value{uint64(d)}, err // #nosec G115 -- and back
	case *Heard:
		if s.warden.Heard(b.MAC) {
			return &Value{1}, nil
		}
		return &Value{0}, nil
	case *NextBootID:
		return &Value{uint64(s.warden.NextBootID(b.Last))}, nil
	}
	return nil, errNoAsk
}

func one(m portmap.Mapping, err error) (Body, error) {
	return &Mappings{shown([]portmap.Mapping{m})}, err
}

func page(p portmap.Page, err error) (Body, error) {
	return &Page{Mappings: shown(p.Mappings), Count: uint32(p.Count), Revision: p.Revision}, err // #nosec G115 -- MaxID bounds it no less
}

func shown(all []portmap.Mapping) []Mapping {
	now := time.Now()
	out := make([]Mapping, len(all))
	for i := range all {
		out[i] = showing(&all[i], now)
	}
	return out
}

// refused returns an error as it crosses: what of the causes people should read is in the
// sentence.
func refused(err error) *Refused {
	var e *portmap.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return new(Refused)
		}
		return &Refused{Detail: sentence(err.Error()), Gone: errors.Is(err, netif.ErrGone)}
	}
	return &Refused{Reason: e.Reason, Detail: sentence(e.Detail), Left: max(0, e.Left), External: e.External}
}

// sentence cuts a text to what a message has room for.
func sentence(s string) string { return cut(s, maxDetail) }

// cut returns what of a text has room in so many octets.
func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	n := most
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// bare leaves out the zones of addresses, which the interface says.
func bare(all []netip.Addr) []netip.Addr {
	out := slices.Clone(all)
	for i := range out {
		out[i] = out[i].WithZone("")
	}
	return out
}
