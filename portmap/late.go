package portmap

import (
	"context"
	"time"
)

// What becomes of a change that takes longer than its client waits. A client that
// hears nothing, or an error, must not have a port open that it does not know of.

// tell answers an op, or reports that its client has gone without an answer.
func (o *op) tell(r result) bool {
	if !o.settled.CompareAndSwap(false, true) {
		return false
	}
	o.done <- r
	return true
}

// withPatience bounds a transaction by the client who waits longest: beyond that
// there is nobody left to be told. The program's end does not cut it short.
func withPatience(ctx context.Context, batch []*op) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	var last time.Time
	for _, o := range batch {
		at, bounded := o.ctx.Deadline()
		if !bounded {
			return ctx, func() {}
		}
		if at.After(last) {
			last = at
		}
	}
	return context.WithDeadline(ctx, last)
}

// granted returns the mappings that changes have made, not those that they renewed:
// a renewal that is not told leaves its client with what it has.
func granted(changes []Change) []Mapping {
	var made []Mapping
	for _, c := range changes {
		if c.Event == Granted && c.New != nil {
			made = append(made, *c.New)
		}
	}
	return made
}

// takenBack returns what ends these mappings, as far as they are still there, and the
// table without them.
func takenBack(t *Table, made []Mapping) ([]Change, *Table) {
	var changes []Change
	for i := range made {
		c, err := t.planRevocation(&made[i], Busy, time.Time{})
		if err != nil {
			continue // gone meanwhile
		}
		changes, t = append(changes, c), t.Commit(c)
	}
	return changes, t
}
