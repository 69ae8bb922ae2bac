package portmap

import (
	"iter"
	"time"
)

// Lease is what one protocol was promised of a mapping.
type Lease struct {
	Granted time.Duration
	Ends    time.Time
}

// Leases has a Lease for some protocols. It is a value: to set one leaves copies as they
// were. Most mappings have none, and need no room for any.
type Leases struct{ by *[viaCount]Lease }

// Of returns the lease of a protocol, the zero one where it has none.
func (l Leases) Of(v Via) Lease {
	if l.by == nil {
		return Lease{}
	}
	return l.by[v]
}

// Set gives a protocol another lease; the zero one is none.
func (l *Leases) Set(v Via, lease Lease) {
	var all [viaCount]Lease
	if l.by != nil {
		all = *l.by
	}
	all[v] = lease
	if l.by = nil; all != ([viaCount]Lease{}) {
		l.by = &all
	}
}

// Equal reports whether two have the same.
func (l Leases) Equal(o Leases) bool {
	return l.by == o.by || l.by != nil && o.by != nil && *l.by == *o.by
}

// All walks those that there are.
func (l Leases) All() iter.Seq2[Via, Lease] {
	return func(yield func(Via, Lease) bool) {
		if l.by == nil {
			return
		}
		for v, lease := range l.by {
			if lease != (Lease{}) && !yield(Via(v), lease) {
				return
			}
		}
	}
}

// end returns when a protocol's lease ends.
func (m *Mapping) end(v Via) time.Time {
	if l := m.Leases.Of(v); !l.Ends.IsZero() {
		return l.Ends
	}
	return m.Expires
}

// LeaseLeft returns the time until the lease of a protocol ends: at the latest with
// the mapping. It is 0 when it is over, and -1 when it never ends.
func (m *Mapping) LeaseLeft(v Via, now time.Time) time.Duration {
	if end := m.end(v); !end.IsZero() {
		return max(0, end.Sub(now))
	}
	return -1
}

// promise sets another lease for a protocol. Each protocol has its own: the mapping
// lasts as long as the longest, and none is made longer by another one, whose
// client knows nothing of it. A zero end is never.
func (m *Mapping) promise(v Via, end, now time.Time) {
	ends := map[Via]time.Time{v: end}
	latest := end
	for other := range m.Claims.All() {
		if other == v {
			continue
		}
		ends[other] = m.end(other)
		if e := ends[other]; e.IsZero() || !latest.IsZero() && e.After(latest) {
			latest = e
		}
	}
	m.Claims, m.Expires, m.Leases = m.Claims.With(v), latest, Leases{}
	for v, end := range ends {
		if !end.Equal(latest) {
			m.Leases.Set(v, Lease{Granted: max(0, end.Sub(now)), Ends: end})
		}
	}
}

// cut ends m and every lease of it at the latest then.
func (m *Mapping) cut(end time.Time) {
	m.Expires = end
	for v, l := range m.Leases.All() {
		if !l.Ends.Before(end) {
			m.Leases.Set(v, Lease{})
		}
	}
}

// nextEnd returns when the first of a mapping's leases ends, the zero time for never.
func (m *Mapping) nextEnd() time.Time {
	first := m.Expires
	for _, l := range m.Leases.All() {
		if !l.Ends.IsZero() && (first.IsZero() || l.Ends.Before(first)) {
			first = l.Ends
		}
	}
	return first
}

// lapse plans what the time does to m: it ends, and its port is kept for its client
// until then, or the leases of some protocols do.
func (m *Mapping) lapse(now, holdUntil time.Time) Change {
	if !m.Expires.IsZero() && !m.Expires.After(now) {
		return Change{Event: Expired, Reason: Ended, Old: m, holdUntil: holdUntil}
	}
	less := *m
	for v, l := range m.Leases.All() {
		if !l.Ends.IsZero() && !l.Ends.After(now) {
			less.Claims = less.Claims.Without(v)
			less.Leases.Set(v, Lease{})
			less.Endless = less.Endless && v != endlessVia
		}
	}
	return Change{Old: m, New: &less} // which nobody is told: it is as open as before
}
