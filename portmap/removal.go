package portmap

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// Selector names mappings to remove. All its conditions must hold.
type Selector struct {
	Client              Client    // who asks
	Anybody             bool      // anybody's mappings: it is the owner who asks
	ID                  uint64    // not 0: only this one
	Transport           Transport // 0: both
	FirstPort, LastPort uint16    // external ports, inclusive, which pinholes have none of; 0 and 0: any
	Internal            uint16    // internal port; 0: any
	LastInternal        uint16    // 0: Internal alone; else the last of a range that begins with Internal
	Remotes             []Remote  // compared only when ExactRemotes
	ExactRemotes        bool
	Only                Via    // not 0: only what was asked for in this protocol
	Nonce               *Nonce // must be the mapping's own where the engine is strict
	strict              bool
}

func (s Selector) matches(m *Mapping) bool {
	port := m.ExternalPort
	return (s.ID == 0 || s.ID == m.ID) &&
		(s.Transport == 0 || s.Transport == m.Transport) &&
		(s.anyPort() || m.Kind == NAT4 && s.FirstPort <= port && port <= s.LastPort) &&
		s.inside(m.Internal.Port()) &&
		(!s.ExactRemotes || slices.Equal(s.Remotes, m.Remotes)) &&
		(s.Only == 0 || m.Claims.Has(s.Only))
}

func (s Selector) inAnyProtocol() Selector {
	s.Only = 0
	return s
}

func (s Selector) anyPort() bool { return s.FirstPort == 0 && s.LastPort == 0 }

func (s Selector) inside(port uint16) bool {
	return s.Internal == 0 || s.Internal == port || s.Internal < port && port <= s.LastInternal
}

// PlanRemoval returns what removing the selected mappings would change. Those of
// others are passed over; when nothing is left the error is NotOwner if there
// were such, AskedElsewhere where a port is named that only other protocols have
// opened, else NoSuchMapping.
func (t *Table) PlanRemoval(now time.Time, s Selector) ([]Change, error) {
	var changes []Change
	var elsewhere *Mapping
	foreign := false
	for m := range t.selectable(s) {
		switch {
		case !s.matches(m):
			if s.Internal != 0 && m.Client.ID() == s.Client.ID() && s.inAnyProtocol().matches(m) {
				elsewhere = m
			}
		case !s.Anybody && m.Client.ID() != s.Client.ID():
			foreign = true
		case s.strict && s.Nonce != nil && *s.Nonce != m.Nonce:
			return nil, wrongNonce(m, now)
		default:
			changes = append(changes, s.removal(m))
		}
	}
	if len(changes) > 0 {
		return changes, nil
	}
	if elsewhere != nil {
		return nil, &Error{Reason: AskedElsewhere, Left: max(0, elsewhere.Left(now)), Detail: fmt.Sprintf(
			"%s port %d stays open: it was opened by %s, not by %s",
			elsewhere.Transport, elsewhere.Internal.Port(), elsewhere.Claims, s.Only)}
	}
	if foreign {
		return nil, &Error{Reason: NotOwner, Detail: "the mapping belongs to another host"}
	}
	return nil, &Error{Reason: NoSuchMapping, Detail: "there is no such mapping"}
}

// planRevocation returns what ending m changes. Its external port stays with its
// client until then, which is the zero time for not at all.
func (t *Table) planRevocation(m *Mapping, reason Reason, holdUntil time.Time) (Change, error) {
	held := t.at(m)
	if held == nil || held.ID != m.ID {
		return Change{}, &Error{Reason: NoSuchMapping, Detail: "there is no such mapping"}
	}
	return Change{Event: RevokedEvent, Reason: reason, Old: held, holdUntil: holdUntil}, nil
}

// selectable walks what s can name at most: a range of ports, or, when only a
// client's own can be meant, those, or those behind one internal port.
func (t *Table) selectable(s Selector) iter.Seq[*Mapping] {
	if s.LastPort == 0 && !s.Anybody && s.Internal != 0 && s.LastInternal == 0 && s.Transport != 0 {
		return t.leading(s.Client.ID(), s.Transport, s.Internal)
	}
	return func(yield func(*Mapping) bool) {
		if s.FirstPort == s.LastPort && s.FirstPort != 0 && s.Transport != 0 && s.ExactRemotes {
			sl, _ := t.ports.get(int(s.FirstPort))
			if m := sl.find(s.Transport, s.Remotes); m != nil {
				yield(m)
			}
			return
		}
		if s.LastPort == 0 && !s.Anybody {
			for m := range t.Of(s.Client.ID()).own.all() {
				if !yield(m) {
					return
				}
			}
			return
		}
		for port, sl := range t.ports.from(int(s.FirstPort)) {
			if s.LastPort != 0 && port > int(s.LastPort) {
				return
			}
			for m := range sl.mappings.all() {
				if !yield(m) {
					return
				}
			}
		}
		if !s.anyPort() {
			return
		}
		for m := range t.pinholes.all() {
			if !yield(m) {
				return
			}
		}
	}
}

// removal ends m, in whatever other protocols its client has asked for it: who is
// told that a port is closed must not find it open.
func (s Selector) removal(m *Mapping) Change {
	if s.Anybody {
		return Change{Event: RevokedEvent, Reason: Revoked, Old: m}
	}
	return Change{Event: Deleted, Reason: Removed, Old: m}
}

func wrongNonce(m *Mapping, now time.Time) error {
	return &Error{Reason: WrongNonce, Left: max(0, m.Left(now)), Detail: fmt.Sprintf(
		"%s port %d was mapped with another nonce", m.Transport, m.Internal.Port())}
}
