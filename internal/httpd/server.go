package httpd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Defaults of a Config (docs/abuse-cases.md has the bounds).
const (
	DefaultMaxConns          = 64
	DefaultMaxConnsPerDevice = 16 // control points that poll send a dozen at once
	DefaultTimeout           = 5 * time.Second
)

const (
	maxHeader = 4 << 10         // net/http adds 4 kB of slack, which makes 8 kB
	maxPanics = 3               // then something is very wrong, and the server ends
	stopTime  = 2 * time.Second // for requests under way when the server stops
)

// Config is what a Server needs. Zero numbers mean their defaults, negative ones
// are refused.
type Config struct {
	Logger  *slog.Logger // must not be nil
	Handler http.Handler // must not be nil

	// Server is the SERVER header of every reply of the handler.
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
	http   *http.Server
	limits *limits
	panics atomic.Int32
	failed chan struct{} // closed at the last panic that is tolerated
}

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
	s := &Server{cfg: cfg, limits: newLimits(cfg), failed: make(chan struct{})}
	s.http = &http.Server{
		Handler: s.contain(s.named(s.paced(guard(s.arrived(cfg.Handler))))),
		// Absolute deadlines, so that a byte now and then buys no time (G8). The time
		// for a reply begins again when the request is whole.
		ReadTimeout:                  cfg.Timeout,
		WriteTimeout:                 cfg.Timeout,
		ConnContext:                  withConn,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // it would answer "OPTIONS *" with 200 (D3)
		ErrorLog:                     slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	s.http.SetKeepAlivesEnabled(false)
	return s, nil
}

// Serve accepts from l until ctx ends, and closes l. It returns the context's
// error, or what made it stop earlier.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-s.failed:
		case <-ended:
		}
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if s.http.Shutdown(patience) != nil {
			_ = s.http.Close()
		}
	}()
	gate := newGatekeeper(l, s.cfg, s.limits)
	err := s.http.Serve(gate)
	close(ended)
	<-stopped
	gate.ending.Wait()
	switch {
	case s.panics.Load() >= maxPanics:
		return ErrPanics
	case errors.Is(err, http.ErrServerClosed):
		return ctx.Err()
	}
	return err
}

// contain keeps a panic from ending the program, and counts it. ErrAbortHandler is
// a handler's wish for silence, and no mishap.
func (s *Server) contain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler {
				panic(reason)
			}
			s.cfg.Logger.Error("a request made the handler panic", "client", r.RemoteAddr, "panic", reason, "stack", string(debug.Stack()))
			if s.panics.Add(1) == maxPanics {
				close(s.failed)
			}
			empty(w, http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Server != "" {
			w.Header().Set("Server", s.cfg.Server)
		}
		next.ServeHTTP(w, r)
	})
}

// paced refuses a device that asks too often.
func (s *Server) paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.limits.request(connOf(r).device, time.Now()) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Retry-After", "1")
			empty(w, http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// arrived reads the body, so that the handler has a whole request before it, and the
// full time to answer it however slowly it came: what the handler allows itself is
// less than Timeout, and so nobody who was granted something hears nothing.
func (s *Server) arrived(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			panic(http.ErrAbortHandler) // there is no time left to answer in (case SOAP-40)
		case err != nil:
			w.Header().Set("Connection", "close")
			empty(w, http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !s.limits.arrived(connOf(r)) {
			panic(http.ErrAbortHandler) // it was told that there is no room
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.Timeout)); err != nil {
			panic(http.ErrAbortHandler) // it is closed
		}
		next.ServeHTTP(w, r)
	})
}
