package portmap

import "time"

// Commit returns the table after the change; it cannot fail. The change must have
// been planned on this very table.
func (t *Table) Commit(c Change) *Table {
	next := *t
	next.change(c)
	return &next
}

// The methods below build the new table in place; t is not published yet.

func (t *Table) change(c Change) {
	t.revision++
	if c.Old != nil {
		t.drop(c.Old)
	}
	if c.New != nil {
		t.put(c.New)
	}
	if c.Event == Granted && c.New != nil {
		t.lastID = max(t.lastID, countOf(c.New.ID)) // one of an earlier run is older
	}
	if c.New != nil && c.uses != 0 {
		t.use(c.uses, c.New.ID)
	}
	if c.New != nil && !c.grantReadyAt.IsZero() {
		t.limitGrants(c.New.Client.ID().Device(), c.grantReadyAt)
	}
	if c.New == nil && !c.holdUntil.IsZero() && c.Old.Kind == NAT4 {
		t.hold(c.Old, c.holdUntil)
	}
}

func (t *Table) put(m *Mapping) {
	id := m.Client.ID()
	if m.Kind == Pinhole6 {
		t.pinholes, t.numbers = t.pinholes.put(m, none, t.own), t.numbers.put(int(m.Number), m, t.own)
	} else {
		t.putPort(m)
	}
	own := t.Of(id).own
	own.cmp = compareIDs
	t.clients = t.clients.put(id, own.put(m, none, t.own), t.own)
	t.inside = t.inside.put(m, none, t.own)
	for k := range m.sourceKeys() {
		t.sources = t.sources.put(k, m, t.own)
	}
	if end := m.nextEnd(); !end.IsZero() {
		t.leases = t.leases.put(m, none, t.own)
	}
	t.count++
	t.countDevice(m, +1)
}

func (t *Table) putPort(m *Mapping) {
	port := int(m.ExternalPort)
	s, _ := t.ports.get(port)
	for _, h := range s.holds {
		if h.transport == m.Transport {
			t.holds = t.holds.without(h.until)
		}
	}
	s.mappings.cmp = compareOnPort
	s.mappings = s.mappings.put(m, none, t.own)
	s.holds = without(s.holds, func(h hold) bool { return h.transport == m.Transport })
	s.natpmp = s.natpmp.plus(m, +1)
	t.ports = t.ports.put(port, s, t.own)
}

func (t *Table) drop(m *Mapping) {
	id := m.Client.ID()
	if m.Kind == Pinhole6 {
		t.pinholes, t.numbers = t.pinholes.without(m), t.numbers.without(int(m.Number))
	} else {
		port := int(m.ExternalPort)
		s, _ := t.ports.get(port)
		s.mappings = s.mappings.without(m)
		s.natpmp = s.natpmp.plus(m, -1)
		t.setSlot(port, s)
	}
	t.inside = t.inside.without(m)
	for k := range m.sourceKeys() {
		t.sources = t.sources.without(k)
	}
	if own := t.Of(id).own.without(m); own.len() > 0 {
		t.clients = t.clients.with(id, own)
	} else {
		t.clients = t.clients.without(id)
	}
	if end := m.nextEnd(); !end.IsZero() {
		t.leases = t.leases.without(m)
	}
	t.count--
	t.countDevice(m, -1)
}

func (t *Table) setSlot(port int, s slot) {
	if s.empty() {
		t.ports = t.ports.without(port)
	} else {
		t.ports = t.ports.with(port, s)
	}
}

func (t *Table) countDevice(m *Mapping, by int) {
	of := m.Client.ID().Device()
	key := ofDevice(of)
	dev, known := t.devices.get(key)
	if known && dev.mappings == 0 {
		t.idle--
	}
	dev.mappings += by
	if dev.mappings == 0 {
		t.idle++
	}
	t.devices = t.devices.put(key, dev, t.own)
	t.lans = counted(t.lans, ofLAN(m.Client.Interface), by, t.own)
	if m.Rule != "" {
		t.rules = counted(t.rules, countKey{of, m.Rule}, by, t.own)
		t.totals = counted(t.totals, ofRule(m.Rule), by, t.own)
	}
}

// counted returns counts of which one has changed; none of them is 0.
func counted(all counts, key countKey, by int, own bool) counts {
	n, _ := all.get(key)
	if n.mappings += by; n.mappings > 0 {
		return all.put(key, n, own)
	}
	return all.without(key)
}

func (t *Table) limitGrants(of Device, readyAt time.Time) {
	key := ofDevice(of)
	dev, _ := t.devices.get(key)
	dev.grantReadyAt = readyAt
	t.devices = t.devices.with(key, dev)
}

// hold keeps a port for m's client, and forgets an earlier promise of the kind:
// the later one lasts longer.
func (t *Table) hold(m *Mapping, until time.Time) {
	port := int(m.ExternalPort)
	h := hold{port: port, transport: m.Transport, client: m.Client.ID(), until: deadline{until, m.ID}}
	s, _ := t.ports.get(port)
	for _, o := range s.holds {
		if o.transport == h.transport {
			t.holds = t.holds.without(o.until)
		}
	}
	s.holds = append(without(s.holds, func(o hold) bool { return o.transport == h.transport }), h)
	t.ports = t.ports.with(port, s)
	t.holds = t.holds.with(h.until, h)
}

// tidyEvery is how often devices without mappings are looked through. A host
// that invents addresses can make many of them, which no other change may pay
// for.
const tidyEvery = time.Second

// tidy returns the table without the holds that are over and without devices
// that have neither mappings nor a grant limiter that still matters.
func (t *Table) tidy(now time.Time) *Table {
	next := *t
	for d, h := range t.holds.all() {
		if d.at.After(now) {
			break
		}
		next.holds = next.holds.without(d)
		s, _ := next.ports.get(h.port)
		s.holds = without(s.holds, func(o hold) bool { return o.until == d })
		next.setSlot(h.port, s)
	}
	if t.idle > 0 && now.Sub(t.tidied) >= tidyEvery {
		next.tidied = now
		for key, dev := range t.devices.all() {
			if dev.mappings == 0 && !dev.grantReadyAt.After(now) {
				next.devices = next.devices.without(key)
				next.idle--
			}
		}
	}
	return &next
}

// none is the value of what has its key alone.
var none struct{}

// without returns a new slice; slices of a published table are never changed.
func without[T any](s []T, drop func(T) bool) []T {
	var rest []T
	for _, x := range s {
		if !drop(x) {
			rest = append(rest, x)
		}
	}
	return rest
}
