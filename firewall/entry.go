package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"portcullis/portmap"
)

// Kind is what an entry does.
type Kind uint8

// The kinds.
const (
	// Hole lets in what comes to an external port: it is translated to the
	// internal endpoint and may pass.
	Hole Kind = iota + 1
	// Kept gives what leaves from an internal endpoint the external port that
	// is mapped to it, so that the outside sees one port in both directions
	// (what consoles call "open NAT"). It lets nothing in.
	Kept
	// Pin lets in what comes from outside to an internal IPv6 endpoint, which is
	// not translated, and its answers out.
	Pin
	// Mapped keeps an external port for its clients: nobody but a mapped endpoint
	// that keeps the port (Kept) leaves from it. It lets nothing in. A port that is
	// shared by restricted mappings is one entry.
	Mapped
)

// SpareFirst and SpareLast bound the ports that are never mapped. Whoever sends from
// a port that is another's external one leaves from one of these instead: they must
// be many enough for all such flows to one remote endpoint, and as few as can be,
// for no client gets one. No game and no program is known to ask for one of them by
// name, and the kernel's own choice of source ports begins above.
const (
	SpareFirst = 29184
	SpareLast  = 29695
)

// Spare reports whether an external port is never mapped.
func Spare(port uint16) bool { return SpareFirst <= port && port <= SpareLast }

// Entry is one thing the kernel shall hold. It is comparable by its fields;
// Expires carries the lease, not the kernel's timeout.
type Entry struct {
	Kind      Kind
	Transport portmap.Transport
	External  uint16         // the port on the WAN address; Pin: 0
	Source    portmap.Source // Hole and Pin: who may use it
	Internal  netip.AddrPort // IPv6 for a Pin, none for Mapped, IPv4 for the others
	Expires   time.Time      // end of the lease; zero: never
}

// Key is what makes an entry unique in the kernel: two entries with the same
// key cannot be there at once.
type Key struct {
	Kind      Kind
	Transport portmap.Transport
	External  uint16
	Source    portmap.Source
	Internal  netip.AddrPort
}

// Key returns the entry's key: for a Hole and a Pin what the packet shows on the
// outside, for a Kept port the internal endpoint, for a Mapped one the port.
func (e Entry) Key() Key {
	switch e.Kind {
	case Kept:
		return Key{Kind: Kept, Transport: e.Transport, Internal: e.Internal}
	case Pin:
		return Key{Kind: Pin, Transport: e.Transport, Source: e.Source, Internal: e.Internal}
	case Mapped:
		return Key{Kind: Mapped, Transport: e.Transport, External: e.External}
	}
	return Key{Kind: Hole, Transport: e.Transport, External: e.External, Source: e.Source}
}

// same reports whether two entries with equal keys differ in the lease at most.
func (e Entry) same(o Entry) bool {
	return e.External == o.External && e.Internal == o.Internal
}

// String is the text form that tests compare: "udp 5000 -> 10.0.0.2:5000",
// "udp 5000 from 198.51.100.0/24 port 53 -> 10.0.0.2:5000" (see portmap.Source),
// "udp 10.0.0.2:5000 keeps 5000", "udp [2001:db8::2]:5000 lets in anyone",
// "udp 5000 is mapped".
func (e Entry) String() string {
	switch {
	case e.Kind == Pin:
		return fmt.Sprintf("%s %s lets in %s", e.Transport, e.Internal, e.Source)
	case e.Kind == Mapped:
		return fmt.Sprintf("%s %d is mapped", e.Transport, e.External)
	case e.Kind == Kept:
		return fmt.Sprintf("%s %s keeps %d", e.Transport, e.Internal, e.External)
	case !e.Source.Anyone():
		return fmt.Sprintf("%s %d from %s -> %s", e.Transport, e.External, e.Source, e.Internal)
	}
	return fmt.Sprintf("%s %d -> %s", e.Transport, e.External, e.Internal)
}

// SortEntries puts holes before kept ports before pins before mapped ports, each by
// transport, port and host, so that two lists of the same entries read the same.
func SortEntries(es []Entry) {
	sort.Slice(es, func(i, j int) bool {
		a, b := &es[i], &es[j]
		return cmp.Or(
			cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Transport, b.Transport),
			cmp.Compare(a.External, b.External),
			a.Source.Compare(b.Source),
			a.Internal.Compare(b.Internal),
		) < 0
	})
}

// World returns sorted entries as text, a line each.
func World(es []Entry) string {
	es = slices.Clone(es)
	SortEntries(es)
	var b strings.Builder
	for _, e := range es {
		b.WriteString(e.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Delta is what must happen to the kernel to get from one State to the next.
// The three lists have no key in common but for Del and Add: a key in both is
// an entry that gets another meaning, and Del comes first.
type Delta struct {
	Del    []Entry // as they are now
	Add    []Entry
	Retime []Entry // there already; only the lease is another, or another hole of the mapping

	// Gone are the mappings, as they are now, that end with the change or let in
	// less than before. Flows that no mapping leads where they go must end too.
	Gone []portmap.Mapping
	// New are the holes and pins that lead where nothing led before the change.
	New []Entry
	// Renewed are the mappings, as they are now, that go on between the same two
	// endpoints with another lease or other restrictions: all of their holes and
	// pins are in Del, Add and Retime.
	Renewed []portmap.Mapping

	after    map[uint64]*opened // nil: no longer open
	timeless bool               // one of Retime had no end, or has none now
}

// LeasesOnly reports whether the change gives mappings another end and nothing else. They
// have one before and after.
func (c *Delta) LeasesOnly() bool { return len(c.Del)+len(c.Add) == 0 && !c.timeless }

// Empty reports whether the kernel has nothing to do.
func (c *Delta) Empty() bool { return len(c.Del)+len(c.Add)+len(c.Retime) == 0 }

// String is the text form that tests compare, a line an entry, sorted: "del ...",
// "add ...", "retime ...".
func (c *Delta) String() string {
	var b strings.Builder
	for _, part := range []struct {
		word    string
		entries []Entry
	}{{"del", c.Del}, {"add", c.Add}, {"retime", c.Retime}} {
		es := slices.Clone(part.entries)
		SortEntries(es)
		for _, e := range es {
			fmt.Fprintf(&b, "%s %s\n", part.word, e)
		}
	}
	return b.String()
}
