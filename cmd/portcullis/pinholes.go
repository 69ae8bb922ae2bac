package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/netif"
	"portcullis/portmap"
)

// How a pinhole ends whose address has left its host, as privacy addresses do:
// when nobody has answered for the address in three questions, while the device
// itself answered for another one. A device that sleeps keeps its pinholes until
// their leases end.
const (
	sweepEvery = 20 * time.Second
	maxMissed  = 3
	presence   = time.Minute
)

// pinholeKeeper looks after the addresses that pinholes are for. Those of the
// gate's own doing change with the network; these change without a word.
type pinholeKeeper struct {
	g      *gate
	missed map[uint64]int // questions without an answer, by mapping
}

// run looks after them until ctx ends.
func (k *pinholeKeeper) run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			k.sweep(ctx)
		}
	}
}

func (k *pinholeKeeper) sweep(ctx context.Context) {
	lans := k.g.lans()
	missed := make(map[uint64]int, len(k.missed))
	for m := range k.g.engine.Snapshot().Pinholes() {
		l, served := lans[m.Client.Interface]
		if !served || !l.HasMAC(m.Internal.Addr()) {
			continue
		}
		gone, err := k.gone(l, &m, missed)
		if err != nil {
			k.g.log.Warn("cannot look after a pinhole", "internal", m.Internal, "error", err)
		}
		if gone {
			k.g.revoke(ctx, m, "its address has left the device")
		}
	}
	k.missed = missed
}

// gone says whether the address of a pinhole has left its device, which is here.
func (k *pinholeKeeper) gone(l netif.LAN, m *portmap.Mapping, missed map[uint64]int) (bool, error) {
	_, known, err := k.g.kernel.Neighbour(l.Index, m.Internal.Addr())
	if known || err != nil {
		return false, err
	}
	n := k.missed[m.ID] + 1
	if n <= maxMissed {
		missed[m.ID] = n
		return false, k.g.kernel.Resolve(l.Index, m.Internal.Addr())
	}
	missed[m.ID] = n
	for _, family := range []uint8{unix.AF_INET6, unix.AF_INET} {
		here, err := k.g.kernel.Present(l.Index, m.Client.MAC, family, presence)
		if here || err != nil {
			return here, err
		}
	}
	return false, k.g.kernel.Resolve(l.Index, m.Internal.Addr())
}

// renumbered ends the pinholes of addresses that are not on their LAN any more.
func (g *gate) renumbered(ctx context.Context) {
	lans := g.lans()
	for m := range g.engine.Snapshot().Pinholes() {
		if l, served := lans[m.Client.Interface]; !served || !l.OnLink(m.Internal.Addr()) {
			g.revoke(ctx, m, "its network is not on the LAN any more")
		}
	}
}

// revoke ends a mapping by the owner's hand.
func (g *gate) revoke(ctx context.Context, m portmap.Mapping, why string) {
	_, err := g.engine.Unmap(ctx, portmap.Selector{Client: portmap.Client{Via: portmap.ViaOwner}, ID: m.ID})
	switch {
	case portmap.ReasonOf(err) == portmap.NoSuchMapping || ctx.Err() != nil:
	case err != nil:
		g.log.Error("cannot revoke a pinhole", "internal", m.Internal, "error", err)
	default:
		g.log.Info("pinhole revoked", "internal", m.Internal, "mac", m.Client.MAC, "why", why)
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
