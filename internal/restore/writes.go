package restore

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What is not a mapping's is written down so often at once, and then every ten seconds at
// most: whoever owns the front could have the disk written without end. A start on many
// LANs takes less, and a network that changes all the time loses nothing by it: what is
// written is the newest.
const (
	writesAtOnce = 128
	writeEvery   = 10 * time.Second
)

// writes bounds how often one thing is written.
type writes struct {
	mu    sync.Mutex // guards what follows
	rate  *rate.Limiter
	due   func()      // is to be called when there may be a write again; nil: nothing is
	timer *time.Timer // for due
}

func newWrites() *writes { return &writes{rate: rate.NewLimiter(rate.Every(writeEvery), writesAtOnce)} }

// do calls write now, or later, unless it is called with another one before then.
func (w *writes) do(write func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due != nil {
		w.due = write
		return
	}
	delay := w.rate.Reserve().Delay()
	if delay == 0 {
		write()
		return
	}
	w.due = write
	w.timer = time.AfterFunc(delay, w.flush)
}

// flush calls what is due.
func (w *writes) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due == nil {
		return
	}
	w.timer.Stop()
	w.due()
	w.due = nil
}
