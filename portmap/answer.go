package portmap

import (
	"context"
	"maps"
	"time"
)

// Answer is what the owner has said about requests that the policy asks him about. It is for
// one device, by its MAC address where the link has any.
type Answer struct {
	ID        uint64 // not 0
	Allow     bool   // or he has denied them
	Device    Device
	Transport Transport // 0: both, and Port is 0
	Port      uint16    // of the device, whatever number the outside sees; 0: any
	Until     time.Time // with a monotonic reading; zero: for good
	Once      bool      // for one mapping, until that ends
	Mapping   uint64    // with Once: which one that is, of an earlier run; 0: it is not known to be used
}

// minAnswerLeft is the least time that an answer must have to run: what it allows has a lease
// of whole seconds.
const minAnswerLeft = time.Second

// Over reports whether the answer holds no longer.
func (a *Answer) Over(now time.Time) bool {
	return !a.Until.IsZero() && a.Until.Sub(now) < minAnswerLeft
}

// Answers are all that the owner has said. They are immutable; the zero value is none.
type Answers struct{ of map[answerKey][]Answer }

type answerKey struct {
	device    Device
	transport Transport
	port      uint16
}

// NewAnswers returns what a list says. Of two answers about the same the first holds that
// speaks of a request.
func NewAnswers(list []Answer) Answers {
	a := Answers{make(map[answerKey][]Answer, len(list))}
	for _, one := range list {
		k := answerKey{one.Device, one.Transport, one.Port}
		a.of[k] = append(a.of[k], one)
	}
	return a
}

// find returns what was said about a request of a client that has the mapping held, nil where
// it has none; nil: nothing was said. What is about a port comes before what is about the
// whole device.
func (a Answers) find(now time.Time, t *Table, r *Request, held *Mapping) *Answer {
	if len(a.of) == 0 || r.Client.Owner() {
		return nil
	}
	d := r.Client.ID().Device()
	for _, k := range []answerKey{{d, r.Transport, r.Internal.Port()}, {device: d}} {
		list := a.of[k]
		for i := range list {
			if list[i].covers(now, t, held) {
				return &list[i]
			}
		}
	}
	return nil
}

// covers reports whether the answer holds now, for a mapping that is held or for a new one.
func (a *Answer) covers(now time.Time, t *Table, held *Mapping) bool {
	if a.Over(now) {
		return false
	}
	used := t.UsedBy(a)
	return used == 0 || held != nil && held.ID == used
}

// UsedBy returns which mapping an answer was for that is for one alone; 0: it has not been
// used, or is for any number.
func (t *Table) UsedBy(a *Answer) uint64 {
	if !a.Once {
		return 0
	}
	if id := t.used[a.ID]; id != 0 {
		return id
	}
	return a.Mapping
}

// usedUp returns the ID of the answer that a decision's mapping uses up, 0 if it does none.
func (d *Decision) usedUp() uint64 {
	if d.Answer == nil || !d.Answer.Once {
		return 0
	}
	return d.Answer.ID
}

// use notes that an answer was for this mapping. There are few such answers.
func (t *Table) use(answer, mapping uint64) {
	if t.used[answer] == mapping {
		return
	}
	next := maps.Clone(t.used)
	if next == nil {
		next = make(map[uint64]uint64)
	}
	next[answer] = mapping
	t.used = next
}

// Answer has what the owner has said hold from now on, in place of all before it, for what is
// open as well: as Adopt does it.
func (e *Engine) Answer(ctx context.Context, a Answers) ([]Dropped, error) {
	e.reviewing.Lock()
	defer e.reviewing.Unlock()
	if err := e.turn(ctx, func() { e.answers = a }); err != nil {
		return nil, err
	}
	return e.reviewAll(ctx)
}

// Answered reports to the watchers what the owner has said: Approved, Refused or Withdrawn.
func (e *Engine) Answered(ev Event) { e.watchers.send(ev) }
