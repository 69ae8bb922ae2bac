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
	ports    tree[int, slot] // by external port number, both transports
	pinholes tree[pinhole, *Mapping]
	numbers  tree[int, *Mapping]        // pinholes by Number
	clients  tree[ClientID, ownMapping] // each client's own, by ID
	inside   tree[internalKey, *Mapping]
	sources  tree[sourceKey, *Mapping] // whom restricted mappings let in
	devices  tree[Device, device]
	rules    tree[ruleKey, int] // mappings of a device that a rule allowed
	totals   tree[string, int]  // mappings that a rule allowed, by its name
	lans     tree[string, int]  // mappings by the interface of their clients
	leases   tree[deadline, *Mapping]
	holds    tree[deadline, hold]
	used     map[uint64]uint64 // answers that were for one mapping, and which; never changed in place
	idle     int               // devices kept only for their grant limiter
	tidied   time.Time         // when they were last looked through
}

// slot is one external port number: the mappings on it, and who may still
// renew one that has just run out. All mappings of one transport have the same
// client, and so at most one host is waited for, a transport: Plan sees to it.
type slot struct {
	mappings tree[slotKey, *Mapping]
	holds    []hold
	natpmp   claims // mappings that NAT-PMP asked for
}

// slotKey is what distinguishes the mappings on one external port.
type slotKey struct {
	transport Transport
	remotes   []Remote
}

func slotKeyOf(m *Mapping) slotKey { return slotKey{m.Transport, m.Remotes} }

// pinhole is what distinguishes pinholes.
type pinhole struct {
	internal netip.AddrPort
	slotKey
}

func pinholeOf(m *Mapping) pinhole { return pinhole{m.Internal, slotKeyOf(m)} }

// claims counts by transport.
type claims struct{ tcp, udp int }

func (c claims) plus(m *Mapping, n int) claims {
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

// internalKey finds what a client's port is mapped to, in whichever protocol.
type internalKey struct {
	client    ClientID
	transport Transport
	port      uint16
	id        uint64
}

func keyInside(m *Mapping) internalKey {
	return internalKey{m.Client.ID(), m.Transport, m.Internal.Port(), m.ID}
}

type ownMapping = tree[uint64, *Mapping]

type device struct {
	mappings     int
	grantReadyAt time.Time
}

type ruleKey struct {
	device Device
	rule   string
}

// deadline orders ends by time; id makes them distinct.
type deadline struct {
	at time.Time
	id uint64
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{
		ports:    tree[int, slot]{cmp: cmp.Compare[int]},
		pinholes: tree[pinhole, *Mapping]{cmp: comparePinholes},
		numbers:  tree[int, *Mapping]{cmp: cmp.Compare[int]},
		clients:  tree[ClientID, ownMapping]{cmp: compareClients},
		inside:   tree[internalKey, *Mapping]{cmp: compareInternal},
		sources:  tree[sourceKey, *Mapping]{cmp: compareSources},
		devices:  tree[Device, device]{cmp: compareDevices},
		rules:    tree[ruleKey, int]{cmp: compareRuleKeys},
		totals:   tree[string, int]{cmp: cmp.Compare[string]},
		lans:     tree[string, int]{cmp: cmp.Compare[string]},
		leases:   tree[deadline, *Mapping]{cmp: compareDeadlines},
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

func compareInternal(a, b internalKey) int {
	return cmp.Or(compareClients(a.client, b.client), cmp.Compare(a.transport, b.transport), cmp.Compare(a.port, b.port), cmp.Compare(a.id, b.id))
}

func compareSlotKeys(a, b slotKey) int {
	return cmp.Or(cmp.Compare(a.transport, b.transport), slices.CompareFunc(a.remotes, b.remotes, compareRemotes))
}

func comparePinholes(a, b pinhole) int {
	return cmp.Or(a.internal.Compare(b.internal), compareSlotKeys(a.slotKey, b.slotKey))
}

func compareRemotes(a, b Remote) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Port, b.Port))
}

func compareDevices(a, b Device) int {
	return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), a.Addr.Compare(b.Addr), cmp.Compare(a.Interface, b.Interface))
}

func compareRuleKeys(a, b ruleKey) int {
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
		for _, m := range t.pinholes.all() {
			if !yield(*m) {
				return
			}
		}
	}
}

// All walks every mapping: the ports in their order, then the pinholes.
func (t *Table) All() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for _, s := range t.ports.all() {
			for _, m := range s.mappings.all() {
				if !yield(*m) {
					return
				}
			}
		}
		for m := range t.Pinholes() {
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
type List struct{ own ownMapping }

// Of returns the mappings of one client.
func (t *Table) Of(id ClientID) List {
	own, _ := t.clients.get(id)
	return List{own}
}

// Len returns the number of mappings in the list.
func (l List) Len() int { return l.own.len() }

// At returns the i-th mapping; i must be in 0..Len()-1.
func (l List) At(i int) Mapping {
	_, m := l.own.at(i)
	return *m
}

// All walks the list.
func (l List) All() iter.Seq[Mapping] {
	return func(yield func(Mapping) bool) {
		for _, m := range l.own.all() {
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
		for k, m := range t.inside.from(internalKey{client: id, transport: tr, port: port}) {
			if k.client != id || k.transport != tr || k.port != port || !yield(m) {
				return
			}
		}
	}
}

// nextEnd returns the earliest moment at which the table changes by itself.
func (t *Table) nextEnd() (time.Time, bool) {
	lease, _, some := t.leases.first()
	if h, _, ok := t.holds.first(); ok && (!some || h.at.Before(lease.at)) {
		return h.at, true
	}
	return lease.at, some
}

func (s slot) find(tr Transport, remotes []Remote) *Mapping {
	m, _ := s.mappings.get(slotKey{tr, remotes})
	return m
}

// holder returns a mapping of the transport, which tells who has the port; nil
// when nobody has.
func (s slot) holder(tr Transport) *Mapping {
	for k, m := range s.mappings.from(slotKey{transport: tr}) {
		if k.transport == tr {
			return m
		}
		break
	}
	return nil
}

func (s slot) empty() bool { return s.mappings.len() == 0 && len(s.holds) == 0 }
