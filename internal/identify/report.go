package identify

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often such a thing is reported, or looked after: so many at once, then one in a
// minute.
const (
	reportBurst = 3
	reportEvery = time.Minute
)

// reporter bounds one kind of line.
type reporter struct {
	mu      sync.Mutex    // guards what follows
	lines   *rate.Limiter // nil before the first
	leftOut int           // since the last line
}

// allow reports whether there may be a line now, and how many were left out.
func (r *reporter) allow() (leftOut int, now bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lines == nil {
		r.lines = rate.NewLimiter(rate.Every(reportEvery), reportBurst)
	}
	if !r.lines.Allow() {
		r.leftOut++
		return 0, false
	}
	leftOut, r.leftOut = r.leftOut, 0
	return leftOut, true
}
