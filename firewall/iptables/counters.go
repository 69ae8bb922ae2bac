package iptables

import (
	"context"
	"fmt"

	"portcullis/firewall"
)

// Traffic is counted by the rules that accept: both directions, in FORWARD. Each
// reading is remembered, and a rule that is written anew begins with what was last
// read of it.

// Counters gives the traffic of each open mapping, by its ID.
func (b *Backend) Counters(ctx context.Context) (map[uint64]firewall.Counter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.count(ctx); err != nil {
		return nil, err
	}
	all := make(map[uint64]firewall.Counter, b.state.Len())
	for _, m := range b.state.Mappings() {
		all[m.ID] = b.counter(m.ID)
	}
	return all, nil
}

// Counter gives the traffic of one mapping by its ID; one that is not open has
// none. It reads all rules.
func (b *Backend) Counter(ctx context.Context, id uint64) (firewall.Counter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.count(ctx); err != nil {
		return firewall.Counter{}, err
	}
	return b.counter(id), nil
}

// The methods below are called with the lock held.

func (b *Backend) count(ctx context.Context) error {
	if b.closed {
		return firewall.ErrClosed
	}
	if !b.installed {
		return nil
	}
	for _, p := range b.programs {
		if p == nil {
			continue
		}
		if _, err := b.read(ctx, p); err != nil {
			return fmt.Errorf("iptables counters: %w", err)
		}
	}
	return nil
}

func (b *Backend) counter(id uint64) firewall.Counter {
	sum := b.base[id]
	for _, e := range b.state.Holes(id) {
		sum = sum.Plus(b.seen[e.Key()])
	}
	return sum
}

// saw notes the counters that were read. What somebody set back is not believed.
func (b *Backend) saw(there *saved) {
	there.counters(func(k firewall.Key, c firewall.Counter) {
		c = c.Plus(b.short[k])
		if _, open := b.state.Holder(k); open && b.seen[k].Packets < c.Packets {
			b.seen[k] = c
		}
	})
}

// began notes which rules did not begin with the count that they were written with:
// ip6tables-nft-restore 1.8.9 sets all of them to nothing.
func (b *Backend) began(there *saved, with map[firewall.Key]firewall.Counter) {
	there.counters(func(k firewall.Key, c firewall.Counter) {
		if c.Packets < with[k].Packets {
			b.short[k] = with[k]
		}
	})
}

// counters gives each counting rule's count.
func (s *saved) counters(f func(firewall.Key, firewall.Counter)) {
	for _, chain := range []string{chainOpen, chainPin} {
		for _, l := range s.chains[place{"filter", chain}] {
			if e, err := l.entry(chain); err == nil {
				f(e.Key(), l.counter)
			}
		}
	}
}

// carried gives the count that a rule begins with: it stays only with its mapping.
func (b *Backend) carried(k firewall.Key, next *firewall.State) firewall.Counter {
	was, held := b.state.Holder(k)
	is, _ := next.Holder(k)
	if !held || was.ID != is.ID || was.Internal != is.Internal {
		return firewall.Counter{}
	}
	return b.seen[k]
}

// account carries counters from the state to the one behind c.
func (b *Backend) account(c *firewall.Change, next *firewall.State) {
	renewed := make(map[uint64]bool, len(c.Renewed))
	for _, m := range c.Renewed {
		renewed[m.ID] = true
		for _, e := range b.state.Holes(m.ID) {
			if now, ok := next.Holder(e.Key()); !ok || now.ID != m.ID {
				b.base[m.ID] = b.base[m.ID].Plus(b.seen[e.Key()])
			}
		}
	}
	for _, m := range c.Gone {
		if !renewed[m.ID] {
			delete(b.base, m.ID)
		}
	}
	for _, e := range c.Del {
		delete(b.seen, e.Key())
		delete(b.short, e.Key())
		if _, kept := next.Holder(e.Key()); !kept && e.Kind != firewall.Kept {
			delete(b.stops, e.Key())
		}
	}
}
