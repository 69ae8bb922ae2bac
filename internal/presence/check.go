package presence

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// check looks for a host, and does to its mappings what must be done.
func (k *Keeper) check(ctx context.Context, o portmap.ClientID) {
	l, served := k.cfg.LANs()[o.Interface]
	if !served || o.MAC == (portmap.MAC{}) || !l.HasMAC(o.Addr) {
		return
	}
	seen, known, err := k.cfg.Kernel.Sight(l.Index, o.Addr)
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
		k.revokeAll(ctx, o, *over)
	} else if err == nil {
		err = k.cfg.Kernel.Resolve(l.Index, o.Addr) // so that the next look finds a fresh answer
	}
	if err != nil && ctx.Err() == nil {
		k.cfg.Log.Warn("cannot check host", "address", o.Addr, "err", err)
	}
}

// end is why mappings end that nobody asked to end.
type end struct {
	reason portmap.Reason
	why    string
}

var (
	replaced = end{portmap.IdentityChanged, "another device has kept the address"}
	movedOn  = end{portmap.Revoked, "its address has left the device"}
	longGone = end{portmap.Revoked, "the host has not been seen for long"}
	unheard  = end{portmap.Revoked, "the host has never answered"}
)

// missing returns why the mappings of a host must end for which nobody answers, nil when
// they go on.
func (k *Keeper) missing(l netif.LAN, o portmap.ClientID) (*end, error) {
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
		here, err := k.cfg.Kernel.Present(l.Index, o.MAC, family, presence)
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
func (k *Keeper) invented(o portmap.ClientID) bool {
	for m := range k.cfg.Engine.Snapshot().Of(o).All() {
		if !m.Client.Unheard {
			return false
		}
	}
	return !k.answered[o]
}

// displaced suspends the mappings of a host whose address another device has, and
// returns why they must end when that one stays.
func (k *Keeper) displaced(ctx context.Context, o portmap.ClientID, by portmap.MAC) (*end, error) {
	h := k.shared[o]
	h.back = time.Time{}
	table := k.cfg.Engine.Snapshot()
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
			k.cfg.Log.Info("mappings suspended", "address", o.Addr, "mac", o.MAC, "other_mac", by, "why", "another device has the address")
			k.shared[o] = h
			return nil, k.cfg.Engine.Suspend(ctx, o)
		}
	}
	k.shared[o] = h
	return nil, nil
}

// here opens the mappings of a host again that were suspended, and lets its endless
// leases go on.
func (k *Keeper) here(ctx context.Context, o portmap.ClientID, seen netif.Sighting) error {
	delete(k.absent, o)
	if seen.Answered {
		k.answered[o] = true
	}
	table := k.cfg.Engine.Snapshot()
	if !suspendedSince(table, o).IsZero() {
		h := k.shared[o]
		if h.back.IsZero() {
			h.back = time.Now()
		}
		k.shared[o] = h
		if h.times > 1 && time.Since(h.back) < settled {
			return k.cfg.Engine.Keep(ctx, o)
		}
		h.back = time.Time{}
		k.shared[o] = h
		k.cfg.Log.Info("mappings resumed", "address", o.Addr, "mac", o.MAC, "why", "its own device has the address again")
		if err := k.cfg.Engine.Resume(ctx, o); err != nil {
			return err
		}
	}
	if seen.Seen && k.due(table, o) {
		return k.cfg.Engine.Seen(ctx, o)
	}
	return nil
}

// due reports whether an endless lease of o has less than half of its time left. Until
// then it is not made longer, for that is a transaction and a line of the journal.
func (k *Keeper) due(table *portmap.Table, o portmap.ClientID) bool {
	now := time.Now()
	for m := range table.Of(o).All() {
		if m.Endless && m.LeaseLeft(portmap.ViaUPnP, now) < k.cfg.LeaseMax()/2 {
			return true
		}
	}
	return false
}

// suspendedSince returns when the first mapping of o was suspended, the zero time when
// none is.
func suspendedSince(table *portmap.Table, o portmap.ClientID) time.Time {
	var since time.Time
	for m := range table.Of(o).All() {
		if !m.Suspended.IsZero() && (since.IsZero() || m.Suspended.Before(since)) {
			since = m.Suspended
		}
	}
	return since
}

// revokeAll ends all mappings of a host.
func (k *Keeper) revokeAll(ctx context.Context, o portmap.ClientID, e end) {
	err := k.cfg.Engine.RevokeAll(ctx, o, e.reason)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.cfg.Log.Error("cannot revoke mappings", "address", o.Addr, "err", err)
	default:
		k.cfg.Log.Info("mappings revoked", "address", o.Addr, "mac", o.MAC, "why", e.why)
	}
}
