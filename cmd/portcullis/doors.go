package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"portcullis/netif"
)

// doors are where the LANs are served: each has the sockets of every language in
// one IP family, or none of them.
type doors struct {
	g     *gate
	upnp  *upnp        // nil: switched off
	ports *portControl // nil: switched off; guarded by mu once doors are open

	mu      sync.Mutex
	open    map[place]*door // guarded by mu
	serving bool            // guarded by mu; until then sockets are open and nobody reads them
	closed  bool            // guarded by mu
}

// place is where a door can be.
type place struct {
	lan string
	six bool // IPv6, else IPv4
	// also is another IPv4 address of the LAN than the one that clients are told:
	// of a second network, or a virtual one that several routers share. There only
	// control is a door of its own, because its socket is bound to the address; the
	// others speak from all of them. Zero: the LAN's own door.
	also netip.Addr
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.lan, o.lan), cmp.Compare(p.family(), o.family()), p.also.Compare(o.also))
}

func (p place) family() int {
	if p.six {
		return 6
	}
	return 4
}

// part is one server of a door, with its socket open.
type part struct {
	name     string
	run      func(context.Context) error // closes the socket
	close    func() error                // of a part that never runs
	keep     func(netif.LAN)             // tells it of other addresses and prefixes; may be nil
	announce func()                      // that clients must look at their mappings; may be nil
}

// door is what serves one LAN interface in one IP family.
type door struct {
	place place
	lan   atomic.Pointer[netif.LAN] // as it is now
	parts []*part
	stop  context.CancelFunc
	done  chan struct{}
}

// keep tells an open door of other addresses and prefixes.
func (d *door) keep(l netif.LAN) {
	d.lan.Store(&l)
	for _, p := range d.parts {
		if p.keep != nil {
			p.keep(l)
		}
	}
}

// accepts says whether a connection may be read.
func (d *door) accepts(remote, local netip.AddrPort) bool {
	l := d.lan.Load()
	return l.OnLink(remote.Addr()) && slices.Contains(l.Addrs, local.Addr())
}

func newDoors(g *gate) (*doors, error) {
	ds := &doors{g: g, open: make(map[place]*door)}
	if (g.cfg.PCP.NATPMP || g.cfg.PCP.PCP) && g.witness != nil {
		ds.ports = newPortControl(g)
	}
	var err error
	if g.cfg.UPnP.Enabled {
		ds.upnp, err = newUPnP(g)
	}
	return ds, err
}

// run serves until ctx ends, and waits for all doors to be closed.
func (ds *doors) run(ctx context.Context) error {
	var err error
	if ds.upnp != nil {
		err = ds.upnp.run(ctx)
	}
	<-ctx.Done()
	ds.mu.Lock()
	ds.closed = true
	open := ds.open
	ds.mu.Unlock()
	for _, d := range open {
		<-d.done
	}
	return err
}

// serve begins to answer at the doors that are open, and at once at each that opens
// from now on.
func (ds *doors) serve(ctx context.Context) {
	ds.mu.Lock()
	ds.serving = true
	if ds.ports != nil {
		ds.ports.follow() // servers announce themselves when they begin
	}
	open := slices.Collect(maps.Values(ds.open))
	ds.mu.Unlock()
	sort.Slice(open, func(i, j int) bool { return open[i].place.compare(open[j].place) < 0 })
	for _, d := range open {
		ds.begin(ctx, d)
	}
}

// abandon closes doors that were never served.
func (ds *doors) abandon() error {
	var failed error
	for _, d := range ds.open {
		failed = errors.Join(failed, closeParts(d.parts))
	}
	return failed
}

func closeParts(parts []*part) error {
	var failed error
	for _, p := range parts {
		failed = errors.Join(failed, p.close())
	}
	return failed
}

// follow opens, moves and closes doors until they are those of the LANs, and
// tells clients when their mappings have changed without them.
func (ds *doors) follow(ctx context.Context, lans []netif.LAN) error {
	ds.mu.Lock()
	if ds.closed {
		ds.mu.Unlock()
		return nil
	}
	if ds.ports != nil && ds.serving {
		ds.announce(ds.ports.follow())
	}
	wanted := ds.places(lans)
	var closing []*door
	for at, d := range ds.open {
		if l, ok := wanted[at]; ok && at.same(l, *d.lan.Load()) && !d.over() {
			d.keep(l)
			delete(wanted, at)
			continue
		}
		delete(ds.open, at)
		closing = append(closing, d)
	}
	serving := ds.serving
	ds.mu.Unlock()
	for _, d := range closing {
		d.stop()
		<-d.done
	}
	var failed error
	places := slices.Collect(maps.Keys(wanted))
	sort.Slice(places, func(i, j int) bool { return places[i].compare(places[j]) < 0 })
	for _, at := range places {
		d, err := ds.openDoor(ctx, at, wanted[at])
		switch {
		case err == nil:
		case passing(at.lan, err):
			ds.g.log.Debug("a LAN has changed while its sockets were opened", "interface", at.lan, "error", err)
			continue
		default:
			failed = errors.Join(failed, err)
			continue
		}
		ds.mu.Lock()
		ds.open[at] = d
		ds.mu.Unlock()
		if serving {
			ds.begin(ctx, d)
		}
	}
	return failed
}

// places gives where doors shall be: on every LAN in each family that it has
// addresses of.
func (ds *doors) places(lans []netif.LAN) map[place]netif.LAN {
	all := make(map[place]netif.LAN, 2*len(lans))
	for _, l := range lans {
		for i, a := range addrs4(l) {
			switch {
			case i == 0:
				all[place{lan: l.Name}] = l
			case ds.upnp != nil:
				all[place{lan: l.Name, also: a}] = l
			}
		}
		if len(addrs6(l)) > 0 {
			all[place{lan: l.Name, six: true}] = l
		}
	}
	return all
}

// announce tells the clients at every open door of these families. The caller
// holds mu.
func (ds *doors) announce(four, six bool) {
	for at, d := range ds.open {
		if at.six && !six || !at.six && !four {
			continue
		}
		for _, p := range d.parts {
			if p.announce != nil {
				p.announce()
			}
		}
	}
}

// same says whether a door can stay open: its sockets are bound to the interface,
// and those of IPv4 to its address. Prefixes and IPv6 addresses come and go more
// often, with every announcement of a provider, and must not shut clients out for
// a second.
func (p place) same(a, b netif.LAN) bool {
	return a.Index == b.Index && (p.six || p.also.IsValid() || a.Addr == b.Addr)
}

func (d *door) over() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// openDoor opens all sockets of a place, or none.
func (ds *doors) openDoor(ctx context.Context, at place, l netif.LAN) (*door, error) {
	d := &door{place: at, done: make(chan struct{})}
	d.lan.Store(&l)
	if ds.upnp != nil {
		parts, err := ds.upnp.parts(ctx, at, l, d.accepts)
		if err != nil {
			return nil, err
		}
		d.parts = parts
	}
	// NAT-PMP knows no IPv6.
	if ds.ports != nil && !at.also.IsValid() && (!at.six || ds.g.cfg.PCP.PCP) {
		p, err := ds.ports.part(ctx, at, l)
		if err != nil {
			return nil, errors.Join(err, closeParts(d.parts))
		}
		d.parts = append(d.parts, p)
	}
	d.keep(l)
	return d, nil
}

// begin answers at an open door until it is stopped.
func (ds *doors) begin(ctx context.Context, d *door) {
	ctx, d.stop = context.WithCancel(ctx)
	var wait sync.WaitGroup
	for _, p := range d.parts {
		wait.Go(func() { ds.complain(d, p.name, p.run(ctx)) })
	}
	go func() {
		wait.Wait()
		close(d.done)
	}()
	ds.welcome(d)
}

// welcome logs a door that is open.
func (ds *doors) welcome(d *door) {
	names := make([]string, len(d.parts))
	for i, p := range d.parts {
		names[i] = p.name
	}
	l := d.lan.Load()
	address := l.Addr
	switch {
	case d.place.six:
		address = addrs6(*l)[0]
	case d.place.also.IsValid():
		address = d.place.also
	}
	ds.g.log.Info("serving a LAN", "interface", l.Name, "family", d.place.family(),
		"address", address, "servers", strings.Join(names, ","))
}

// complain logs what ended a server before its time, and ends its door. It is opened
// again with the next change of the network, or reminder.
func (ds *doors) complain(d *door, what string, err error) {
	if err == nil {
		return
	}
	ds.g.log.Error("a LAN is no longer served", "interface", d.place.lan, "family", d.place.family(), "server", what, "error", err)
	d.stop()
	ds.g.follower.failed(err)
}
