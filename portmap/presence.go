package portmap

import (
	"context"
	"time"
)

// Suspend closes the mappings of a client and keeps them, because another device answers
// for its address. Their ports stay with them: for EngineConfig.Hold against
// everybody, and then until somebody asks for one.
func (e *Engine) Suspend(ctx context.Context, id ClientID) error {
	return e.each(ctx, id, func(now time.Time, m *Mapping) EventType {
		if !m.Suspended.IsZero() {
			return 0
		}
		m.Suspended = now
		return Suspended
	}, IdentityChanged)
}

// keptAnew is how old a suspension is at least that Keep makes new: each is a line of
// the journal.
const keptAnew = 10 * time.Second

// Keep lets the time begin anew for which the ports of suspended mappings stay with a client:
// its device is back, and not believed to stay yet. Otherwise who makes an address change
// hands could have its ports while their client is there.
func (e *Engine) Keep(ctx context.Context, id ClientID) error {
	return e.each(ctx, id, func(now time.Time, m *Mapping) EventType {
		if m.Suspended.IsZero() || now.Sub(m.Suspended) < keptAnew {
			return 0
		}
		m.Suspended = now
		return Renewed
	}, NoReason)
}

// Resume opens them again, because their client is back.
func (e *Engine) Resume(ctx context.Context, id ClientID) error {
	return e.each(ctx, id, func(_ time.Time, m *Mapping) EventType {
		if m.Suspended.IsZero() {
			return 0
		}
		m.Suspended = time.Time{}
		return Resumed
	}, NoReason)
}

// Seen notes that the device of a client is on the LAN: endless leases go on from now.
func (e *Engine) Seen(ctx context.Context, id ClientID) error {
	return e.each(ctx, id, func(now time.Time, m *Mapping) EventType {
		if !m.Endless {
			return 0
		}
		m.promise(endlessVia, now.Add(e.terms.LeaseMax), now)
		return Renewed
	}, NoReason)
}

// RevokeAll ends the mappings of a client, as Revoke does one.
func (e *Engine) RevokeAll(ctx context.Context, id ClientID, reason Reason) error {
	return e.changeAll(ctx, id, func(now time.Time, m *Mapping) (c Change) {
		c.Event, c.Reason, c.Old, c.holdUntil = RevokedEvent, reason, m, e.holdUntil(now, reason)
		return c
	})
}

// holdUntil returns until when the port of a mapping stays with its client that is
// revoked for the reason; the zero time is not at all.
func (e *Engine) holdUntil(now time.Time, reason Reason) time.Time {
	if reason == IdentityChanged {
		return now.Add(e.cfg.Hold)
	}
	return time.Time{}
}

// each changes the mappings of a client, of which change gives the event, or 0 where there is
// nothing to do.
func (e *Engine) each(ctx context.Context, id ClientID, change func(time.Time, *Mapping) EventType, reason Reason) error {
	return e.changeAll(ctx, id, func(now time.Time, old *Mapping) Change {
		m := *old
		return Change{Event: change(now, &m), Reason: reason, Old: old, New: &m}
	})
}

// changeAll makes the changes that have an event in one transaction.
func (e *Engine) changeAll(ctx context.Context, id ClientID, change func(time.Time, *Mapping) Change) error {
	_, err := e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			var out outcome
			now := time.Now()
			for m := range t.Of(id).own.all() {
				if c := change(now, m); c.Event != 0 {
					out.changes = append(out.changes, c)
				}
			}
			return out, nil
		},
		failed: func(err error) { e.drifted(time.Now(), err) },
	})
	return err
}

// yielding plans the end of what others had in the place that r asks for, and what
// has been suspended since before: the device that stays may have the port, and
// still nothing of its predecessor.
func (t *Table) yielding(before time.Time, r Request) []Change {
	var over []Change
	late := func(m *Mapping) bool {
		return m != nil && !m.Suspended.IsZero() && m.Suspended.Before(before) && m.Client.ID() != r.Client.ID()
	}
	end := func(m *Mapping) { over = append(over, Change{Event: RevokedEvent, Reason: IdentityChanged, Old: m}) }
	if r.Kind == Pinhole6 {
		if m := t.at(&Mapping{Kind: r.Kind, Transport: r.Transport, Internal: r.Internal, Remotes: r.Remotes}); late(m) {
			end(m)
		}
		return over
	}
	s, _ := t.ports.get(int(r.ExternalPort))
	for m := range s.mappings.all() {
		if late(m) && (m.Transport == r.Transport || m.Claims.paired()) {
			end(m)
		}
	}
	return over
}
