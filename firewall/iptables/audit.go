package iptables

import (
	"context"
	"fmt"

	"portcullis/firewall"
)

// Audit compares the kernel with what it should hold, writes it anew where it
// differs, and says what was wrong; "" is nothing. It always compares everything.
func (b *Backend) Audit(ctx context.Context, _ bool) (drift string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return "", firewall.ErrClosed
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	if drift, err = b.drift(ctx); err != nil {
		return "", fmt.Errorf("iptables audit: %w", err)
	}
	wrong, err := b.sync(ctx, b.state) // also sets dates that the clock has left behind
	if err != nil {
		return drift, fmt.Errorf("iptables audit: %w", err)
	}
	if !b.installed || wrong {
		b.repaired++
	}
	b.installed = true
	return drift, nil
}

// drift says what is wrong with the kernel, "" for nothing.
func (b *Backend) drift(ctx context.Context) (string, error) {
	if !b.installed {
		return "our rules were not written", nil
	}
	for _, f := range families {
		p := b.programs[f]
		if p == nil {
			continue
		}
		there, err := b.read(ctx, p)
		if err != nil {
			return "", err
		}
		if b.intact(f, there) {
			continue
		}
		for _, j := range jumps[f] {
			if _, found := there.chains[place{j.table, j.to}]; !found {
				return p.main + ": our chains were gone", nil
			}
		}
		if there.ours() == b.kernel[f].echo {
			return p.main + ": the jump to our chains was missing or came too late", nil
		}
		return p.main + ": our rules were changed", nil
	}
	return "", nil
}

// Entries reads back what the kernel holds, in no order. Expires is the end of the
// lease that a rule's date stands for, within two seconds, or zero.
func (b *Backend) Entries(ctx context.Context) ([]firewall.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []firewall.Entry
	for _, p := range b.programs {
		if p == nil {
			continue
		}
		there, err := b.read(ctx, p)
		if err != nil {
			return nil, err
		}
		entries, err := there.entries(p.family)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return all, nil
}
