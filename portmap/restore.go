package portmap

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"
)

// Store keeps mappings for the next start.
type Store interface {
	// Record keeps what one transaction has changed, of each mapping its last
	// state; New is nil for one that is no more. It is called when the kernel has
	// the change and before any client is told, in the order of the transactions.
	// The changes are to be taken in their order, ends first, so that a part of
	// them never shows two mappings in one place.
	//
	// With an error some of it is not kept, and may be later. Nothing is undone
	// then: see EngineConfig.Store.
	Record(ctx context.Context, changes []Change) error
}

// Dropped is a mapping that an earlier run held and this one does not take over.
type Dropped struct {
	Mapping Mapping
	Err     error // an *Error
}

// Waits reports whether it may be taken over later (Readmit): its LAN, or its prefix,
// is not there. At the start of a machine some come late.
func (d Dropped) Waits() bool { return waits(d.Err) }

func waits(err error) bool { return ReasonOf(err) == OffLink }

// Restore makes the table and the kernel hold what an earlier run held, in one
// transaction, as far as today's policy allows it. What is dropped ends in the store
// too, but for what waits. It must be called once, before Run, and before anybody can
// ask for anything. With an error the daemon cannot work. The memory of held is Restore's from
// then on: a start is when a daemon needs most.
func (e *Engine) Restore(ctx context.Context, held []Mapping) ([]Dropped, error) {
	e.cfg.Gateway.Look(ctx)
	if older := func(i, j int) bool { return held[i].ID < held[j].ID }; !sort.SliceIsSorted(held, older) {
		held = slices.Clone(held)
		sort.Slice(held, older)
	}
	now, view := time.Now(), e.cfg.Gateway.View()
	table := NewTable()
	table.own = true
	var dropped []Dropped
	var changed []Change
	last := uint64(0)
	for i := range held {
		m := &held[i]
		last = max(last, countOf(m.ID))
		again, used, err := e.readmit(now, table, *m, view)
		if err != nil {
			dropped = append(dropped, Dropped{*m, err})
			continue
		}
		if !again.sameTerms(m) {
			old := *m
			changed = append(changed, Change{Old: &old, New: &again})
		}
		table.change(Change{Event: Granted, New: &again, uses: used})
	}
	table.own = false
	// What could not be enforced has been dropped, so an error is the kernel's.
	if err := e.cfg.Firewall.Replace(ctx, open(held[:0], table)); err != nil {
		return nil, err
	}
	table.lastID = max(table.lastID, last)
	e.publish(table)
	var ended []Change
	for i := range dropped {
		if d := &dropped[i]; !d.Waits() {
			ended = append(ended, Change{Old: &d.Mapping})
		}
	}
	e.record(ctx, append(ended, changed...))
	return dropped, nil
}

// readmitted bounds one kernel transaction of mappings that have waited.
const readmitted = 512

// Readmit takes over mappings that wait since Restore, and returns those that it does
// not take over: they still wait, or have ended, in the store too, and then it must
// not be called with them again. With an error some may have been taken over, and it
// can be called again with all.
func (e *Engine) Readmit(ctx context.Context, waiting []Mapping) ([]Dropped, error) {
	e.cfg.Gateway.Look(ctx)
	var dropped []Dropped
	for some := range slices.Chunk(waiting, readmitted) {
		d, err := e.readmitSome(ctx, some)
		if err != nil {
			return dropped, err
		}
		dropped = append(dropped, d...)
	}
	return dropped, nil
}

// readmitSome takes over mappings in one transaction, or none of them.
func (e *Engine) readmitSome(ctx context.Context, some []Mapping) ([]Dropped, error) {
	var dropped []Dropped
	drop := func(m Mapping, err error) {
		if dropped = append(dropped, Dropped{m, err}); !waits(err) {
			e.record(ctx, []Change{{Old: &m}})
		}
	}
	_, err := e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			dropped = nil // it may be planned twice
			var out outcome
			now, view := time.Now(), e.cfg.Gateway.View()
			for _, m := range some {
				if held := t.at(&m); held != nil && held.ID == m.ID {
					continue // an earlier call has
				}
				again, used, err := e.readmit(now, t, m, view)
				if err != nil {
					drop(m, err)
					continue
				}
				c := Change{Event: Granted, New: &again, uses: used}
				t = t.Commit(c)
				out.changes = append(out.changes, c)
			}
			return out, nil
		},
		failed: func(error) {},
	})
	return dropped, err
}

// readmit returns a mapping as it may go on, where its place is free; otherwise as review.
func (e *Engine) readmit(now time.Time, t *Table, m Mapping, view *View) (Mapping, uint64, error) {
	if m.Left(now) == 0 {
		return m, 0, &Error{Reason: Ended, Detail: "the lease has ended"}
	}
	if err := t.vacant(&m, view); err != nil {
		return m, 0, err
	}
	return e.review(now, t, m, view)
}

// vacant returns what stands where a mapping was.
func (t *Table) vacant(m *Mapping, view *View) error {
	if err := m.Check(); err != nil {
		return err
	}
	if err := t.overlap(m, nil); err != nil {
		return &Error{Reason: PortTaken, Detail: err.Error()}
	}
	if m.Kind == Pinhole6 {
		if _, taken := t.numbers.get(int(m.Number)); taken {
			return &Error{Reason: PortTaken, Detail: fmt.Sprintf("pinhole %d exists already", m.Number)}
		}
		return nil
	}
	if err := t.conflict(m.ExternalPort, m.Transport, m.Client.ID()); err != nil {
		return err
	}
	return view.Vacant(m.Transport, m.ExternalPort)
}

// open appends what is open.
func open(to []Mapping, t *Table) []Mapping {
	for m := range t.All() {
		if m.Open() {
			to = append(to, m)
		}
	}
	return to
}

// record has the store keep changes that the kernel holds already. A client that
// stopped waiting does not change that.
func (e *Engine) record(ctx context.Context, changes []Change) {
	if e.cfg.Store == nil || len(changes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	if err := e.cfg.Store.Record(ctx, changes); e.cfg.Recorded != nil {
		e.cfg.Recorded(err)
	}
}

// toRecord returns what the store must know, ends first. What was made and removed
// again within one batch it never hears of.
func toRecord(done []*step) []Change {
	var ended, put []Change
	for _, s := range done {
		switch {
		case s.after != nil:
			put = append(put, Change{Old: s.before, New: s.after})
		case s.before != nil:
			ended = append(ended, Change{Old: s.before})
		}
	}
	return append(ended, put...)
}
