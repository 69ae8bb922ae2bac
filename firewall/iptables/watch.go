package iptables

import (
	"context"
	"fmt"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/portmap"
)

// watchEvery is how often the rules are looked at: iptables-legacy tells nobody of
// a change, and what was lost must be back within two seconds.
const watchEvery = time.Second

// Watch tells when the kernel is found not to hold our rules, or the wall clock was
// set, until ctx ends; and once at the start. Who did it is not known. It reads all
// rules every second, two runs of a program.
func (b *Backend) Watch(ctx context.Context, tell func(firewall.Intrusion)) error {
	tell(firewall.Intrusion{Ours: true})
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	clock := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		wrong, err := b.wrong(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("iptables watch: %w", err)
		}
		if set := clockSet(clock, time.Now()); set.Abs() > clockSlack {
			wrong, clock = true, time.Now()
		}
		if wrong {
			tell(firewall.Intrusion{Ours: true})
		}
	}
}

func (b *Backend) wrong(ctx context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, firewall.ErrClosed
	}
	if !b.installed {
		return false, nil
	}
	drift, err := b.drift(ctx)
	return drift != "", err
}

// clockSet gives how far the wall clock went beside the monotonic one.
func clockSet(before, now time.Time) time.Duration {
	return now.Round(0).Sub(before.Round(0)) - now.Sub(before)
}

// OutboundTimeout gives how long the kernel lets answers in, at least, after the
// last packet of what a host began itself.
func (b *Backend) OutboundTimeout(t portmap.Transport) (time.Duration, error) {
	return flows.OutboundTimeout(b.cfg.NetNS, t)
}
