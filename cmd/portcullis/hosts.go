package main

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/netif"
	"portcullis/portmap"
)

// A mapping is for a device, which the neighbour table knows by its MAC address.
// It ends when another device has the address, when the device is there but has
// given the address up, as it does with privacy addresses of IPv6, and when
// nobody has answered for very long. A device that sleeps keeps its mappings.
const (
	sweepEvery = 20 * time.Second
	askEvery   = time.Second      // a host that does not answer
	maxAsked   = 3                // times; then it matters whether the device is there
	goneAfter  = 30 * time.Minute // without an answer: DHCP may give the address to another one
	presence   = time.Minute      // how long ago a device that is there has answered
)

// hostKeeper looks after the hosts that mappings lead to.
type hostKeeper struct {
	g        *gate
	absent   map[portmap.Owner]absence
	suspects chan portmap.Owner // nobody has answered for them
	lost     chan struct{}      // holds one: changes of neighbours were not seen
}

// absence is of a host that does not answer.
type absence struct {
	since time.Time
	asked int
}

func newHostKeeper(g *gate) *hostKeeper {
	return &hostKeeper{
		g: g, absent: make(map[portmap.Owner]absence),
		suspects: make(chan portmap.Owner, 64), lost: make(chan struct{}, 1),
	}
}

// run looks after them until ctx ends.
func (k *hostKeeper) run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		k.watch(ctx)
	}()
	defer func() { <-watching }()
	sweep, ask := time.NewTicker(sweepEvery), time.NewTicker(askEvery)
	defer sweep.Stop()
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-k.suspects:
			k.check(ctx, o)
		case <-k.lost:
			k.sweep(ctx)
		case <-sweep.C:
			k.sweep(ctx)
		case <-ask.C:
			for o, a := range k.absent {
				if a.asked <= maxAsked {
					k.check(ctx, o)
				}
			}
		}
	}
}

// watch ends mappings as soon as the kernel sees another device.
func (k *hostKeeper) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.g.kernel.WatchNeighbours(ctx, func(ifindex int, addr netip.Addr, mac [6]byte) {
			for name, l := range k.g.lans() {
				if l.Index == ifindex {
					k.heard(ctx, portmap.Owner{Interface: name, Addr: addr, MAC: mac})
				}
			}
		}, k.look)
		if ctx.Err() != nil {
			return
		}
		k.g.log.Warn("changes of neighbours are not seen for a moment", "error", err)
		k.look()
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// heard takes in what the kernel knows of an address now.
func (k *hostKeeper) heard(ctx context.Context, now portmap.Owner) {
	if now.MAC != (portmap.MAC{}) {
		k.g.arrived(ctx, now)
		return
	}
	for o := range k.g.engine.Snapshot().OwnersAt(now.Interface, now.Addr) {
		select {
		case k.suspects <- o:
		default:
			k.look()
		}
	}
}

func (k *hostKeeper) look() {
	select {
	case k.lost <- struct{}{}:
	default: // it will look anyway
	}
}

func (k *hostKeeper) sweep(ctx context.Context) {
	table := k.g.engine.Snapshot()
	for o := range k.absent {
		if table.Of(o).Len() == 0 {
			delete(k.absent, o)
		}
	}
	for o := range table.Owners() {
		k.check(ctx, o)
	}
}

// check looks for a host, and ends its mappings when they must.
func (k *hostKeeper) check(ctx context.Context, o portmap.Owner) {
	l, served := k.g.lans()[o.Interface]
	if !served || o.MAC == (portmap.MAC{}) || !l.HasMAC(o.Addr) {
		return
	}
	e, err := k.ended(l, o)
	if err != nil && ctx.Err() == nil {
		k.g.log.Warn("cannot look after a host", "address", o.Addr, "error", err)
	}
	if e != nil {
		delete(k.absent, o)
		k.g.revokeAll(ctx, o, *e)
	}
}

// end is why mappings end that nobody asked to end.
type end struct {
	reason portmap.Reason
	why    string
}

var (
	replaced   = end{portmap.IdentityChanged, "another device has the address"}
	movedOn    = end{portmap.Revoked, "its address has left the device"}
	longGone   = end{portmap.Revoked, "the host has not been seen for long"}
	renumbered = end{portmap.Revoked, "its network is not on the LAN any more"}
)

// ended says why the mappings of a host must end, nil when they go on, and asks
// for it, so that the next look finds a fresh answer.
func (k *hostKeeper) ended(l netif.LAN, o portmap.Owner) (*end, error) {
	mac, known, err := k.g.kernel.Neighbour(l.Index, o.Addr)
	switch {
	case err != nil:
		return nil, err
	case known && mac != o.MAC:
		return &replaced, nil
	case known:
		delete(k.absent, o)
		return nil, k.g.kernel.Resolve(l.Index, o.Addr)
	}
	a, already := k.absent[o]
	if !already {
		a.since = time.Now()
	}
	a.asked++
	k.absent[o] = a
	if time.Since(a.since) > goneAfter {
		return &longGone, nil
	}
	if a.asked > maxAsked {
		for _, family := range []uint8{unix.AF_INET6, unix.AF_INET} {
			here, err := k.g.kernel.Present(l.Index, o.MAC, family, presence)
			switch {
			case err != nil:
				return nil, err
			case here:
				return &movedOn, nil
			}
		}
	}
	return nil, k.g.kernel.Resolve(l.Index, o.Addr)
}

// arrived ends the mappings of other devices that had the address of o.
func (g *gate) arrived(ctx context.Context, o portmap.Owner) {
	for before := range g.engine.Snapshot().OwnersAt(o.Interface, o.Addr) {
		if before.MAC != o.MAC {
			g.revokeAll(ctx, before, replaced)
		}
	}
}

// dropForeign ends the pinholes of addresses that are not on their LAN any more.
func (g *gate) dropForeign(ctx context.Context) {
	lans := g.lans()
	for m := range g.engine.Snapshot().Pinholes() {
		if l, served := lans[m.Client.Interface]; !served || !l.OnLink(m.Internal.Addr()) {
			g.revoke(ctx, m, renumbered)
		}
	}
}

// revokeAll ends all mappings of a host.
func (g *gate) revokeAll(ctx context.Context, o portmap.Owner, e end) {
	for m := range g.engine.Snapshot().Of(o).All() {
		g.revoke(ctx, m, e)
	}
}

// revoke ends a mapping.
func (g *gate) revoke(ctx context.Context, m portmap.Mapping, e end) {
	err := g.engine.Revoke(ctx, m, e.reason)
	switch {
	case portmap.ReasonOf(err) == portmap.NoSuchMapping || ctx.Err() != nil:
	case err != nil:
		g.log.Error("cannot revoke a mapping", "internal", m.Internal, "error", err)
	default:
		g.log.Info("mapping revoked", "internal", m.Internal, "mac", m.Client.MAC, "why", e.why)
	}
}

// lans gives the LANs as they are now, by interface.
func (g *gate) lans() map[string]netif.LAN {
	all := make(map[string]netif.LAN)
	for _, l := range g.network.roles.Load().LAN {
		all[l.Name] = l
	}
	return all
}
