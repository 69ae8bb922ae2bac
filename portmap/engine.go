package portmap

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Firewall is where mappings become real. Apply makes all of its changes in one
// kernel transaction, removals first, or none. Replace makes the kernel hold
// exactly what is wanted.
type Firewall interface {
	Apply(ctx context.Context, add, del []Mapping) error
	Replace(ctx context.Context, want []Mapping) error
}

// Gateway is what the engine asks about the machine it runs on.
type Gateway interface {
	// View returns the network as it is now; never nil. It comes from memory, and is
	// asked for at every request.
	View() *View
	// Look makes View show ports in use as they were a moment ago, where it does not,
	// or until ctx ends. Whoever asks for a port waits for it, and not the engine.
	Look(ctx context.Context)
}

// EngineConfig is what an Engine needs; every field but those with a default
// must be set.
type EngineConfig struct {
	Policy   Policy  // at first, as LeaseMax and LeaseMin; later see Engine.Adopt
	Answers  Answers // at first; later see Engine.Answer
	Firewall Firewall
	Gateway  Gateway
	// Held reports whether a flow that is not of this host leaves from an external port
	// now. Who asks for any port then gets another one, if there is one soon. nil: none
	// ever does.
	Held func(tr Transport, port uint16, host netip.Addr) bool
	// Store keeps mappings for the next start; nil: nothing outlives the process. What
	// it cannot keep is granted all the same: a disk that is full must not close a
	// game's port. Recorded, where set, is called with what each Record returned.
	Store    Store
	Recorded func(error)
	// Published, where set, is called when there is another table: after it can be read,
	// and before anybody is answered or told.
	Published func()

	LeaseMax time.Duration // leases are cut to it; 0 asks for it
	LeaseMin time.Duration // the shortest lease PCP grants (RFC 6887 section 15)
	Strict   bool          // PCP: only the nonce that made a mapping may change it (RFC 6887 section 11.3)
	Hold     time.Duration // an expired mapping's port is kept this long; default 60 s
}

// Limits of the engine.
const (
	queueLength  = 256             // waiting requests; more wait in their own goroutines
	batchLength  = 64              // changes in one kernel transaction
	applyTimeout = 5 * time.Second // for one kernel transaction
	retryExpiry  = time.Second     // after a transaction that failed
	defaultHold  = time.Minute
)

// Engine changes the table; nothing else does. One goroutine (Run) owns it. Its Reader
// reads it as Snapshot does.
type Engine struct {
	Reader

	cfg      EngineConfig
	terms    Terms   // Run's alone, once it runs
	answers  Answers // likewise
	ops      chan *op
	stopped  chan struct{}
	snapshot atomic.Pointer[Table]
	watchers watchers
	untold   []Mapping // granted too late to be told; Run's alone (late.go)

	reviewing  sync.Mutex // one at a time reviews
	unreviewed bool       // guarded by reviewing; the terms have not decided about all that is open
}

// op is one wish on its way through the engine.
type op struct {
	ctx    context.Context // the client's patience; it belongs to this op alone
	plan   func(*Table) (outcome, error)
	failed func(error) // reports to the watchers that the kernel refused
	done   chan result
	// settled is set by who comes first: the engine with an answer, or the client's
	// patience at its end.
	settled atomic.Bool
}

// outcome is what an op wants to change, and what it answers when that is done.
type outcome struct {
	changes []Change
	answer  []Mapping
}

type result struct {
	answer []Mapping
	err    error
}

// NewEngine returns an engine with an empty table. Run must be called.
func NewEngine(cfg EngineConfig) (*Engine, error) {
	if cfg.Firewall == nil || cfg.Gateway == nil {
		return nil, errors.New("engine: firewall and gateway must be set")
	}
	terms := Terms{cfg.Policy, cfg.LeaseMax, cfg.LeaseMin}
	if err := terms.check(); err != nil {
		return nil, err
	}
	if cfg.Hold == 0 {
		cfg.Hold = defaultHold
	}
	e := &Engine{cfg: cfg, terms: terms, answers: cfg.Answers, ops: make(chan *op, queueLength), stopped: make(chan struct{})}
	e.snapshot.Store(NewTable())
	e.Reader = Reader{Now: e.Snapshot}
	return e, nil
}

// Snapshot returns the table as it is now. Reads never wait for the engine.
func (e *Engine) Snapshot() *Table { return e.snapshot.Load() }

// Map grants, renews or changes a mapping. When it returns a nil error the
// kernel holds the mapping; with any error nothing has changed, or, where the
// kernel was slower than ctx, what came of it is taken back at once. The error is
// an *Error, or the context's.
func (e *Engine) Map(ctx context.Context, r Request) (Mapping, error) {
	got, err := e.MapSet(ctx, r, 1)
	if err != nil {
		return Mapping{}, err
	}
	return got[0], nil
}

// MapSet is Map for n internal ports from r.Internal upwards, onto as many
// external ports in a row (RFC 7753). It grants fewer when not all can be had,
// at least one, and returns them in order.
func (e *Engine) MapSet(ctx context.Context, r Request, n int) ([]Mapping, error) {
	if r.Kind == NAT4 {
		e.cfg.Gateway.Look(ctx)
	}
	return e.do(&op{
		ctx:    ctx,
		plan:   func(t *Table) (outcome, error) { return e.planMap(t, r, n) },
		failed: func(err error) { e.refused(time.Now(), r, Decision{}, err) },
	})
}

// Unmap removes what the selector names, all or (with an error) nothing, and
// returns the removed mappings.
func (e *Engine) Unmap(ctx context.Context, s Selector) ([]Mapping, error) {
	s.strict = e.cfg.Strict
	return e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			changes, err := t.PlanRemoval(time.Now(), s)
			if err != nil {
				return outcome{}, err
			}
			gone := make([]Mapping, len(changes))
			for i, c := range changes {
				gone[i] = *c.Old
			}
			return outcome{changes, gone}, nil
		},
		failed: func(err error) { e.drifted(time.Now(), err) },
	})
}

// Revoke ends a mapping that nobody asked to end. With IdentityChanged, because
// another device has its host's address, the external port stays with its client
// for a moment, so that the newcomer does not inherit it.
func (e *Engine) Revoke(ctx context.Context, m Mapping, reason Reason) error {
	_, err := e.do(&op{
		ctx: ctx,
		plan: func(t *Table) (outcome, error) {
			c, err := t.planRevocation(&m, reason, e.holdUntil(time.Now(), reason))
			return outcome{changes: []Change{c}}, err
		},
		failed: func(err error) { e.drifted(time.Now(), err) },
	})
	return err
}

func (e *Engine) do(o *op) ([]Mapping, error) {
	o.done = make(chan result, 1)
	select {
	case e.ops <- o:
	case <-o.ctx.Done():
		return nil, o.ctx.Err()
	case <-e.stopped:
		return nil, stopping()
	}
	// Once queued, the op is answered: by Run, or when Run has ended. Or it is left
	// behind, and then its client hears an error and nothing stays of it.
	select {
	case r := <-o.done:
		return r.answer, r.err
	case <-o.ctx.Done():
		if o.settled.CompareAndSwap(false, true) {
			return nil, o.ctx.Err()
		}
		r := <-o.done
		return r.answer, r.err
	case <-e.stopped:
		select {
		case r := <-o.done:
			return r.answer, r.err
		default:
			return nil, stopping()
		}
	}
}

func stopping() error { return &Error{Reason: Busy, Detail: "Portcullis is stopping"} }

// Run owns the table until ctx ends. It may be called once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.stopped)
	defer e.watchers.closeAll()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	retryAt := time.Time{}
	for {
		timer.Reset(e.untilNextEnd(retryAt))
		select {
		case <-ctx.Done():
			if len(e.untold) > 0 {
				e.expire(ctx)
			}
			return ctx.Err()
		case o := <-e.ops:
			e.serve(ctx, e.collect(o))
			if len(e.untold) == 0 {
				continue
			}
		case <-timer.C:
		}
		retryAt = e.expire(ctx)
	}
}

// untilNextEnd returns how long nothing will happen by itself.
func (e *Engine) untilNextEnd(retryAt time.Time) time.Duration {
	at, some := e.Snapshot().nextEnd()
	if len(e.untold) > 0 {
		at, some = retryAt, true
	}
	if !some {
		return time.Hour
	}
	if retryAt.After(at) {
		at = retryAt
	}
	return max(0, time.Until(at))
}

// collect takes what else is waiting, to share one kernel transaction.
func (e *Engine) collect(first *op) []*op {
	// Who has the engine woken runs after it: on one processor each of many would have a
	// transaction of its own, while the next ones are about to ask.
	runtime.Gosched()
	batch := []*op{first}
	for len(batch) < batchLength {
		select {
		case o := <-e.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// serve plans a batch on top of one another and applies it in one transaction.
// When the kernel refuses that, each op is tried alone: it may only have had no room for
// one of them.
func (e *Engine) serve(ctx context.Context, batch []*op) {
	table := e.Snapshot()
	var planned []*op
	var outcomes []outcome
	for _, o := range batch {
		if err := o.ctx.Err(); err != nil {
			o.tell(result{err: err})
			continue
		}
		out, err := o.plan(table)
		if err != nil {
			o.tell(result{err: err})
			continue
		}
		for _, c := range out.changes {
			table = table.Commit(c)
		}
		planned, outcomes = append(planned, o), append(outcomes, out)
	}
	if len(planned) == 0 {
		return
	}
	ctx, cancel := withPatience(ctx, planned)
	defer cancel()
	err := e.apply(ctx, table, outcomes)
	if err != nil && len(planned) > 1 {
		for _, o := range planned {
			e.serve(ctx, []*op{o})
		}
		return
	}
	for i, o := range planned {
		if err == nil {
			if !o.tell(result{answer: outcomes[i].answer}) {
				e.untold = append(e.untold, granted(outcomes[i].changes)...)
			}
			continue
		}
		if ReasonOf(err) == FirewallFailed {
			err = &Error{Reason: FirewallFailed, Detail: "the firewall refused the change", Err: err}
		}
		o.failed(err)
		o.tell(result{err: err})
	}
}

// apply brings the kernel from the published table to next, and publishes next.
func (e *Engine) apply(ctx context.Context, next *Table, outcomes []outcome) error {
	var changes []Change
	for _, o := range outcomes {
		changes = append(changes, o.changes...)
	}
	done := steps(changes)
	add, del := kernelChanges(done)
	if len(add)+len(del) > 0 {
		ctx, cancel := context.WithTimeout(ctx, applyTimeout)
		defer cancel()
		if err := e.cfg.Firewall.Apply(ctx, add, del); err != nil {
			return err
		}
	}
	e.record(ctx, toRecord(done))
	now := time.Now()
	e.publish(next.tidy(now))
	for _, c := range changes {
		if c.Event != 0 {
			e.watchers.send(eventOf(now, c))
		}
	}
	return nil
}

func (e *Engine) publish(t *Table) {
	e.snapshot.Store(t)
	if e.cfg.Published != nil {
		e.cfg.Published()
	}
}

// step is what became of one mapping.
type step struct{ before, after *Mapping }

// steps reduces changes to what is different at their end: a mapping may have been
// made and removed again within one batch.
func steps(changes []Change) []*step {
	byID := make(map[uint64]*step, len(changes))
	order := make([]*step, 0, len(changes))
	for _, c := range changes {
		var id uint64
		if c.Old != nil {
			id = c.Old.ID
		} else {
			id = c.New.ID
		}
		s := byID[id]
		if s == nil {
			s = &step{before: c.Old}
			byID[id] = s
			order = append(order, s)
		}
		s.after = c.New
	}
	return order
}

// kernelChanges returns what the kernel must do.
func kernelChanges(changes []*step) (add, del []Mapping) {
	for _, s := range changes {
		if s.before != nil && s.before.Open() {
			del = append(del, *s.before)
		}
		if s.after != nil && s.after.Open() {
			add = append(add, *s.after)
		}
	}
	return add, del
}

// expire ends the leases that have run out, and what came too late for its client.
// A transaction that fails is tried again a second later; the kernel's own timeout
// closes the port meanwhile.
func (e *Engine) expire(ctx context.Context) (retryAt time.Time) {
	now := time.Now()
	table := e.Snapshot()
	changes := table.expired(now, e.cfg.Hold, batchLength)
	for _, c := range changes {
		table = table.Commit(c)
	}
	back, table := takenBack(table, e.untold)
	if err := e.apply(context.WithoutCancel(ctx), table, []outcome{{changes: append(changes, back...)}}); err != nil {
		e.drifted(now, err)
		return now.Add(retryExpiry)
	}
	e.untold = nil
	return time.Time{}
}

// lifetime is the lease that is granted: 0 asks for the longest. What the owner says is
// not cut, and his 0 is never.
func (e *Engine) lifetime(r Request, d Decision) time.Duration {
	if r.Client.Owner() {
		return r.Lifetime
	}
	l := r.Lifetime
	if l <= 0 || l > e.terms.LeaseMax {
		l = e.terms.LeaseMax
	}
	if r.Floored {
		l = max(l, e.terms.LeaseMin)
	}
	if d.MaxLifetime > 0 {
		l = min(l, d.MaxLifetime)
	}
	return l
}

func (e *Engine) refused(now time.Time, r Request, d Decision, err error) {
	ev := Event{
		Time: now, Type: Denied, Reason: ReasonOf(err), Detail: err.Error(), Rule: d.Rule, Client: r.Client,
		Mapping: Mapping{Client: r.Client, Kind: r.Kind, Transport: r.Transport, Internal: r.Internal,
			ExternalPort: r.ExternalPort, Remotes: r.Remotes, Description: r.Description, Rule: d.Rule},
	}
	if ev.Reason == d.Reason { // else something came after the policy
		ev.Wall, ev.NeedsRule = d.Wall, d.NeedsRule
	}
	if d.Action == Ask {
		ev.Type = Pending
	}
	e.watchers.send(ev)
}

// Drifted reports to the watchers that the kernel did not hold what the table says, and
// was put right.
func (e *Engine) Drifted(detail string) {
	e.watchers.send(Event{Time: time.Now(), Type: Drift, Detail: detail})
}

// drifted reports that the kernel does not hold what the table says.
func (e *Engine) drifted(now time.Time, err error) {
	e.watchers.send(Event{Time: now, Type: Drift, Reason: FirewallFailed, Detail: err.Error()})
}

func eventOf(now time.Time, c Change) Event {
	m := c.New
	if m == nil {
		m = c.Old
	}
	return Event{Time: now, Type: c.Event, Reason: c.Reason, Rule: m.Rule, Client: m.Client, Mapping: *m}
}
