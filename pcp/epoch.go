package pcp

import (
	"sync/atomic"
	"time"
)

// Epoch is the clock by which clients notice that the gate has forgotten them
// (RFC 6886 section 3.6, RFC 6887 section 8.5). Both languages and all interfaces
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
// address. The servers must be told to Announce.
func (e *Epoch) Restart(now time.Time) { e.start.Store(&now) }

// Began returns when the epoch began.
func (e *Epoch) Began() time.Time { return *e.start.Load() }

// Seconds returns the age of the epoch.
func (e *Epoch) Seconds(now time.Time) uint32 {
	return uint32(max(0, now.Sub(e.Began())/time.Second))
}
