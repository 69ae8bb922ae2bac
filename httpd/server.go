package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Defaults of a Config (abuse-cases section 3.7).
const (
	DefaultMaxConns        = 64
	DefaultMaxConnsPerHost = 4
	DefaultTimeout         = 5 * time.Second
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

	// Accept says whether a connection may be read at all: whether its source is
	// on the link, and whether it came to an address of ours. The addresses are
	// neither IPv4-mapped nor have a zone. Nil accepts all.
	Accept func(remote, local netip.AddrPort) bool

	MaxConns          int           // connections at once; the newest is refused
	MaxConnsPerHost   int           // of one address
	RequestsPerSecond int           // of one address, after a burst of twice as many; 0: no limit
	Timeout           time.Duration // for a whole request, and for a whole reply
}

// Server serves one listener.
type Server struct {
	cfg    Config
	http   *http.Server
	limits *limits
	panics atomic.Int32
	failed chan struct{} // closed at the last panic that is tolerated
}

// ErrPanics says that the handler panicked too often to go on.
var ErrPanics = errors.New("httpd: the handler panicked three times")

// New makes a server; the error says what is wrong with cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil || cfg.Handler == nil {
		return nil, errors.New("httpd: Logger and Handler must be set")
	}
	if cfg.MaxConns < 0 || cfg.MaxConnsPerHost < 0 || cfg.RequestsPerSecond < 0 || cfg.Timeout < 0 {
		return nil, errors.New("httpd: limits must not be negative")
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.MaxConnsPerHost == 0 {
		cfg.MaxConnsPerHost = DefaultMaxConnsPerHost
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	s := &Server{cfg: cfg, limits: newLimits(cfg), failed: make(chan struct{})}
	s.http = &http.Server{
		Handler: s.contain(s.named(s.paced(guard(cfg.Handler)))),
		// Absolute deadlines, so that a byte now and then buys no time (G8).
		ReadTimeout:                  cfg.Timeout,
		WriteTimeout:                 cfg.Timeout,
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
	err := s.http.Serve(&gatekeeper{Listener: l, accept: s.cfg.Accept, limits: s.limits})
	close(ended)
	<-stopped
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

// paced refuses a host that asks too often.
func (s *Server) paced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !s.limits.request(peer.Addr(), time.Now()) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Retry-After", "1")
			empty(w, http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
