package main

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/netif"
	"portcullis/portmap"
)

// A mapping is for a device, which the neighbour table knows by its MAC address. It
// is suspended while another device has the address, for proxies of ARP and bonded
// links change hands now and then, and ends when that one stays; it ends when the
// device is there but has given the address up, as it does with privacy addresses of
// IPv6, and when it has not been seen for very long. A device that sleeps keeps its
// mappings.
const (
	sweepEvery = 20 * time.Second
	askEvery   = time.Second      // a host that does not answer
	maxAsked   = 3                // times; then it matters whether the device is there
	goneAfter  = 30 * time.Minute // without an answer: DHCP may give the address to another one
	presence   = time.Minute      // how long ago a device that is there has answered

	// unheardAfter is how long a host may be silent that has never been heard.
	unheardAfter = 5 * time.Second

	// An address that changes hands again within forgotten is believed to be back
	// only when it has stayed for settled: each change is a transaction of the
	// kernel, and lines of the log and the journal.
	forgotten = 10 * time.Minute
	settled   = time.Minute
)

// hostKeeper looks after the hosts that mappings lead to. Its maps are run's alone.
type hostKeeper struct {
	g        *gate
	absent   map[portmap.Owner]absence
	shared   map[portmap.Owner]handover
	answered map[portmap.Owner]bool // has answered the kernel in this run
	heard    heard                  // devices that have
	suspects chan portmap.Owner     // another device has their address, or nobody, or they are back
	lost     chan struct{}          // holds one: changes of neighbours were not seen
	crowded  bool                   // the owner was told that room is running out
}

// absence is of a host that does not answer.
type absence struct {
	since time.Time
	asked int
}

// handover is of an address that another device has had.
type handover struct {
	times int       // that it changed hands
	last  time.Time // when it did
	back  time.Time // since when its own device has it again; zero: it has not
}

func newHostKeeper(g *gate) *hostKeeper {
	return &hostKeeper{
		g: g, absent: make(map[portmap.Owner]absence),
		shared: make(map[portmap.Owner]handover), answered: make(map[portmap.Owner]bool),
		suspects: make(chan portmap.Owner, 64), lost: make(chan struct{}, 1),
	}
}

// every is how often all hosts are looked at: also often enough that an endless lease
// does not end under a host that is there.
func (k *hostKeeper) every() time.Duration {
	return max(time.Second, min(sweepEvery, k.g.cfg.Lease.Max/4))
}

// run looks after them until ctx ends.
func (k *hostKeeper) run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		k.watch(ctx)
	}()
	defer func() { <-watching }()
	k.meet(true)
	sweep, ask := time.NewTicker(k.every()), time.NewTicker(askEvery)
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
			k.meet(false)
		case <-ask.C:
			k.introduce(ctx)
			k.warn(k.g.engine.Snapshot())
			for o, a := range k.absent {
				if a.asked <= maxAsked || k.invented(o) {
					k.check(ctx, o)
				}
			}
			for o, h := range k.shared {
				if !h.back.IsZero() {
					k.check(ctx, o)
				}
			}
		}
	}
}

// watch looks at a host as soon as the kernel sees another device in its place, or
// nobody, or itself again.
func (k *hostKeeper) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.g.kernel.WatchNeighbours(ctx, func(ifindex int, addr netip.Addr, s netif.Sighting) {
			for name, l := range k.g.lans() {
				if l.Index == ifindex {
					k.saw(portmap.Owner{Interface: name, Addr: addr, MAC: s.MAC}, s.Answered)
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

// saw takes in what the kernel knows of an address now.
func (k *hostKeeper) saw(now portmap.Owner, answered bool) {
	if answered {
		k.heard.note(now.MAC, time.Now())
	}
	table := k.g.engine.Snapshot()
	for o := range table.OwnersAt(now.Interface, now.Addr) {
		if o.MAC == now.MAC && suspendedSince(table, o).IsZero() {
			continue // as it should be
		}
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
	gone := func(o portmap.Owner) bool { return table.Of(o).Len() == 0 }
	maps.DeleteFunc(k.absent, func(o portmap.Owner, _ absence) bool { return gone(o) })
	maps.DeleteFunc(k.answered, func(o portmap.Owner, _ bool) bool { return gone(o) })
	maps.DeleteFunc(k.shared, func(o portmap.Owner, h handover) bool { return gone(o) || time.Since(h.last) > forgotten })
	for o := range table.Owners() {
		k.check(ctx, o)
	}
}

// meet looks at all neighbours for those that have answered, and asks the others if
// ask is set: they may have answered in the run before.
func (k *hostKeeper) meet(ask bool) {
	for name, l := range k.g.lans() {
		var silent []netip.Addr
		err := k.g.kernel.Neighbours(l.Index, func(addr netip.Addr, s netif.Sighting) {
			if s.Answered {
				k.heard.note(s.MAC, time.Now())
			} else {
				silent = append(silent, addr)
			}
		})
		if ask {
			for _, addr := range silent {
				err = errors.Join(err, k.g.kernel.Resolve(l.Index, addr))
			}
		}
		if err != nil {
			k.g.log.Warn("cannot look at all neighbours", "interface", name, "error", err)
		}
	}
}

// introduce tells the rules that limit datagrams which devices have answered.
func (k *hostKeeper) introduce(ctx context.Context) {
	if k.g.witness == nil {
		return
	}
	if macs, news := k.heard.all(); news {
		if err := k.g.witness.Know(ctx, macs); err != nil && ctx.Err() == nil {
			k.g.log.Warn("cannot tell the firewall which devices are known", "error", err)
		}
	}
}

// warn tells the owner when room for mappings runs out: policy keeps what is left
// for devices that have few.
func (k *hostKeeper) warn(table *portmap.Table) {
	most := k.g.cfg.Limits.Mappings
	switch n := table.Len(); {
	case n <= most/2:
		k.crowded = false
	case n >= most*3/4 && !k.crowded:
		k.crowded = true
		k.g.log.Warn("mappings are running out", "mappings", n, "limit", most, "hosts", table.Hosts())
	}
}

// check looks for a host, and does to its mappings what must be done.
func (k *hostKeeper) check(ctx context.Context, o portmap.Owner) {
	l, served := k.g.lans()[o.Interface]
	if !served || o.MAC == (portmap.MAC{}) || !l.HasMAC(o.Addr) {
		return
	}
	seen, known, err := k.g.kernel.Sight(l.Index, o.Addr)
	var over *end
	switch {
	case err != nil:
	case !known:
		over, err = k.missing(l, o)
	case seen.MAC != o.MAC:
		over, err = k.displaced(ctx, o, seen.MAC)
	default:
		err = k.here(ctx, o, seen)
	}
	if over != nil {
		delete(k.absent, o)
		k.g.revokeAll(ctx, o, *over)
	} else if err == nil {
		err = k.g.kernel.Resolve(l.Index, o.Addr) // so that the next look finds a fresh answer
	}
	if err != nil && ctx.Err() == nil {
		k.g.log.Warn("cannot look after a host", "address", o.Addr, "error", err)
	}
}

// end is why mappings end that nobody asked to end.
type end struct {
	reason portmap.Reason
	why    string
}

var (
	replaced   = end{portmap.IdentityChanged, "another device has kept the address"}
	movedOn    = end{portmap.Revoked, "its address has left the device"}
	longGone   = end{portmap.Revoked, "the host has not been seen for long"}
	unheard    = end{portmap.Revoked, "nobody has ever answered for the host"}
	renumbered = end{portmap.Revoked, "its network is not on the LAN any more"}
)

// missing says why the mappings of a host must end for which nobody answers, nil when
// they go on.
func (k *hostKeeper) missing(l netif.LAN, o portmap.Owner) (*end, error) {
	a, already := k.absent[o]
	if !already {
		a.since = time.Now()
	}
	a.asked++
	k.absent[o] = a
	if time.Since(a.since) > goneAfter {
		return &longGone, nil
	}
	if a.asked <= maxAsked {
		return nil, nil
	}
	if k.invented(o) {
		if time.Since(a.since) > unheardAfter {
			return &unheard, nil
		}
		return nil, nil
	}
	for _, family := range []uint8{unix.AF_INET6, unix.AF_INET} {
		here, err := k.g.kernel.Present(l.Index, o.MAC, family, presence)
		switch {
		case err != nil:
			return nil, err
		case here:
			return &movedOn, nil
		}
	}
	return nil, nil
}

// invented reports whether a host has never answered, neither when it asked nor since:
// it takes one frame to make up an address and its MAC, and what is made up must not
// keep others from their share for half an hour. What the last run held is not.
func (k *hostKeeper) invented(o portmap.Owner) bool {
	for m := range k.g.engine.Snapshot().Of(o).All() {
		if !m.Client.Unheard {
			return false
		}
	}
	return !k.answered[o]
}

// displaced suspends the mappings of a host whose address another device has, and
// says why they must end when that one stays.
func (k *hostKeeper) displaced(ctx context.Context, o portmap.Owner, by portmap.MAC) (*end, error) {
	h := k.shared[o]
	h.back = time.Time{}
	table := k.g.engine.Snapshot()
	since := suspendedSince(table, o)
	most := goneAfter
	if k.invented(o) { // or many such, by turns at a few addresses, would keep others from their share
		most = settled
	}
	if !since.IsZero() && time.Since(since) > most {
		return &replaced, nil
	}
	for m := range table.Of(o).All() {
		if m.Suspended.IsZero() {
			h.times, h.last = h.times+1, time.Now()
			k.g.log.Info("mappings suspended", "address", o.Addr, "mac", o.MAC, "other_mac", by, "why", "another device has the address")
			k.shared[o] = h
			return nil, k.g.engine.Suspend(ctx, o)
		}
	}
	k.shared[o] = h
	return nil, nil
}

// here opens the mappings of a host again that were suspended, and lets its endless
// leases go on.
func (k *hostKeeper) here(ctx context.Context, o portmap.Owner, seen netif.Sighting) error {
	delete(k.absent, o)
	if seen.Answered {
		k.answered[o] = true
	}
	table := k.g.engine.Snapshot()
	if !suspendedSince(table, o).IsZero() {
		h := k.shared[o]
		if h.back.IsZero() {
			h.back = time.Now()
		}
		k.shared[o] = h
		if h.times > 1 && time.Since(h.back) < settled {
			return k.g.engine.Keep(ctx, o)
		}
		h.back = time.Time{}
		k.shared[o] = h
		k.g.log.Info("mappings resumed", "address", o.Addr, "mac", o.MAC, "why", "its own device has the address again")
		if err := k.g.engine.Resume(ctx, o); err != nil {
			return err
		}
	}
	if seen.Seen && k.due(table, o) {
		return k.g.engine.Seen(ctx, o)
	}
	return nil
}

// due reports whether an endless lease of o has less than half of its time left. Until
// then it is not made longer, for that is a transaction and a line of the journal.
func (k *hostKeeper) due(table *portmap.Table, o portmap.Owner) bool {
	now := time.Now()
	for m := range table.Of(o).All() {
		if m.Endless && m.LeaseLeft(portmap.ViaUPnP, now) < k.g.cfg.Lease.Max/2 {
			return true
		}
	}
	return false
}

// suspendedSince gives when the first mapping of o was suspended, the zero time when
// none is.
func suspendedSince(table *portmap.Table, o portmap.Owner) time.Time {
	var since time.Time
	for m := range table.Of(o).All() {
		if !m.Suspended.IsZero() && (since.IsZero() || m.Suspended.Before(since)) {
			since = m.Suspended
		}
	}
	return since
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
	err := g.engine.RevokeAll(ctx, o, e.reason)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		g.log.Error("cannot revoke mappings", "address", o.Addr, "error", err)
	default:
		g.log.Info("mappings revoked", "address", o.Addr, "mac", o.MAC, "why", e.why)
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
