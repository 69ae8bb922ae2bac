package portmap

import (
	"fmt"
	"slices"
	"time"
)

// Change is one planned step of the table: Old becomes New. A nil Old is a
// grant, a nil New an end.
type Change struct {
	Event        EventType
	Reason       Reason // why a mapping ended
	Old, New     *Mapping
	holdUntil    time.Time // not zero: the port stays with its client until then
	grantReadyAt time.Time
	uses         uint64 // the Answer that was for New alone; 0: there is none
}

// Facts gathers what the table knows for a policy's decision about r.
func (t *Table) Facts(now time.Time, r Request, v *View) Facts {
	d := r.Client.ID().Device()
	dev, _ := t.devices.get(ofDevice(d))
	lan, _ := t.lans.get(ofLAN(r.Client.Interface))
	old := t.existing(r)
	return Facts{
		Now:            now,
		View:           v,
		Renewal:        old != nil,
		Change:         old != nil && old.changedBy(r, now),
		Mappings:       t.count,
		ClientMappings: dev.mappings,
		LANMappings:    lan.mappings,
		GrantReadyAt:   dev.grantReadyAt,
		RuleMappings: func(rule string) int {
			n, _ := t.rules.get(countKey{d, rule})
			return n.mappings
		},
		RuleTotal: func(rule string) int {
			n, _ := t.totals.get(ofRule(rule))
			return n.mappings
		},
	}
}

// existing returns the client's mapping that r would renew or change, or nil.
func (t *Table) existing(r Request) *Mapping {
	if r.Named == ByInternal {
		return t.byInternal(r)
	}
	m := t.at(&Mapping{Kind: r.Kind, Internal: r.Internal, ExternalPort: r.ExternalPort, Transport: r.Transport, Remotes: r.Remotes})
	if m == nil || m.Client.ID() != r.Client.ID() {
		return nil
	}
	return m
}

// byInternal prefers the mapping that was made in r's protocol, then the oldest.
// One that another protocol restricted is not what r means, nor any restricted one where
// r could not say so.
func (t *Table) byInternal(r Request) *Mapping {
	var found *Mapping
	for m := range t.leading(r.Client.ID(), r.Transport, r.Internal.Port()) {
		if len(m.Remotes) > 0 && (r.RemotesAre == RemotesUnsaid || !m.Claims.Has(r.Client.Via)) {
			continue
		}
		if m.Claims.Has(r.Client.Via) {
			return m
		}
		if found == nil {
			found = m
		}
	}
	return found
}

// Plan returns what granting r would change, or why it cannot be. The external
// port must be chosen already, and d must allow it. A lifetime of 0 is without an
// end. A new pinhole gets the first free number from start on, which should be
// random. It changes nothing.
func (t *Table) Plan(now time.Time, r Request, d Decision, lifetime time.Duration, start uint16) (Change, error) {
	old := t.existing(r)
	if old != nil && r.Named == ByInternal {
		r.ExternalPort = old.ExternalPort
	}
	if r.Kind == Pinhole6 {
		r.ExternalPort = r.Internal.Port()
	} else if err := t.conflict(r.ExternalPort, r.Transport, r.Client.ID()); err != nil {
		return Change{}, err
	}
	m := &Mapping{
		ID:           t.lastID + 1,
		Client:       r.Client,
		Kind:         r.Kind,
		Transport:    r.Transport,
		Internal:     r.Internal,
		ExternalPort: r.ExternalPort,
		Remotes:      r.Remotes,
		Disabled:     r.Disabled,
		Description:  r.Description,
		Rule:         d.Rule,
		Created:      now,
		Endless:      endless(r, d),
	}
	if r.Nonce != nil {
		m.Nonce = *r.Nonce
	}
	end := now.Add(lifetime)
	if lifetime == 0 {
		end = time.Time{}
	}
	m.promise(r.Client.Via, end, now)
	if err := m.Check(); err != nil {
		return Change{}, err
	}
	if err := t.overlap(m, old); err != nil {
		return Change{}, err
	}
	if old == nil && r.Kind == Pinhole6 {
		var ok bool
		if m.Number, ok = t.number(start); !ok {
			return Change{}, &Error{Reason: TotalQuota, Detail: "no pinhole ID is free"}
		}
	}
	if old == nil {
		return Change{Event: Granted, New: m, grantReadyAt: d.GrantReadyAt, uses: d.usedUp()}, nil
	}
	m.ID, m.Number, m.Created, m.Client.Via = old.ID, old.Number, old.Created, old.Client.Via
	if m.Internal == old.Internal {
		m.share(old, r, now)
	}
	c := Change{Event: Renewed, Old: old, New: m, uses: d.usedUp()}
	if old.changedBy(r, now) {
		c.grantReadyAt = d.GrantReadyAt
	}
	return c, nil
}

// changedBy reports whether r makes something else of m than a longer lease. Each
// change is a transaction of the kernel and a line of the journal, so they are
// metered as grants are.
func (m *Mapping) changedBy(r Request, now time.Time) bool {
	via := r.Client.Via
	if !m.Claims.Has(via) || !m.Suspended.IsZero() {
		return true
	}
	sooner := r.Lifetime > 0 && (m.Endless && r.ZeroIsEndless || now.Add(r.Lifetime).Before(m.end(via).Add(-time.Second)))
	described := !r.KeepDescription && r.Description != m.Description
	return sooner || described || r.Internal != m.Internal || r.Disabled != m.Disabled ||
		r.Nonce != nil && *r.Nonce != m.Nonce || !slices.Equal(r.Remotes, m.Remotes)
}

// number returns a pinhole number that is free: the first from start on, going
// round.
func (t *Table) number(start uint16) (uint16, bool) {
	if t.numbers.len() == 1<<16 {
		return 0, false
	}
	lo, hi := int(start), 1<<16
	if t.numbers.len()-t.numbers.rank(lo) == hi-lo { // none is left above
		lo, hi = 0, lo
	}
	return uint16(gap(t.numbers, lo, hi)), true
}

// at returns the mapping that has m's place.
func (t *Table) at(m *Mapping) *Mapping {
	if m.Kind == Pinhole6 {
		return t.pinned(m.Internal, m.Transport, m.Remotes)
	}
	s, _ := t.ports.get(int(m.ExternalPort))
	return s.find(m.Transport, m.Remotes)
}

// share keeps what other protocols were promised of the same mapping: it is no
// conflict when one client asks for one thing twice (RFC 6970 section 5).
func (m *Mapping) share(old *Mapping, r Request, now time.Time) {
	via, end := r.Client.Via, m.Expires
	m.Claims, m.Leases, m.Expires = old.Claims, old.Leases, old.Expires
	m.promise(via, end, now)
	if !r.ZeroIsEndless {
		m.Endless = old.Endless
	}
	if r.Nonce == nil {
		m.Nonce = old.Nonce
	}
	if r.KeepDescription {
		m.Description = old.Description
	}
}

// endless reports whether r asks for a lease without an end and gets one: for as
// long as its device is seen, which takes a MAC, and where no rule has set a term.
func endless(r Request, d Decision) bool {
	return r.ZeroIsEndless && r.Lifetime == 0 && d.MaxLifetime == 0 && r.Client.MAC != (MAC{})
}

// conflict returns who stands in the way of a client's wish for an external port. A
// mapping that is there tells more than a reservation.
func (t *Table) conflict(port uint16, tr Transport, id ClientID) error {
	s, _ := t.ports.get(int(port))
	if m := s.holder(tr); m != nil && m.Client.ID() != id {
		if o := m.Client.ID(); !o.Owner && o.Interface == id.Interface && o.Addr == id.Addr {
			return &Error{Reason: IdentityChanged, Detail: fmt.Sprintf(
				"%s port %d was mapped by another device that had this address", tr, port)}
		}
		return &Error{Reason: PortTaken, Detail: fmt.Sprintf("%s port %d is mapped by another host", tr, port)}
	}
	var reserved error
	for _, other := range []struct {
		transport Transport
		claims    int32
	}{{TCP, s.natpmp.tcp}, {UDP, s.natpmp.udp}} {
		m := s.holder(other.transport)
		if other.transport != tr && other.claims > 0 && m.Client.ID() != id {
			// RFC 6886 section 3.3: the companion port stays with the client.
			reserved = &Error{Reason: PortReserved, Detail: fmt.Sprintf(
				"%s port %d is reserved for the host that holds the same %s port", tr, port, other.transport)}
		}
	}
	for _, h := range s.holds {
		switch {
		case h.transport != tr || h.client == id:
		case h.client.Interface == id.Interface && h.client.Addr == id.Addr:
			return &Error{Reason: IdentityChanged, Detail: fmt.Sprintf(
				"%s port %d is kept for a moment for another device that had this address", tr, port)}
		default:
			reserved = &Error{Reason: PortReserved, Detail: fmt.Sprintf(
				"%s port %d is kept for a moment for the host whose lease has just ended", tr, port)}
		}
	}
	return reserved
}

// free returns the lowest port from start upwards, not above 65535, that nobody
// holds for either transport, so that a pair is never split between clients.
func (t *Table) free(start int) (int, bool) {
	port := gap(t.ports, start, 1<<16)
	return port, port < 1<<16
}

// gap returns the lowest number from lo on, and below hi, that is not a key; hi where there
// is none. Ranks make it a binary search: [lo, n] is full when it has as many keys as
// numbers.
func gap[V any](t tree[int, V], lo, hi int) int {
	for first, below := lo, t.rank(lo); lo < hi; {
		mid := (lo + hi) / 2
		if t.rank(mid+1)-below < mid-first+1 {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// ownHalf returns a port of which the client holds the other transport only: the
// last resort when every number is in use.
func (t *Table) ownHalf(tr Transport, id ClientID) (int, bool) {
	for m := range t.Of(id).All() {
		s, _ := t.ports.get(int(m.ExternalPort))
		if s.holder(tr) == nil && t.conflict(m.ExternalPort, tr, id) == nil {
			return int(m.ExternalPort), true
		}
	}
	return 0, false
}

// expired plans the end of leases that have run out by now, of at most limit
// mappings. The port is kept for its client for a while, because some renew
// exactly at expiry.
func (t *Table) expired(now time.Time, hold time.Duration, limit int) []Change {
	var changes []Change
	for m := range t.leases.all() {
		if m.nextEnd().After(now) || len(changes) == limit {
			break
		}
		changes = append(changes, m.lapse(now, now.Add(hold)))
	}
	return changes
}
