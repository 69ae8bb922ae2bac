package firewall

import (
	"slices"

	"portcullis/portmap"
)

// plan is a State with a change laid over it.
type plan struct {
	state *State
	after map[holeKey]*portmap.Mapping // nil: removed
	ids   map[uint64]holeKey           // where mappings put by this plan are; the zero key: nowhere
	order []holeKey                    // the keys of after, as they were touched
}

func (p *plan) hole(k holeKey) *portmap.Mapping {
	if m, touched := p.after[k]; touched {
		return m
	}
	return p.state.holes[k]
}

func (p *plan) set(k holeKey, m *portmap.Mapping) {
	if _, touched := p.after[k]; !touched {
		p.order = append(p.order, k)
	}
	p.after[k] = m
}

func (p *plan) remove(id uint64) {
	k, touched := p.ids[id]
	if !touched {
		k = p.state.ids[id]
	}
	if m := p.hole(k); m == nil || m.ID != id {
		return
	}
	p.set(k, nil)
	p.ids[id] = holeKey{}
}

func (p *plan) put(m *portmap.Mapping) {
	k := keyOf(m)
	if held := p.hole(k); held != nil {
		p.remove(held.ID)
	}
	p.set(k, m)
	p.ids[m.ID] = k
}

// change compares before and after for every hole and endpoint that was touched.
func (p *plan) change() *Change {
	c := &Change{after: p.after}
	var ends []endpoint
	seen := make(map[endpoint]bool)
	touch := func(m *portmap.Mapping) {
		if end := endpointOf(m); !seen[end] {
			seen[end] = true
			ends = append(ends, end)
		}
	}
	for _, k := range p.order {
		before, after := p.state.holes[k], p.after[k]
		var old, now *Entry
		if before != nil {
			touch(before)
			old = ptr(holeOf(before))
		}
		if after != nil {
			touch(after)
			now = ptr(holeOf(after))
		}
		c.differ(old, now)
		if now != nil && (old == nil || !old.same(*now)) {
			c.New = append(c.New, *now)
		}
		if before != nil && (after == nil || !old.same(*now)) {
			c.Gone = append(c.Gone, *before)
		}
	}
	arrived := make(map[endpoint][]*portmap.Mapping)
	for _, k := range p.order {
		if m := p.after[k]; m != nil {
			end := endpointOf(m)
			arrived[end] = append(arrived[end], m)
		}
	}
	for _, end := range ends {
		c.differ(p.keptBefore(end), p.keptAfter(end, arrived[end]))
	}
	return c
}

// differ records what gets the kernel from one entry to the other.
func (c *Change) differ(old, now *Entry) {
	switch {
	case old == nil && now == nil:
	case old == nil:
		c.Add = append(c.Add, *now)
	case now == nil:
		c.Del = append(c.Del, *old)
	case !old.same(*now):
		c.Del = append(c.Del, *old)
		c.Add = append(c.Add, *now)
	case !old.Expires.Equal(now.Expires):
		c.Retime = append(c.Retime, *now)
	}
}

func (p *plan) keptBefore(end endpoint) *Entry {
	if held := p.state.ends[end]; len(held) > 0 {
		return ptr(keptOf(held[0]))
	}
	return nil
}

// keptAfter compares who arrived with the oldest of those that stay. Many
// mappings may lead to one endpoint, so only those that the plan touches are
// passed over.
func (p *plan) keptAfter(end endpoint, arrived []*portmap.Mapping) *Entry {
	first := arrived
	for _, m := range p.state.ends[end] {
		if _, touched := p.after[keyOf(m)]; !touched {
			first = append(first, m)
			break
		}
	}
	if len(first) == 0 {
		return nil
	}
	return ptr(keptOf(slices.MinFunc(first, byAge)))
}

func ptr[T any](v T) *T { return &v }
