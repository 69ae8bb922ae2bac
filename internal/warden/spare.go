package warden

import (
	"sync"
	"time"
)

// A mapping that is made or renewed leaves garbage behind, and so does one that is listed,
// looked at anew or read of the kernel. The runtime lets half as much lie about as is in use
// until it collects, and keeps what it has collected for a while: with 20,000 mappings as
// much as 5,000 take. So after so many it is collected and given back, in a moment in
// which few come. This takes some 30 ms of a processor with 20,000 mappings, hundredths of
// what came before.
const (
	spareAfter = 512 // mappings
	spareEvery = 2 * time.Second
	spareCalm  = 64 // of them within spareEvery at most
)

// spare gives back memory after work on many mappings.
type spare struct {
	give func()

	mu    sync.Mutex // guards what follows
	since int        // mappings since memory was given back
	seen  int        // of them, when last looked
	timer bool       // somebody will look; nobody is woken where nothing is done
}

// hasChanged is for each table that the engine publishes.
func (w *Warden) hasChanged() {
	w.spare.passed(1)
	if w.published != nil {
		w.published()
	}
	w.hosts.Mapped()
	w.ports.Mapped()
}

// hasRead is for what passes over all mappings.
func (w *Warden) hasRead() { w.spare.passed(w.engine.Snapshot().Len()) }

// passed counts mappings that were worked on.
func (s *spare) passed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since += n; s.since >= spareAfter && !s.timer {
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
