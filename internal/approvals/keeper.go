package approvals

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"portcullis/internal/pace"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Bounds of what the owner can have said.
const (
	maxAnswers = 1024
	sweepEvery = 10 * time.Second // for what has ended, and for what could not be stored or closed
	sweepTime  = 10 * time.Second // for the firewall; somebody may want to answer meanwhile
	setBack    = time.Minute      // of the clock, which may happen to one that is right
	writeEvery = 10 * time.Minute // while an answer holds that ends, so that the file tells what time it is
)

// Errors of the owner's questions.
var (
	ErrNothing = errors.New("nothing that waits, and no answer, has this number")
	ErrTooMany = fmt.Errorf("there are %d answers, which is the most; revoke some first", maxAnswers)
	ErrOnce    = errors.New("\"once\" is for one port, and not for a whole device")
)

// StoreError says that something could not be written to the state directory.
type StoreError struct {
	Holds bool // all the same, until the daemon ends
	Err   error
}

// Error implements error.
func (e *StoreError) Error() string {
	if e.Holds {
		return fmt.Sprintf("this holds now, but cannot be stored, so that a restart would undo it: %v", e.Err)
	}
	return fmt.Sprintf("this cannot be stored, and nothing has changed: %v", e.Err)
}

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// Answer is what the owner has said, and about what.
type Answer struct {
	portmap.Answer
	Client      portmap.Client // who had asked
	Made        time.Time
	Description string // what the device called it
	Rule        string // that said "ask", or ""

	// Of an answer that ends and is of an earlier run: Until by the wall clock, and when that
	// run last knew what time it was. written is zero from when it holds in this run.
	ends, written time.Time
}

func (a *Answer) subject() subject { return subject{a.Device, a.Transport, a.Port} }

// over reports whether it holds no longer, by either clock.
func (a *Answer) over(now time.Time) bool {
	return !a.asleep() && a.Over(now) || !a.ends.IsZero() && !now.Round(0).Before(a.ends)
}

// asleep reports whether it does not hold yet, because the clock has been wrong since this run
// began.
func (a *Answer) asleep() bool { return !a.written.IsZero() }

// wake has it hold where the clock can be right, and reports whether it does from now on.
func (a *Answer) wake(now time.Time) bool {
	clock := now.Round(0)
	if !a.asleep() || clock.Add(setBack).Before(a.written) {
		return false
	}
	a.Until, a.written = now.Add(min(a.ends.Sub(clock), a.ends.Sub(a.written))), time.Time{}
	return true
}

// end returns when it ends by the wall clock, zero where it does not.
func (a *Answer) end(now time.Time) time.Time {
	if a.Until.IsZero() || a.asleep() {
		return a.ends
	}
	end := now.Round(0).Add(a.Until.Sub(now))
	if !a.ends.IsZero() && a.ends.Before(end) {
		return a.ends
	}
	return end
}

// Store keeps the file. With an error of Write the old one is as it was.
type Store interface {
	Answers() ([]byte, error)         // fs.ErrNotExist: there is none
	SaveAnswers([]byte) error         // on the disk when it returns
	SetAnswersAside() (string, error) // what makes no sense; it returns its new name
}

// Engine is what goes by the answers; portmap.Engine is one.
type Engine interface {
	Answer(context.Context, portmap.Answers) ([]portmap.Dropped, error)
	Answered(portmap.Event)
	Snapshot() *portmap.Table
}

// Keeper has what waits and what was said. It is safe for concurrent use.
type Keeper struct {
	log    *slog.Logger
	store  Store // nil: there is no state directory
	engine Engine

	changed chan struct{} // holds one: there is perhaps something to sweep

	turn sync.Mutex // one at a time answers

	mu      sync.Mutex // guards what follows
	waiting queue
	answers []Answer
	next    uint64    // number
	saved   time.Time // when the file was written
	unsaved bool      // the file is perhaps not what holds
	said    bool      // the owner was told that it cannot be written
	behind  bool      // the engine perhaps does not go by the answers yet, or has not closed all
}

// Open reads what was said in earlier runs; restored are the mappings that may be taken over.
// Start must be called before anything is asked.
func Open(log *slog.Logger, store Store, restored []portmap.Mapping) *Keeper {
	k := &Keeper{log: log, store: store, changed: make(chan struct{}, 1), next: 100_000 + rand.Uint64N(800_000)} // #nosec G404 -- nobody is to guess wrong, that is all
	if store == nil {
		return k
	}
	now := time.Now()
	data, err := store.Answers()
	var list []Answer
	if err == nil {
		list, err = decode(data, now)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return k
	case err != nil:
		what := "cannot read the approvals"
		if errors.Is(err, errDamaged) {
			what = "the approvals are damaged"
		}
		name, failed := store.SetAnswersAside() // the next answer would be written over them
		log.Error(what+"; what they allowed is closed, and the owner is asked again", "kept_as", name, "err", errors.Join(err, failed))
		return k
	}
	k.answers = slices.DeleteFunc(list, func(a Answer) bool {
		used := a.Once && a.Mapping != 0 && !slices.ContainsFunc(restored, func(m portmap.Mapping) bool { return m.ID == a.Mapping })
		return used || a.over(now)
	})
	if slices.ContainsFunc(k.answers, func(a Answer) bool { return a.asleep() }) {
		log.Warn("the clock is behind; what is approved until some time is closed until it is right", "clock", now.Round(0))
	}
	return k
}

// Answers returns what an engine is to begin with.
func (k *Keeper) Answers() portmap.Answers {
	k.mu.Lock()
	defer k.mu.Unlock()
	return answersOf(k.answers)
}

// Start tells who goes by the answers.
func (k *Keeper) Start(e Engine) { k.engine = e }

func answersOf(list []Answer) portmap.Answers {
	plain := make([]portmap.Answer, 0, len(list))
	for i := range list {
		if !list[i].asleep() {
			plain = append(plain, list[i].Answer)
		}
	}
	return portmap.NewAnswers(plain)
}

// Run takes in what the engine does, until it or ctx ends.
func (k *Keeper) Run(ctx context.Context, w *portmap.Watcher) error {
	defer w.Close()
	return k.follow(ctx, w.C)
}

func (k *Keeper) follow(ctx context.Context, events <-chan portmap.Event) error {
	sweep := time.NewTimer(0)
	defer sweep.Stop()
	for every := time.Duration(-1); ; {
		if now := k.sweeps(); now != every {
			if every = now; every > 0 {
				sweep.Reset(pace.Until(every))
			} else {
				sweep.Stop()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.changed:
		case <-sweep.C:
			k.sweep(ctx)
			every = -1
		case ev, open := <-events:
			if !open {
				return ctx.Err()
			}
			k.note(&ev)
		}
	}
}

// sweeps returns how often a sweep may find something, 0 where none does before something
// has changed.
func (k *Keeper) sweeps() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	ends := func(a Answer) bool { return !a.Until.IsZero() || !a.ends.IsZero() || a.asleep() }
	switch {
	case k.unsaved || k.behind || slices.ContainsFunc(k.answers, ends):
		return sweepEvery
	case len(k.waiting.of) > 0: // for days
		return pace.Minute
	}
	return 0
}

// stir has Run find out what is to be swept now.
func (k *Keeper) stir() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// note takes in an event.
func (k *Keeper) note(ev *portmap.Event) {
	m := &ev.Mapping
	s := subjectOf(&ev.Client, m.Transport, m.Internal.Port())
	switch ev.Type {
	case portmap.Pending:
		k.mu.Lock()
		defer k.mu.Unlock()
		if w := k.waiting.about(s); !k.answered(s, ev.Time) && (w == nil || !w.seen(ev)) {
			k.waiting.add(ev, k.number)
			k.stir() // others than Run do so too
		}
	case portmap.Granted, portmap.Renewed, portmap.Denied: // it does not wait any more
		k.mu.Lock()
		k.waiting.answered(s)
		k.mu.Unlock()
		k.noteUse(0)
	case portmap.Deleted, portmap.Expired, portmap.RevokedEvent:
		k.noteUse(m.ID)
	case portmap.Resync:
		k.noteUse(0)
	}
}

// answered reports whether something was said about s meanwhile: an event comes a little later
// than what it tells of. mu is held.
func (k *Keeper) answered(s subject, now time.Time) bool {
	return slices.ContainsFunc(k.answers, func(a Answer) bool {
		return a.subject().covers(s) && !a.over(now) && !a.asleep() && (!a.Once || a.Mapping == 0)
	})
}

// number returns one that nothing has; mu is held.
func (k *Keeper) number() uint64 {
	for {
		k.next++
		if k.waiting.find(k.next) == nil && k.find(k.next) < 0 {
			return k.next
		}
	}
}

// find returns where the answer of a number is, -1 where there is none; mu is held.
func (k *Keeper) find(id uint64) int {
	return slices.IndexFunc(k.answers, func(a Answer) bool { return a.ID == id })
}

// noteUse writes down which answers for one mapping were used, and forgets the one whose
// mapping has ended.
func (k *Keeper) noteUse(ended uint64) {
	k.mu.Lock()
	once := slices.ContainsFunc(k.answers, func(a Answer) bool { return a.Once })
	k.mu.Unlock()
	if !once {
		return
	}
	k.turn.Lock()
	defer k.turn.Unlock()
	table := k.engine.Snapshot()
	list, changed := k.copy(), false
	for i := range list {
		if used := table.UsedBy(&list[i].Answer); used != list[i].Mapping {
			list[i].Mapping, changed = used, true
		}
	}
	if ended != 0 {
		n := len(list)
		list = slices.DeleteFunc(list, func(a Answer) bool { return a.Once && a.Mapping == ended })
		changed = changed || len(list) < n
	}
	if changed {
		k.keep(list)
	}
}

// sweep ends what has run out, has what has slept hold, and stores and closes what could not
// be stored or closed.
func (k *Keeper) sweep(ctx context.Context) {
	now := time.Now()
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	k.waiting.forget(now)
	n, unsaved, behind, saved := len(k.answers), k.unsaved, k.behind, k.saved
	k.mu.Unlock()
	list := slices.DeleteFunc(k.copy(), func(a Answer) bool { return a.over(now) })
	changed, ending := len(list) < n, false
	for i := range list {
		changed = list[i].wake(now) || changed
		ending = ending || !list[i].Until.IsZero()
	}
	if changed || unsaved || ending && now.Sub(saved) >= writeEvery {
		k.keep(list)
		behind = behind || changed
	}
	if !behind {
		return
	}
	waiting, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	if _, err := k.hold(waiting, list); err != nil && ctx.Err() == nil {
		k.log.Error("not all of what is not approved any more could be closed; trying again", "err", err)
	}
}

// hold has the engine go by a list, and returns what that closed. What fails is tried again
// (sweep): the firewall may be busy with what somebody else loads. turn is held.
func (k *Keeper) hold(ctx context.Context, list []Answer) ([]portmap.Dropped, error) {
	closed, err := k.engine.Answer(ctx, answersOf(list))
	defer k.stir()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.behind = err != nil
	return closed, err
}

func (k *Keeper) copy() []Answer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.answers)
}

// save writes a list to the disk.
func (k *Keeper) save(list []Answer) error {
	if k.store == nil {
		return errors.New("there is no usable state directory (state.dir)")
	}
	now := time.Now()
	data, err := encode(list, now)
	if err == nil {
		err = k.store.SaveAnswers(data)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.saved = now // or tried
	return err
}

// keep has a list hold that takes something back, stored or not; turn is held.
func (k *Keeper) keep(list []Answer) error {
	err := k.save(list)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && !k.said {
		k.log.Error("cannot save the approvals", "err", err)
	}
	k.answers, k.unsaved, k.said = list, err != nil, err != nil
	k.stir()
	return err
}
