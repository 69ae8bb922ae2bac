package firewall

import (
	"context"
	"time"

	"portcullis/portmap"
)

// A lease that is made longer changes nothing that a packet could meet for now, so the kernel
// may hear of it a little later: of all that are renewed within lateBy in one transaction, and
// of one that is renewed again and again once. If the daemon dies before, it closes a mapping
// at the end that it had, and the next run, which knows the lease, gives it the right one. The
// kernel keeps an element for a minute longer than the lease that it knows, so that nothing
// closes early meanwhile.
const (
	lateBy    = time.Second
	lateRetry = 5 * time.Second // after a failure
	lateBatch = 64              // mappings in one transaction
)

// late are the mappings of whose longer lease the kernel has not heard yet.
type late struct {
	ids    map[uint64]bool
	timer  *time.Timer // nil: nothing waits
	failed bool        // the last time: nothing more may wait
}

// The methods below are called with the lock held, but for tellLate.

// mayWait reports whether a change makes leases longer, that have not ended, and nothing else,
// on a kernel that can be told later.
func (d *Driver) mayWait(c *Delta, now time.Time) bool {
	if !d.whole || d.late.failed || !d.kernel.Retimes() || !c.LeasesOnly() || len(c.Renewed) == 0 {
		return false
	}
	for i := range c.Renewed {
		was, next := &c.Renewed[i], c.after[c.Renewed[i].ID]
		if next == nil || !was.Expires.After(now) || next.Expires.Before(was.Expires) {
			return false
		}
	}
	return true
}

// wait has the kernel told of a change later.
func (d *Driver) wait(renewed []portmap.Mapping) {
	if d.late.ids == nil {
		d.late.ids = make(map[uint64]bool)
	}
	for i := range renewed {
		d.late.ids[renewed[i].ID] = true
	}
	d.arm(lateBy)
}

func (d *Driver) arm(after time.Duration) {
	if d.late.timer == nil {
		d.late.timer = time.AfterFunc(after, d.tellLate)
	}
}

// tellLate tells the kernel what it has not heard.
func (d *Driver) tellLate() {
	for more := true; more; {
		ctx, cancel := context.WithTimeout(context.Background(), lateRetry)
		d.mu.Lock()
		d.late.timer = nil
		err := d.tellSome(ctx)
		more = err == nil && len(d.late.ids) > 0
		if err != nil && !d.closed {
			d.log.Warn("cannot renew leases in the kernel yet", "err", err)
			d.arm(lateRetry)
		}
		d.mu.Unlock()
		cancel()
	}
}

// tellAll is for whoever reads the ends back, or leaves.
func (d *Driver) tellAll(ctx context.Context) error {
	for len(d.late.ids) > 0 {
		if err := d.tellSome(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tellSome makes one transaction. Where it is not known what the kernel holds, it is told
// everything.
func (d *Driver) tellSome(ctx context.Context) (err error) {
	defer func() { d.late.failed = err != nil }()
	if d.closed {
		d.late.ids = nil
		return nil
	}
	if !d.whole {
		return d.install(ctx, d.state) // which knows every lease
	}
	some := make([]uint64, 0, lateBatch)
	for id := range d.late.ids {
		if some = append(some, id); len(some) == lateBatch {
			break
		}
	}
	if c := d.state.leases(some); !c.Empty() {
		lacking, err := d.bring(ctx, c)
		if err != nil {
			return err
		}
		if lacking {
			_ = d.rewriteOwners(ctx) // as after any other change
		}
	}
	for _, id := range some {
		delete(d.late.ids, id)
	}
	return nil
}

// leases returns the change that gives the elements of mappings the ends that they have here.
func (s *State) leases(ids []uint64) *Delta {
	c := new(Delta)
	var touched touched
	tell := func(e *Entry) {
		if e != nil && !e.Expires.IsZero() { // of a mapping beside it that has no end
			c.Retime = append(c.Retime, *e)
		}
	}
	for _, id := range ids {
		o := s.open[id]
		if o == nil {
			continue
		}
		touched.add(o)
		for _, src := range o.sources {
			tell(ptr(o.hole(src)))
		}
	}
	for _, end := range touched.ends {
		if held := s.ends[end]; len(held) > 0 {
			tell(ptr(held[0].kept()))
		}
	}
	for _, port := range touched.ports {
		tell(s.mapped(port))
	}
	return c
}
