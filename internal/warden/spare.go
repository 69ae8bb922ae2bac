package warden

import (
	"sync"
	"time"
)

// A mapping that is made or renewed leaves garbage behind, and the runtime lets a half of
// what is in use lie about until it collects, and keeps what it has collected for a while.
// With many mappings that is as much as the mappings of a small router. So after so many
// changes it is collected and given back, in a moment in which few come: this takes some
// 30 ms of a processor with 20,000 mappings, hundredths of what the changes took.
const (
	spareAfter = 512 // tables published
	spareEvery = 2 * time.Second
	spareCalm  = 64 // of them within spareEvery at most
)

// hasChanged is for each table that the engine publishes.
func (w *Warden) hasChanged() {
	w.spare.changed()
	if w.published != nil {
		w.published()
	}
}

// spare gives back memory after many changes.
type spare struct {
	give func()

	mu    sync.Mutex // guards what follows
	since int        // tables published since memory was given back
	seen  int        // of them, when last looked
	timer bool       // somebody will look; nobody is woken where nothing changes
}

// changed counts a table.
func (s *spare) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since++; s.since >= spareAfter && !s.timer {
		s.timer, s.seen = true, s.since
		time.AfterFunc(spareEvery, s.look)
	}
}

// look gives memory back, or looks again later.
func (s *spare) look() {
	s.mu.Lock()
	if s.since-s.seen > spareCalm {
		s.seen = s.since
		time.AfterFunc(spareEvery, s.look)
		s.mu.Unlock()
		return
	}
	s.since, s.timer = 0, false
	s.mu.Unlock()
	s.give()
}
