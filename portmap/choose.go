package portmap

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	portTries = 256  // candidates for one request
	heldTries = 8    // of which so many are passed over because others' flows hold them
	firstPort = 1024 // ports below are never chosen: they are system services
)

var anywhere = []PortRange{{firstPort, 1<<16 - 1}}

// planMap decides, chooses the ports, and plans.
func (e *Engine) planMap(t *Table, r Request, n int) (outcome, error) {
	if len(r.Description) > MaxDescription {
		r.Description = r.Description[:MaxDescription]
	}
	now, view := time.Now(), e.cfg.Gateway.View()
	t, yield, first, d, err := e.planFirst(now, t, r, view, n)
	if err != nil {
		e.refused(now, r, d, err)
		return outcome{}, err
	}
	out := outcome{append(yield, first), []Mapping{*first.New}}
	for i := 1; i < n; i++ {
		t = t.Commit(out.changes[len(out.changes)-1])
		next, ok := following(r, first.New, i)
		if !ok {
			break
		}
		c, _, err := e.try(now, t, next, view)
		if err != nil {
			break // fewer than were asked for, but at least one (RFC 7753 section 4.1)
		}
		out.changes, out.answer = append(out.changes, c), append(out.answer, *c.New)
	}
	return out, nil
}

// planFirst decides about the first port of r, and returns it with what yields to it, and the
// table without that.
func (e *Engine) planFirst(now time.Time, t *Table, r Request, view *View, n int) (without *Table, yield []Change, first Change, d Decision, err error) {
	yield = t.yielding(now.Add(-e.cfg.Hold), r)
	without = t
	for _, c := range yield {
		without = without.Commit(c)
	}
	first, d, err = e.planOne(now, without, r, view, n)
	if len(yield) > 0 && (err != nil || r.Kind == NAT4 && first.New.ExternalPort != r.ExternalPort) {
		without, yield = t, nil // it is not their port that r gets
		first, d, err = e.planOne(now, t, r, view, n)
	}
	return without, yield, first, d, err
}

// following returns the request for the i-th port of a set that begins with m.
func following(r Request, m *Mapping, i int) (Request, bool) {
	internal, external := int(r.Internal.Port())+i, int(m.ExternalPort)+i // of a pinhole they are one
	if internal > 65535 || external > 65535 {
		return r, false
	}
	r.Internal = netip.AddrPortFrom(r.Internal.Addr(), uint16(internal))
	r.Exact = true
	return withPort(r, external), true
}

// planOne plans one mapping; n is how many ports in a row would be welcome.
func (e *Engine) planOne(now time.Time, t *Table, r Request, view *View, n int) (Change, Decision, error) {
	r, err := e.renewing(now, t, r)
	if err != nil {
		return Change{}, Decision{}, err
	}
	c, d, err := e.try(now, t, r, view)
	if ReasonOf(err) == PortInUse && t.existing(r) != nil {
		return c, d, err // it will end; a new one may have another port then
	}
	if err != nil && !r.Exact && r.Kind == NAT4 && (d.OverExternalPort || anotherPortHelps(ReasonOf(err))) {
		return e.tryOthers(now, t, r, view, d, err, n)
	}
	if err == nil && !r.Exact && e.held(c) {
		held := &Error{Reason: PortInUse, Detail: "another host has a connection through it"}
		if other, d, err := e.tryOthers(now, t, r, view, d, held, n); err == nil && !e.held(other) {
			return other, d, nil
		}
	}
	return c, d, err
}

// held reports whether a grant would take a port from flows of another host.
func (e *Engine) held(c Change) bool {
	return e.cfg.Held != nil && c.Event == Granted && c.New.Kind == NAT4 &&
		e.cfg.Held(c.New.Transport, c.New.ExternalPort, c.New.Internal.Addr())
}

// renewing fills in what a request means whose internal port is mapped already: that
// mapping, with the restrictions it has.
func (e *Engine) renewing(now time.Time, t *Table, r Request) (Request, error) {
	if r.Named != ByInternal {
		return r, nil
	}
	old := t.existing(r)
	if old == nil {
		return r, tooMany(r.Remotes)
	}
	if e.cfg.Strict && r.Nonce != nil && *r.Nonce != old.Nonce && old.Claims.Has(r.Client.Via) {
		return r, wrongNonce(old, now)
	}
	if r.Exact && r.Kind == NAT4 && r.ExternalPort != old.ExternalPort {
		return r, &Error{Reason: PortTaken, Left: max(0, old.Left(now)), Detail: fmt.Sprintf(
			"%s port %d is mapped to external port %d already", r.Transport, r.Internal.Port(), old.ExternalPort)}
	}
	r.ExternalPort = old.ExternalPort
	if r.RemotesAre != RemotesReplace {
		merged := slices.Clone(old.Remotes)
		for _, remote := range r.Remotes {
			if !slices.Contains(merged, remote) {
				merged = append(merged, remote)
			}
		}
		r.Remotes = merged
	}
	return r, tooMany(r.Remotes)
}

// anotherPortHelps reports whether who asked for any port should get another one.
func anotherPortHelps(r Reason) bool {
	return r.OfExternalPort() || r == BadPort
}

// try plans r with the external port it names; port 0 is refused with BadPort, after
// the policy had its say.
func (e *Engine) try(now time.Time, t *Table, r Request, view *View) (Change, Decision, error) {
	d := e.terms.Policy.Decide(r, e.facts(now, t, r, view))
	if d.Action != Allow {
		return Change{}, d, &Error{Reason: d.Reason, Detail: d.Detail, External: d.OverExternalPort}
	}
	c, err := t.Plan(now, r, d, e.lifetime(r, d), uint16(rand.Uint32()))
	if err != nil {
		return c, d, err
	}
	if c.New.WAN = view.name(r.Kind); r.Kind == Pinhole6 {
		return c, d, nil
	}
	if err := view.Vacant(r.Transport, c.New.ExternalPort); err != nil {
		return Change{}, d, err
	}
	return c, d, nil
}

// facts are what the policy knows about a request.
func (e *Engine) facts(now time.Time, t *Table, r Request, view *View) Facts {
	f := t.Facts(now, r, view)
	if len(e.answers.of) > 0 {
		f.Answer = e.answers.find(now, t, &r, t.existing(r))
	}
	return f
}

// tryOthers looks for a port that nobody has and the policy permits. It starts
// at random, so that ports cannot be foreseen.
func (e *Engine) tryOthers(now time.Time, t *Table, r Request, view *View, d Decision, first error, n int) (Change, Decision, error) {
	last := first
	var held []Change // held by flows of other hosts, but better than nothing
	var why Decision
	for port := range e.candidates(t, r, d.Elsewhere, n) {
		var c Change
		if c, d, last = e.try(now, t, withPort(r, port), view); last == nil {
			if len(held) >= heldTries || !e.held(c) {
				return c, d, nil
			}
			held, why = append(held, c), d
			continue
		}
		if !d.OverExternalPort && !anotherPortHelps(ReasonOf(last)) {
			return Change{}, d, last
		}
	}
	if len(held) > 0 {
		return held[len(held)-1], why, nil
	}
	return Change{}, d, &Error{Reason: NoPorts, Detail: "no external port is left for this host", Err: last}
}

// candidates returns at most portTries ports that nobody has, at random places
// within the ranges that the policy hinted at, and at last the other half of a
// pair that the client holds already.
func (e *Engine) candidates(t *Table, r Request, within []PortRange, n int) iter.Seq[int] {
	if len(within) == 0 {
		within = anywhere
	}
	return func(yield func(int) bool) {
		for i := range portTries {
			w := within[i%len(within)]
			first := max(int(w.First), firstPort)
			if first > int(w.Last) {
				continue
			}
			port, ok := t.free(first + rand.IntN(int(w.Last)-first+1))
			if !ok || port > int(w.Last) {
				port, ok = t.free(first)
			}
			if ok && n > 1 {
				port = t.row(port, n, r)
			}
			if ok && port <= int(w.Last) && !yield(port) {
				return
			}
		}
		if port, ok := t.ownHalf(r.Transport, r.Client.ID()); ok {
			yield(port)
		}
	}
}

// row looks from port upwards for n free ports in a row, of r's parity where
// that is asked for; where there is no such row soon, port itself must do.
func (t *Table) row(port, n int, r Request) int {
	for at := port; at+n <= 1<<16 && at < port+portTries; {
		if r.Parity && (at^int(r.Internal.Port()))&1 != 0 {
			at++
			continue
		}
		if t.ports.rank(at+n) == t.ports.rank(at) {
			return at
		}
		at += 1
	}
	return port
}

func withPort(r Request, port int) Request {
	r.ExternalPort = uint16(port) // #nosec G115 -- callers pass 0..65535
	return r
}
