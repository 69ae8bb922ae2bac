package httpd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"portcullis/internal/crew"
	"portcullis/internal/http1"
	"portcullis/internal/slog"
)

// Defaults of a Config (docs/abuse-cases.md has the bounds).
const (
	DefaultMaxConns          = 64
	DefaultMaxConnsPerDevice = 16 // control points that poll send a dozen at once
	DefaultTimeout           = 5 * time.Second
)

const (
	maxPanics  = 3                      // then something is very wrong, and the server ends
	stopTime   = 2 * time.Second        // for requests under way when the server stops
	lingerTime = 500 * time.Millisecond // for a client that is still sending what nobody reads
	lingerRead = 256 << 10              // octets of it
	acceptWait = time.Second            // after a failure to accept, at most
)

// Config is what a Server needs. Zero numbers mean their defaults, negative ones
// are refused.
type Config struct {
	Logger  *slog.Logger  // must not be nil
	Handler http1.Handler // must not be nil

	// Server is the SERVER header of every response that has none of its own.
	Server string

	// Accept reports whether a connection may be read at all: whether its source is
	// on the link, and whether it came to an address of ours. The addresses are
	// neither IPv4-mapped nor have a zone. Nil accepts all.
	Accept func(remote, local netip.AddrPort) bool

	// Device returns the key by which the caps below count an address, and whether the
	// neighbour table knows who has it: the addresses of one machine have one key.
	// Nil makes every address a device of its own.
	Device func(netip.Addr) (key string, known bool)

	// Who finds no room is answered 503. An eighth of MaxConns is kept for devices
	// that have no connection; unknown ones share half of it.
	MaxConns          int           // connections at once
	MaxConnsPerDevice int           // of one device
	RequestsPerSecond int           // of one device, after a burst of twice as many; 0: no limit
	Timeout           time.Duration // for a whole request to arrive, and then for its reply
}

// Server serves one listener.
type Server struct {
	cfg    Config
	limits *limits
	panics atomic.Int32
	work   crew.Crew // connections

	mu       sync.Mutex // guards what follows
	listener deadliner  // while it is accepted from
	pulse    chan struct{}
}

// deadliner is a listener whose Accept can be woken; those of package net are.
type deadliner interface{ SetDeadline(time.Time) error }

// ErrPanics means that the handler panicked too often to go on.
var ErrPanics = errors.New("httpd: the handler panicked three times")

// New returns a server; the error names what is wrong with cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil || cfg.Handler == nil {
		return nil, errors.New("httpd: Logger and Handler must be set")
	}
	if cfg.MaxConns < 0 || cfg.MaxConnsPerDevice < 0 || cfg.RequestsPerSecond < 0 || cfg.Timeout < 0 {
		return nil, errors.New("httpd: limits must not be negative")
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.MaxConnsPerDevice == 0 {
		cfg.MaxConnsPerDevice = DefaultMaxConnsPerDevice
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Device == nil {
		cfg.Device = func(a netip.Addr) (string, bool) { return a.String(), true }
	}
	return &Server{cfg: cfg, limits: newLimits(cfg)}, nil
}

// Serve accepts from l until ctx ends, and closes l. It returns the context's
// error, or what made it stop earlier.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if tcp, ok := l.(*net.TCPListener); ok {
		d, err := newDoor(tcp)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		l = d
	}
	stop := sync.OnceFunc(func() { _ = l.Close() })
	defer context.AfterFunc(ctx, stop)()
	gate := newGatekeeper(l, s.cfg, s.limits)
	s.mu.Lock()
	s.listener, _ = l.(deadliner)
	s.mu.Unlock()
	s.beat()
	err := s.accept(gate, stop)
	stop()
	s.finish()
	gate.ending.Wait()
	switch {
	case s.panics.Load() >= maxPanics:
		return ErrPanics
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// Pulse returns what is closed when Serve next accepts a connection, or would: by the
// goroutine that does.
func (s *Server) Pulse() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulse == nil {
		s.pulse = make(chan struct{})
	}
	if s.listener != nil {
		_ = s.listener.SetDeadline(time.Unix(1, 0)) // of one that is closed nobody accepts
	}
	return s.pulse
}

// beat closes what Pulse has returned.
func (s *Server) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.SetDeadline(time.Time{}) // or it is closed
	}
	if s.pulse != nil {
		close(s.pulse)
		s.pulse = nil
	}
}

// accept serves connections until the listener fails, or is closed by stop. Too many
// open files is a failure that passes.
func (s *Server) accept(gate *gatekeeper, stop func()) error {
	wait := time.Millisecond
	for {
		c, err := gate.next()
		switch {
		case err == nil:
			wait = time.Millisecond
			s.work.Go(func() { s.serve(c, stop) })
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.beat()
		case errors.Is(err, net.ErrClosed):
			return err
		case http1.Passes(err):
			time.Sleep(wait)
			wait = min(2*wait, acceptWait)
		default:
			return err
		}
	}
}

// finish closes the connections whose request has not arrived, and gives the others
// time for their answers.
func (s *Server) finish() {
	s.limits.end(func(c *counted) bool { return !c.arrived })
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopTime):
		s.limits.end(func(*counted) bool { return true })
	}
}

// serve answers the one request of a connection. The deadline is absolute, so that a
// byte now and then buys no time (G8); the time for a response begins again when the
// request is whole.
func (s *Server) serve(c *counted, stop func()) {
	defer c.Close()
	defer func() { s.panicked(c, recover(), stop) }() // of who waits for the response to be sent
	if c.SetDeadline(time.Now().Add(s.cfg.Timeout)) != nil {
		return
	}
	r, response := s.answer(c, stop)
	if response == nil {
		return
	}
	if s.cfg.Server != "" && !named(response) {
		response.Header = append([]http1.Field{{Name: "Server", Value: s.cfg.Server}}, response.Header...)
	}
	if response.Write(c, r, time.Now()) == nil && (r == nil || int64(len(r.Body)) < r.Length) {
		linger(c)
	}
}

func named(r *http1.Response) bool {
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, "Server") {
			return true
		}
	}
	return false
}

// linger reads what a client still sends, for a while: the answer would be lost with a
// connection that is closed over it, because the kernel resets it.
func linger(c *counted) {
	if c.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		drain(c.Conn, lingerRead)
	}
}

// drains are where what nobody wants is read to.
var drains = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// drain reads so much of what comes, or until no more does.
func drain(c net.Conn, most int) {
	to, _ := drains.Get().(*[4 << 10]byte)
	defer drains.Put(to)
	for most > 0 {
		n, err := c.Read(to[:min(most, len(to))])
		if err != nil {
			return
		}
		most -= n
	}
}

// answer reads the request and returns the response to it, nil for silence. The
// request is nil where it could not be read. A panic does not end the program, and is
// counted.
func (s *Server) answer(c *counted, stop func()) (r *http1.Request, response *http1.Response) {
	defer func() {
		if s.panicked(c, recover(), stop) {
			response = http1.Empty(http1.InternalServerError)
		}
	}()
	r, response, ok := s.read(c)
	if response != nil || !ok {
		return r, response
	}
	// From here on the handler has the full time to answer, however slowly the request
	// came: what it allows itself is less than Timeout, and so nobody who was granted
	// something hears nothing.
	if !s.limits.arrived(c) || c.SetDeadline(time.Now().Add(s.cfg.Timeout)) != nil {
		return r, nil // it was told that there is no room, or is closed
	}
	return r, s.cfg.Handler.ServeHTTP(r)
}

// panicked reports whether there was a panic, logs and counts it.
func (s *Server) panicked(c *counted, reason any, stop func()) bool {
	if reason == nil {
		return false
	}
	s.cfg.Logger.Error("a request made the handler panic", "client", c.remote, "panic", reason, "stack", string(debug.Stack()))
	if s.panics.Add(1) == maxPanics {
		stop()
	}
	return true
}

// readers are for one request each; what is read of it is copied.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, http1.MaxHead) }}

// read reads a request. It returns the response that refuses it, or reports whether it
// is whole.
func (s *Server) read(c *counted) (r *http1.Request, refusal *http1.Response, ok bool) {
	from := readers.Get().(*bufio.Reader)
	from.Reset(c)
	defer func() {
		from.Reset(nil)
		readers.Put(from)
	}()
	r, err := http1.ReadRequest(from)
	refusal, silent := refuseHead(err)
	switch {
	case silent:
		return nil, nil, false
	case !s.limits.request(c.device, time.Now()):
		return r, busy(), false
	case refusal != nil:
		return r, refusal, false
	}
	r.Remote, r.Local = c.remote, c.local
	if refusal := guard(r); refusal != nil {
		return r, refusal, false
	}
	if r.Method != http1.Post {
		return r, nil, true // nothing else has a body that means anything
	}
	if continues(r) && r.Minor > 0 && from.Buffered() == 0 {
		if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return r, nil, false
		}
	}
	switch err := r.ReadBody(from); {
	case errors.Is(err, http1.ErrCut):
		return r, http1.Empty(http1.BadRequest), false
	case err != nil: // there is no time left to answer in (case SOAP-40)
		return r, nil, false
	}
	return r, nil, true
}

// refuseHead returns what a head is answered with that could not be read; silent says
// that there is nobody to answer, or no time.
func refuseHead(err error) (refusal *http1.Response, silent bool) {
	switch {
	case err == nil:
		return nil, false
	case errors.Is(err, http1.ErrTooLong):
		return http1.Empty(http1.HeaderFieldsTooLarge), false
	case errors.Is(err, http1.ErrMalformed), errors.Is(err, http1.ErrCut):
		return http1.Empty(http1.BadRequest), false
	}
	return nil, true
}
