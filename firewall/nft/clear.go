package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Clear removes all that a daemon which has ended left in nf_tables: our tables, our parts
// of every table of the owner's, in one transaction, and the flows of what was mapped. It
// returns what it removed. No configuration is needed: ours is known by its name.
func Clear(ctx context.Context, log *slog.Logger, netns int) (gone []string, err error) {
	r, w := reader{netns: netns}, writer{netns: netns}
	defer r.close()
	defer w.drop()
	var mapped []portmap.Mapping
	for range 2 { // the owner's firewall may be reloading at this very moment
		var left *leftover
		if left, err = r.leftover(ctx); err != nil || len(left.names) == 0 {
			break
		}
		mapped = append(mapped, left.mapped...)
		if err = w.commit(ctx, left.remove); err == nil {
			gone = left.names
			break
		}
		if !drifted(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("nft: %w", explain(err))
	}
	return gone, endFlows(ctx, log, netns, mapped)
}

// leftover is what there is of ours.
type leftover struct {
	tables []*nftables.Table
	jumps  []*nftables.Rule
	chains []*nftables.Chain
	flush  []*nftables.Chain // that go on being somebody's
	sets   []*nftables.Set
	names  []string // of tables, chains and sets
	mapped []portmap.Mapping
}

// remove queues the removal of all of it.
func (l *leftover) remove(q *nftables.Conn) error {
	for _, jump := range l.jumps {
		if err := q.DelRule(jump); err != nil {
			return err
		}
	}
	for _, c := range l.chains {
		q.FlushChain(c)
		q.DelChain(c)
	}
	for _, c := range l.flush {
		q.FlushChain(c)
	}
	for _, s := range l.sets {
		q.DelSet(s)
	}
	for _, t := range l.tables {
		q.DelTable(t)
	}
	return nil
}

// leftover looks for it in all tables.
func (r *reader) leftover(ctx context.Context) (*leftover, error) {
	var tables []*nftables.Table
	var chains []*nftables.Chain
	err := r.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		var err, failed error
		tables, err = q.ListTables()
		chains, failed = q.ListChains()
		return errors.Join(err, failed)
	})
	l := &leftover{}
	for i := 0; err == nil && i < len(tables); i++ {
		switch t := tables[i]; {
		case t.Family == nftables.TableFamilyINet && Ours(t.Name):
			l.tables = append(l.tables, t)
			l.names = append(l.names, "table inet "+t.Name)
			if t.Name == Table {
				l.mapped, err = r.mapped(ctx)
			}
		case t.Family == nftables.TableFamilyINet, t.Family == nftables.TableFamilyIPv4, t.Family == nftables.TableFamilyIPv6:
			err = r.leftIn(ctx, l, t, chains)
		}
	}
	return l, err
}

// leftIn adds our parts of an owner's table: what accept.go puts there.
func (r *reader) leftIn(ctx context.Context, l *leftover, t *nftables.Table, chains []*nftables.Chain) error {
	sets, err := r.setNames(ctx, t)
	if err != nil {
		return err
	}
	for _, part := range acceptNames {
		for _, name := range sets {
			if slices.Contains(part.sets, name) {
				l.sets = append(l.sets, &nftables.Set{Name: name, Table: t})
				l.add("set", t, name)
			}
		}
		for _, c := range chains {
			if c.Name == part.chain && sameTable(c.Table, t) {
				l.chains = append(l.chains, c)
				l.add("chain", t, c.Name)
				if err := r.jumpsTo(ctx, l, c, chains); err != nil {
					return err
				}
			}
		}
	}
	for _, c := range chains {
		if sameTable(c.Table, t) {
			if err := r.listed(ctx, l, c, chains); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed adds a chain with a listing in it (listing.go): the chain, unless a rule of the
// owner's leads there.
func (r *reader) listed(ctx context.Context, l *leftover, c *nftables.Chain, chains []*nftables.Chain) error {
	rules, err := r.rules(ctx, c.Table, c.Name)
	first, rows := listedRules(rules, c.Table.Family)
	if err != nil || !first && len(rows) == 0 {
		return err
	}
	l.add("chain", c.Table, c.Name)
	led := leftover{}
	if err := r.jumpsTo(ctx, &led, c, chains); err != nil || len(led.jumps) == 0 {
		l.chains = append(l.chains, c)
		return err
	}
	l.flush = append(l.flush, c)
	return nil
}

// jumpsTo adds the rules that lead from the owner's chains into one of ours.
func (r *reader) jumpsTo(ctx context.Context, l *leftover, mine *nftables.Chain, chains []*nftables.Chain) error {
	for _, c := range chains {
		if !sameTable(c.Table, mine.Table) {
			continue
		}
		rules, err := r.rules(ctx, c.Table, c.Name)
		if err != nil {
			return err
		}
		for _, rule := range rules {
			if leadsTo(rule) == mine.Name {
				l.jumps = append(l.jumps, &nftables.Rule{Table: c.Table, Chain: c, Handle: rule.handle})
			}
		}
	}
	return nil
}

func sameTable(a, b *nftables.Table) bool { return a.Name == b.Name && a.Family == b.Family }

// add notes a name, as nft has it.
func (l *leftover) add(kind string, t *nftables.Table, name string) {
	for _, family := range []string{"ip", "ip6", "inet"} {
		if tableOf(firewall.Chain{Family: family}).Family == t.Family {
			l.names = append(l.names, kind+" "+family+" "+t.Name+" "+name)
		}
	}
}

// mapped returns what our table has open, as far as its flows are told by it. A table of
// another version, or one that somebody has taken things out of, has what it has.
func (r *reader) mapped(ctx context.Context) (all []portmap.Mapping, err error) {
	entries, err := r.entries(ctx)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, firewall.ErrInconsistent) {
		return nil, nil
	}
	for _, e := range entries {
		m := portmap.Mapping{Transport: e.Transport, Internal: e.Internal, ExternalPort: e.External}
		switch e.Kind {
		case firewall.Hole:
			m.Kind = portmap.NAT4
		case firewall.Pin:
			m.Kind = portmap.Pinhole6
		default:
			continue
		}
		all = append(all, m)
	}
	return all, err
}

// endFlows ends the flows of mappings that are gone.
func endFlows(ctx context.Context, log *slog.Logger, netns int, mapped []portmap.Mapping) error {
	if len(mapped) == 0 {
		return nil
	}
	nothing := firewall.NewState()
	k := flows.New(flows.Config{
		Log: log, NetNS: netns, Refuse: func([]flows.Flow) error { return nil }, // its table is gone
		Look: func(f func(*firewall.State, firewall.Facts)) { f(nothing, firewall.Facts{}) },
	})
	return k.Close(ctx, mapped)
}
