package wall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

var (
	errClosed   = errors.New("the warden is gone")
	errAnswer   = errors.New("answer that was not asked for")
	errUnasked  = errors.New("message that only a front sends")
	errPatience = errors.New("the warden does not answer")
	errOrder    = errors.New("messages in another order than any warden sends them")
)

// patience is how long an answer is waited for where nobody says.
const patience = 10 * time.Second

// Client is the warden as its front sees it: front.Warden and front.Sockets. Its methods
// are safe for concurrent use. What cannot be asked any more is an error, or as if nothing
// were known.
type Client struct {
	conn    *conn
	log     *slog.Logger
	set     Settings
	known   known
	turns   chan struct{} // holds as many as requests are under way
	changed chan struct{} // holds one: the network is another
	serve   chan Serve    // holds one: what lets the front begin
	pinged  chan struct{} // holds one: the warden asks whether the front serves
	stop    chan struct{} // closed when the warden asks for the end
	done    chan struct{} // closed by the end of Run

	mu      sync.Mutex // guards what follows
	number  uint32
	waiting map[uint32]*question
	streams map[*stream]struct{}
	network Network
	lans    map[string]netif.LAN
	stopped bool
}

// question is a request without an answer yet.
type question struct {
	answer chan reply // holds one
	left   bool       // nobody waits
}

type reply struct {
	body        Body
	descriptors []int
}

// Dial takes over the front's end, and waits for the settings and the network.
func Dial(end *os.File) (*Client, error) {
	conn, err := newConn(end)
	if err != nil {
		return nil, err
	}
	c := &Client{
		conn: conn, turns: make(chan struct{}, MaxUnderWay), changed: make(chan struct{}, 1),
		serve: make(chan Serve, 1), pinged: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		waiting: make(map[uint32]*question), streams: make(map[*stream]struct{}),
		known: known{turn: -1},
	}
	c.log = slog.New(&handler{client: c})
	if err := c.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("wall: %w", err), conn.close())
	}
	return c, nil
}

// begin takes the two first messages.
func (c *Client) begin() error {
	m, descriptors, err := c.conn.receive()
	if err != nil {
		return err
	}
	set, ok := m.Body.(*Settings)
	if !ok {
		closeAll(descriptors)
		return errOrder
	}
	c.set = *set
	if set.Shared {
		c.known.turn = descriptors[0]
	}
	if m, _, err = c.conn.receive(); err != nil {
		return err
	}
	n, ok := m.Body.(*Network)
	if !ok {
		return errOrder
	}
	c.follow(n)
	return nil
}

// Settings returns what the front is to do, Log where what it has to say goes.
func (c *Client) Settings() Settings { return c.set }

// Log returns the logger that Settings speaks of.
func (c *Client) Log() *slog.Logger { return c.log }

// Network returns what to serve now, and its turn, for Served.
func (c *Client) Network() (turn uint32, lans []netif.LAN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.network.Turn, c.network.LANs
}

// Served tells the warden that the network of a turn is served but for what err says.
func (c *Client) Served(turn uint32, err error) error {
	return c.conn.send(Message{Body: &Served{turn, problem(err)}})
}

// Confined tells the warden that the sandbox is closed, and what of it is missing. It is
// called once, before Served.
func (c *Client) Confined(missing []string) error {
	b := new(Confined)
	for _, line := range missing[:min(len(missing), maxMissing)] {
		b.Missing = append(b.Missing, sentence(strings.Map(func(r rune) rune {
			if unprintable(r) {
				return '?'
			}
			return r
		}, line)))
	}
	return c.conn.send(Message{Body: b})
}

// unprintable reports whether a rune is nothing for a terminal.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Pinged holds something when the warden asks whether the front serves, which Pong
// answers.
func (c *Client) Pinged() <-chan struct{} { return c.pinged }

// Pong tells the warden that all servers serve. It is called once for each Pinged.
func (c *Client) Pong() error { return c.conn.send(Message{Body: new(Pong)}) }

// Failed tells the warden that a server has ended.
func (c *Client) Failed(err error) error { return c.conn.send(Message{Body: &Failed{problem(err)}}) }

func problem(err error) string {
	if err == nil {
		return ""
	}
	return sentence(err.Error())
}

// Serve holds what lets the front begin to answer.
func (c *Client) Serve() <-chan Serve { return c.serve }

// Changed holds something when Uplink or LANs are others than before, Stop is closed when
// the warden asks for the end.
func (c *Client) Changed() <-chan struct{} { return c.changed }

// Stop is closed when the warden asks the front to end.
func (c *Client) Stop() <-chan struct{} { return c.stop }

// Run takes what the warden sends, until ctx ends or the wall is broken. It is called
// once, and closes the wall.
func (c *Client) Run(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() { _ = c.conn.close() })
	var err error
	for err == nil {
		var m Message
		var descriptors []int
		if m, descriptors, err = c.conn.receive(); err == nil {
			err = c.take(m, descriptors)
		}
	}
	if unhook() {
		_ = c.conn.close()
	}
	close(c.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		s.end()
	}
	c.streams = nil
	for _, q := range c.waiting {
		q.discard()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("wall: %w", err)
}

// discard closes what came with an answer that nobody took.
func (q *question) discard() {
	select {
	case r := <-q.answer:
		closeAll(r.descriptors)
	default:
	}
	q.left = true
}

// take hands over what came.
func (c *Client) take(m Message, descriptors []int) error {
	switch body := m.Body.(type) {
	case *Event:
		c.event(body)
	case *Network:
		c.follow(body)
	case *Serve:
		select {
		case c.serve <- *body:
		default:
			return errOrder
		}
	case *Ping:
		select {
		case c.pinged <- struct{}{}:
		default: // once more, before the first was looked at
		}
	case *Stop:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.stopped {
			c.stopped = true
			close(c.stop)
		}
	default:
		if t := typeOf(body); t < firstAnswered || t >= firstTold { // settings again, too
			return errUnasked
		}
		return c.answer(m.Number, reply{body, descriptors})
	}
	return nil
}

func (c *Client) answer(number uint32, r reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, asked := c.waiting[number]
	if !asked {
		closeAll(r.descriptors)
		return errAnswer
	}
	delete(c.waiting, number)
	<-c.turns
	if q.left {
		closeAll(r.descriptors)
		return nil
	}
	q.answer <- r
	return nil
}

func (c *Client) follow(n *Network) {
	lans := make(map[string]netif.LAN, len(n.LANs))
	for _, l := range n.LANs {
		lans[l.Name] = l
	}
	c.mu.Lock()
	c.network, c.lans = *n, lans
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// ask sends a request and waits for its answer. A request that nobody waits for any more
// holds its place until the warden has answered it.
func (c *Client) ask(ctx context.Context, body Body) (reply, error) {
	until, some := ctx.Deadline()
	if latest := time.Now().Add(patience); !some || until.After(latest) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, latest, errPatience)
		defer cancel()
		until = latest
	}
	select {
	case c.turns <- struct{}{}:
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	case <-c.done:
		return reply{}, errClosed
	}
	q := &question{answer: make(chan reply, 1)}
	m := Message{Number: c.enter(q), Body: body}
	m.Patience = min(max(0, time.Until(until)), maxPatience)
	if err := c.conn.send(m); err != nil {
		c.leave(m.Number, q, true)
		return reply{}, err
	}
	select {
	case r := <-q.answer:
		return r, nil
	case <-c.done:
		select {
		case r := <-q.answer: // the last there was
			closeAll(r.descriptors)
		default:
		}
		return reply{}, errClosed
	case <-ctx.Done():
		c.leave(m.Number, q, false)
		if err := c.conn.send(Message{Number: m.Number, Body: new(Forget)}); err != nil {
			return reply{}, err
		}
		return reply{}, context.Cause(ctx)
	}
}

// enter gives a question a number that no other has.
func (c *Client) enter(q *question) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.number++
		if _, taken := c.waiting[c.number]; c.number != 0 && !taken {
			c.waiting[c.number] = q
			return c.number
		}
	}
}

// leave notes that nobody waits; unsent, that there will be no answer either.
func (c *Client) leave(number uint32, q *question, unsent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.discard()
	if _, there := c.waiting[number]; unsent && there {
		delete(c.waiting, number)
		<-c.turns
	}
}

// answerOf asks, and wants an answer of one type.
func answerOf[T Body](ctx context.Context, c *Client, body Body) (answer T, err error) {
	r, err := c.ask(ctx, body)
	if err != nil {
		return answer, err
	}
	closeAll(r.descriptors) // none but with a Socket, which open takes itself
	switch got := r.body.(type) {
	case *Refused:
		return answer, got.error()
	case T:
		return got, nil
	}
	return answer, errAnswer
}

// error returns what was refused as it was said.
func (b *Refused) error() error {
	switch {
	case b.Reason == portmap.NoReason && b.Detail == "":
		return context.DeadlineExceeded
	case b.Gone:
		return &gone{b.Detail}
	case b.Reason == portmap.NoReason:
		return errors.New(b.Detail)
	}
	return &portmap.Error{Reason: b.Reason, Detail: b.Detail, Left: b.Left, External: b.External}
}

// gone is netif.ErrGone in the warden's words.
type gone struct{ detail string }

func (e *gone) Error() string { return e.detail }

func (*gone) Unwrap() error { return netif.ErrGone }
