package metrics

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// bounds are those of a Histogram's buckets, in seconds: from what a mapping costs at best to
// what a client's patience is.
var bounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}

// Histogram counts how long something took. The zero value is ready, and safe for
// concurrent use.
type Histogram struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Uint64 // seconds, the bits of a float64
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	s := d.Seconds()
	i, _ := slices.BinarySearch(bounds[:], s)
	h.counts[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+s)) {
			return
		}
	}
}
