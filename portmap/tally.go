package portmap

import (
	"iter"
	"sync/atomic"
)

// tally counts events. It has a place for each kind that there can be.
type tally [eventTypeCount][viaCount][reasonCount]atomic.Uint64

func (t *tally) count(ev *Event) {
	if ev.Type < eventTypeCount && ev.Client.Via < viaCount && ev.Reason < reasonCount {
		t[ev.Type][ev.Client.Via][ev.Reason].Add(1)
	}
}

// Count is how many events of one kind there were.
type Count struct {
	Type   EventType
	Via    Via // 0: nobody asked
	Reason Reason
	N      uint64
}

// Tally returns how many events of each kind there were since the start, of all kinds that
// there were.
func (e *Engine) Tally() iter.Seq[Count] {
	return func(yield func(Count) bool) {
		for ty := range e.watchers.tally {
			for via := range e.watchers.tally[ty] {
				for reason := range e.watchers.tally[ty][via] {
					n := e.watchers.tally[ty][via][reason].Load()
					if n > 0 && !yield(Count{EventType(ty), Via(via), Reason(reason), n}) {
						return
					}
				}
			}
		}
	}
}
