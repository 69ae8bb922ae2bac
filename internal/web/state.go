package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/json"
)

// Bounds of what a browser is shown, and of how often the daemon is asked for it.
const (
	maxMappings = 500
	maxEvents   = 100
	askTimeout  = 30 * time.Second // the daemon gives up counting before, and answers without counters
	fresh       = time.Second      // what was asked so lately is not asked again
	minWait     = 2 * time.Second  // between two looks of a page
	maxWait     = 60 * time.Second // however long a look takes the daemon
	waitFor     = 20               // times as long as it takes
	againAfter  = time.Second      // the events have ended
	againMost   = 10 * time.Second
)

// Shown is the answer to GET /v1/state.
type Shown struct {
	Error    string                  `json:"error"` // why the daemon has not answered; what follows is missing then, but for the events
	Wait     int64                   `json:"wait"`  // milliseconds until the next look
	Status   *control.Status         `json:"status"`
	Mappings []control.Mapping       `json:"mappings"`
	LeftOut  int                     `json:"left_out"` // mappings that are not shown
	Refused  []control.RefusedDevice `json:"refused"`
	// Pending is what waits for an answer, Approvals what has been answered; nil where the daemon
	// is of a version that asks nobody.
	Pending   []control.Pending  `json:"pending"`
	Approvals []control.Approval `json:"approvals"`
	Events    []control.Event    `json:"events"` // the latest first, since this process has begun
}

// state is what the daemon has said lately.
type state struct {
	owner Owner

	asking sync.Mutex // one at a time asks
	text   []byte     // guarded by asking

	mu     sync.Mutex
	made   time.Time       // guarded by mu; when text was made, zero: it does not hold any more
	turn   int             // guarded by mu; how often something has been changed
	events []control.Event // guarded by mu; the oldest first
}

// get returns a Shown as JSON.
func (s *state) get(ctx context.Context) []byte {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.mu.Lock()
	holds, turn, begun := time.Since(s.made) < fresh, s.turn, time.Now()
	s.mu.Unlock()
	if holds {
		return s.text
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	shown := s.ask(ctx)
	shown.Wait = min(max(waitFor*time.Since(begun), minWait), maxWait).Milliseconds()
	s.text, _ = json.Marshal(shown) // no type of ours makes it fail
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn == turn {
		s.made = time.Now()
	}
	return s.text
}

// stale has the daemon asked again, after something was changed.
func (s *state) stale() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made, s.turn = time.Time{}, s.turn+1
}

// ask asks the daemon for everything.
func (s *state) ask(ctx context.Context) Shown {
	shown := Shown{Events: s.latest(), Mappings: []control.Mapping{}}
	status, err := s.owner.Status(ctx)
	if err == nil {
		err = s.owner.EachMapping(ctx, func(m *control.Mapping) {
			if len(shown.Mappings) == maxMappings {
				shown.LeftOut++
				return
			}
			shown.Mappings = append(shown.Mappings, *m)
		})
	}
	if err == nil {
		shown.Refused, err = s.owner.Refused(ctx)
	}
	if err == nil {
		shown.Pending, err = s.owner.Pending(ctx)
	}
	if err == nil {
		shown.Approvals, err = s.owner.Approvals(ctx)
	}
	if unknown(err) {
		err = nil
	}
	if err != nil {
		return Shown{Error: err.Error(), Events: shown.Events}
	}
	shown.Status = &status
	return shown
}

// unknown reports whether the daemon does not know what it was asked.
func unknown(err error) bool {
	var no *control.Refusal
	return errors.As(err, &no) && no.Reason == "not-found"
}

// latest returns the events, the latest first.
func (s *state) latest() []control.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]control.Event, 0, len(s.events))
	for i := range s.events {
		all = append(all, s.events[len(s.events)-1-i])
	}
	return all
}

// follow keeps the last events, until ctx ends.
func (s *state) follow(ctx context.Context) {
	wait := againAfter
	for ctx.Err() == nil {
		_ = s.owner.Events(ctx, func(e control.Event) error { // why it ends the page is told by what it asks itself
			wait = againAfter
			s.saw(e)
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, againMost)
		}
	}
}

// saw keeps an event. Renewals are no news.
func (s *state) saw(e control.Event) {
	if e.Event == "renewed" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == maxEvents {
		s.events = append(s.events[:0], s.events[1:]...)
	}
	s.events = append(s.events, e)
}
