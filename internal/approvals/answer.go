package approvals

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"portcullis/portmap"
)

// Reply is what the owner says.
type Reply struct {
	ID     uint64 // of what waits, or of an earlier answer
	Allow  bool
	For    time.Duration // 0: for good
	Once   bool
	Device bool // about all that the device asks for
}

// Waiting returns what waits, the latest first.
func (k *Keeper) Waiting() []Waiting {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting.all()
}

// Count returns how much waits.
func (k *Keeper) Count() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, list := range k.waiting.of {
		n += len(list)
	}
	return n
}

// Reconsider forgets what waits no longer by what the configuration says now, which waits tells
// of a request: the owner is not asked what his rules have answered.
func (k *Keeper) Reconsider(waits func(portmap.Request) bool) {
	for _, one := range k.Waiting() {
		if waits(one.Request) {
			continue
		}
		k.mu.Lock()
		k.waiting.answered(one.subject())
		k.mu.Unlock()
	}
}

// About returns the number of what waits about a port of a device, 0 where nothing does.
func (k *Keeper) About(c *portmap.Client, tr portmap.Transport, port uint16) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.waiting.about(subjectOf(c, tr, port)); w != nil {
		return w.ID
	}
	return 0
}

// Announce tells of what an event of the engine says that waits, once: where ring allows it, it
// returns its number. Otherwise that is 0, and missed reports that it was to be told of for the
// first time; it is when it is asked for again.
func (k *Keeper) Announce(ev *portmap.Event, ring func() bool) (id uint64, missed bool) {
	k.note(ev) // perhaps before Run comes to it
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.waiting.about(subjectOf(&ev.Client, ev.Mapping.Transport, ev.Mapping.Internal.Port()))
	switch {
	case w == nil || w.announced:
		return 0, false
	case ring():
		w.announced = true
		return w.ID, false
	}
	missed = !w.missed
	w.missed = true
	return 0, missed
}

// Number returns the number of what an event of the engine says that waits, 0 where it does not
// wait any more.
func (k *Keeper) Number(ev *portmap.Event) uint64 {
	k.note(ev)
	return k.About(&ev.Client, ev.Mapping.Transport, ev.Mapping.Internal.Port())
}

// List returns what the owner has said that holds, the latest first.
func (k *Keeper) List() []Answer {
	now, table := time.Now(), k.engine.Snapshot()
	list := slices.DeleteFunc(k.copy(), func(a Answer) bool { return a.over(now) })
	for i := range list {
		list[i].Mapping, list[i].Until = table.UsedBy(&list[i].Answer), list[i].end(now)
	}
	slices.Reverse(list)
	return list
}

// Answer has what the owner says hold, once it is on the disk, and returns what that closes. A
// *StoreError says that nothing has changed; any other error after the answer that not all
// could be closed yet.
func (k *Keeper) Answer(ctx context.Context, r Reply) (Answer, []portmap.Dropped, error) {
	k.turn.Lock()
	defer k.turn.Unlock()
	a, err := k.made(r)
	if err != nil {
		return a, nil, err
	}
	now, s := time.Now(), a.subject()
	list := slices.DeleteFunc(k.copy(), func(o Answer) bool {
		return o.over(now) || o.ID == r.ID || a.replaces(&o)
	})
	if len(list) >= maxAnswers {
		return a, nil, ErrTooMany
	}
	list = append(list, a)
	if err := k.save(list); err != nil {
		k.mu.Lock()
		k.unsaved = true // the file may be the new one, if the disk failed at the very end
		k.mu.Unlock()
		k.stir()
		return a, nil, &StoreError{Err: err}
	}
	k.mu.Lock()
	k.answers, k.unsaved, k.said = list, false, false
	k.waiting.answered(s)
	k.mu.Unlock()
	closed, err := k.hold(ctx, list)
	kind := portmap.Refused
	if a.Allow {
		kind = portmap.Approved
	}
	k.tell(kind, &a)
	return a, closed, err
}

// replaces reports whether an answer takes the place of another. One for a mapping that is open
// goes on beside a second one; and who is denied as a whole device has nothing left.
func (a *Answer) replaces(o *Answer) bool {
	if !a.Allow {
		return a.subject().covers(o.subject())
	}
	return a.subject() == o.subject() && (!o.Once || o.Mapping == 0)
}

// made returns the answer that a reply is, or ErrNothing.
func (k *Keeper) made(r Reply) (a Answer, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case r.Once && r.Device:
		return a, ErrOnce
	case k.waiting.find(r.ID) != nil:
		w := k.waiting.find(r.ID)
		q := &w.Request
		a = Answer{Client: q.Client, Description: q.Description, Rule: w.Rule}
		a.Answer = portmap.Answer{Device: q.Client.ID().Device(), Transport: q.Transport, Port: q.Internal.Port()}
	case k.find(r.ID) >= 0:
		a = k.answers[k.find(r.ID)]
		if a.Transport == 0 && r.Once {
			return a, ErrOnce
		}
		a.Until, a.ends, a.written, a.Mapping = time.Time{}, time.Time{}, time.Time{}, 0
	default:
		return a, ErrNothing
	}
	if r.Device {
		a.Transport, a.Port = 0, 0
	}
	if a.ID = r.ID; r.Once && k.find(r.ID) >= 0 {
		a.ID = k.number() // the old one may have been used
	}
	a.Allow, a.Once, a.Made = r.Allow, r.Once, time.Now()
	if r.For > 0 {
		a.Until = a.Made.Add(r.For)
	}
	return a, nil
}

// Revoke takes an answer back, and returns what that closes. A *StoreError says that this
// holds until a restart only.
func (k *Keeper) Revoke(ctx context.Context, id uint64) ([]portmap.Dropped, error) {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	i := k.find(id)
	k.mu.Unlock()
	if i < 0 {
		return nil, ErrNothing
	}
	list := k.copy()
	a := list[i]
	list = slices.Delete(list, i, i+1)
	unsaved := k.keep(list)
	closed, err := k.hold(ctx, list)
	k.tell(portmap.Withdrawn, &a)
	if err == nil && unsaved != nil {
		err = &StoreError{Holds: true, Err: unsaved}
	}
	return closed, err
}

// tell has those hear of an answer who follow the events.
func (k *Keeper) tell(kind portmap.EventType, a *Answer) {
	m := portmap.Mapping{Client: a.Client, Transport: a.Transport, Description: a.Description, Rule: a.Rule}
	m.Internal = netip.AddrPortFrom(a.Client.Addr, a.Port)
	if a.Client.Addr.Is6() {
		m.Kind = portmap.Pinhole6
	}
	k.engine.Answered(portmap.Event{Time: time.Now(), Type: kind, Rule: a.Rule, Client: a.Client, Mapping: m, Answer: a.Answer})
}
