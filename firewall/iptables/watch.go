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
		if !wrong {
			continue
		}
		if err := b.still(ctx); err != nil {
			return fmt.Errorf("iptables watch: %w", err)
		}
		tell(firewall.Intrusion{Ours: true})
	}
}

// Until when rules that others change are left alone.
const (
	lookAgain = 150 * time.Millisecond
	mostLooks = 20
)

// still waits until two looks in a row find the same rules, or for three seconds.
// Other programs change rules in many steps, and must not meet ours between two of
// them: ufw empties the built-in chains and then deletes all others, which fails
// while a jump of ours is back.
func (b *Backend) still(ctx context.Context) error {
	before := ""
	for range mostLooks {
		now, err := b.all(ctx)
		if err != nil || now == before {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// all gives all rules of both families.
func (b *Backend) all(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", firewall.ErrClosed
	}
	text := ""
	for _, p := range b.programs {
		if p == nil {
			continue
		}
		there, err := b.read(ctx, p)
		if err != nil {
			return "", err
		}
		text += p.main + "\n" + there.text(func(string) bool { return true })
	}
	return text, nil
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
