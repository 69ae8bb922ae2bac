package fwtest

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Fake is a firewall in memory that keeps the contract of portmap.Firewall. Its
// methods are safe for concurrent use. The zero value is ready.
type Fake struct {
	mu       sync.Mutex // guards what follows
	state    *firewall.State
	kernel   map[firewall.Key]firewall.Entry
	capacity int
	failures []error
	calls    int
}

var _ portmap.Firewall = (*Fake)(nil)

// Apply removes del and adds add, or fails as told by Fail and changes nothing.
func (f *Fake) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return err
	}
	c, err := f.state.Plan(add, del)
	if err != nil {
		return err
	}
	return f.bring(c)
}

// Replace makes the fake hold exactly want, or fails as told by Fail.
func (f *Fake) Replace(ctx context.Context, want []portmap.Mapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return err
	}
	wanted := make(map[uint64]bool)
	for _, m := range want {
		wanted[m.ID] = true
	}
	gone := slices.DeleteFunc(f.state.Mappings(), func(m portmap.Mapping) bool { return wanted[m.ID] })
	c, err := f.state.Plan(want, gone)
	if err != nil {
		return err
	}
	return f.bring(c)
}

// Fail makes the next calls of Apply and Replace return these errors, one each,
// and change nothing.
func (f *Fake) Fail(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, errs...)
}

// Limit makes changes fail with firewall.ErrFull that would hold more than n
// mappings; 0 is no limit.
func (f *Fake) Limit(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = n
}

// Wipe loses all entries, as `nft flush ruleset` does, without the fake noticing
// before the next change.
func (f *Fake) Wipe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kernel = nil
}

// Steal loses one entry behind the fake's back.
func (f *Fake) Steal(e firewall.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kernel, e.Key())
}

// Entries gives what the fake's kernel holds, in no order.
func (f *Fake) Entries() []firewall.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []firewall.Entry
	for _, e := range f.kernel {
		all = append(all, e)
	}
	return all
}

// Mappings gives the open mappings by ID.
func (f *Fake) Mappings() []portmap.Mapping {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return nil
	}
	all := f.state.Mappings()
	slices.SortFunc(all, func(a, b portmap.Mapping) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Calls counts the calls of Apply and Replace, failed ones too.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// begin counts a call and takes the next failure; mu is held.
func (f *Fake) begin(ctx context.Context) error {
	f.calls++
	if f.state == nil {
		f.state = firewall.NewState()
	}
	if len(f.failures) > 0 {
		err := f.failures[0]
		f.failures = f.failures[1:]
		return err
	}
	return ctx.Err()
}

// bring writes what the change comes to; mu is held. It writes everything, as a
// backend does that finds its table gone, so that nothing is ever missing.
func (f *Fake) bring(c *firewall.Change) error {
	next := f.state.Clone()
	next.Commit(c)
	if f.capacity > 0 && next.Len() > f.capacity {
		return firewall.ErrFull
	}
	f.state = next
	f.kernel = make(map[firewall.Key]firewall.Entry)
	for _, e := range next.Entries() {
		f.kernel[e.Key()] = e
	}
	return nil
}
