package firewall

import (
	"slices"

	"portcullis/portmap"
)

// plan is a State with a change laid over it.
type plan struct {
	state    *State
	after    map[uint64]*opened    // nil: no longer open
	holes    map[holeKey]*opened   // nil: nobody's
	order    []holeKey             // the keys of holes, as they were touched
	filtered map[portKey][]*opened // put by this plan; some may be removed again
}

func newPlan(s *State) *plan {
	return &plan{
		state: s, after: make(map[uint64]*opened), holes: make(map[holeKey]*opened),
		filtered: make(map[portKey][]*opened),
	}
}

func (p *plan) open(id uint64) *opened {
	if o, touched := p.after[id]; touched {
		return o
	}
	return p.state.open[id]
}

func (p *plan) hole(k holeKey) *opened {
	if o, touched := p.holes[k]; touched {
		return o
	}
	return p.state.hole(k)
}

// set makes o, or nobody, have the holes of a mapping.
func (p *plan) set(port portKey, sources []portmap.Source, o *opened) {
	for _, src := range sources {
		k := holeKey{port, src}
		if _, touched := p.holes[k]; !touched {
			p.order = append(p.order, k)
		}
		p.holes[k] = o
	}
}

func (p *plan) remove(id uint64) {
	if o := p.open(id); o != nil {
		p.set(o.port(), o.sources, nil)
		p.after[id] = nil
	}
}

func (p *plan) put(o *opened) error {
	other, err := p.displaced(o)
	if err != nil {
		return err
	}
	if other != nil {
		p.remove(other.ID)
	}
	p.set(o.port(), o.sources, o)
	p.after[o.ID] = o
	if o.filtered() {
		p.filtered[o.port()] = append(p.filtered[o.port()], o)
	}
	return nil
}

// newStateOf returns the state that Plan and Commit of these mappings come to from the one
// that holds nothing, or the same error. It makes no Delta, which takes several times as much
// memory as what is held.
func newStateOf(all []portmap.Mapping) (*State, error) {
	s := NewState()
	s.open = make(map[uint64]*opened, len(all)) // what grows is there twice for a moment
	p := &plan{state: s}                        // nothing is laid over it
	for i := range all {
		o, err := check(&all[i])
		if err != nil {
			return nil, err
		}
		if old := s.open[o.ID]; old != nil {
			s.drop(old)
		}
		if !all[i].Open() {
			continue
		}
		other, err := p.displaced(o)
		if err != nil {
			return nil, err
		}
		if other != nil {
			s.drop(other)
		}
		s.hold(o)
	}
	return s, nil
}

// displaced returns the mapping whose place o takes, nil where it takes nobody's. The two
// have all sources in common.
func (p *plan) displaced(o *opened) (*opened, error) {
	for _, src := range o.sources {
		other, theirs := p.inTheWay(o.port(), src)
		switch {
		case other == nil:
		case o.pinhole() || !slices.Equal(o.sources, other.sources):
			return nil, portmap.Overlap(ptr(o.mapping()), src, theirs)
		default:
			return other, nil
		}
	}
	return nil, nil
}

// inTheWay returns who has a source of the same class that overlaps src. It looks
// at all mappings of the port that have filtered sources, if src is one; the
// kernel's work for such an element grows with their number as well.
func (p *plan) inTheWay(port portKey, src portmap.Source) (*opened, portmap.Source) {
	if !src.Filtered() {
		return p.hole(holeKey{port, src}), src
	}
	for _, list := range [][]*opened{p.state.filtered[port], p.filtered[port]} {
		for _, o := range list {
			if p.open(o.ID) != o {
				continue
			}
			for _, theirs := range o.sources {
				if theirs.Filtered() && theirs.Overlaps(src) {
					return o, theirs
				}
			}
		}
	}
	return nil, portmap.Source{}
}

// change compares before and after for every hole, endpoint and port that was touched.
func (p *plan) change() *Delta {
	c := &Delta{after: p.after}
	var touched touched
	gone, renewed := make(map[uint64]bool), make(map[uint64]bool)
	for _, k := range p.order {
		before, after := p.state.hole(k), p.holes[k]
		var old, now *Entry
		rewrite := false
		if before != nil {
			touched.add(before)
			old = ptr(before.hole(k.source))
			if next := p.open(before.ID); before.goesOnAs(next) {
				// All elements of a mapping are written at once, so that they
				// have one lease and one beginning of their counts.
				rewrite = !slices.Equal(before.sources, next.sources)
				if (rewrite || !before.Expires.Equal(next.Expires)) && !renewed[before.ID] {
					renewed[before.ID] = true
					c.Renewed = append(c.Renewed, before.mapping())
				}
			}
		}
		if after != nil {
			touched.add(after)
			now = ptr(after.hole(k.source))
		}
		c.differ(old, now, rewrite)
		if now != nil && (old == nil || !old.same(*now)) {
			c.New = append(c.New, *now)
		}
		if before != nil && (after == nil || !old.same(*now)) && !gone[before.ID] {
			gone[before.ID] = true
			c.Gone = append(c.Gone, before.mapping())
		}
	}
	ends, ports := make(map[endpoint][]*opened), make(map[portKey][]*opened) // who arrived
	for _, o := range p.after {
		if o != nil && !o.pinhole() {
			ends[o.endpoint()] = append(ends[o.endpoint()], o)
			ports[o.port()] = append(ports[o.port()], o)
		}
	}
	for _, end := range touched.ends {
		c.differ(p.keptBefore(end), p.keptAfter(end, ends[end]), false)
	}
	for _, port := range touched.ports {
		c.differ(p.state.mapped(port), p.mappedAfter(port, ports[port]), false)
	}
	return c
}

// touched collects, each once, the endpoints and the external ports of mappings.
type touched struct {
	ends  []endpoint
	ports []portKey
	seen  map[any]bool
}

func (t *touched) add(o *opened) {
	if o.pinhole() {
		return
	}
	if t.seen == nil {
		t.seen = make(map[any]bool)
	}
	if end := o.endpoint(); !t.seen[end] {
		t.seen[end] = true
		t.ends = append(t.ends, end)
	}
	if port := o.port(); !t.seen[port] {
		t.seen[port] = true
		t.ports = append(t.ports, port)
	}
}

// goesOnAs reports whether a mapping is still the same but for its lease and its
// restrictions; next may be nil.
func (o *opened) goesOnAs(next *opened) bool {
	return next != nil && next.ID == o.ID && next.port() == o.port() && next.Internal == o.Internal
}

// differ records what gets the kernel from one entry to the other.
func (c *Delta) differ(old, now *Entry, rewrite bool) {
	switch {
	case old == nil && now == nil:
	case old == nil:
		c.Add = append(c.Add, *now)
	case now == nil:
		c.Del = append(c.Del, *old)
	case !old.same(*now):
		c.Del = append(c.Del, *old)
		c.Add = append(c.Add, *now)
	case rewrite || !old.Expires.Equal(now.Expires):
		c.Retime = append(c.Retime, *now)
		c.timeless = c.timeless || old.Expires.IsZero() || now.Expires.IsZero()
	}
}

func (p *plan) keptBefore(end endpoint) *Entry {
	if held := p.state.ends[end]; len(held) > 0 {
		return ptr(held[0].kept())
	}
	return nil
}

// keptAfter compares who arrived with the oldest of those that stay. Many
// mappings may lead to one endpoint, so only those that the plan touches are
// passed over.
func (p *plan) keptAfter(end endpoint, arrived []*opened) *Entry {
	first := arrived
	for _, o := range p.state.ends[end] {
		if _, touched := p.after[o.ID]; !touched {
			first = append(first, o)
			break
		}
	}
	if len(first) == 0 {
		return nil
	}
	return ptr(slices.MinFunc(first, byAge).kept())
}

// mapped returns the entry that keeps a port, or nil where it is nobody's.
func (s *State) mapped(port portKey) *Entry {
	if at, there := s.ports[port]; there {
		return ptr(port.mapped(at.held()))
	}
	return nil
}

// mappedAfter puts who arrived beside those that stay. A port has few mappings.
func (p *plan) mappedAfter(port portKey, arrived []*opened) *Entry {
	all := arrived
	stay := func(o *opened) {
		if _, touched := p.after[o.ID]; !touched {
			all = append(all, o)
		}
	}
	if first, others := p.state.ports[port].held(); first != nil {
		stay(first)
		for _, o := range others {
			stay(o)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return ptr(port.mapped(all[0], all[1:]))
}

func ptr[T any](v T) *T { return &v }
