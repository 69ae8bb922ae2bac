package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"portcullis/portmap"
)

// State is the set of mappings a backend holds, and with it the entries that
// the kernel must hold. It is pure: a backend plans a change, brings it into
// the kernel, and only then commits it here, so that a transaction that fails
// leaves both as they were. It is not safe for concurrent use.
type State struct {
	holes map[holeKey]*portmap.Mapping
	ids   map[uint64]holeKey
	ends  map[endpoint][]*portmap.Mapping // who leads to an internal endpoint, by age
}

// holeKey is the part of a Hole's key that a packet from outside shows.
type holeKey struct {
	transport portmap.Transport
	external  uint16
	remote    netip.Addr
}

type endpoint struct {
	transport portmap.Transport
	internal  netip.AddrPort
}

// NewState gives the state that holds nothing.
func NewState() *State {
	return &State{
		holes: make(map[holeKey]*portmap.Mapping),
		ids:   make(map[uint64]holeKey),
		ends:  make(map[endpoint][]*portmap.Mapping),
	}
}

// Len gives the number of open mappings.
func (s *State) Len() int { return len(s.holes) }

// Plan gives the change that removes del and then adds add, without making it.
//
// A mapping is known by its ID. Adding one that is held already changes or
// renews it; adding one to an external port and remote that another mapping
// holds takes it over; removing one that is not held is no error. A disabled
// mapping has no entries. What cannot be enforced is refused whole, with a
// *portmap.Error: a restriction to anything but one remote address is
// portmap.BadRemote.
func (s *State) Plan(add, del []portmap.Mapping) (*Change, error) {
	p := plan{state: s, after: make(map[holeKey]*portmap.Mapping), ids: make(map[uint64]holeKey)}
	for i := range del {
		p.remove(del[i].ID)
	}
	for i := range add {
		m := add[i]
		if err := check(&m); err != nil {
			return nil, err
		}
		p.remove(m.ID)
		if !m.Disabled {
			p.put(&m)
		}
	}
	return p.change(), nil
}

// Commit makes a planned change; it cannot fail. The change must have been
// planned on this very state.
func (s *State) Commit(c *Change) {
	for key, m := range c.after {
		if old := s.holes[key]; old != nil {
			s.unlist(old)
			delete(s.holes, key)
			if s.ids[old.ID] == key {
				delete(s.ids, old.ID)
			}
		}
		if m != nil {
			s.holes[key] = m
			s.list(m)
		}
	}
	for key, m := range c.after {
		if m != nil {
			s.ids[m.ID] = key
		}
	}
}

func (s *State) list(m *portmap.Mapping) {
	end := endpointOf(m)
	i, _ := slices.BinarySearchFunc(s.ends[end], m, byAge)
	s.ends[end] = slices.Insert(s.ends[end], i, m)
}

func (s *State) unlist(m *portmap.Mapping) {
	end := endpointOf(m)
	held := s.ends[end]
	i, _ := slices.BinarySearchFunc(held, m, byAge)
	if i == len(held) || held[i] != m {
		i = slices.Index(held, m) // another of the same age, while it moves
	}
	if held = slices.Delete(held, i, i+1); len(held) == 0 {
		delete(s.ends, end)
	} else {
		s.ends[end] = held
	}
}

// Clone gives an independent copy.
func (s *State) Clone() *State {
	c := &State{holes: maps.Clone(s.holes), ids: maps.Clone(s.ids), ends: maps.Clone(s.ends)}
	for end, held := range c.ends {
		c.ends[end] = slices.Clone(held)
	}
	return c
}

// Entries gives all that the kernel must hold, in no order.
func (s *State) Entries() []Entry {
	all := make([]Entry, 0, len(s.holes)+len(s.ends))
	for _, m := range s.holes {
		all = append(all, holeOf(m))
	}
	for _, held := range s.ends {
		all = append(all, keptOf(held[0]))
	}
	return all
}

// Mappings gives the open mappings, in no order.
func (s *State) Mappings() []portmap.Mapping {
	all := make([]portmap.Mapping, 0, len(s.holes))
	for _, m := range s.holes {
		all = append(all, *m)
	}
	return all
}

// Hole gives the mapping behind an external port and remote; a zero remote
// means the one that is open to anyone.
func (s *State) Hole(t portmap.Transport, external uint16, remote netip.Addr) (portmap.Mapping, bool) {
	m := s.holes[holeKey{t, external, remote}]
	if m == nil {
		return portmap.Mapping{}, false
	}
	return *m, true
}

// Governing gives the mapping that a packet from src to an external port
// follows: one for that very host comes before one for anyone.
func (s *State) Governing(t portmap.Transport, external uint16, src netip.Addr) (portmap.Mapping, bool) {
	if m, ok := s.Hole(t, external, src); ok {
		return m, true
	}
	return s.Hole(t, external, netip.Addr{})
}

// KeptPort gives the external port that flows from an internal endpoint keep.
func (s *State) KeptPort(t portmap.Transport, internal netip.AddrPort) (uint16, bool) {
	held := s.ends[endpoint{t, internal}]
	if len(held) == 0 {
		return 0, false
	}
	return held[0].External.Port(), true
}

// check refuses what no entry can say.
func check(m *portmap.Mapping) error {
	switch {
	case m.ID == 0:
		return fmt.Errorf("firewall: mapping without an ID: %s", m)
	case m.Kind != portmap.NAT4:
		return fmt.Errorf("firewall: not a translated IPv4 port: %s", m)
	case !m.Transport.Valid():
		return &portmap.Error{Reason: portmap.BadTransport, Detail: fmt.Sprintf("cannot map %s", m.Transport)}
	case m.External.Port() == 0 || m.Internal.Port() == 0:
		return &portmap.Error{Reason: portmap.BadPort, Detail: fmt.Sprintf("port 0 cannot be mapped: %s", m)}
	case !m.Internal.Addr().Is4() || m.Internal.Addr().IsUnspecified():
		return &portmap.Error{Reason: portmap.NotAHost, Detail: fmt.Sprintf("not an IPv4 host: %s", m.Internal.Addr())}
	}
	_, err := remoteOf(m)
	return err
}

// remoteOf gives the one host a mapping is for, or zero. A restriction that is
// accepted and not enforced would be a hole (abuse case B10), so everything else
// is refused.
func remoteOf(m *portmap.Mapping) (netip.Addr, error) {
	if len(m.Remotes) == 0 {
		return netip.Addr{}, nil
	}
	r := m.Remotes[0]
	if len(m.Remotes) > 1 || !r.Prefix.IsSingleIP() || !r.Prefix.Addr().Is4() || r.Port != 0 {
		return netip.Addr{}, &portmap.Error{
			Reason: portmap.BadRemote,
			Detail: "a mapping can be limited to one remote IPv4 address and to nothing else",
		}
	}
	return r.Prefix.Addr(), nil
}

// keyOf and the entries below are of checked mappings only.
func keyOf(m *portmap.Mapping) holeKey {
	remote, _ := remoteOf(m)
	return holeKey{m.Transport, m.External.Port(), remote}
}

func endpointOf(m *portmap.Mapping) endpoint { return endpoint{m.Transport, m.Internal} }

func holeOf(m *portmap.Mapping) Entry {
	k := keyOf(m)
	return Entry{
		Kind: Hole, Transport: k.transport, External: k.external, Remote: k.remote,
		Internal: m.Internal, Expires: m.Expires,
	}
}

func keptOf(m *portmap.Mapping) Entry {
	return Entry{
		Kind: Kept, Transport: m.Transport, External: m.External.Port(),
		Internal: m.Internal, Expires: m.Expires,
	}
}

// byAge puts first the mapping whose port an endpoint keeps: the one that was
// there first, so that a later mapping to the same endpoint disturbs nobody.
func byAge(a, b *portmap.Mapping) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}
