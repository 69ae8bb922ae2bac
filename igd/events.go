package igd

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"portcullis/internal/gena"
	"portcullis/internal/http1"
	"portcullis/portmap"
)

// Notifier is what the device needs of gena's Notifier.
type Notifier interface {
	Handle(r *http1.Request, service string, sub gena.Subscriber, initial func() []gena.Property) *http1.Response
	PublishEach(service string, changed func(gena.Subscriber) []gena.Property)
}

// moment is when an evented variable is sent.
type moment uint8

const (
	never    moment = iota // it is not evented
	once                   // it does not change: in the first event only
	ofWAN                  // when it changes with the connection, in either family
	ofCount                // when the subscriber gains or loses a mapping
	ofChange               // when a mapping of the subscriber's changes in any way
)

// gatherTime passes between a change and the event, so that what belongs
// together (a range that is deleted) is told once (WANIPConnection:2 section
// 2.3.23: one SystemUpdateID event even when several rules are hit).
const gatherTime = 20 * time.Millisecond

// topic names an event URL: each version of the gateway has its own, so that
// SystemUpdateID is told only to those who were shown version 2.
func topic(igd int, s *service) string { return digit(igd) + "/" + s.name }

// event answers SUBSCRIBE and UNSUBSCRIBE. A server that listens on several addresses of
// the gateway knows which one the subscriber came to (UDA 1.1 annex A: events keep the
// scope).
func (h *Handler) event(r *http1.Request, s *service, v visitor) *http1.Response {
	sub := gena.Subscriber{
		Addr:  r.Remote.Addr(), // with its zone, where it has one
		Local: r.Local.Addr(), Interface: v.client.Interface, Device: deviceOf(v.client),
	}
	return h.device.notifier.Handle(r, topic(v.igd, s), sub, func() []gena.Property {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		now, err := v.counts(ctx)
		if err != nil { // the next change tells the rest
			h.device.log.Warn("first event does not count mappings", "interface", h.iface, "subscriber", sub.Addr, "err", err)
			return properties(s, v, once, ofWAN)
		}
		return properties(s, now, once, ofWAN, ofCount, ofChange)
	})
}

// deviceOf names a client's machine, where its MAC is known.
func deviceOf(c portmap.Client) string {
	if c.MAC == (portmap.MAC{}) {
		return ""
	}
	return c.Interface + " " + c.MAC.String()
}

// clientOf returns whose mappings a subscriber counts, who was known at that time.
func clientOf(sub gena.Subscriber) portmap.ClientID {
	id := portmap.ClientID{Interface: sub.Interface, Addr: sub.Addr.WithZone("")}
	if mac, known := strings.CutPrefix(sub.Device, sub.Interface+" "); known {
		id.MAC, _ = portmap.ParseMAC(mac) // deviceOf wrote it
	}
	return id
}

// properties returns the values of the evented variables of these moments, in the
// order of the table.
func properties(s *service, v visitor, moments ...moment) []gena.Property {
	var all []gena.Property
	for _, sv := range s.events(under(s.latest, v.igd)) {
		for _, m := range moments {
			if sv.evented == m {
				all = append(all, gena.Property{Name: sv.name, Value: sv.value(v)})
			}
		}
	}
	return all
}

// Run notifies subscribers of changes, until ctx ends: changes of mappings, as
// the engine's events report them, and those of the connection, IPv6 included,
// at each signal on wan. Without a Notifier it only waits.
func (d *Device) Run(ctx context.Context, events <-chan portmap.Event, wan <-chan struct{}) error {
	if d.notifier == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	told := d.wanProperties()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-wan:
			if !open {
				wan = nil
			}
			now := d.wanProperties()
			d.publishWAN(told, now)
			told = now
		case ev, open := <-events:
			if !open { // the engine has stopped, and with it the program
				events = nil
				continue
			}
			d.publishMappings(ctx, gather(ctx, ev, events))
		}
	}
}

// changes is what happened to whose mappings within the time to gather.
type changes struct {
	counts map[portmap.ClientID]bool // true: the number of mappings may have changed
	all    bool                      // events were lost: anything may have changed
}

// add leaves pinholes out: what is told of mappings counts none of them.
func (c *changes) add(ev portmap.Event) {
	if ev.Mapping.Kind == portmap.Pinhole6 {
		return
	}
	client := ev.Mapping.Client.ID()
	switch ev.Type {
	case portmap.Resync:
		c.all = true
	case portmap.Granted, portmap.Deleted, portmap.Expired, portmap.RevokedEvent:
		c.counts[client] = true
	case portmap.Renewed:
		if _, seen := c.counts[client]; !seen {
			c.counts[client] = false
		}
	}
}

func gather(ctx context.Context, first portmap.Event, events <-chan portmap.Event) changes {
	c := changes{counts: make(map[portmap.ClientID]bool)}
	c.add(first)
	enough := time.NewTimer(gatherTime)
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return c
		case <-enough.C:
			return c
		case ev, open := <-events:
			if !open {
				return c
			}
			c.add(ev)
		}
	}
}

// publishMappings notifies each subscriber of its own mappings and of nobody
// else's (abuse case K7). The number and the SystemUpdateID go into one message
// (WANIPConnection:2 section 2.3.23).
func (d *Device) publishMappings(ctx context.Context, c changes) {
	if len(c.counts) == 0 && !c.all {
		return
	}
	told := d.counted(ctx, d.concerned(c))
	d.eachTopic(func(igd int, s *service) {
		d.notifier.PublishEach(topic(igd, s), func(sub gena.Subscriber) []gena.Property {
			v, concerned := told[neighbourOf(sub)]
			if !concerned {
				return nil
			}
			v.visitor.igd = igd
			if v.count {
				return properties(s, v.visitor, ofCount, ofChange)
			}
			return properties(s, v.visitor, ofChange)
		})
	})
}

// neighbour is how a subscriber and the client of a mapping find each other.
type neighbour struct {
	iface string
	addr  netip.Addr
}

func neighbourOf(sub gena.Subscriber) neighbour {
	return neighbour{sub.Interface, sub.Addr.WithZone("")}
}

// news is what a subscriber is told of.
type news struct {
	visitor visitor
	count   bool // the number of mappings too, not only that something changed
}

// concerned returns the subscribers whose mappings changed, or may have.
func (d *Device) concerned(c changes) map[neighbour]news {
	changed := make(map[neighbour]news, len(c.counts))
	for id, count := range c.counts {
		at := neighbour{id.Interface, id.Addr}
		changed[at] = news{visitorAs(d, id), count || changed[at].count}
	}
	found := make(map[neighbour]news)
	d.eachTopic(func(igd int, s *service) {
		d.notifier.PublishEach(topic(igd, s), func(sub gena.Subscriber) []gena.Property {
			at := neighbourOf(sub)
			n, known := changed[at]
			switch {
			case !known && c.all:
				found[at] = news{visitorAs(d, clientOf(sub)), true}
			case known:
				n.count = n.count || c.all
				found[at] = n
			}
			return nil
		})
	})
	return found
}

func visitorAs(d *Device, id portmap.ClientID) visitor {
	return visitor{device: d, client: portmap.Client{Interface: id.Interface, Addr: id.Addr, MAC: id.MAC}}
}

// counted asks how many mappings they have. Nobody holds the Notifier meanwhile.
func (d *Device) counted(ctx context.Context, all map[neighbour]news) map[neighbour]news {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for at, n := range all {
		var err error
		if n.visitor, err = n.visitor.counts(ctx); err != nil {
			d.log.Warn("subscriber not told of its mappings", "interface", at.iface, "subscriber", at.addr, "err", err)
			delete(all, at)
			continue
		}
		all[at] = n
	}
	return all
}

// wanProperties returns the properties of the connection, by topic.
func (d *Device) wanProperties() map[string][]gena.Property {
	all := make(map[string][]gena.Property)
	d.eachTopic(func(igd int, s *service) {
		all[topic(igd, s)] = properties(s, visitor{device: d, igd: igd}, ofWAN)
	})
	return all
}

// publishWAN sends what is different.
func (d *Device) publishWAN(before, now map[string][]gena.Property) {
	for t, values := range now {
		var changed []gena.Property
		for i, p := range values {
			if p != before[t][i] {
				changed = append(changed, p)
			}
		}
		if len(changed) > 0 {
			d.notifier.PublishEach(t, func(gena.Subscriber) []gena.Property { return changed })
		}
	}
}

func (d *Device) eachTopic(visit func(igd int, s *service)) {
	for _, igd := range igdVersions {
		for _, s := range d.services {
			if s.offered(igd) {
				visit(igd, s)
			}
		}
	}
}
