package fwtest

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Fake is a firewall in memory: a firewall.Driver over a kernel that is a map. Its
// methods are safe for concurrent use. The zero value is ready.
type Fake struct {
	once   sync.Once
	driver *firewall.Driver
	kernel memory

	mu       sync.Mutex // guards what follows
	failures []error
	calls    int
}

var _ portmap.Firewall = (*Fake)(nil)

func (f *Fake) drive() *firewall.Driver {
	f.once.Do(func() {
		f.driver = firewall.NewDriver(slog.New(slog.DiscardHandler), &f.kernel, func(*firewall.Driver) firewall.Flows { return noFlows{} })
	})
	return f.driver
}

// Apply removes del and adds add, or fails as told by Fail and changes nothing.
func (f *Fake) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	if err := f.begin(); err != nil {
		return err
	}
	return f.drive().Apply(ctx, add, del)
}

// Replace makes the fake hold exactly want, or fails as told by Fail.
func (f *Fake) Replace(ctx context.Context, want []portmap.Mapping) error {
	if err := f.begin(); err != nil {
		return err
	}
	return f.drive().Replace(ctx, want)
}

// Driver returns what it is made of, for what a portmap.Firewall has not.
func (f *Fake) Driver() *firewall.Driver { return f.drive() }

// Fail makes the next calls of Apply and Replace return these errors, one each,
// and change nothing.
func (f *Fake) Fail(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, errs...)
}

// Limit makes changes fail with firewall.ErrFull that would hold more than n
// holes and pins; 0 is no limit.
func (f *Fake) Limit(n int) {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	f.kernel.capacity = n
}

// Wipe loses all entries, as `nft flush ruleset` does, without the fake noticing
// before the next change.
func (f *Fake) Wipe() {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	f.kernel.held = nil
}

// Steal loses one entry behind the fake's back.
func (f *Fake) Steal(e firewall.Entry) {
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	delete(f.kernel.held, e.Key())
}

// Entries returns what the fake's kernel holds, in no order.
func (f *Fake) Entries() []firewall.Entry { return f.kernel.entries() }

// Mappings returns the open mappings by ID.
func (f *Fake) Mappings() []portmap.Mapping {
	var all []portmap.Mapping
	f.drive().Look(func(s *firewall.State, _ firewall.Facts) { all = s.Mappings() })
	slices.SortFunc(all, func(a, b portmap.Mapping) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Calls counts the calls of Apply and Replace, failed ones too.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// begin counts a call and takes the next failure.
func (f *Fake) begin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if len(f.failures) > 0 {
		err := f.failures[0]
		f.failures = f.failures[1:]
		return err
	}
	return nil
}

// noFlows are those of a kernel without connections.
type noFlows struct{}

func (noFlows) Changed(*firewall.Delta)                        {}
func (noFlows) Free(*firewall.Delta)                           {}
func (noFlows) AddressesGone(_, _ firewall.Facts)              {}
func (noFlows) Close(context.Context, []portmap.Mapping) error { return nil }
