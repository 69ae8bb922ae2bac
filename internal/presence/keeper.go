package presence

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"time"

	"portcullis/internal/netif"
	"portcullis/internal/pace"
	"portcullis/internal/slog"
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

	rewatch = time.Second // after the watch has failed

	// unheardAfter is how long a host may be silent that has never been heard.
	unheardAfter = 5 * time.Second

	// An address that changes hands again within forgotten is believed to be back
	// only when it has stayed for settled: each change is a transaction of the
	// kernel, and lines of the log and the journal.
	forgotten = 10 * time.Minute
	settled   = time.Minute
)

// Engine is what a Keeper does to mappings; portmap.Engine is one.
type Engine interface {
	Snapshot() *portmap.Table
	Suspend(context.Context, portmap.ClientID) error
	Resume(context.Context, portmap.ClientID) error
	Keep(context.Context, portmap.ClientID) error
	Seen(context.Context, portmap.ClientID) error
	RevokeAll(context.Context, portmap.ClientID, portmap.Reason) error
}

// Kernel is what a Keeper asks about neighbours; netif.Kernel is one.
type Kernel interface {
	Sight(ifindex int, addr netip.Addr) (netif.Sighting, bool, error)
	Resolve(ifindex int, addr netip.Addr) error
	Present(ifindex int, mac [6]byte, family uint8, within time.Duration) (bool, error)
	Neighbours(ifindex int, f func(netip.Addr, netif.Sighting)) error
	WatchNeighbours(ctx context.Context, tell func(ifindex int, addr netip.Addr, s netif.Sighting), lost func()) error
}

// Config is what a Keeper needs; every field but Know must be set.
type Config struct {
	Log      *slog.Logger
	Engine   Engine
	Kernel   Kernel
	LANs     func() map[string]netif.LAN // as they are now, by interface
	LeaseMax func() time.Duration        // of an endless lease, which goes on before half of it is over
	Limit    func() int                  // of mappings
	// Know is told which devices have answered, whenever there are others; nil: nobody
	// wants to know.
	Know func(ctx context.Context, macs [][6]byte) error
}

// Keeper looks after the hosts that mappings lead to.
type Keeper struct {
	cfg      Config
	heard    heard                 // devices that have answered the kernel
	suspects chan portmap.ClientID // another device has their address, or nobody, or they are back
	lost     chan struct{}         // holds one: changes of neighbours were not seen
	met      chan struct{}         // holds one: a device has answered for the first time
	mapped   chan struct{}         // holds one: there are perhaps mappings again

	// What follows is Run's alone.
	absent   map[portmap.ClientID]absence
	shared   map[portmap.ClientID]handover
	answered map[portmap.ClientID]bool // has answered the kernel in this run
	crowded  bool                      // the owner was told that room is running out
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

// New returns a Keeper. Run must be called.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg: cfg, absent: make(map[portmap.ClientID]absence),
		shared: make(map[portmap.ClientID]handover), answered: make(map[portmap.ClientID]bool),
		suspects: make(chan portmap.ClientID, 64), lost: make(chan struct{}, 1), met: make(chan struct{}, 1),
		mapped: make(chan struct{}, 1),
	}
}

// every is how often all hosts are looked at: also often enough that an endless lease
// does not end under a host that is there.
func (k *Keeper) every() time.Duration {
	return max(time.Second, min(sweepEvery, k.cfg.LeaseMax()/4))
}

// Mapped says that a mapping is about to be there. It never waits, and is safe for
// concurrent use.
func (k *Keeper) Mapped() {
	select {
	case k.mapped <- struct{}{}:
	default:
	}
}

// pause returns when all hosts are looked at next. Where there are none, that is each
// minute, for the neighbours of which nobody has told; or as usual from when one maps.
func (k *Keeper) pause() (time.Duration, <-chan struct{}) {
	if k.cfg.Engine.Snapshot().Len() > 0 {
		return pace.Until(k.every()), nil
	}
	return pace.Until(max(k.every(), pace.Minute)), k.mapped
}

// Run looks after them until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		k.watch(ctx)
	}()
	defer func() { <-watching }()
	k.meet(true)
	next, mapped := k.pause()
	sweep, ask := time.NewTimer(next), time.NewTicker(askEvery)
	defer sweep.Stop()
	defer ask.Stop()
	for asks := true; ; {
		if due := k.asks(); due != asks {
			if asks = due; due {
				ask.Reset(askEvery)
			} else {
				ask.Stop()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.met:
		case o := <-k.suspects:
			k.check(ctx, o)
		case <-mapped:
			mapped = nil
			sweep.Reset(pace.Until(k.every()))
		case <-k.lost:
			k.sweep(ctx)
			next, mapped = k.pause() // perhaps leases are shorter than before
			sweep.Reset(next)
		case <-sweep.C:
			k.sweep(ctx)
			k.meet(false)
			k.warn(k.cfg.Engine.Snapshot())
			next, mapped = k.pause()
			sweep.Reset(next)
		case <-ask.C:
			k.introduce(ctx)
			k.warn(k.cfg.Engine.Snapshot()) // who makes hosts up may have gone before the next sweep
			for o := range k.unanswered() {
				k.check(ctx, o)
			}
		}
	}
}

// asks reports whether there is something to do each second.
func (k *Keeper) asks() bool {
	for range k.unanswered() {
		return true
	}
	return k.cfg.Know != nil && k.heard.fresh()
}

// unanswered yields the hosts that are to be asked again, and those that are back.
func (k *Keeper) unanswered() iter.Seq[portmap.ClientID] {
	return func(yield func(portmap.ClientID) bool) {
		for o, a := range k.absent {
			if (a.asked <= maxAsked || k.invented(o)) && !yield(o) {
				return
			}
		}
		for o, h := range k.shared {
			if !h.back.IsZero() && !yield(o) {
				return
			}
		}
	}
}

// watch looks at a host as soon as the kernel sees another device in its place, or
// nobody, or itself again.
func (k *Keeper) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.cfg.Kernel.WatchNeighbours(ctx, func(ifindex int, addr netip.Addr, s netif.Sighting) {
			for name, l := range k.cfg.LANs() {
				if l.Index == ifindex {
					k.saw(portmap.ClientID{Interface: name, Addr: addr, MAC: s.MAC}, s.Answered)
				}
			}
		}, k.Look)
		if ctx.Err() != nil {
			return
		}
		k.cfg.Log.Warn("neighbour watch failed; retrying", "err", err)
		k.Look()
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// saw takes in what the kernel knows of an address now.
func (k *Keeper) saw(now portmap.ClientID, answered bool) {
	if answered && k.heard.note(now.MAC, time.Now()) {
		select {
		case k.met <- struct{}{}:
		default:
		}
	}
	table := k.cfg.Engine.Snapshot()
	for o := range table.ClientsAt(now.Interface, now.Addr) {
		if o.MAC == now.MAC && suspendedSince(table, o).IsZero() {
			continue // as it should be
		}
		select {
		case k.suspects <- o:
		default:
			k.Look()
		}
	}
}

// Look has all hosts looked at soon. It is safe for concurrent use.
func (k *Keeper) Look() {
	select {
	case k.lost <- struct{}{}:
	default: // it will look anyway
	}
}

// Heard reports whether a device has answered the kernel in this run. It is safe for
// concurrent use.
func (k *Keeper) Heard(mac portmap.MAC) bool { return k.heard.has(mac) }

func (k *Keeper) sweep(ctx context.Context) {
	table := k.cfg.Engine.Snapshot()
	gone := func(o portmap.ClientID) bool { return table.Of(o).Len() == 0 }
	maps.DeleteFunc(k.absent, func(o portmap.ClientID, _ absence) bool { return gone(o) })
	maps.DeleteFunc(k.answered, func(o portmap.ClientID, _ bool) bool { return gone(o) })
	maps.DeleteFunc(k.shared, func(o portmap.ClientID, h handover) bool { return gone(o) || time.Since(h.last) > forgotten })
	for o := range table.Clients() {
		k.check(ctx, o)
	}
}

// meet looks at all neighbours for those that have answered, and asks the others if
// ask is set: they may have answered in the run before.
func (k *Keeper) meet(ask bool) {
	for name, l := range k.cfg.LANs() {
		var silent []netip.Addr
		err := k.cfg.Kernel.Neighbours(l.Index, func(addr netip.Addr, s netif.Sighting) {
			if s.Answered {
				k.heard.note(s.MAC, time.Now())
			} else {
				silent = append(silent, addr)
			}
		})
		if ask {
			for _, addr := range silent {
				err = errors.Join(err, k.cfg.Kernel.Resolve(l.Index, addr))
			}
		}
		if err != nil {
			k.cfg.Log.Warn("cannot list neighbours", "interface", name, "err", err)
		}
	}
}

// introduce passes the devices that have answered to the rules that limit datagrams.
func (k *Keeper) introduce(ctx context.Context) {
	if k.cfg.Know == nil {
		return
	}
	if macs, news := k.heard.all(); news {
		if err := k.cfg.Know(ctx, macs); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("cannot update the known devices in the firewall", "err", err)
		}
	}
}

// warn logs when room for mappings runs out: policy keeps what is left
// for devices that have few.
func (k *Keeper) warn(table *portmap.Table) {
	most := k.cfg.Limit()
	switch n := table.Len(); {
	case n <= most/2:
		k.crowded = false
	case n >= most*3/4 && !k.crowded:
		k.crowded = true
		k.cfg.Log.Warn("mappings are running out", "mappings", n, "limit", most, "hosts", table.Hosts())
	}
}
