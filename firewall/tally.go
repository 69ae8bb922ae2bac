package firewall

import (
	"context"
	"errors"

	"portcullis/portmap"
)

// tally is what is known of a mapping's traffic beside the kernel's counter,
// which starts again whenever its entries are written anew. That happens to all
// of them at once (Delta.Renewed).
type tally struct {
	base  Counter // before the entries were last written
	seen  Counter // the entries' own count when they were last read
	since uint64  // Driver.writes when the entries were last written
}

// restarted returns the tally after the entries were lost: what was last seen of
// them is kept.
func (t tally) restarted(writes uint64) tally {
	return tally{base: t.base.Plus(t.seen), since: writes}
}

// lookLimit is the most mappings whose counters are read before the table is
// rewritten; beyond it the reading takes longer than the writing.
const lookLimit = 4096

// Counters returns the traffic of each open mapping, by its ID. It reads all
// entries: with nftables 6 ms for a thousand mappings, seconds for sixty thousand.
func (d *Driver) Counters(ctx context.Context) (map[uint64]Counter, error) {
	d.mu.Lock()
	at, closed, whole := d.writes, d.closed, d.whole
	d.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	var read Held
	if whole {
		var err error
		if read, err = d.kernel.Read(ctx, Query{Counters: true}); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saw(read.Counters, at)
	all := make(map[uint64]Counter, d.state.Len())
	for id := range d.state.open {
		t := d.tallies[id]
		all[id] = t.base.Plus(t.seen)
	}
	return all, nil
}

// Counter returns the traffic of one mapping by its ID. It reads that mapping's
// entries only. One that is not open has none; of one whose entries somebody
// took away it gives what was last seen.
func (d *Driver) Counter(ctx context.Context, id uint64) (Counter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return Counter{}, ErrClosed
	}
	if d.whole {
		if err := d.count(ctx, d.state.Holes(id)); err != nil && !errors.Is(err, ErrDrifted) {
			return Counter{}, err
		}
	}
	t := d.tallies[id]
	return t.base.Plus(t.seen), nil
}

// CountersOf is Counter for some mappings at once, by their IDs. Those of a list are best
// asked for a hundred at a time: nobody has to wait for all, and nothing has to hold them.
func (d *Driver) CountersOf(ctx context.Context, ids []uint64) (map[uint64]Counter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if d.whole {
		if err := d.countSome(ctx, ids); err != nil && !errors.Is(err, ErrDrifted) {
			return nil, err
		}
	}
	all := make(map[uint64]Counter, len(ids))
	for _, id := range ids {
		t := d.tallies[id]
		all[id] = t.base.Plus(t.seen)
	}
	return all, nil
}

// The methods below are called with the lock held.

// saw keeps what was read, at once, when the kernel had seen so many writes. A
// counter whose entry was written anew meanwhile is passed over: what it had
// counted is in the base already.
func (d *Driver) saw(read []Count, at uint64) {
	sums := make(map[uint64]Counter, len(read))
	for _, c := range read {
		if m, ok := d.state.Holder(c.Entry.Key()); ok {
			sums[m.ID] = sums[m.ID].Plus(c.Counter)
		}
	}
	for id, sum := range sums {
		if t := d.tallies[id]; t.since <= at && t.seen.Packets < sum.Packets {
			t.seen = sum
			d.tallies[id] = t
		}
	}
}

// look reads all counters before the table is rewritten, as far as that is
// quick; errors are ignored.
func (d *Driver) look(ctx context.Context) {
	if !d.whole || d.state.Len() == 0 || d.state.Len() > lookLimit {
		return
	}
	if held, err := d.kernel.Read(ctx, Query{Quick: true, Counters: true}); err == nil {
		d.saw(held.Counters, d.writes)
	}
}

// carry reads the counters of mappings whose entries are about to be written
// anew. Errors are ignored: then what was last seen is carried over.
func (d *Driver) carry(ctx context.Context, renewed []portmap.Mapping) {
	var holes []Entry
	for _, m := range renewed[:min(len(renewed), lookLimit)] {
		holes = append(holes, d.state.Holes(m.ID)...)
	}
	_ = d.count(ctx, holes)
}

// count reads the counters of these holes and pins. What is read before it fails is
// kept.
func (d *Driver) count(ctx context.Context, holes []Entry) error {
	if len(holes) == 0 {
		return nil
	}
	held, err := d.kernel.Read(ctx, Query{CountersOf: holes})
	d.saw(held.Counters, d.writes)
	return err
}

// countSome reads the counters of some mappings.
func (d *Driver) countSome(ctx context.Context, ids []uint64) error {
	holes := make([]Entry, 0, len(ids))
	for _, id := range ids {
		holes = append(holes, d.state.Holes(id)...)
	}
	err := d.count(ctx, holes)
	for i := 0; i < len(ids) && errors.Is(err, ErrDrifted) && len(ids) > 1; i++ { // one that is gone hides others
		if one := d.count(ctx, d.state.Holes(ids[i])); one != nil && !errors.Is(one, ErrDrifted) {
			err = one
		}
	}
	return err
}

// restart notes that the entries of a mapping have been written anew.
func (d *Driver) restart(id uint64) { d.tallies[id] = d.tallies[id].restarted(d.writes) }

// tally begins to count what a change has opened, and forgets what it has closed.
func (d *Driver) tally(c *Delta) {
	renewed := make(map[uint64]bool, len(c.Renewed))
	for _, m := range c.Renewed {
		renewed[m.ID] = true
	}
	for _, m := range c.Gone {
		if !renewed[m.ID] {
			delete(d.tallies, m.ID)
		}
	}
	for _, e := range c.New { // a mapping that now leads elsewhere among them
		if m, ok := d.state.Holder(e.Key()); ok && !renewed[m.ID] {
			d.tallies[m.ID] = tally{since: d.writes}
		}
	}
}
