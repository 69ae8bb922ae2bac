package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/http1"
)

// Owner is what the page needs of the daemon's control socket.
type Owner interface {
	Status(context.Context) (control.Status, error)
	EachMapping(context.Context, func(*control.Mapping)) error
	Refused(context.Context) ([]control.RefusedDevice, error)
	Events(context.Context, func(control.Event) error) error
	Delete(context.Context, control.Deletion) ([]control.Mapping, error)
	Pending(context.Context) ([]control.Pending, error)
	Approvals(context.Context) ([]control.Approval, error)
	Approve(context.Context, control.Answer) (control.Approval, error)
	Deny(context.Context, control.Answer) (control.Approval, error)
	Revoke(ctx context.Context, id uint64) (control.Withdrawn, error)
}

// Config is what a Server needs.
type Config struct {
	Owner    Owner
	Hosts    []string // that browsers may call us by, with the port; in lower case
	Loopback bool     // who comes from elsewhere is not answered
}

// Bounds of the conversation.
const (
	maxConns      = 32
	maxBody       = 4 << 10
	readTimeout   = 5 * time.Second // for a whole request
	answerTimeout = 40 * time.Second
	drainTimeout  = time.Second
	maxDrained    = 64 << 10         // octets
	acceptWait    = time.Second / 10 // after a failure to accept that passes
)

// Server serves the page.
type Server struct {
	cfg    Config
	routes map[string]route
	doors  http1.Doors
	keys   keys
	state  state
}

// route is what may be asked of one path.
type route struct {
	method string
	open   bool // to who is not signed in
	serve  func(context.Context, *http1.Request) *http1.Response
}

// New makes a server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, doors: http1.Doors{Most: maxConns}, keys: newKeys()}
	s.state.owner = cfg.Owner
	s.routes = map[string]route{
		"/v1/state":   {http1.Get, false, s.serveState},
		"/v1/signin":  {http1.Post, true, s.signIn},
		"/v1/signout": {http1.Post, false, s.signOut},
		"/v1/close":   {http1.Post, false, s.close},
		"/v1/approve": {http1.Post, false, s.decide(cfg.Owner.Approve)},
		"/v1/deny":    {http1.Post, false, s.decide(cfg.Owner.Deny)},
		"/v1/revoke":  {http1.Post, false, s.revoke},
	}
	for path, f := range files {
		s.routes[path] = route{http1.Get, true, f.serve}
	}
	return s
}

// Link lets somebody sign in once by the word that has this hash; the one before is void.
func (s *Server) Link(hash [HashSize]byte) { s.keys.offer(hash, time.Now()) }

// Serve answers until ctx ends, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := sync.OnceFunc(func() { _ = l.Close() })
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.state.follow(ctx) })
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return ctx.Err()
		case http1.Passes(err):
			time.Sleep(acceptWait)
			continue
		case err != nil:
			return fmt.Errorf("page: %w", err)
		}
		if !s.doors.Enter(conn) {
			_ = conn.Close()
			continue
		}
		work.Go(func() {
			defer s.doors.Leave(conn)
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.serve(ctx, conn)
		})
	}
}

// serve answers the one request of a connection.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(readTimeout))
	if s.cfg.Loopback && !fromLoopback(conn) {
		return
	}
	from := bufio.NewReaderSize(conn, http1.MaxHead)
	r, err := http1.ReadRequest(from)
	answer, whole := (*http1.Response)(nil), false
	switch {
	case errors.Is(err, http1.ErrTooLong):
		answer = fail(http1.HeaderFieldsTooLarge, "too-long", "the browser sends more headers than 8 kB; it may have many cookies of other services on this machine")
	case err != nil:
		return // no browser
	default:
		if answer = s.refuse(r); answer == nil {
			if r.ReadBody(from) != nil || !s.doors.Arrived(conn) {
				return
			}
			answer, whole = s.contained(ctx, r), true
		}
	}
	answer.Header = append(answer.Header, always...)
	_ = conn.SetDeadline(time.Now().Add(answerTimeout))
	if answer.Write(conn, r, time.Now()) == nil && !whole { // the browser has gone when this fails
		drain(conn)
	}
}

// drain reads what the browser sends although it has its answer, which would be lost with a
// connection that is closed over it: the kernel resets it.
func drain(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(drainTimeout))
		_, _ = bufio.NewReader(conn).Discard(maxDrained)
	}
}

// contained returns the answer of a route. A panic is one answer's, and not the page's.
func (s *Server) contained(ctx context.Context, r *http1.Request) (answer *http1.Response) {
	defer func() {
		if reason := recover(); reason != nil {
			fmt.Fprintf(os.Stderr, "portcullis: page: a request made the handler panic: %v\n%s", reason, debug.Stack())
			answer = fail(http1.InternalServerError, "internal", "the page failed at this request")
		}
	}()
	return s.routes[r.Target].serve(ctx, r)
}

func fromLoopback(conn net.Conn) bool {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	return err == nil && from.Addr().Unmap().IsLoopback()
}
