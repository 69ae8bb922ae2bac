package iptables

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"portcullis/firewall"
	"portcullis/internal/inotify"
)

// lookEvery is how often the rules of iptables-legacy are looked at at most, and at least
// where nothing tells of a change: what was lost must be back within two seconds.
const lookEvery = time.Second

// Watch reports each transaction of another program, as nftables' own does, until
// ctx ends. Of iptables-legacy it tells when our rule is not as it should be, and does
// not know who did it.
func (b *Backend) Watch(ctx context.Context, tell func(firewall.Intrusion)) error {
	if b.Flavour() != legacy {
		defer b.looks.deaf()
		return b.Backend.Watch(ctx, func(i firewall.Intrusion) {
			b.looks.told() // once at the start of the watch as well
			tell(i)
		})
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return b.Backend.Watch(ctx, tell) })
	parts.Go(func() error { return b.look(ctx, tell) })
	return parts.Wait()
}

// look reports changes until ctx ends, or the rules cannot be read. Whoever changes rules
// takes the lock of the tables, and that is told, once for each look: the lock is the whole
// machine's. Each minute's Audit finds what those have done who do not take it.
func (b *Backend) look(ctx context.Context, tell func(firewall.Intrusion)) error {
	heard, told := func() bool { return false }, (<-chan struct{})(nil)
	if w, err := inotify.New(nil); err == nil {
		defer w.Close()
		heard, told = func() bool { return watchLocks(w) }, w.Told
	} else {
		b.cfg.Log.Debug("rules of iptables-legacy are looked at each second", "err", err)
	}
	for wait := lookEvery; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		last, armed := time.Now(), heard()
		wrong, err := b.wrong(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("iptables watch: %w", err)
		case wrong:
			tell(firewall.Intrusion{})
		}
		if armed {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-told:
			}
		}
		wait = lookEvery - time.Since(last)
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
