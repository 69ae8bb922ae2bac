package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/json"
	"portcullis/portmap"
)

// Event is one line of GET /v1/events.
type Event struct {
	Time string `json:"time"` // RFC 3339, with fractions of a second
	// Event is granted, renewed, deleted, expired, denied, revoked, pending, drift, suspended,
	// resumed; or resync: what happened just now is missing, because it was not read in time.
	Event   string   `json:"event"`
	Reason  string   `json:"reason"`
	Why     string   `json:"why"`     // a sentence, of what was refused; or ""
	Rule    string   `json:"rule"`    // the owner's rule that decided, or ""
	Client  *Asker   `json:"client"`  // nil for drift and resync
	Mapping *Mapping `json:"mapping"` // likewise; of a refusal, what was asked for
	// Approval is what the owner has said, or has taken back, where the event is that; such an
	// event is approved, denied or revoked, and Mapping is what it is about, which is none.
	Approval *Approval `json:"approval,omitempty"`
	Pending  uint64    `json:"pending,omitempty"` // of pending: the number to approve or deny it by
}

// NewEvent returns the JSON form of an event.
func NewEvent(ev *portmap.Event) Event {
	e := Event{
		Time: ev.Time.UTC().Format(time.RFC3339Nano), Event: ev.Type.String(), Reason: ev.Reason.String(), Why: ev.Detail, Rule: ev.Rule, Pending: ev.Waiting,
	}
	if ev.Type == portmap.Drift || ev.Type == portmap.Resync {
		return e
	}
	who, m := NewAsker(&ev.Client), NewMapping(ev.Mapping, nil, ev.Time)
	m.Uncounted = true
	if ev.Mapping.Created.IsZero() { // it is no mapping, but what was asked for
		m.Created = ""
	}
	e.Client, e.Mapping = &who, &m
	if ev.Answer.ID != 0 {
		a := NewApproval(&ev.Answer, &ev.Client, &ev.Mapping, ev.Time)
		e.Approval = &a
	}
	return e
}

// eventsPath is the one path whose answer goes on for as long as the peer is there.
const eventsPath = "/v1/events"

// maxStreams is how many may follow the events at once; the other connections stay for
// questions.
const maxStreams = 8

// Events calls f with each event from now on, until ctx ends, f fails, or the daemon stops.
// It never returns nil.
func (c *Client) Events(ctx context.Context, f func(Event) error) error {
	return c.talk(ctx, http1.Get, eventsPath, nil, func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			var e Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if err := f(e); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		return errors.New("the daemon has stopped, or we have read too slowly")
	})
}

// events follows the events for as long as the peer is there. Who does not read for a while
// misses some, and is told so; who does not read at all is let go.
func (s *Server) events(ctx context.Context, _ *http1.Request) *http1.Response {
	select {
	case s.streams <- struct{}{}:
	default:
		return fail(http1.ServiceUnavailable, "busy", fmt.Sprintf("%d follow the events already, which is the most", maxStreams))
	}
	events := s.cfg.Events(ctx)
	return &http1.Response{
		Status: http1.OK, Header: jsonHeader,
		Sent: func(error) { <-s.streams },
		Stream: func(w io.Writer) error {
			for ev := range events {
				line, err := json.Marshal(NewEvent(&ev))
				if err != nil {
					return err
				}
				if _, err := w.Write(append(line, '\n')); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// whilePresent returns a context that ends with the peer too, from whom nothing more is to
// come; stop closes the connection.
func whilePresent(ctx context.Context, conn net.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	_ = conn.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		_, _ = conn.Read(make([]byte, 1))
	}()
	return ctx, func() {
		cancel()
		_ = conn.Close()
		<-gone
	}
}
