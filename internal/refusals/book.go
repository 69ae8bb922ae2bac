package refusals

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"portcullis/portmap"
)

// How much is remembered.
const (
	maxDevices = 64
	maxPerOne  = 8    // requests of a device
	maxText    = 1024 // of a sentence, in octets
)

// Refusal is one request that was refused, as often as that happened.
type Refusal struct {
	Request portmap.Request // as it was asked last, as far as an event tells
	Time    time.Time       // of the last
	Count   uint64
	Reason  portmap.Reason
	Detail  string // the sentence
	Rule    string // the owner's rule that refused it, or ""

	Wall, NeedsRule bool // as in portmap.Decision
}

// Device is what was refused to one device.
type Device struct {
	Client  portmap.Client // as it asked last
	Last    time.Time
	LeftOut uint64    // how often requests were refused that are forgotten
	Refused []Refusal // the latest first
}

// Book is what was refused lately. The zero value is empty, and safe for concurrent use.
type Book struct {
	mu      sync.Mutex // guards what follows
	devices map[portmap.Device]*Device
}

// Run writes down what is refused, until the engine or ctx ends.
func (b *Book) Run(ctx context.Context, w *portmap.Watcher) error {
	defer w.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev, open := <-w.C:
			if !open {
				return ctx.Err()
			}
			b.Add(ev)
		}
	}
}

// Add writes down an event, where it is a refusal. Where the same is opened, it forgets what was
// refused: the owner is not told to write a rule that is written, nor to approve what is approved.
func (b *Book) Add(ev portmap.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev.Type {
	case portmap.Denied, portmap.Pending:
		if ev.Client.Owner() {
			return // he was told when he asked
		}
		d := b.device(ev.Client)
		d.Client, d.Last = ev.Client, ev.Time
		d.add(refusalOf(ev))
	case portmap.Granted:
		if !ev.Client.Owner() {
			b.opened(ev.Client.ID().Device(), &ev.Mapping)
			return
		}
		for id := range b.devices { // he has opened it for one of them
			b.opened(id, &ev.Mapping)
		}
	case portmap.Approved, portmap.Refused, portmap.Withdrawn:
		b.answered(&ev)
	}
}

// answered forgets what an earlier answer of the owner's refused, and, unless he has approved it,
// what was to be asked first: neither is so any more. b.mu is held.
func (b *Book) answered(ev *portmap.Event) {
	a := &ev.Answer
	b.drop(a.Device, func(r *Refusal) bool {
		about := a.Transport == 0 || a.Transport == r.Request.Transport && a.Port == r.Request.Internal.Port()
		return about && (r.Reason == portmap.OwnerDenied || r.Reason == portmap.NeedsApproval && ev.Type != portmap.Approved)
	})
}

// opened forgets what a mapping gives to a device. b.mu is held.
func (b *Book) opened(id portmap.Device, m *portmap.Mapping) {
	b.drop(id, func(r *Refusal) bool {
		q := &r.Request
		return q.Kind == m.Kind && q.Transport == m.Transport && q.Internal == m.Internal && slices.Equal(q.Remotes, m.Remotes) &&
			(q.ExternalPort == m.ExternalPort || q.ExternalPort == 0 || q.Kind == portmap.Pinhole6)
	})
}

// drop forgets what gone says. b.mu is held.
func (b *Book) drop(id portmap.Device, gone func(*Refusal) bool) {
	d := b.devices[id]
	if d == nil {
		return
	}
	d.Refused = slices.DeleteFunc(d.Refused, func(r Refusal) bool { return gone(&r) })
	if len(d.Refused) == 0 {
		delete(b.devices, id)
	}
}

func refusalOf(ev portmap.Event) Refusal {
	m := &ev.Mapping
	return Refusal{
		Request: portmap.Request{
			Client: ev.Client, Kind: m.Kind, Transport: m.Transport, Internal: m.Internal, ExternalPort: m.ExternalPort,
			Remotes: m.Remotes, Description: m.Description,
		},
		Time: ev.Time, Count: 1, Reason: ev.Reason, Detail: strings.Clone(ev.Detail[:min(len(ev.Detail), maxText)]), Rule: ev.Rule,
		Wall: ev.Wall, NeedsRule: ev.NeedsRule,
	}
}

// device returns the page of a device. b.mu is held.
func (b *Book) device(c portmap.Client) *Device {
	id := c.ID().Device()
	if d := b.devices[id]; d != nil {
		return d
	}
	if b.devices == nil {
		b.devices = make(map[portmap.Device]*Device)
	}
	if len(b.devices) >= maxDevices {
		delete(b.devices, b.least())
	}
	d := new(Device)
	b.devices[id] = d
	return d
}

// least returns the device that is forgotten first: one that may be made up, of these one on
// the LAN that has the most, and of these the one that has been quiet for longest.
func (b *Book) least() (least portmap.Device) {
	on := make(map[string]int)
	for id := range b.devices {
		on[id.Interface]++
	}
	var worst *Device
	for id, d := range b.devices {
		if worst == nil || worse(d, worst, on) {
			least, worst = id, d
		}
	}
	return least
}

func worse(a, b *Device, on map[string]int) bool {
	x, y := &a.Client, &b.Client
	switch {
	case x.Unheard != y.Unheard:
		return x.Unheard
	case on[x.Interface] != on[y.Interface]:
		return on[x.Interface] > on[y.Interface]
	}
	return a.Last.Before(b.Last)
}

// add puts a refusal first, and counts it where the same was refused before. The external
// port does not tell two apart: some programs ask for one after the other.
func (d *Device) add(r Refusal) {
	at := slices.IndexFunc(d.Refused, func(o Refusal) bool { return o.same(&r) })
	switch {
	case at >= 0:
		r.Count += d.Refused[at].Count
		d.Refused = slices.Delete(d.Refused, at, at+1)
	case len(d.Refused) == maxPerOne:
		last := len(d.Refused) - 1
		d.LeftOut += d.Refused[last].Count
		d.Refused = d.Refused[:last]
	}
	d.Refused = slices.Insert(d.Refused, 0, r)
}

func (r *Refusal) same(o *Refusal) bool {
	return r.Reason == o.Reason && r.Rule == o.Rule && r.Request.Client.Via == o.Request.Client.Via &&
		r.Request.Kind == o.Request.Kind && r.Request.Transport == o.Request.Transport && r.Request.Internal == o.Request.Internal
}

// Devices returns a copy of all that is remembered, the latest first.
func (b *Book) Devices() []Device {
	b.mu.Lock()
	defer b.mu.Unlock()
	order := make([]*Device, 0, len(b.devices)) // pointers: a sort of large values is code of its own
	for _, d := range b.devices {
		order = append(order, d)
	}
	sort.Slice(order, func(i, j int) bool {
		a, b := order[i], order[j]
		return cmp.Or(b.Last.Compare(a.Last), a.Client.Addr.Compare(b.Client.Addr)) < 0
	})
	all := make([]Device, len(order))
	for i, d := range order {
		all[i] = *d
		all[i].Refused = slices.Clone(d.Refused)
	}
	return all
}

// Last returns the latest refusal.
func (b *Book) Last() (r Refusal, some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.devices {
		if !some || d.Refused[0].Time.After(r.Time) {
			r, some = d.Refused[0], true
		}
	}
	return r, some
}
