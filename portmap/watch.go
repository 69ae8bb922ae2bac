package portmap

import (
	"sync"
	"sync/atomic"
)

// Watcher receives the engine's events. A watcher that does not keep up loses
// events and finds a Resync where they are missing: the engine never waits.
type Watcher struct {
	C      <-chan Event
	c      chan Event
	missed bool // guarded by watchers.mu
	from   *watchers
}

// Close ends the stream. It may be called more than once.
func (w *Watcher) Close() { w.from.remove(w) }

// watchers is the engine's list of listeners.
type watchers struct {
	denied atomic.Uint64
	tally  tally

	mu     sync.Mutex
	all    map[*Watcher]struct{}
	closed bool
}

// Watch returns a stream of events that holds at most buffer of them (at least
// one). C is closed by Close and when the engine stops.
func (e *Engine) Watch(buffer int) *Watcher {
	c := make(chan Event, max(1, buffer)+1) // one more for a Resync
	w := &Watcher{C: c, c: c, from: &e.watchers}
	e.watchers.add(w)
	return w
}

// Denied returns how many requests were refused since the start.
func (e *Engine) Denied() uint64 { return e.watchers.denied.Load() }

func (ws *watchers) add(w *Watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		close(w.c)
		return
	}
	if ws.all == nil {
		ws.all = make(map[*Watcher]struct{})
	}
	ws.all[w] = struct{}{}
}

func (ws *watchers) remove(w *Watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if _, ok := ws.all[w]; ok {
		delete(ws.all, w)
		close(w.c)
	}
}

func (ws *watchers) closeAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for w := range ws.all {
		delete(ws.all, w)
		close(w.c)
	}
}

func (ws *watchers) send(ev Event) {
	ws.tally.count(&ev)
	if ev.Type == Denied || ev.Type == Pending {
		ws.denied.Add(1)
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		w.offer(ev)
	}
}

// offer never blocks: only send adds to the channel, under the lock, so that
// there is always room for the one Resync beyond the buffer.
func (w *Watcher) offer(ev Event) {
	switch full := len(w.c) >= cap(w.c)-1; {
	case !full:
		w.missed = false
		w.c <- ev
	case !w.missed:
		w.missed = true
		w.c <- Event{Time: ev.Time, Type: Resync}
	}
}
