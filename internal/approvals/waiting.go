package approvals

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"portcullis/portmap"
)

// How much is remembered of what waits.
const (
	maxDevices = 64
	maxPerOne  = 8
	forgetting = 72 * time.Hour // after it was asked for the last time
)

// Waiting is one port of a device that was asked for and waits for the owner.
type Waiting struct {
	ID      uint64
	Request portmap.Request // as it was asked last, as far as an event tells
	Rule    string          // the rule that says "ask"; "": policy.default
	Count   uint64          // how often it was asked for
	First   time.Time
	Last    time.Time

	announced bool // to those who are told of it once
	missed    bool // by them, when they were to be told
}

// subject is what an answer about one port is about.
type subject struct {
	device    portmap.Device
	transport portmap.Transport // 0: all of the device
	port      uint16
}

func subjectOf(c *portmap.Client, tr portmap.Transport, port uint16) subject {
	return subject{c.ID().Device(), tr, port}
}

func (w *Waiting) subject() subject {
	return subjectOf(&w.Request.Client, w.Request.Transport, w.Request.Internal.Port())
}

// seen reports whether an event, or a later one, was taken in already (Announce).
func (w *Waiting) seen(ev *portmap.Event) bool { return !ev.Time.After(w.Last) }

// covers reports whether what is said about s is said about o.
func (s subject) covers(o subject) bool {
	return s.device == o.device && (s.transport == 0 || s == o)
}

// queue is what waits. It is guarded by Keeper.mu.
type queue struct {
	of map[portmap.Device][]*Waiting // the latest last
}

// add takes in a request; id is for one that is new.
func (q *queue) add(ev *portmap.Event, id func() uint64) {
	m := &ev.Mapping
	w := &Waiting{
		Request: portmap.Request{
			Client: ev.Client, Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort,
			Remotes: m.Remotes, Description: m.Description,
		},
		Rule: ev.Rule, Count: 1, First: ev.Time, Last: ev.Time,
	}
	d := ev.Client.ID().Device()
	list := q.of[d]
	if i := slices.IndexFunc(list, func(o *Waiting) bool { return o.subject() == w.subject() }); i >= 0 {
		w.ID, w.Count, w.First, w.announced, w.missed = list[i].ID, list[i].Count+1, list[i].First, list[i].announced, list[i].missed
		list = slices.Delete(list, i, i+1)
	} else {
		w.ID = id()
		if len(list) == maxPerOne {
			list = slices.Delete(list, 0, 1)
		}
	}
	if q.of == nil {
		q.of = make(map[portmap.Device][]*Waiting)
	}
	if _, known := q.of[d]; !known && len(q.of) >= maxDevices {
		delete(q.of, q.least())
	}
	q.of[d] = append(list, w)
}

// least returns the device whose requests are forgotten first: one that may be made up, of these
// one on the LAN that has the most, and of these the one that has been quiet for longest.
func (q *queue) least() (least portmap.Device) {
	on := make(map[string]int)
	for d := range q.of {
		on[d.Interface]++
	}
	var worst *Waiting
	for d, list := range q.of {
		last := list[len(list)-1]
		if worst == nil || worse(last, worst, on) {
			least, worst = d, last
		}
	}
	return least
}

func worse(a, b *Waiting, on map[string]int) bool {
	x, y := &a.Request.Client, &b.Request.Client
	switch {
	case x.Unheard != y.Unheard:
		return x.Unheard
	case on[x.Interface] != on[y.Interface]:
		return on[x.Interface] > on[y.Interface]
	}
	return a.Last.Before(b.Last)
}

// drop forgets what gone says.
func (q *queue) drop(d portmap.Device, gone func(*Waiting) bool) {
	if list := slices.DeleteFunc(q.of[d], gone); len(list) > 0 {
		q.of[d] = list
	} else {
		delete(q.of, d)
	}
}

// answered forgets what something was said about.
func (q *queue) answered(s subject) {
	q.drop(s.device, func(w *Waiting) bool { return s.covers(w.subject()) })
}

// forget drops what nobody has asked for lately.
func (q *queue) forget(now time.Time) {
	for d := range q.of {
		q.drop(d, func(w *Waiting) bool { return now.Sub(w.Last) > forgetting })
	}
}

// about returns what waits about a port of a device, nil where nothing does.
func (q *queue) about(s subject) *Waiting {
	for _, w := range q.of[s.device] {
		if w.subject() == s {
			return w
		}
	}
	return nil
}

// find returns what has a number, nil where nothing does.
func (q *queue) find(id uint64) *Waiting {
	for _, list := range q.of {
		for _, w := range list {
			if w.ID == id {
				return w
			}
		}
	}
	return nil
}

// all returns what waits, the latest first.
func (q *queue) all() []Waiting {
	var order []*Waiting // pointers: a sort of large values is code of its own
	for _, list := range q.of {
		order = append(order, list...)
	}
	sort.Slice(order, func(i, j int) bool {
		a, b := order[i], order[j]
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID)) < 0
	})
	all := make([]Waiting, len(order))
	for i, w := range order {
		all[i] = *w
	}
	return all
}
