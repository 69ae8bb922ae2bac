package portmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Terms are what the owner may change while the engine runs.
type Terms struct {
	Policy   Policy        // never nil
	LeaseMax time.Duration // leases are cut to it; 0 asks for it
	LeaseMin time.Duration // the shortest lease PCP grants (RFC 6887 section 15)
}

func (t Terms) check() error {
	switch {
	case t.Policy == nil:
		return errors.New("engine: there is no policy")
	case t.LeaseMax <= 0 || t.LeaseMin < 0 || t.LeaseMin > t.LeaseMax:
		return fmt.Errorf("engine: leases from %v to %v", t.LeaseMin, t.LeaseMax)
	}
	return nil
}

// Adopt has new terms hold from now on, for what is open as well: a mapping that they
// allow stays as it is, with its flows, for as long as they allow; any other is revoked, and
// returned with the reason. With an error from the kernel, or from ctx, the terms hold,
// and some mappings that they do not allow are still there: Adopt again ends them. So does
// Review, which is also for those whose LAN is away.
func (e *Engine) Adopt(ctx context.Context, t Terms) ([]Dropped, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	e.reviewing.Lock()
	defer e.reviewing.Unlock()
	if err := e.turn(ctx, func() { e.terms = t }); err != nil {
		return nil, err
	}
	return e.reviewAll(ctx)
}

// Review has terms that were adopted decide about what they have not decided about yet: a
// mapping whose LAN or prefix was away. It is called when the network is another.
func (e *Engine) Review(ctx context.Context) ([]Dropped, error) {
	e.reviewing.Lock()
	defer e.reviewing.Unlock()
	if !e.unreviewed {
		return nil, nil
	}
	return e.reviewAll(ctx)
}

// reviewAll has the terms of today decide about all mappings; reviewing is held.
func (e *Engine) reviewAll(ctx context.Context) (revoked []Dropped, err error) {
	e.cfg.Gateway.Look(ctx)
	e.unreviewed = true
	away := false
	for some := range slices.Chunk(slices.Collect(e.Snapshot().held()), readmitted) {
		over, wait, err := e.reviewSome(ctx, some)
		if err != nil {
			return revoked, err
		}
		revoked, away = append(revoked, over...), away || wait
	}
	e.unreviewed = away
	return revoked, nil
}

// Alive returns nil when the engine has come to look at what waits for it.
func (e *Engine) Alive(ctx context.Context) error { return e.turn(ctx, func() {}) }

// turn has Run call f.
func (e *Engine) turn(ctx context.Context, f func()) error {
	_, err := e.do(&op{
		ctx: ctx,
		plan: func(*Table) (outcome, error) {
			f()
			return outcome{}, nil
		},
		failed: func(error) {},
	})
	return err
}

// reviewSome has the terms of today decide about mappings, in one transaction, and reports
// whether some must wait.
func (e *Engine) reviewSome(ctx context.Context, some []*Mapping) (revoked []Dropped, wait bool, err error) {
	_, err = e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			revoked, wait = nil, false // it may be planned twice
			var out outcome
			now, view := time.Now(), e.cfg.Gateway.View()
			for i := range some {
				held := t.at(some[i])
				if held == nil || held.ID != some[i].ID {
					continue // it has ended meanwhile
				}
				again, used, err := e.review(now, t, *held, view)
				switch {
				case waits(err): // its LAN will be back, or presence ends it
					wait = true
				case err != nil:
					revoked = append(revoked, Dropped{*held, err})
					out.changes = append(out.changes, Change{Event: RevokedEvent, Reason: ReasonOf(err), Old: held})
				case !again.sameTerms(held) || used != 0 && t.used[used] != held.ID:
					c := Change{Event: Renewed, Old: held, New: &again, uses: used}
					out.changes, t = append(out.changes, c), t.Commit(c)
				}
			}
			return out, nil
		},
		failed: func(err error) { e.drifted(time.Now(), err) },
	})
	return revoked, wait, err
}

// sameTerms reports whether rule and lease are those of o.
func (m *Mapping) sameTerms(o *Mapping) bool {
	return m.Rule == o.Rule && m.WAN == o.WAN && m.Endless == o.Endless && m.Expires.Equal(o.Expires)
}

// review returns a mapping as today's terms have it go on, and the answer that was for it
// alone, if one was. What the network lacks at the
// moment is no reason against it: at a start the WAN may not be up yet.
func (e *Engine) review(now time.Time, t *Table, m Mapping, view *View) (Mapping, uint64, error) {
	left := m.Left(now)
	if left == 0 {
		return m, 0, &Error{Reason: Ended, Detail: "the lease has ended"}
	}
	r := Request{
		Client: m.Client, Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort,
		Remotes: m.Remotes, Lifetime: left, Exact: true, Disabled: m.Disabled, Description: m.Description,
	}
	facts := t.Facts(now, r, view)
	facts.GrantReadyAt = time.Time{} // it was granted before
	facts.Answer = e.answers.find(now, t, &r, &m)
	d := e.terms.Policy.Decide(r, facts)
	if d.Action != Allow && d.Reason != NoAddress && d.Reason != PrivateAddress {
		return m, 0, &Error{Reason: d.Reason, Detail: d.Detail}
	}
	m.Rule, m.WAN = d.Rule, cmp.Or(view.name(m.Kind), m.WAN)
	limit := e.terms.LeaseMax
	if d.MaxLifetime > 0 {
		limit = min(limit, d.MaxLifetime)
	}
	if !m.Client.Owner() && (left < 0 || left > limit) {
		m.cut(now.Add(limit))
	}
	m.Endless = m.Endless && d.MaxLifetime == 0
	return m, d.usedUp(), nil
}
