package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Driver keeps a Kernel as the mappings want it. It has what is the same for every
// backend: the lock, the state, the counters over rewriting, what is done when the
// kernel turns out to hold something else, and the flows that end with their mappings.
//
// Its methods are safe for concurrent use. Apply, Replace, Configure, Audit, Counter and
// Close wait for one another; Counters and Watch wait for nobody.
type Driver struct {
	log    *slog.Logger
	kernel Kernel
	flows  Flows

	mu       sync.Mutex // guards what follows, and all writing to the kernel
	closed   bool
	facts    Facts
	state    *State
	whole    bool // the kernel is believed to hold state
	tallies  map[uint64]tally
	writes   uint64 // transactions since the start
	repaired uint64
	late     late
}

// NewDriver returns a driver that holds nothing. Nothing is written to the kernel before
// the first Configure, Apply or Replace, so that the mappings of an earlier run that was
// told to keep them stay open until then. flows makes what ends connections.
func NewDriver(log *slog.Logger, k Kernel, flows func(*Driver) Flows) *Driver {
	d := &Driver{log: log, kernel: k, state: NewState(), tallies: make(map[uint64]tally)}
	d.flows = flows(d)
	return d
}

// Apply removes del, then adds add, in one kernel transaction. With an error
// nothing has changed, in the kernel and here. Of leases that are made longer, and nothing
// else, the kernel may hear up to a second later (late.go).
//
// When the kernel does not hold what it should (its ruleset was flushed, an
// element is gone), the whole table is written anew with the change in it.
//
// Flows of others that leave from a port that is mapped now are ended.
func (d *Driver) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	c, err := d.apply(ctx, add, del)
	if err == nil {
		d.flows.Free(c)
	}
	return err
}

func (d *Driver) apply(ctx context.Context, add, del []portmap.Mapping) (*Delta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	c, err := d.state.Plan(add, del)
	if err != nil {
		return nil, err
	}
	if d.whole && c.Empty() {
		d.state.Commit(c)
		return c, nil
	}
	if d.mayWait(c, time.Now()) {
		d.committed(c)
		d.wait(c.Renewed)
		return c, nil
	}
	lacking, err := d.bring(ctx, c)
	if err != nil {
		return nil, err
	}
	d.committed(c)
	if lacking {
		// Without it the mapping is there all the same, and the audit tries again; the
		// owner is told in the log.
		_ = d.rewriteOwners(ctx)
	}
	return c, nil
}

// Replace makes the kernel hold exactly these mappings, whatever it held before,
// by writing the whole table. When it fails, the kernel holds what it held before.
// A *ChainError means that all is in force but what stands in the owner's tables.
func (d *Driver) Replace(ctx context.Context, want []portmap.Mapping) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if d.state.Len() == 0 {
		return d.begin(ctx, want)
	}
	wanted := make(map[uint64]bool, len(want))
	for _, m := range want {
		wanted[m.ID] = true
	}
	del := slices.DeleteFunc(d.state.Mappings(), func(m portmap.Mapping) bool { return wanted[m.ID] })
	c, err := d.state.Plan(want, del)
	if err != nil {
		return err
	}
	d.look(ctx)
	if err := d.rewrite(ctx, c); err != nil {
		return err
	}
	d.committed(c)
	return d.rewriteOwners(ctx)
}

// Prepare sets the facts of the gateway before the first Replace, which then writes
// everything at once. Nothing is written now: what an earlier run left in the
// kernel stays open until then.
func (d *Driver) Prepare(f Facts) error {
	if err := f.Validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.whole:
		return errors.New("the rules are in force already; Configure changes them")
	}
	d.facts = f
	return nil
}

// Configure changes the facts of the gateway in the rules. Its cost does
// not depend on the number of mappings, unless the accept chain changes.
// A *ChainError means that all is in force but what stands in the owner's tables; with
// another error nothing has changed, unless it says that our part of a former accept
// chain could not be removed.
func (d *Driver) Configure(ctx context.Context, f Facts) error {
	if err := f.Validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	before := d.facts
	d.facts = f
	if err := d.writeFacts(ctx); err != nil {
		d.facts = before
		return err
	}
	d.flows.AddressesGone(before, f)
	lost, err := d.ensureOwners(ctx)
	if lost && err == nil {
		d.log.Warn("repaired firewall rules", "drift", ownersLost)
	}
	return err
}

// Facts returns the facts of the gateway, or ErrClosed.
func (d *Driver) Facts() (Facts, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return Facts{}, ErrClosed
	}
	return d.facts, nil
}

// Close ends the driver. It removes what was written and the flows of all mappings;
// or, with keep, leaves all of it as it is, to end by the kernel's own timeouts. It
// waits for work under way.
func (d *Driver) Close(ctx context.Context, keep bool) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	var err error
	var held []portmap.Mapping
	if keep {
		err = d.tellAll(ctx)
	} else {
		held = d.state.Mappings()
		err = d.kernel.Remove(ctx)
		d.whole = false
	}
	d.closed = true
	if d.late.timer != nil {
		d.late.timer.Stop()
	}
	d.mu.Unlock()
	return errors.Join(err, d.flows.Close(ctx, held))
}

// Repaired counts how often the kernel was found not to hold what it should and
// was written anew.
func (d *Driver) Repaired() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.repaired
}

// Watch reports each transaction of another program, until ctx ends. It sees only
// that something was done, not whether it was done to what we hold: Audit says
// that. tell must not block for long.
func (d *Driver) Watch(ctx context.Context, tell func(Intrusion)) error {
	return d.kernel.Watch(ctx, tell)
}

// Entries reads back what the kernel holds, in no order, when it has been told of every lease. Expires is the end of the lease
// that the kernel's remaining time stands for, within a second, or zero.
func (d *Driver) Entries(ctx context.Context) ([]Entry, error) {
	if err := d.settle(ctx); err != nil {
		return nil, err
	}
	held, err := d.kernel.Read(ctx, Query{Entries: true})
	return held.Entries, err
}

// settle tells the kernel of every lease.
func (d *Driver) settle(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tellAll(ctx)
}

// Look lends f the committed mappings and the facts, under the lock.
func (d *Driver) Look(f func(*State, Facts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.state, d.facts)
}

// Refuse has hosts told that their flows are over.
func (d *Driver) Refuse(hosts []Refusal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.whole {
		return nil
	}
	_, err := d.kernel.Write(context.Background(), Update{Refuse: hosts})
	if err != nil {
		return fmt.Errorf("refusing the hosts of ended flows: %w", err)
	}
	return nil
}

// The methods below are called with the lock held.

// begin is Replace where nothing is held yet, as at a start, which may be with many.
func (d *Driver) begin(ctx context.Context, want []portmap.Mapping) error {
	next, err := newStateOf(want)
	if err != nil {
		return err
	}
	d.tallies = make(map[uint64]tally, len(want))
	if err := d.installOver(ctx, next); err != nil {
		return err
	}
	d.state = next
	d.flows.Changed(&Delta{New: slices.AppendSeq(make([]Entry, 0, len(next.open)), next.allHoles())})
	return d.rewriteOwners(ctx)
}

// committed takes over what the kernel holds now.
func (d *Driver) committed(c *Delta) {
	d.state.Commit(c)
	d.tally(c)
	d.flows.Changed(c)
}

// bring gets the kernel from the state to the one behind c.
func (d *Driver) bring(ctx context.Context, c *Delta) (lacking bool, err error) {
	if !d.whole {
		return true, d.rewrite(ctx, c)
	}
	counted := d.kernel.Retimes() && c.LeasesOnly() // by what counted before
	if !counted {
		d.carry(ctx, c.Renewed)
	}
	lacking, err = d.kernel.Write(ctx, Update{Delta: c})
	switch {
	case err == nil:
		d.writes++
		if !counted {
			for i := range c.Renewed {
				d.restart(c.Renewed[i].ID)
			}
		}
		return lacking, nil
	case errors.Is(err, ErrTooLarge):
	case errors.Is(err, ErrDrifted):
		d.log.Warn("kernel state differs from ours; rewriting the table", "err", err)
		d.repaired++
	default:
		d.doubt(err)
		return false, err
	}
	d.look(ctx)
	return true, d.rewrite(ctx, c)
}

// doubt notes what a failure says of the kernel: the next change writes everything anew.
func (d *Driver) doubt(err error) {
	if errors.Is(err, ErrUnknown) || errors.Is(err, ErrNothingLeft) {
		d.whole = false
	}
}

// rewrite writes the whole state behind c.
func (d *Driver) rewrite(ctx context.Context, c *Delta) error {
	next := d.state.Clone()
	next.Commit(c)
	return d.installOver(ctx, next)
}

// installOver is install, which tries to get back to the state before when it fails half-way.
func (d *Driver) installOver(ctx context.Context, next *State) error {
	was := d.whole
	err := d.install(ctx, next)
	if err != nil && was && !d.whole {
		if undo := d.install(context.WithoutCancel(ctx), d.state); undo != nil {
			d.log.Error("the mappings could not be restored after a failed change", "err", undo)
		}
	}
	return err
}

// install writes our table for a state, in place of whatever is there.
func (d *Driver) install(ctx context.Context, s *State) error {
	if err := d.kernel.Rewrite(ctx, OurTable, Whole{s.AllEntries(), d.facts}); err != nil {
		d.doubt(err)
		return err
	}
	d.whole = true
	d.writes++
	d.late.ids = nil
	for id := range s.open {
		d.restart(id)
	}
	return nil
}

// rewriteOwners puts in what is lacking in the owner's tables.
func (d *Driver) rewriteOwners(ctx context.Context) error {
	return d.kernel.Rewrite(ctx, OwnersTables, Whole{d.state.allHoles(), d.facts})
}

// writeFacts brings the gateway's facts into the kernel.
func (d *Driver) writeFacts(ctx context.Context) error {
	if !d.whole {
		return d.install(ctx, d.state)
	}
	_, err := d.kernel.Write(ctx, Update{Facts: &d.facts})
	if errors.Is(err, ErrDrifted) {
		d.log.Warn("our table is missing or changed; rewriting it", "err", err)
		d.repaired++
		return d.install(ctx, d.state)
	}
	d.doubt(err)
	return err
}
