package pcp

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Epoch is the clock by which clients notice that the gateway has forgotten them
// (RFC 6886 section 3.6, RFC 6887 section 8.5). Both protocols and all interfaces
// share one; IPv6 has another, because an external IPv4 address that changes takes
// no pinhole away, and a new prefix no translated port. It counts the time that
// the machine was awake: after a suspend clients see it behind, and renew.
type Epoch struct {
	start atomic.Pointer[time.Time]
}

// NewEpoch returns an epoch that began at start, which must have a monotonic
// reading.
func NewEpoch(start time.Time) *Epoch {
	e := new(Epoch)
	e.Restart(start)
	return e
}

// Restart begins a new epoch: the mappings are lost, or have another external
// address. The servers must Announce then.
func (e *Epoch) Restart(now time.Time) { e.start.Store(&now) }

// Began returns when the epoch began.
func (e *Epoch) Began() time.Time { return *e.start.Load() }

// Seconds returns the age of the epoch.
func (e *Epoch) Seconds(now time.Time) uint32 {
	return uint32(max(0, now.Sub(e.Began())/time.Second))
}

// Epochs are the epochs of both IP families, and the rules by which they go on or begin
// anew.
type Epochs struct {
	V4, V6 *Epoch

	external    netip.Addr // the last that there was
	down, down6 bool       // there was no way out at the last look
	networks    map[netip.Prefix]struct{}
}

// NewEpochs returns epochs that begin at now.
func NewEpochs(now time.Time) *Epochs { return &Epochs{V4: NewEpoch(now), V6: NewEpoch(now)} }

// Network is what mappings depend on.
type Network struct {
	External netip.Addr     // the gateway's external IPv4 address; zero: there is none
	Prefixes []netip.Prefix // of the LANs; those of IPv4 and link-local ones do not count
	Up6      bool           // IPv6 leads to the Internet
}

// Turn is what has come of a look at the network.
type Turn struct {
	Announce4, Announce6 bool           // the clients of this family must be told
	Was                  netip.Addr     // the external address that another one has replaced; zero: none has
	Lost                 []netip.Prefix // those of IPv6 that have left the LANs
}

// Follow begins the epochs anew that the network has ended. It must not be called twice
// at the same time.
func (e *Epochs) Follow(now time.Time, n Network) Turn {
	var t Turn
	e.follow4(now, n, &t)
	e.follow6(now, n, &t)
	return t
}

// follow4 looks at the external address. Another one than before ends the epoch
// (RFC 6887 section 8.5); that and one that is back are announced (RFC 6886
// section 3.2.1).
func (e *Epochs) follow4(now time.Time, n Network, t *Turn) {
	if !n.External.IsValid() {
		e.down = true
		return
	}
	if e.external.IsValid() && n.External != e.external {
		t.Was = e.external
		e.V4.Restart(now)
	}
	t.Announce4 = t.Was.IsValid() || e.down
	e.external, e.down = n.External, false
}

// follow6 looks at the networks of the LANs. One that is gone has taken pinholes
// with it, which ends the epoch; that and a way to the Internet that is back are
// announced.
func (e *Epochs) follow6(now time.Time, n Network, t *Turn) {
	networks := make(map[netip.Prefix]struct{})
	for _, p := range n.Prefixes {
		if p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() {
			networks[p] = struct{}{}
		}
	}
	for p := range e.networks {
		if _, still := networks[p]; !still {
			t.Lost = append(t.Lost, p)
		}
	}
	e.networks = networks
	if len(t.Lost) > 0 {
		e.V6.Restart(now)
	}
	t.Announce6 = len(t.Lost) > 0 || n.Up6 && e.down6
	e.down6 = !n.Up6
}
