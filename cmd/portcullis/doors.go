package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"portcullis/netif"
	"portcullis/pcp"
	"portcullis/portmap"
)

// doors are where the LANs are served: each has the sockets of every language at
// one address, or none of them.
type doors struct {
	g     *gate
	upnp  *upnp        // nil: switched off
	ports *portControl // nil: switched off; guarded by mu once doors are open

	mu     sync.Mutex
	open   map[string]*door // guarded by mu
	closed bool             // guarded by mu
}

// part is one server of a door, with its socket open.
type part struct {
	name     string
	run      func(context.Context) error // closes the socket
	close    func() error                // of a part that never runs
	keep     func(netif.LAN)             // tells it of other addresses and prefixes; may be nil
	announce func()                      // that clients must look at their mappings; may be nil
}

// door is what serves one LAN interface at one address.
type door struct {
	lan   atomic.Pointer[netif.LAN] // as it is now
	parts []*part
	stop  context.CancelFunc
	done  chan struct{}
}

// keep tells an open door of other prefixes.
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
	return l.OnLink(remote.Addr()) && local.Addr() == l.Addr
}

func newDoors(g *gate) (*doors, error) {
	ds := &doors{g: g, open: make(map[string]*door)}
	if g.cfg.PCP.NATPMP || g.cfg.PCP.PCP {
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

// follow opens, moves and closes doors until they are those of the LANs, and
// tells clients when the gate has another external address.
func (ds *doors) follow(ctx context.Context, lans []netif.LAN) error {
	ds.mu.Lock()
	if ds.closed {
		ds.mu.Unlock()
		return nil
	}
	if ds.ports != nil && ds.ports.follow() {
		ds.announce()
	}
	wanted := make(map[string]netif.LAN, len(lans))
	for _, l := range lans {
		wanted[l.Name] = l
	}
	var closing []*door
	for name, d := range ds.open {
		if l, ok := wanted[name]; ok && sameDoor(l, *d.lan.Load()) && !d.over() {
			d.keep(l)
			delete(wanted, name)
			continue
		}
		delete(ds.open, name)
		closing = append(closing, d)
	}
	ds.mu.Unlock()
	for _, d := range closing {
		d.stop()
		<-d.done
	}
	var failed error
	for _, l := range wanted {
		d, err := ds.openDoor(ctx, l)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		ds.mu.Lock()
		ds.open[l.Name] = d
		ds.mu.Unlock()
	}
	return failed
}

// announce tells the clients at every open door. The caller holds mu.
func (ds *doors) announce() {
	for _, d := range ds.open {
		for _, p := range d.parts {
			if p.announce != nil {
				p.announce()
			}
		}
	}
}

// sameDoor says whether a door can stay open: its sockets are bound to the
// interface and the address. Prefixes come and go more often, IPv6 ones with
// every announcement of a provider, and must not shut clients out for a second.
func sameDoor(a, b netif.LAN) bool { return a.Index == b.Index && a.Addr == b.Addr }

func (d *door) over() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// openDoor opens all sockets of a LAN, or none.
func (ds *doors) openDoor(ctx context.Context, l netif.LAN) (*door, error) {
	d := &door{done: make(chan struct{})}
	if ds.upnp != nil {
		parts, err := ds.upnp.parts(ctx, l, d.accepts)
		if err != nil {
			return nil, err
		}
		d.parts = parts
	}
	if ds.ports != nil {
		p, err := ds.ports.part(ctx, l)
		if err != nil {
			for _, other := range d.parts {
				err = errors.Join(err, other.close())
			}
			return nil, err
		}
		d.parts = append(d.parts, p)
	}
	d.keep(l)
	ctx, d.stop = context.WithCancel(ctx)
	var wait sync.WaitGroup
	for _, p := range d.parts {
		wait.Go(func() { ds.complain(l, p.name, p.run(ctx)) })
	}
	go func() {
		wait.Wait()
		close(d.done)
	}()
	names := make([]string, len(d.parts))
	for i, p := range d.parts {
		names[i] = p.name
	}
	ds.g.log.Info("serving a LAN", "interface", l.Name, "address", l.Addr, "servers", strings.Join(names, ","))
	return d, nil
}

// complain logs what ended a server before its time, and ends its door.
func (ds *doors) complain(l netif.LAN, what string, err error) {
	if err == nil {
		return
	}
	ds.g.log.Error("a LAN is no longer served", "interface", l.Name, "server", what, "error", err)
	ds.mu.Lock()
	d := ds.open[l.Name]
	ds.mu.Unlock()
	if d != nil {
		d.stop()
	}
}

// client says who is behind an address on a LAN interface (design: the client is
// who the socket says). A host on the wire has a MAC, by which it is known; until
// the kernel has asked for it the error is pcp.ErrUnknownHost.
func (g *gate) client(iface string, addr netip.Addr) (portmap.Client, error) {
	for _, l := range g.network.roles.Load().LAN {
		if l.Name != iface {
			continue
		}
		if !l.OnLink(addr) {
			return portmap.Client{}, fmt.Errorf("%s is not on %s", addr, iface)
		}
		mac, known, err := g.kernel.Neighbour(l.Index, addr)
		if err != nil {
			return portmap.Client{}, fmt.Errorf("neighbour %s: %w", addr, err)
		}
		if !known && l.HasMAC(addr) {
			return portmap.Client{}, errors.Join(pcp.ErrUnknownHost, g.kernel.Resolve(l.Index, addr))
		}
		return portmap.Client{Addr: addr, MAC: mac, Interface: iface}, nil
	}
	return portmap.Client{}, fmt.Errorf("%s is not served", iface)
}
