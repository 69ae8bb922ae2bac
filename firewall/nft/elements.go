package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/portmap"
)

// grace is how much longer than the lease the kernel keeps an element: the daemon
// removes it first and tells the client, the kernel only when the daemon is dead.
const grace = 60 * time.Second

// timeout returns an element's timeout: none for a lease that never ends, and
// never 0 or less for one that does, because 0 means none to the kernel.
func timeout(expires time.Time) time.Duration {
	if expires.IsZero() {
		return 0
	}
	return max(time.Until(expires)+grace, time.Second)
}

// elementOp adds or removes elements of one set: one netlink message.
type elementOp struct {
	set      *nftables.Set
	remove   bool
	elements []nftables.SetElement
}

func (op elementOp) queue(q *nftables.Conn) error {
	if op.remove {
		return q.SetDeleteElements(op.set, op.elements)
	}
	return q.SetAddElements(op.set, op.elements)
}

// size is a generous estimate of the message, in bytes.
func (op elementOp) size() int {
	n := 64
	for _, el := range op.elements {
		n += elementSize + len(el.Key) + len(el.KeyEnd) + len(el.Val)
	}
	return n
}

const (
	// elementsPerMessage keeps the element list, whose length is a 16-bit attribute
	// that wraps in silence, far from wrapping.
	elementsPerMessage = 128
	// elementSize is what an element takes beside its key, the end of that and its
	// value: a timeout, and the headers.
	elementSize = 56
)

// elements collects element operations by set, so that a change of any size
// takes as few messages as it can. Removals come before additions.
type elements struct {
	sets    []*nftables.Set
	removed map[*nftables.Set][]nftables.SetElement
	added   map[*nftables.Set][]nftables.SetElement
}

func newElements() *elements {
	return &elements{
		removed: make(map[*nftables.Set][]nftables.SetElement),
		added:   make(map[*nftables.Set][]nftables.SetElement),
	}
}

func (e *elements) add(set *nftables.Set, el nftables.SetElement) {
	e.note(set)
	e.added[set] = append(e.added[set], el)
}

func (e *elements) remove(set *nftables.Set, el nftables.SetElement) {
	e.note(set)
	e.removed[set] = append(e.removed[set], nftables.SetElement{Key: el.Key, KeyEnd: el.KeyEnd})
}

func (e *elements) note(set *nftables.Set) {
	if !slices.Contains(e.sets, set) {
		e.sets = append(e.sets, set)
	}
}

// ops returns the messages, removals first.
func (e *elements) ops() []elementOp {
	var ops []elementOp
	for _, set := range e.sets {
		for part := range slices.Chunk(e.removed[set], elementsPerMessage) {
			ops = append(ops, elementOp{set, true, part})
		}
	}
	for _, set := range e.sets {
		for part := range slices.Chunk(e.added[set], elementsPerMessage) {
			ops = append(ops, elementOp{set, false, part})
		}
	}
	return ops
}

// change collects what brings a planned change into the kernel. A renewed
// element is removed and added in the same batch: only kernels since 6.12 give
// an element that is there a new timeout, older ones accept that and ignore it.
func (t *target) change(c *firewall.Delta) *elements {
	e := newElements()
	for _, list := range [][]firewall.Entry{c.Del, c.Retime} {
		for _, entry := range list {
			t.each(entry, e.remove)
		}
	}
	for _, list := range [][]firewall.Entry{c.Add, c.Retime} {
		for _, entry := range list {
			t.each(entry, e.add)
		}
	}
	return e
}

// all collects everything that a state holds.
func (t *target) all(entries []firewall.Entry) *elements {
	e := newElements()
	for _, entry := range entries {
		t.each(entry, e.add)
	}
	return e
}

// target is where entries go: our table, the sets beside the accept chain, or
// both.
type target struct {
	own    *skeleton    // nil: not there
	accept acceptedHere // as far as it is there
}

// each returns the elements of one entry. All of them end at the same moment. The
// first is in a map or a set of our table, if that is there.
func (t *target) each(e firewall.Entry, do func(*nftables.Set, nftables.SetElement)) {
	after := timeout(e.Expires)
	timed := func(set *nftables.Set, el nftables.SetElement) {
		el.Timeout = after
		do(set, el)
	}
	if t.own != nil {
		t.own.each(e, timed)
	}
	switch e.Kind {
	case firewall.Hole:
		if there := t.accept[family4]; there != nil {
			timed(there.flows.of(e), flowElement(e))
		}
	case firewall.Pin:
		if there := t.accept[family6]; there != nil {
			timed(there.pins.of(e), pinElement(e))
		}
	}
}

// each returns the elements of one entry in our table.
func (s *skeleton) each(e firewall.Entry, do func(*nftables.Set, nftables.SetElement)) {
	switch e.Kind {
	case firewall.Hole:
		do(s.mapOf(e.Source), holeElement(e))
		do(s.flows.of(e), flowElement(e))
	case firewall.Kept:
		do(s.kept, nftables.SetElement{Key: keptKey(e), Val: portValue(e.External)})
	case firewall.Pin:
		do(s.pins.of(e), pinElement(e))
	case firewall.Mapped:
		do(s.mappedPorts, nftables.SetElement{Key: appendPort(appendProto(make([]byte, 0, 8), e.Transport), e.External)})
	}
	s.marks.each(e, do)
}

// keyRoom is what most keys take.
const keyRoom = 24

// Keys and values. Each part of a concatenation starts at a multiple of four
// bytes; numbers are in network order.

func keptKey(e firewall.Entry) []byte {
	return appendPort(appendProto(appendAddr(make([]byte, 0, keyRoom), e.Internal.Addr()), e.Transport), e.Internal.Port())
}

func endpointValue(ep netip.AddrPort) []byte {
	return appendPort(appendAddr(make([]byte, 0, 8), ep.Addr()), ep.Port())
}

func portValue(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return append(b, four[:]...)
	}
	sixteen := a.As16()
	return append(b, sixteen[:]...)
}

func appendProto(b []byte, t portmap.Transport) []byte { return append(b, byte(t), 0, 0, 0) }

func appendPort(b []byte, p uint16) []byte { return append(binary.BigEndian.AppendUint16(b, p), 0, 0) }

// ifnameKey is an interface name as the kernel compares it.
func ifnameKey(name string) []byte {
	key := make([]byte, firewall.MaxInterfaceName+1)
	copy(key, name)
	return key
}
