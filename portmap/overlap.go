package portmap

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// sourceKey is one source of a restricted mapping: where its packets are addressed,
// and who sends them.
type sourceKey struct {
	external  uint16         // of a pinhole: 0
	pinned    netip.AddrPort // a pinhole's endpoint
	transport Transport
	class     uint8
	source    Source
}

// The classes of Source.
const (
	oneHost uint8 = iota
	filtered
	anyone
)

func keyOfSource(m *Mapping, s Source) sourceKey {
	k := sourceKey{transport: m.Transport, class: anyone, source: s}
	if m.Kind == Pinhole6 {
		k.pinned = m.Internal
	} else {
		k.external = m.ExternalPort
	}
	switch {
	case s.OneHost():
		k.class = oneHost
	case s.Filtered():
		k.class = filtered
	}
	return k
}

// sourceKeys walks the sources of a restricted mapping. Others have none in the index:
// their place tells.
func (m *Mapping) sourceKeys() iter.Seq[sourceKey] {
	return func(yield func(sourceKey) bool) {
		if len(m.Remotes) == 0 {
			return
		}
		for _, s := range Sources(m.Remotes) {
			if !yield(keyOfSource(m, s)) {
				return
			}
		}
	}
}

// bare returns the key without its source.
func (k sourceKey) bare() sourceKey {
	k.source = Source{}
	return k
}

func compareSources(a, b sourceKey) int {
	return cmp.Or(cmp.Compare(a.external, b.external), a.pinned.Compare(b.pinned), cmp.Compare(a.transport, b.transport),
		cmp.Compare(a.class, b.class), a.source.Compare(b.source))
}

// overlap reports why m cannot stand beside the other mappings of its port, or of its
// endpoint; old is the one that it takes the place of, or nil. Which of two mappings a
// packet follows is only plain where their sources do not overlap, or one is for a
// single host with any port and the other is not, or one is for anyone (see Source).
//
// Pinholes of one endpoint all lead to the same place, so a packet that two of them
// admit would be no riddle. But the kernel can neither hold two overlapping filtered
// sources nor tell whose packet it counted, and two mappings with the same sources
// would end with the first of them. So the rule for pinholes is the same.
func (t *Table) overlap(m, old *Mapping) error {
	for _, s := range Sources(m.Remotes) {
		if other, theirs := t.overlapped(m, s, old); other != nil {
			return m.inTheWay(other, s, theirs)
		}
	}
	return nil
}

// overlapped returns a mapping with a source of the same class that overlaps s, and
// that source. It looks at all filtered sources of the port, if s is one; the kernel's
// work for such an element grows with their number as well.
func (t *Table) overlapped(m *Mapping, s Source, old *Mapping) (*Mapping, Source) {
	k := keyOfSource(m, s)
	if k.class == filtered {
		for at, other := range t.sources.from(k.bare()) {
			if at.bare() != k.bare() {
				break
			}
			if other != old && at.source.Overlaps(s) {
				return other, at.source
			}
		}
		return nil, Source{}
	}
	other, _ := t.sources.get(k)
	if k.class == anyone && (other == nil || other == old) {
		other = t.at(&Mapping{Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort})
	}
	if other == old {
		return nil, Source{}
	}
	return other, s
}

// inTheWay reports why m cannot be beside another one.
func (m *Mapping) inTheWay(other *Mapping, mine, theirs Source) error {
	switch {
	case !slices.Equal(m.Remotes, other.Remotes):
		return Overlap(m, mine, theirs)
	case m.Client.ID() != other.Client.ID():
		return &Error{Reason: IdentityChanged, Detail: fmt.Sprintf(
			"%s port %d of %s was opened by another device that had this address", m.Transport, m.Internal.Port(), m.Internal.Addr())}
	}
	// What has the same client leads elsewhere, or it would be renewed.
	return &Error{Reason: PortTaken, Detail: fmt.Sprintf(
		"%s port %d is already mapped to another port of this host", m.Transport, m.ExternalPort)}
}

// Overlap returns the error of a mapping whose source mine overlaps another mapping's
// source theirs.
func Overlap(m *Mapping, mine, theirs Source) error {
	port := fmt.Sprintf("%s port %d", m.Transport, m.ExternalPort)
	if m.Kind == Pinhole6 {
		port = fmt.Sprintf("%s %s", m.Transport, m.Internal)
	}
	return &Error{Reason: PortTaken, Detail: fmt.Sprintf(
		"%s for %s overlaps another mapping of that port, which is for %s; "+
			"a port can be shared only by restrictions that do not overlap", port, mine, theirs)}
}
