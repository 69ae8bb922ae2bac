package iptables

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"portcullis/firewall"
)

// lookEvery is how often the rules of iptables-legacy are looked at, which tells
// nobody of a change: what was lost must be back within two seconds.
const lookEvery = time.Second

// Watch reports each transaction of another program, as nftables' own does, until
// ctx ends. Of iptables-legacy it tells when our rule is not as it should be, and does
// not know who did it.
func (b *Backend) Watch(ctx context.Context, tell func(firewall.Intrusion)) error {
	if b.Flavour() != legacy {
		return b.Backend.Watch(ctx, tell)
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return b.Backend.Watch(ctx, tell) })
	parts.Go(func() error { return b.look(ctx, tell) })
	return parts.Wait()
}

// look reports changes until ctx ends, or the rules cannot be read.
func (b *Backend) look(ctx context.Context, tell func(firewall.Intrusion)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		wrong, err := b.wrong(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("iptables watch: %w", err)
		case wrong:
			tell(firewall.Intrusion{})
		}
	}
}

// Until when rules that others change are left alone.
const (
	lookAgain  = 150 * time.Millisecond
	quietLooks = 6
	mostLooks  = 20
)

// still waits until FORWARD has been the same for three quarters of a second, or for
// three seconds. Who changes rules without -w must not meet our lock, and firewalld,
// which inserts rules by number at the end of a reload, must not count ours.
func (b *Backend) still(ctx context.Context) error {
	before, same := "", 0
	for range mostLooks {
		now := "rules\n"
		for _, r := range b.rules {
			if r == nil {
				continue
			}
			there, err := r.programs.forward(ctx)
			if err != nil {
				return err
			}
			for _, l := range there {
				now += r.programs.main + " " + l.text() + "\n"
			}
		}
		if same++; now != before {
			before, same = now, 1
		}
		if same == quietLooks {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// wrong reports whether a rule is not as it should be.
func (b *Backend) wrong(ctx context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, firewall.ErrClosed
	}
	for f, r := range b.rules {
		if r == nil || !b.wanted[f] || r.echo == "" {
			continue
		}
		there, err := r.programs.forward(ctx)
		if err != nil || r.wrong(there) != "" {
			return err == nil, err
		}
	}
	return false, nil
}
