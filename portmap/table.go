package portmap

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// Table is every mapping at one moment. It is immutable: a change yields a new
// Table, so whoever holds one can read it for ever, a failed change needs no
// undo, and a snapshot costs nothing. All operations cost O(log n) or less.
type Table struct {
	lastID   uint64 // the last count
	revision uint64
	count    int
	ports    tree[int, slot]           // by external port number, both transports
	pinholes ordered                   // by endpoint and restrictions
	numbers  tree[int, *Mapping]       // pinholes by Number
	clients  tree[ClientID, ordered]   // each client's own, by ID
	inside   ordered                   // by client and its port, in whichever protocol
	sources  tree[sourceKey, *Mapping] // whom restricted mappings let in
	devices  counts
	rules    counts  // mappings of a device that a rule allowed
	totals   counts  // mappings that a rule allowed, by its name
	lans     counts  // mappings by the interface of their clients
	leases   ordered // by the first end, of those that have one
	holds    tree[deadline, hold]
	used     map[uint64]uint64 // answers that were for one mapping, and which; never changed in place
	idle     int               // devices kept only for their grant limiter
	tidied   time.Time         // when they were last looked through
	own      bool              // nobody else has it, or a part of it: it is being made, in place
}

// slot is one external port number: the mappings on it, and who may still
// renew one that has just run out. All mappings of one transport have the same
// client, and so at most one host is waited for, a transport: Plan sees to it.
type slot struct {
	mappings ordered // by what distinguishes those on one external port
	holds    []hold
	natpmp   claims // mappings that NAT-PMP asked for
}

// claims counts by transport.
type claims struct{ tcp, udp int32 }

func (c claims) plus(m *Mapping, n int32) claims {
	switch {
	case !m.Claims.paired():
	case m.Transport == TCP:
		c.tcp += n
	default:
		c.udp += n
	}
	return c
}

// hold keeps the port of an expired mapping for its client for a while.
type hold struct {
	port      int
	transport Transport
	client    ClientID
	until     deadline
}

// counts are numbers of mappings, all by one type of key: another one is 16 kB of the program.
type counts = tree[countKey, count]

type count struct {
	mappings     int
	grantReadyAt time.Time // of a device
}

// countKey is a device, a rule, or both; or the interface of a device alone.
type countKey struct {
	device Device
	rule   string
}

func ofDevice(d Device) countKey  { return countKey{device: d} }
func ofRule(name string) countKey { return countKey{rule: name} }
func ofLAN(iface string) countKey { return countKey{device: Device{Interface: iface}} }

// deadline orders ends by time; id makes them distinct.
type deadline struct {
	at time.Time
	id uint64
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{
		ports:    tree[int, slot]{cmp: cmp.Compare[int]},
		pinholes: ordered{cmp: comparePinholes},
		numbers:  tree[int, *Mapping]{cmp: cmp.Compare[int]},
		clients:  tree[ClientID, ordered]{cmp: compareClients},
		inside:   ordered{cmp: compareInternal},
		sources:  tree[sourceKey, *Mapping]{cmp: compareSources},
		devices:  counts{cmp: compareCounted},
		rules:    counts{cmp: compareCounted},
		totals:   counts{cmp: compareCounted},
		lans:     counts{cmp: compareCounted},
		leases:   ordered{cmp: compareEnds},
		holds:    tree[deadline, hold]{cmp: compareDeadlines},
	}
}

func compareClients(a, b ClientID) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Interface, b.Interface), slices.Compare(a.MAC[:], b.MAC[:]),
		compareBools(a.Owner, b.Owner))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func compareInternal(a, b *Mapping) int {
	return cmp.Or(compareClients(a.Client.ID(), b.Client.ID()), cmp.Compare(a.Transport, b.Transport),
		cmp.Compare(a.Internal.Port(), b.Internal.Port()), cmp.Compare(a.ID, b.ID))
}

func compareOnPort(a, b *Mapping) int { return b.compareWith(a.Transport, a.Remotes) }

// compareWith returns how (tr, remotes) compares with m, among the mappings of one external port.
func (m *Mapping) compareWith(tr Transport, remotes []Remote) int {
	return cmp.Or(cmp.Compare(tr, m.Transport), slices.CompareFunc(remotes, m.Remotes, compareRemotes))
}

func comparePinholes(a, b *Mapping) int {
	return cmp.Or(a.Internal.Compare(b.Internal), compareOnPort(a, b))
}

func compareIDs(a, b *Mapping) int { return cmp.Compare(a.ID, b.ID) }

func compareEnds(a, b *Mapping) int {
	return cmp.Or(a.nextEnd().Compare(b.nextEnd()), cmp.Compare(a.ID, b.ID))
}

func compareRemotes(a, b Remote) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
}

func compareDevices(a, b Device) int {
	return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), a.Addr.Compare(b.Addr), cmp.Compare(a.Interface, b.Interface))
}

func compareCounted(a, b countKey) int {
	return cmp.Or(compareDevices(a.device, b.device), cmp.Compare(a.rule, b.rule))
}

func compareDeadlines(a, b deadline) int {
	return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id))
}

// Len returns the number of mappings.
func (t *Table) Len() int { return t.count }

// Revision grows by one with every change of a mapping.
func (t *Table) Revision() uint64 { return t.revision }

// Find returns the mapping on an external port with exactly these remotes.
func (t *Table) Find(tr Transport, externalPort uint16, remotes []Remote) (Mapping, bool) {
	s, _ := t.ports.get(int(externalPort))
	if m := s.find(tr, remotes); m != nil {
		return *m, true
	}
	return Mapping{}, false
}

// Pinhole returns the IPv6 pinhole with this number.
func (t *Table) Pinhole(number uint16) (Mapping, bool) {
	if m, ok := t.numbers.get(int(number)); ok {
		return *m, true
	}
	return Mapping{}, false
}

// Pinholes walks every IPv6 pinhole, by address and port.
func (t *Table) Pinholes() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for m := range t.pinholes.all() {
			if !yield(*m) {
				return
			}
		}
	}
}

// All walks every mapping: the ports in their order, then the pinholes.
func (t *Table) All() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for m := range t.held() {
			if !yield(*m) {
				return
			}
		}
	}
}

// held is All, without copies.
func (t *Table) held() iter.Seq[*Mapping] {
	return func(yield func(*Mapping) bool) {
		for _, s := range t.ports.all() {
			for m := range s.mappings.all() {
				if !yield(m) {
					return
				}
			}
		}
		for m := range t.pinholes.all() {
			if !yield(m) {
				return
			}
		}
	}
}

// Clients walks everybody who has a mapping, by address.
func (t *Table) Clients() iter.Seq[ClientID] {
	return func(yield func(ClientID) bool) {
		for o := range t.clients.all() {
			if !yield(o) {
				return
			}
		}
	}
}

// Hosts returns how many have a mapping.
func (t *Table) Hosts() int { return t.clients.len() }

// ClientsAt walks the devices with mappings of one address on one interface. There
// is more than one where the address went from hand to hand.
func (t *Table) ClientsAt(iface string, addr netip.Addr) iter.Seq[ClientID] {
	return func(yield func(ClientID) bool) {
		for o := range t.clients.from(ClientID{Interface: iface, Addr: addr}) {
			if o.Interface != iface || o.Addr != addr || !yield(o) {
				return
			}
		}
	}
}

// List is one client's own mappings, oldest first. A renewal keeps its place.
type List struct{ own ordered }

// Of returns the mappings of one client.
func (t *Table) Of(id ClientID) List {
	own, _ := t.clients.get(id)
	return List{own}
}

// Len returns the number of mappings in the list.
func (l List) Len() int { return l.own.len() }

// At returns the i-th mapping; i must be in 0..Len()-1.
func (l List) At(i int) Mapping {
	m, _ := l.own.at(i)
	return *m
}

// All walks the list.
func (l List) All() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for m := range l.own.all() {
			if !yield(*m) {
				return
			}
		}
	}
}

// Inside walks a client's mappings that lead to one internal port, oldest first.
func (t *Table) Inside(id ClientID, tr Transport, port uint16) iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for m := range t.leading(id, tr, port) {
			if !yield(*m) {
				return
			}
		}
	}
}

func (t *Table) leading(id ClientID, tr Transport, port uint16) iter.Seq[*Mapping] {
	return func(yield func(*Mapping) bool) {
		for m := range t.inside.from(&Mapping{Client: id.client(), Transport: tr, Internal: netip.AddrPortFrom(id.Addr, port)}) {
			if m.Client.ID() != id || m.Transport != tr || m.Internal.Port() != port || !yield(m) {
				return
			}
		}
	}
}

// nextEnd returns the earliest moment at which the table changes by itself.
func (t *Table) nextEnd() (time.Time, bool) {
	first, _, some := t.leases.first()
	var end time.Time
	if some {
		end = first.nextEnd()
	}
	if h, _, ok := t.holds.first(); ok && (!some || h.at.Before(end)) {
		return h.at, true
	}
	return end, some
}

func (s slot) find(tr Transport, remotes []Remote) *Mapping {
	n := s.mappings.seek(func(m *Mapping) int { return m.compareWith(tr, remotes) })
	if n == nil || n.key.compareWith(tr, remotes) != 0 {
		return nil
	}
	return n.key
}

// pinned returns the pinhole of an endpoint with exactly these remotes, or nil.
func (t *Table) pinned(internal netip.AddrPort, tr Transport, remotes []Remote) *Mapping {
	compare := func(m *Mapping) int { return cmp.Or(internal.Compare(m.Internal), m.compareWith(tr, remotes)) }
	n := t.pinholes.seek(compare)
	if n == nil || compare(n.key) != 0 {
		return nil
	}
	return n.key
}

// holder returns a mapping of the transport, which tells who has the port; nil
// when nobody has.
func (s slot) holder(tr Transport) *Mapping {
	n := s.mappings.seek(func(m *Mapping) int { return cmp.Compare(tr, m.Transport) })
	if n == nil || n.key.Transport != tr {
		return nil
	}
	return n.key
}

func (s slot) empty() bool { return s.mappings.len() == 0 && len(s.holds) == 0 }
