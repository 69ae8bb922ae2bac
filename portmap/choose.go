package portmap

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

const (
	portTries = 256  // candidates for one request
	firstPort = 1024 // ports below are never chosen (abuse-cases section 2.2)
)

var anywhere = []PortRange{{firstPort, 1<<16 - 1}}

// planMap decides, chooses the port, and plans.
func (e *Engine) planMap(ctx context.Context, t *Table, r Request) (outcome, error) {
	if len(r.Description) > MaxDescription {
		r.Description = r.Description[:MaxDescription]
	}
	now, view := time.Now(), e.cfg.Gateway.View()
	c, d, err := e.try(ctx, now, t, r, view)
	if err != nil && !r.Exact && (d.OverExternalPort || anotherPortHelps(ReasonOf(err))) {
		c, d, err = e.tryOthers(ctx, now, t, r, view, d, err)
	}
	if err != nil {
		e.refused(now, r, d, err)
		return outcome{}, err
	}
	return outcome{[]Change{c}, []Mapping{*c.New}}, nil
}

// anotherPortHelps says whether who asked for any port should get another one.
func anotherPortHelps(r Reason) bool {
	return r == PortTaken || r == PortReserved || r == PortInUse || r == BadPort || r == IdentityChanged
}

// try plans r with the external port it names; port 0 is refused with BadPort,
// after the policy had its say.
func (e *Engine) try(ctx context.Context, now time.Time, t *Table, r Request, view *View) (Change, Decision, error) {
	d := e.cfg.Policy.Decide(r, t.Facts(now, r, view))
	if d.Action != Allow {
		return Change{}, d, &Error{Reason: d.Reason, Detail: d.Detail}
	}
	port := r.External.Port()
	if port == 0 {
		return Change{}, d, &Error{Reason: BadPort, Detail: "external port 0 cannot be mapped"}
	}
	c, err := t.Plan(now, r, d, e.lifetime(r, d))
	if err != nil || c.Event == Renewed {
		return c, d, err
	}
	where, err := e.cfg.Gateway.InUse(ctx, r.Transport, port)
	if err != nil {
		return Change{}, d, &Error{Reason: FirewallFailed, Detail: "cannot tell whether the port is in use", Err: err}
	}
	if where != "" {
		return Change{}, d, &Error{Reason: PortInUse, Detail: fmt.Sprintf("%s port %d is in use: %s", r.Transport, port, where)}
	}
	return c, d, nil
}

// tryOthers looks for a port that nobody has and the policy permits. It starts
// at random, so that ports cannot be foreseen.
func (e *Engine) tryOthers(ctx context.Context, now time.Time, t *Table, r Request, view *View, d Decision, first error) (Change, Decision, error) {
	last := first
	for port := range e.candidates(t, r, d.Elsewhere) {
		var c Change
		if c, d, last = e.try(ctx, now, t, withPort(r, port), view); last == nil {
			return c, d, nil
		}
		if !d.OverExternalPort && !anotherPortHelps(ReasonOf(last)) {
			return Change{}, d, last
		}
	}
	return Change{}, d, &Error{Reason: NoPorts, Detail: "no external port is left for this host", Err: last}
}

// candidates gives at most portTries ports that nobody has, at random places
// within the ranges that the policy hinted at, and at last the other half of a
// pair that the client holds already.
func (e *Engine) candidates(t *Table, r Request, within []PortRange) iter.Seq[int] {
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
			if ok && port <= int(w.Last) && !yield(port) {
				return
			}
		}
		if port, ok := t.ownHalf(r.Transport, r.Client.Owner()); ok {
			yield(port)
		}
	}
}

func withPort(r Request, port int) Request {
	r.External = addrPort(r.External.Addr(), port)
	return r
}
