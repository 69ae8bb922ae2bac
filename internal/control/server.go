package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"portcullis/internal/accounts"
	"portcullis/internal/http1"
	"portcullis/internal/json"
	"portcullis/internal/metrics"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Mapper is what the server needs of the engine.
type Mapper interface {
	Snapshot() *portmap.Table
	Map(ctx context.Context, r portmap.Request) (portmap.Mapping, error)
	Unmap(ctx context.Context, s portmap.Selector) ([]portmap.Mapping, error)
}

// Config is what a Server needs; all fields but Group must be set.
type Config struct {
	Logger  *slog.Logger
	Mapper  Mapper
	Status  func() Status
	Running func() []byte                                                       // the configuration that holds, as TOML
	Traffic func(ctx context.Context, ids []uint64) (map[uint64]Traffic, error) // of some mappings, by their IDs
	Host    func(*portmap.Client) string                                        // the name that the client has now, "": the one it had when it asked
	Reload  func(context.Context) (Reloaded, error)
	Metrics func(context.Context) []byte // in the text format of Prometheus
	Refused func(context.Context) []RefusedDevice
	Explain func(context.Context, Query) (Explained, error)
	Events  func(context.Context) <-chan portmap.Event // from now on, until its context ends
	Asked   Asked
	Group   string // members may talk to the daemon; "": root only
}

// Bounds of one conversation.
const (
	maxBody        = 4 << 10
	requestTimeout = 10 * time.Second // to send a request, and to take in each part of the answer
	countTimeout   = 15 * time.Second // a list that waited in vain for its counters comes without
	maxConns       = 32               // the others wait in the listener's queue
	acceptWait     = time.Second / 10 // after a failure to accept that passes
)

// Server answers the owner.
type Server struct {
	cfg    Config
	gid    uint32
	open   bool        // to everybody who can connect
	doors  http1.Doors // with open
	routes map[string]route

	streams chan struct{} // has one for each that follows the events
}

// route is what may be asked of one path.
type route struct {
	method string
	serve  func(context.Context, *http1.Request) *http1.Response
}

// New makes a server. It fails when the group does not exist.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, gid: noGroup, streams: make(chan struct{}, maxStreams)}
	if cfg.Group != "" {
		gid, err := accounts.Group(cfg.Group)
		if err != nil {
			return nil, fmt.Errorf("control.group: %w", err)
		}
		s.gid = gid
	}
	s.routes = map[string]route{
		"/v1/status":        {http1.Get, s.status},
		"/v1/mappings":      {http1.Get, s.mappings},
		"/v1/configuration": {http1.Get, s.configuration},
		"/v1/add":           {http1.Post, s.add},
		"/v1/refused":       {http1.Get, s.refused},
		eventsPath:          {http1.Get, s.events},
		"/v1/delete":        {http1.Post, s.delete},
		"/v1/explain":       {http1.Post, s.explain},
		reloadPath:          {http1.Post, s.reload},
		"/v1/pending":       {http1.Get, s.pending},
		"/v1/approvals":     {http1.Get, s.approvals},
		"/v1/approve":       {http1.Post, s.approve},
		"/v1/deny":          {http1.Post, s.deny},
		"/v1/revoke":        {http1.Post, s.revoke},
		"/metrics":          {http1.Get, s.metrics},
	}
	return s, nil
}

// NewMetrics makes a server that has the metrics and nothing else, and has them for everybody
// who can connect: any user of this machine, where its listener is on the loopback.
func NewMetrics(cfg Config) *Server {
	s := &Server{cfg: cfg, open: true, doors: http1.Doors{Most: maxConns / 2}}
	s.routes = map[string]route{"/metrics": {http1.Get, s.metrics}}
	return s
}

// Listen opens the socket. A socket left behind by a daemon that has died is
// replaced; one that somebody still answers on is an error.
func Listen(path, group string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control.socket: %w", err)
	}
	at := &net.UnixAddr{Net: "unix", Name: path}
	if conn, err := net.DialUnix("unix", nil, at); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("control.socket: another portcullis is listening on %s; stop it, or give this one a socket of its own", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("control.socket: %s exists and is not a socket; remove it, or choose another path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control.socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", at)
	if err != nil {
		return nil, fmt.Errorf("control.socket: %w", err)
	}
	if err := giveTo(path, group); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control.socket: %w", err)
	}
	return l, nil
}

// giveTo lets the group connect. What counts are the peer's credentials; the
// mode only keeps everybody else from knocking.
func giveTo(path, group string) error {
	if group == "" {
		return os.Chmod(path, 0o600)
	}
	gid, err := accounts.Group(group)
	if err != nil {
		return err
	}
	// It is the group's already where that is the daemon's own, whose service manager may
	// have taken chown(2).
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Gid != gid {
		if err := os.Chown(path, -1, int(gid)); err != nil {
			return fmt.Errorf("%w; only root, or a daemon whose group it is, can give it to the group %s", err, group)
		}
	}
	return os.Chmod(path, 0o660)
}

// Serve answers until ctx ends, and closes l. What fails for want of room passes.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := sync.OnceFunc(func() { _ = l.Close() })
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	var work sync.WaitGroup
	defer work.Wait()
	room := make(chan struct{}, maxConns)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return ctx.Err()
		case http1.Passes(err):
			<-room
			time.Sleep(acceptWait)
			continue
		case err != nil:
			return fmt.Errorf("control: %w", err)
		}
		// There is always room for another: who makes it ends at once.
		if s.open && !s.doors.Enter(conn) {
			<-room
			_ = conn.Close()
			continue
		}
		work.Go(func() {
			defer func() { <-room }()
			defer s.doors.Leave(conn)
			s.serve(ctx, conn)
		})
	}
}

// serve answers the one request of a connection.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
	from := bufio.NewReaderSize(conn, http1.MaxHead)
	r, err := http1.ReadRequest(from)
	if err != nil {
		return // whoever talks to us speaks HTTP
	}
	answer := s.refuse(conn, r)
	if answer == nil {
		if r.ReadBody(from) != nil {
			return
		}
		if r.Target == eventsPath {
			var stop func()
			ctx, stop = whilePresent(ctx, conn)
			defer stop()
		}
		answer = s.contained(ctx, r)
	}
	defer func() { s.panicked(recover()) }()       // of what is made while it is written: the connection ends
	_ = answer.Write(patient{conn}, r, time.Now()) // the peer has gone when this fails
}

// panicked reports whether there was a panic, and logs it: it is one answer's, and not the
// daemon's.
func (s *Server) panicked(reason any) bool {
	if reason == nil {
		return false
	}
	s.cfg.Logger.Error("a control request made the handler panic", "panic", reason, "stack", string(debug.Stack()))
	return true
}

// contained returns the answer of a route.
func (s *Server) contained(ctx context.Context, r *http1.Request) (answer *http1.Response) {
	defer func() {
		if s.panicked(recover()) {
			answer = fail(http1.InternalServerError, "internal", "the daemon failed at this request; its log says more")
		}
	}()
	return s.routes[r.Target].serve(ctx, r)
}

// refuse returns the answer to who may not talk, or asks for what is not there; nil
// where a route will answer. Nothing of the body has been read yet.
func (s *Server) refuse(conn net.Conn, r *http1.Request) *http1.Response {
	peer, known := peerOf(conn)
	found, ok := s.routes[r.Target]
	switch {
	case !s.open && (!known || !s.mayTalk(peer)):
		s.cfg.Logger.Warn("control refused", "uid", peer.uid)
		return fail(http1.Forbidden, "forbidden", "only root and members of control.group may talk to the daemon")
	case s.open && named(conn, r.Host):
		return fail(http1.Forbidden, "host", "the metrics are at an address or localhost, and at no other name: a web page could have given its own this address")
	case !ok:
		return fail(http1.NotFound, "not-found", "there is no such path")
	case r.Method != found.method:
		answer := fail(http1.MethodNotAllowed, "bad-request", "the method is not "+found.method)
		answer.Header = append(answer.Header, http1.Field{Name: "Allow", Value: found.method})
		return answer
	case r.Encoded() || r.Length > maxBody:
		return fail(http1.BadRequest, "bad-request", fmt.Sprintf("a request has at most %d octets, and says how many", maxBody))
	}
	return nil
}

// named reports whether a request by TCP is for another name than localhost, as that of a
// page is whose name has become our address (DNS rebinding). Of ours an address is enough.
func named(conn net.Conn, host string) bool {
	if _, byTCP := conn.LocalAddr().(*net.TCPAddr); !byTCP || host == "" {
		return false
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil && !strings.EqualFold(host, "localhost")
}

// patient is a connection whose peer has as much time for each part of an answer as for
// any other: a list may be long.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (s *Server) status(context.Context, *http1.Request) *http1.Response {
	return reply(s.cfg.Status())
}

func (s *Server) configuration(context.Context, *http1.Request) *http1.Response {
	return reply(Effective{TOML: string(s.cfg.Running())})
}

// traffic returns what asks for the traffic of mappings, as far as it can be known. It waits for
// countTimeout in all; how long it takes to send what it returns does not count.
func (s *Server) traffic(ctx context.Context) func([]portmap.Mapping) func(id uint64) *Traffic {
	var failed error
	left := countTimeout
	return func(some []portmap.Mapping) func(uint64) *Traffic {
		if failed == nil {
			ids := make([]uint64, len(some))
			for i := range some {
				ids[i] = some[i].ID
			}
			ctx, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			began := time.Now()
			counted, err := s.cfg.Traffic(ctx, ids)
			left -= time.Since(began)
			if err == nil {
				return func(id uint64) *Traffic { t := counted[id]; return &t }
			}
			failed = err
			s.cfg.Logger.Warn("mappings are listed without their counters", "err", err)
		}
		return func(uint64) *Traffic { return nil }
	}
}

func (s *Server) delete(ctx context.Context, r *http1.Request) *http1.Response {
	var d Deletion
	if err := decode(r, &d); err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	sel, err := d.selector()
	if err != nil {
		return fail(http1.BadRequest, "bad-request", err.Error())
	}
	traffic := s.before(ctx, sel)
	gone, err := s.cfg.Mapper.Unmap(ctx, sel)
	if err != nil {
		status := http1.Conflict
		if portmap.ReasonOf(err) == portmap.NoSuchMapping {
			status = http1.NotFound
		}
		return fail(status, portmap.ReasonOf(err).String(), err.Error())
	}
	list, now := make([]Mapping, len(gone)), time.Now()
	for i, m := range gone {
		list[i] = NewMapping(m, traffic[m.ID], now)
	}
	return reply(list)
}

func (s *Server) metrics(ctx context.Context, _ *http1.Request) *http1.Response {
	return &http1.Response{Status: http1.OK, Header: []http1.Field{{Name: "Content-Type", Value: metrics.ContentType}}, Body: s.cfg.Metrics(ctx)}
}

// reloadPath is the one path whose answer takes as long as it takes.
const reloadPath = "/v1/reload"

// reload waits as long as it takes: who hangs up has it done all the same.
func (s *Server) reload(ctx context.Context, _ *http1.Request) *http1.Response {
	done, err := s.cfg.Reload(ctx)
	if err != nil {
		return fail(http1.Conflict, "bad-configuration", err.Error())
	}
	return reply(done)
}

// before returns what has gone through the mappings that are about to be removed; nil is not
// known.
func (s *Server) before(ctx context.Context, sel portmap.Selector) map[uint64]*Traffic {
	ending, err := s.cfg.Mapper.Snapshot().PlanRemoval(time.Now(), sel)
	if err != nil {
		return nil
	}
	known, traffic := make(map[uint64]*Traffic, len(ending)), s.traffic(ctx)
	for some := range slices.Chunk(ending, listedAtOnce) {
		old := make([]portmap.Mapping, len(some))
		for i := range some {
			old[i] = *some[i].Old
		}
		of := traffic(old)
		for i := range old {
			known[old[i].ID] = of(old[i].ID)
		}
	}
	return known
}

// decode reads the one JSON value that is a request's body.
func decode(r *http1.Request, v any) error {
	return json.UnmarshalStrict(r.Body, v)
}

func (d Deletion) selector() (portmap.Selector, error) {
	s := portmap.Selector{Client: portmap.Client{Via: portmap.ViaOwner}, Anybody: true, ID: d.ID}
	ways := 0
	for _, used := range []bool{d.ID != 0, d.All, d.Protocol != "" || d.Port != 0} {
		if used {
			ways++
		}
	}
	if ways != 1 {
		return s, errors.New("name one mapping by its ID, or by its protocol and port, or all")
	}
	if d.ID != 0 || d.All {
		return s, nil
	}
	var err error
	if s.Transport, err = transport(d.Protocol); err != nil {
		return s, err
	}
	if d.Port == 0 {
		return s, errors.New("0 is not a port from 1 to 65535")
	}
	s.FirstPort, s.LastPort = d.Port, d.Port
	return s, nil
}

// jsonHeader is the header of every answer.
var jsonHeader = []http1.Field{{Name: "Content-Type", Value: "application/json"}}

func reply(v any) *http1.Response { return encoded(http1.OK, v) }

func fail(status int, reason, text string) *http1.Response {
	return encoded(status, Failure{Reason: reason, Error: text})
}

func encoded(status int, v any) *http1.Response {
	body, err := json.Marshal(v)
	if err != nil {
		return http1.Empty(http1.InternalServerError) // which no type of ours can make happen
	}
	return &http1.Response{Status: status, Header: slices.Clip(jsonHeader), Body: append(body, '\n')}
}
