package control

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"portcullis/portmap"
)

// Mapper is what the server needs of the engine.
type Mapper interface {
	Snapshot() *portmap.Table
	Unmap(ctx context.Context, s portmap.Selector) ([]portmap.Mapping, error)
}

// Config is what a Server needs; all fields but Group must be set.
type Config struct {
	Logger  *slog.Logger
	Mapper  Mapper
	Status  func() Status
	Traffic func(context.Context) (func(portmap.Mapping) Traffic, error)
	Host    func(*portmap.Client) string // the name that the client has now, "": the one it had when it asked
	Group   string                       // members may talk to the daemon; "": root only
}

// Bounds of one conversation.
const (
	maxBody        = 4 << 10
	requestTimeout = 10 * time.Second
	// A list may be long, and its counters are a long answer of the kernel: a list that
	// waited for them in vain comes without, and for a part of it that is written there
	// is as much time as for any other answer.
	countTimeout = 15 * time.Second
	listPart     = 1000 // mappings
)

// Server answers the owner.
type Server struct {
	cfg  Config
	gid  uint32
	http *http.Server
}

// New makes a server. It fails when the group does not exist.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, gid: noGroup}
	if cfg.Group != "" {
		g, err := user.LookupGroup(cfg.Group)
		if err != nil {
			return nil, fmt.Errorf("control.group: %w", err)
		}
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("control.group: %s has the number %q", cfg.Group, g.Gid)
		}
		s.gid = uint32(gid)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/mappings", s.mappings)
	mux.HandleFunc("POST /v1/delete", s.delete)
	s.http = &http.Server{
		Handler:        s.guard(mux),
		ReadTimeout:    requestTimeout,
		WriteTimeout:   requestTimeout,
		MaxHeaderBytes: maxBody,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext:    withPeer,
	}
	return s, nil
}

// Listen opens the socket. A socket left behind by a daemon that has died is
// replaced; one that somebody still answers on is an error.
func Listen(path, group string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control.socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
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
	l, err := net.Listen("unix", path)
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
	g, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control: %w", err)
	}
	return ctx.Err()
}

// guard lets only those talk that may.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || !s.mayTalk(peer) {
			s.cfg.Logger.Warn("control refused", "uid", peer.uid)
			fail(w, http.StatusForbidden, "forbidden", "only root and members of control.group may talk to the daemon")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	reply(w, s.cfg.Status())
}

func (s *Server) mappings(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Time{}) // the request has been read; its end would end the context
	traffic := s.traffic(r.Context())
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	list := json.NewEncoder(out)
	now, n := time.Now(), 0
	_ = out.WriteByte('[')
	for m := range s.cfg.Mapper.Snapshot().All() {
		if n%listPart == 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
		}
		if n++; n > 1 {
			_ = out.WriteByte(',')
		}
		m.Client.Name = cmp.Or(s.cfg.Host(&m.Client), m.Client.Name)
		if list.Encode(NewMapping(m, traffic(m), now)) != nil {
			return // the peer has gone
		}
	}
	_, _ = out.WriteString("]\n")
	_ = out.Flush()
}

// traffic returns what went through each mapping, as far as it can be known.
func (s *Server) traffic(ctx context.Context) func(portmap.Mapping) *Traffic {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	counted, err := s.cfg.Traffic(ctx)
	if err != nil {
		s.cfg.Logger.Warn("mappings are listed without their counters", "err", err)
		return func(portmap.Mapping) *Traffic { return nil }
	}
	return func(m portmap.Mapping) *Traffic { t := counted(m); return &t }
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request) {
	var d Deletion
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		fail(w, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		fail(w, http.StatusBadRequest, "bad-request", "there is more than one request")
		return
	}
	sel, err := d.selector()
	if err != nil {
		fail(w, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	gone, err := s.cfg.Mapper.Unmap(r.Context(), sel)
	if err != nil {
		status := http.StatusConflict
		if portmap.ReasonOf(err) == portmap.NoSuchMapping {
			status = http.StatusNotFound
		}
		fail(w, status, portmap.ReasonOf(err).String(), err.Error())
		return
	}
	list, now := make([]Mapping, len(gone)), time.Now()
	for i, m := range gone {
		list[i] = NewMapping(m, nil, now)
	}
	reply(w, list)
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
	switch d.Protocol {
	case "tcp":
		s.Transport = portmap.TCP
	case "udp":
		s.Transport = portmap.UDP
	default:
		return s, fmt.Errorf("protocol %q is neither tcp nor udp", d.Protocol)
	}
	if d.Port == 0 {
		return s, errors.New("0 is not a port from 1 to 65535")
	}
	s.FirstPort, s.LastPort = d.Port, d.Port
	return s, nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the peer has gone when this fails
}

func fail(w http.ResponseWriter, status int, reason, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Failure{Reason: reason, Error: text})
}
