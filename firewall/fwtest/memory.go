package fwtest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"portcullis/firewall"
)

// memory is a kernel that is a map.
type memory struct {
	mu       sync.Mutex // guards what follows
	held     map[firewall.Key]firewall.Entry
	capacity int
	facts    firewall.Facts
}

// Write implements firewall.Kernel. It refuses to remove what is not there, and to add
// what is, as nf_tables does.
func (m *memory) Write(ctx context.Context, u firewall.Update) (lacking bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil || u.Delta == nil {
		if err == nil && u.Facts != nil {
			m.facts = *u.Facts
		}
		return false, err
	}
	if m.held == nil { // nobody has written it, or somebody has wiped it
		return false, firewall.ErrDrifted
	}
	next := maps.Clone(m.held)
	for _, e := range slices.Concat(u.Delta.Del, u.Delta.Retime) {
		if _, there := next[e.Key()]; !there {
			return false, firewall.ErrDrifted
		}
		delete(next, e.Key())
	}
	for _, e := range slices.Concat(u.Delta.Add, u.Delta.Retime) {
		if _, there := next[e.Key()]; there {
			return false, firewall.ErrDrifted
		}
		next[e.Key()] = e
	}
	return false, m.take(next)
}

// Retimes implements firewall.Kernel: it is as a kernel before Linux 6.12.
func (m *memory) Retimes() bool { return false }

// Rewrite implements firewall.Kernel.
func (m *memory) Rewrite(ctx context.Context, p firewall.Part, w firewall.Whole) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil || p == firewall.OwnersTables {
		return err
	}
	next := make(map[firewall.Key]firewall.Entry)
	for e := range w.Entries {
		next[e.Key()] = e
	}
	m.facts = w.Facts
	return m.take(next)
}

// take makes it hold what is next, if there is room. mu is held.
func (m *memory) take(next map[firewall.Key]firewall.Entry) error {
	n := 0
	for k := range next {
		if k.Kind == firewall.Hole || k.Kind == firewall.Pin {
			n++
		}
	}
	if m.capacity > 0 && n > m.capacity {
		return firewall.ErrFull
	}
	m.held = next
	return nil
}

// Read implements firewall.Kernel. Nothing is counted.
func (m *memory) Read(ctx context.Context, q firewall.Query) (firewall.Held, error) {
	h := firewall.Held{}
	switch {
	case q.Entries:
		h.Entries = m.entries()
	case q.Holds != nil && firewall.World(slices.Collect(q.Holds)) != firewall.World(m.entries()):
		h.Drift = "our mappings were changed"
	}
	return h, ctx.Err()
}

func (m *memory) entries() []firewall.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.held))
}

// Watch implements firewall.Kernel. Nobody else is there.
func (m *memory) Watch(ctx context.Context, _ func(firewall.Intrusion)) error {
	<-ctx.Done()
	return ctx.Err()
}

// Remove implements firewall.Kernel.
func (m *memory) Remove(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = nil
	return nil
}
