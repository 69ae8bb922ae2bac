package firewall

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"portcullis/portmap"
)

// State is the set of mappings a backend holds, and with it the entries that
// the kernel must hold. It is pure: a backend plans a change, brings it into
// the kernel, and only then commits it here, so that a transaction that fails
// leaves both as they were. It is not safe for concurrent use.
type State struct {
	open     map[uint64]*opened
	limited  map[limitedKey]*opened // who has a source that is not anyone
	filtered map[portKey][]*opened  // who has filtered sources on a port
	ends     map[endpoint][]*opened // who translates to an internal endpoint, by age
	ports    map[portKey]place
}

// opened is what the kernel is told of a mapping, with the sources of its holes or pins,
// which are never changed. There are tens of thousands, and whose it is matters to nobody
// here: the mapping itself is not kept.
type opened struct {
	ID       uint64
	Internal netip.AddrPort
	Created  time.Time
	Expires  time.Time
	Remotes  []portmap.Remote
	sources  []portmap.Source

	ExternalPort uint16
	Kind         portmap.Kind
	Transport    portmap.Transport
}

// place has the mappings of an external port, or of the endpoint of pinholes.
type place struct {
	anyone  *opened // whose source is anyone
	limited []*opened
}

// held returns the first, and the others; nil where there is none.
func (p place) held() (first *opened, others []*opened) {
	switch {
	case p.anyone != nil:
		return p.anyone, p.limited
	case len(p.limited) > 0:
		return p.limited[0], p.limited[1:]
	}
	return nil, nil
}

// holeKey is what makes a hole or a pin unique in the kernel.
type holeKey struct {
	portKey
	source portmap.Source
}

// limitedKey is a holeKey in a third of its octets.
type limitedKey struct {
	portKey
	host      [16]byte
	bits      int16
	low, high uint16
}

func (k holeKey) limited() limitedKey {
	return limitedKey{k.portKey, k.source.Prefix.Addr().As16(), int16(k.source.Prefix.Bits()), k.source.Low, k.source.High}
}

// portKey is where a packet from outside is addressed: an external port, or the
// endpoint of a pinhole.
type portKey struct {
	pinned    [16]byte // the host of a pinhole
	port      uint16
	transport portmap.Transport
	pinhole   bool
}

// endpoint is an internal one of IPv4.
type endpoint struct {
	host      [4]byte
	port      uint16
	transport portmap.Transport
}

// NewState returns the state that holds nothing.
func NewState() *State {
	return &State{
		open:     make(map[uint64]*opened),
		limited:  make(map[limitedKey]*opened),
		filtered: make(map[portKey][]*opened),
		ends:     make(map[endpoint][]*opened),
		ports:    make(map[portKey]place),
	}
}

// Len returns the number of open mappings.
func (s *State) Len() int { return len(s.open) }

// Plan returns the change that removes del and then adds add, without making it.
//
// A mapping is known by its ID. Adding one that is held already changes or
// renews it; adding one for the same external port and the same sources as
// another takes that one's place; removing one that is not held is no error. A
// disabled mapping has no entries.
//
// What cannot be enforced is refused whole, with a *portmap.Error: what fails
// portmap.Mapping.Check, and restrictions that overlap those of another mapping
// (portmap.Table.Plan). A Table plans neither. It does not matter in which order
// mappings come. A pinhole does not take the place of another one.
func (s *State) Plan(add, del []portmap.Mapping) (*Delta, error) {
	p := newPlan(s)
	for i := range del {
		p.remove(del[i].ID)
	}
	wanted := make([]*opened, len(add))
	for i := range add {
		o, err := check(&add[i])
		if err != nil {
			return nil, err
		}
		wanted[i] = o
		p.remove(o.ID)
	}
	for i, o := range wanted {
		p.remove(o.ID)
		if !add[i].Open() {
			continue
		}
		if err := p.put(o); err != nil {
			return nil, err
		}
	}
	return p.change(), nil
}

// Commit makes a planned change; it cannot fail. The change must have been
// planned on this very state.
func (s *State) Commit(c *Delta) {
	for id := range c.after {
		if old := s.open[id]; old != nil {
			s.drop(old)
		}
	}
	for _, o := range c.after {
		if o != nil {
			s.hold(o)
		}
	}
}

func (s *State) hold(o *opened) {
	s.open[o.ID] = o
	at := s.ports[o.port()]
	for _, src := range o.sources {
		if src.Anyone() {
			at.anyone = o
		} else {
			s.limited[holeKey{o.port(), src}.limited()] = o
		}
	}
	if at.anyone != o {
		at.limited = append(at.limited, o)
	}
	s.ports[o.port()] = at
	if o.filtered() {
		s.filtered[o.port()] = append(s.filtered[o.port()], o)
	}
	if o.pinhole() {
		return
	}
	end := o.endpoint()
	i, _ := slices.BinarySearchFunc(s.ends[end], o, byAge)
	s.ends[end] = slices.Insert(s.ends[end], i, o)
}

func (s *State) drop(o *opened) {
	delete(s.open, o.ID)
	at := s.ports[o.port()]
	for _, src := range o.sources {
		if !src.Anyone() {
			delete(s.limited, holeKey{o.port(), src}.limited())
		}
	}
	if at.anyone == o {
		at.anyone = nil
	} else {
		i := slices.Index(at.limited, o)
		at.limited = slices.Delete(at.limited, i, i+1)
	}
	if at.anyone == nil && len(at.limited) == 0 {
		delete(s.ports, o.port())
	} else {
		s.ports[o.port()] = at
	}
	if o.filtered() {
		without(s.filtered, o.port(), slices.Index(s.filtered[o.port()], o))
	}
	if o.pinhole() {
		return
	}
	i, _ := slices.BinarySearchFunc(s.ends[o.endpoint()], o, byAge)
	without(s.ends, o.endpoint(), i)
}

// hole returns who has a hole or a pin, nil for nobody.
func (s *State) hole(k holeKey) *opened {
	if k.source.Anyone() {
		return s.ports[k.portKey].anyone
	}
	return s.limited[k.limited()]
}

// without takes one out of a list, and the list out of the map with the last.
func without[K comparable](lists map[K][]*opened, key K, i int) {
	if held := slices.Delete(lists[key], i, i+1); len(held) == 0 {
		delete(lists, key)
	} else {
		lists[key] = held
	}
}

// Clone returns an independent copy.
func (s *State) Clone() *State {
	c := &State{
		open: maps.Clone(s.open), limited: maps.Clone(s.limited),
		filtered: maps.Clone(s.filtered), ends: maps.Clone(s.ends), ports: maps.Clone(s.ports),
	}
	for port, held := range c.filtered {
		c.filtered[port] = slices.Clone(held)
	}
	for end, held := range c.ends {
		c.ends[end] = slices.Clone(held)
	}
	for port, held := range c.ports {
		if held.limited != nil {
			c.ports[port] = place{held.anyone, slices.Clone(held.limited)}
		}
	}
	return c
}

// Entries returns all that the kernel must hold, in no order.
func (s *State) Entries() []Entry {
	return slices.AppendSeq(make([]Entry, 0, len(s.open)+len(s.ends)+len(s.ports)), s.AllEntries())
}

// AllEntries walks all that the kernel must hold, in no order.
func (s *State) AllEntries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for e := range s.allHoles() {
			if !yield(e) {
				return
			}
		}
		for _, held := range s.ends {
			if !yield(held[0].kept()) {
				return
			}
		}
		for port, at := range s.ports {
			if !port.pinhole && !yield(port.mapped(at.held())) {
				return
			}
		}
	}
}

// allHoles walks the holes and the pins.
func (s *State) allHoles() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, o := range s.open {
			for _, src := range o.sources {
				if !yield(o.hole(src)) {
					return
				}
			}
		}
	}
}

// Mappings returns the open mappings, in no order: their ID, endpoints, restrictions,
// beginning and end. Nor has any other method more of a mapping.
func (s *State) Mappings() []portmap.Mapping {
	all := make([]portmap.Mapping, 0, len(s.open))
	for _, o := range s.open {
		all = append(all, o.mapping())
	}
	return all
}

// Holes returns the holes, or the pins, of one open mapping; none where it is not
// open.
func (s *State) Holes(id uint64) []Entry {
	o := s.open[id]
	if o == nil {
		return nil
	}
	all := make([]Entry, len(o.sources))
	for i, src := range o.sources {
		all[i] = o.hole(src)
	}
	return all
}

// Holder returns the mapping that has the hole or the pin with this key.
func (s *State) Holder(k Key) (portmap.Mapping, bool) {
	port := portKey{transport: k.Transport, port: k.External}
	switch k.Kind {
	case Pin:
		port = pinnedAt(k.Transport, k.Internal)
	case Kept, Mapped:
		return portmap.Mapping{}, false
	}
	return shown(s.hole(holeKey{port, k.Source}))
}

// Governing returns the mapping that a packet from src to an external port
// follows: one for that very host comes before one with another restriction that
// admits it, and that before one for anyone.
func (s *State) Governing(t portmap.Transport, external uint16, src netip.AddrPort) (portmap.Mapping, bool) {
	return s.governing(portKey{transport: t, port: external}, src)
}

// GoverningPin returns in the same way the pinhole that a packet from src to an
// internal endpoint follows.
func (s *State) GoverningPin(t portmap.Transport, internal, src netip.AddrPort) (portmap.Mapping, bool) {
	return s.governing(pinnedAt(t, internal), src)
}

func (s *State) governing(port portKey, src netip.AddrPort) (portmap.Mapping, bool) {
	if src.Addr().IsValid() {
		if o := s.hole(holeKey{port, portmap.Host(src.Addr())}); o != nil {
			return shown(o)
		}
	}
	for _, o := range s.filtered[port] {
		if slices.ContainsFunc(o.sources, func(f portmap.Source) bool { return f.Filtered() && f.Admits(src) }) {
			return shown(o)
		}
	}
	return shown(s.ports[port].anyone)
}

// Leads reports whether a mapping that may be for many hosts leads from an external
// port to an internal endpoint.
func (s *State) Leads(t portmap.Transport, external uint16, internal netip.AddrPort) bool {
	port := portKey{transport: t, port: external}
	if o := s.ports[port].anyone; o != nil && o.Internal == internal {
		return true
	}
	return slices.ContainsFunc(s.filtered[port], func(o *opened) bool { return o.Internal == internal })
}

// Mapped reports whether an external port is mapped.
func (s *State) Mapped(t portmap.Transport, external uint16) bool {
	_, mapped := s.ports[portKey{transport: t, port: external}]
	return mapped
}

// KeptPort returns the external port that flows from an internal endpoint keep.
func (s *State) KeptPort(t portmap.Transport, internal netip.AddrPort) (uint16, bool) {
	if !internal.Addr().Is4() {
		return 0, false
	}
	held := s.ends[endpoint{internal.Addr().As4(), internal.Port(), t}]
	if len(held) == 0 {
		return 0, false
	}
	return held[0].ExternalPort, true
}

// check refuses what no entry can say.
func check(m *portmap.Mapping) (*opened, error) {
	if m.ID == 0 {
		return nil, fmt.Errorf("firewall: mapping without an ID: %s", m)
	}
	if err := m.Enforceable(); err != nil {
		return nil, err
	}
	sources := anyone
	if len(m.Remotes) > 0 {
		sources = portmap.Sources(m.Remotes)
	}
	return &opened{
		ID: m.ID, Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort,
		Created: m.Created, Expires: m.Expires, Remotes: m.Remotes, sources: sources,
	}, nil
}

// anyone are the sources of most mappings.
var anyone = portmap.Sources(nil)

func (o *opened) pinhole() bool { return o.Kind == portmap.Pinhole6 }

func (o *opened) port() portKey {
	if o.pinhole() {
		return pinnedAt(o.Transport, o.Internal)
	}
	return portKey{transport: o.Transport, port: o.ExternalPort}
}

func pinnedAt(t portmap.Transport, internal netip.AddrPort) portKey {
	return portKey{internal.Addr().As16(), internal.Port(), t, true}
}

func (o *opened) endpoint() endpoint {
	return endpoint{o.Internal.Addr().As4(), o.Internal.Port(), o.Transport}
}

func (o *opened) filtered() bool { return slices.ContainsFunc(o.sources, portmap.Source.Filtered) }

func (o *opened) mapping() portmap.Mapping {
	return portmap.Mapping{
		ID: o.ID, Kind: o.Kind, Transport: o.Transport, Internal: o.Internal, ExternalPort: o.ExternalPort,
		Created: o.Created, Expires: o.Expires, Remotes: o.Remotes,
	}
}

// shown returns the mapping of one that is held; o may be nil.
func shown(o *opened) (portmap.Mapping, bool) {
	if o == nil {
		return portmap.Mapping{}, false
	}
	return o.mapping(), true
}

// hole returns the hole, or the pin, for one of the sources.
func (o *opened) hole(src portmap.Source) Entry {
	if o.pinhole() {
		return Entry{Kind: Pin, Transport: o.Transport, Source: src, Internal: o.Internal, Expires: o.Expires}
	}
	return Entry{
		Kind: Hole, Transport: o.Transport, External: o.ExternalPort, Source: src,
		Internal: o.Internal, Expires: o.Expires,
	}
}

func (o *opened) kept() Entry {
	return Entry{
		Kind: Kept, Transport: o.Transport, External: o.ExternalPort,
		Internal: o.Internal, Expires: o.Expires,
	}
}

// mapped returns the entry that keeps a port for its mappings, until the last of them ends.
func (k portKey) mapped(first *opened, others []*opened) Entry {
	e := Entry{Kind: Mapped, Transport: k.transport, External: k.port, Expires: first.Expires}
	for _, o := range others {
		if e.Expires.IsZero() || o.Expires.IsZero() {
			e.Expires = time.Time{}
		} else if o.Expires.After(e.Expires) {
			e.Expires = o.Expires
		}
	}
	return e
}

// byAge puts first the mapping whose port an endpoint keeps: the one that was
// there first, so that a later mapping to the same endpoint disturbs nobody.
func byAge(a, b *opened) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}
