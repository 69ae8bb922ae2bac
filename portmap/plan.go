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
	holdUntil    time.Time // not zero: the port stays with its owner until then
	grantReadyAt time.Time
}

// Facts gathers what the table knows for a policy's decision about r.
func (t *Table) Facts(now time.Time, r Request, v *View) Facts {
	d := r.Client.Owner().Device()
	dev, _ := t.devices.get(d)
	return Facts{
		Now:            now,
		View:           v,
		Renewal:        t.ownOn(r) != nil,
		Mappings:       t.count,
		ClientMappings: dev.mappings,
		GrantReadyAt:   dev.grantReadyAt,
		RuleMappings: func(rule string) int {
			n, _ := t.rules.get(ruleKey{d, rule})
			return n
		},
	}
}

// ownOn gives the mapping that r would renew, or nil.
func (t *Table) ownOn(r Request) *Mapping {
	s, _ := t.ports.get(int(r.External.Port()))
	m := s.find(r.Transport, r.Remotes)
	if m == nil || m.Client.Owner() != r.Client.Owner() {
		return nil
	}
	return m
}

// Plan says what granting r would change, or why it cannot be. The external
// port must be chosen already, and d must allow it. It changes nothing.
func (t *Table) Plan(now time.Time, r Request, d Decision, lifetime time.Duration) (Change, error) {
	owner := r.Client.Owner()
	if err := t.conflict(r.External.Port(), r.Transport, owner); err != nil {
		return Change{}, err
	}
	m := &Mapping{
		ID:          t.lastID + 1,
		Client:      r.Client,
		Kind:        r.Kind,
		Transport:   r.Transport,
		Internal:    r.Internal,
		External:    r.External,
		Remotes:     r.Remotes,
		Disabled:    r.Disabled,
		Description: r.Description,
		Rule:        d.Rule,
		Nonce:       r.Nonce,
		Created:     now,
		Expires:     now.Add(lifetime),
	}
	old := t.ownOn(r)
	if old == nil {
		return Change{Event: Granted, New: m, grantReadyAt: d.GrantReadyAt}, nil
	}
	m.ID, m.Created, m.Client.Via = old.ID, old.Created, old.Client.Via
	return Change{Event: Renewed, Old: old, New: m}, nil
}

// conflict says who stands in the way of owner's wish for an external port. A
// mapping that is there tells more than a reservation.
func (t *Table) conflict(port uint16, tr Transport, owner Owner) error {
	s, _ := t.ports.get(int(port))
	var reserved error
	for _, m := range s.mappings {
		o := m.Client.Owner()
		switch {
		case o == owner:
		case m.Transport == tr && o.Interface == owner.Interface && o.Addr == owner.Addr:
			return &Error{Reason: IdentityChanged, Detail: fmt.Sprintf(
				"%s port %d was mapped by another device that had this address", tr, port)}
		case m.Transport == tr:
			return &Error{Reason: PortTaken, Detail: fmt.Sprintf("%s port %d is mapped by another host", tr, port)}
		case m.Client.Via == ViaNATPMP:
			// RFC 6886 section 3.3: the companion port stays with the client.
			reserved = &Error{Reason: PortReserved, Detail: fmt.Sprintf(
				"%s port %d is reserved for the host that holds the same %s port", tr, port, m.Transport)}
		}
	}
	for _, h := range s.holds {
		if h.transport == tr && h.owner != owner {
			reserved = &Error{Reason: PortReserved, Detail: fmt.Sprintf(
				"%s port %d is kept for a moment for the host whose lease has just ended", tr, port)}
		}
	}
	return reserved
}

// free gives the lowest port from start upwards, not above 65535, that nobody
// holds for either transport, so that a pair is never split between clients.
// Ranks make it a binary search: [start, p] is full when it has as many slots
// as ports.
func (t *Table) free(start int) (int, bool) {
	below := t.ports.rank(start)
	lo, hi := start, 1<<16
	for lo < hi {
		mid := (lo + hi) / 2
		if t.ports.rank(mid+1)-below < mid-start+1 {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, lo < 1<<16
}

// ownHalf gives a port of which the owner holds the other transport only: the
// last resort when every number is in use.
func (t *Table) ownHalf(tr Transport, owner Owner) (int, bool) {
	for m := range t.Of(owner).All() {
		s, _ := t.ports.get(int(m.External.Port()))
		taken := slices.ContainsFunc(s.mappings, func(o *Mapping) bool { return o.Transport == tr })
		if !taken && t.conflict(m.External.Port(), tr, owner) == nil {
			return int(m.External.Port()), true
		}
	}
	return 0, false
}

// Selector names mappings to remove. All its conditions must hold.
type Selector struct {
	Client              Client    // who asks; with ViaOwner: anybody's mappings
	ID                  uint64    // not 0: only this one
	Transport           Transport // 0: both
	FirstPort, LastPort uint16    // external ports, inclusive; 0 and 0: any
	Internal            uint16    // internal port; 0: any
	Remotes             []Remote  // compared only when ExactRemotes
	ExactRemotes        bool
	Only                Via // not 0: only those made in this language
}

func (s Selector) matches(m *Mapping) bool {
	port := m.External.Port()
	return (s.ID == 0 || s.ID == m.ID) &&
		(s.Transport == 0 || s.Transport == m.Transport) &&
		(s.FirstPort == 0 && s.LastPort == 0 || s.FirstPort <= port && port <= s.LastPort) &&
		(s.Internal == 0 || s.Internal == m.Internal.Port()) &&
		(!s.ExactRemotes || slices.Equal(s.Remotes, m.Remotes)) &&
		(s.Only == 0 || s.Only == m.Client.Via)
}

// PlanRemoval says what removing the selected mappings would change. Those of
// others are passed over; when nothing is left the error is NotOwner if there
// were such, else NoSuchMapping.
func (t *Table) PlanRemoval(s Selector) ([]Change, error) {
	event, reason := Deleted, Removed
	if s.Client.Via == ViaOwner {
		event, reason = RevokedEvent, Revoked
	}
	var changes []Change
	foreign := false
	for _, sl := range t.ports.from(int(s.FirstPort)) {
		if len(sl.mappings) > 0 && s.LastPort != 0 && sl.mappings[0].External.Port() > s.LastPort {
			break
		}
		for _, m := range sl.mappings {
			switch {
			case !s.matches(m):
			case s.Client.Via != ViaOwner && m.Client.Owner() != s.Client.Owner():
				foreign = true
			default:
				changes = append(changes, Change{Event: event, Reason: reason, Old: m})
			}
		}
	}
	if len(changes) > 0 {
		return changes, nil
	}
	if foreign {
		return nil, &Error{Reason: NotOwner, Detail: "the mapping is another host's"}
	}
	return nil, &Error{Reason: NoSuchMapping, Detail: "there is no such mapping"}
}

// expired plans the end of every lease that has run out by now, at most limit
// of them. The port is kept for its client for a while, because some renew
// exactly at expiry.
func (t *Table) expired(now time.Time, hold time.Duration, limit int) []Change {
	var changes []Change
	for d, m := range t.leases.all() {
		if d.at.After(now) || len(changes) == limit {
			break
		}
		changes = append(changes, Change{Event: Expired, Reason: Ended, Old: m, holdUntil: now.Add(hold)})
	}
	return changes
}
