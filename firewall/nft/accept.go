package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"portcullis/firewall"
)

// The accept chain.
//
// Accepting a packet in one base chain does not save it from a drop in another,
// so where the owner's forward chain drops what it does not know, it must be told
// of the mappings. The owner names that chain; we put one jump at its top. A
// jump cannot leave its table and a set belongs to one, so the chain it leads to
// and the sets that chain looks up stand in the owner's table too. They are
// filled in the same transaction as ours, so the owner's chain accepts exactly
// what is mapped at that moment: not what the owner translates himself, nor what
// was mapped a moment ago. A mark would need less, but marks belong to the owner,
// and whoever else sets that bit would pass.
//
// A reload of the owner's firewall may flush the jump and our rules, or take the
// whole table with it; Configure, Replace, Audit and, where it hurts, Apply put
// them back.
const (
	acceptChainName = "portcullis_forward"
	acceptComment   = "portcullis: mapped traffic may pass"
)

// acceptFlowNames are the names of our flow sets in the owner's table.
var acceptFlowNames = flowNames{
	anyone: "portcullis_flows", host: "portcullis_flows_from",
	tcp: "portcullis_flows_filtered_tcp", udp: "portcullis_flows_filtered_udp",
}

// acceptSets is our part of the owner's table.
type acceptSets struct {
	chain firewall.Chain
	table *nftables.Table
	flows flowSets
	rules string // of our chain, as the kernel told them when they were written
	ids   uint32
}

func newAcceptSets(chain firewall.Chain, size uint32) *acceptSets {
	a := &acceptSets{chain: chain, table: tableOf(chain)}
	// The skeleton knows how to make sets; these are its flow sets elsewhere.
	s := &skeleton{table: a.table}
	a.flows = s.flowSets(acceptFlowNames, size)
	a.ids = s.ids
	return a
}

func (a *acceptSets) nextID() uint32 {
	a.ids++
	return a.ids
}

func tableOf(c firewall.Chain) *nftables.Table {
	t := &nftables.Table{Name: c.Table, Family: nftables.TableFamilyINet}
	if c.Family == "ip" {
		t.Family = nftables.TableFamilyIPv4
	}
	return t
}

// createSets and createRules queue the two halves.
func (a *acceptSets) createSets(q *nftables.Conn) error {
	for _, set := range a.flows.all() {
		if err := q.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

func (a *acceptSets) createRules(q *nftables.Conn) error {
	b := &chainBuilder{queue: q, table: a.table, nextID: a.nextID}
	chain := b.plain(acceptChainName)
	b.allowMapped(chain, a.flows)
	q.InsertRule(&nftables.Rule{
		Table: a.table, Chain: &nftables.Chain{Name: a.chain.Name, Table: a.table},
		Exprs: rule(ctStatusDNAT(), jump(chain)), UserData: comment(acceptComment),
	})
	return b.err
}

// ownersTable is what there is in the table of an accept chain.
type ownersTable struct {
	chain      firewall.Chain
	chainThere bool
	ours       bool     // our chain is there
	sets       []string // and those of our sets
	jumps      []uint64 // handles of the rules that lead from the owner's chain into ours
	rules      string   // of our chain, as the kernel tells them
}

// intact says whether all of ours is there, with the rules that it should have.
func (o *ownersTable) intact(rules string) bool {
	return o.ours && len(o.sets) == len(acceptFlowNames.list()) && len(o.jumps) == 1 && o.rules == rules
}

// remove queues the removal of whatever is there of ours, and of nothing else.
func (o *ownersTable) remove(q *nftables.Conn) error {
	table := tableOf(o.chain)
	for _, handle := range o.jumps {
		jump := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: o.chain.Name, Table: table}, Handle: handle}
		if err := q.DelRule(jump); err != nil {
			return err
		}
	}
	if o.ours {
		chain := &nftables.Chain{Name: acceptChainName, Table: table}
		q.FlushChain(chain)
		q.DelChain(chain)
	}
	for _, name := range o.sets {
		q.DelSet(&nftables.Set{Name: name, Table: table})
	}
	return nil
}

// inspect looks at the table of an accept chain. It gives a *firewall.ChainError
// where the chain cannot serve.
func (r *reader) inspect(ctx context.Context, chain firewall.Chain) (*ownersTable, error) {
	o := &ownersTable{chain: chain}
	table := tableOf(chain)
	err := r.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error { return o.readChains(q, table) })
	if err != nil {
		return nil, err
	}
	if o.sets, err = r.setNames(ctx, table); err != nil {
		return nil, err
	}
	ours := acceptFlowNames.list()
	o.sets = slices.DeleteFunc(o.sets, func(s string) bool { return !slices.Contains(ours, s) })
	rules, err := r.rules(ctx, table, chain.Name)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if leadsTo(rule) == acceptChainName {
			o.jumps = append(o.jumps, rule.handle)
		}
	}
	if o.ours {
		if rules, err = r.rules(ctx, table, acceptChainName); err != nil {
			return nil, err
		}
		for _, rule := range rules {
			o.rules += rule.text() + "\n"
		}
	}
	return o, nil
}

// leadsTo gives the chain a rule ends by jumping to, or "".
func leadsTo(r ruleRead) string {
	if len(r.exprs) == 0 || r.exprs[len(r.exprs)-1].name != "immediate" {
		return ""
	}
	return targetOf(verdictIn(r.exprs[len(r.exprs)-1].data))
}

// readChains finds the owner's chain and ours.
func (o *ownersTable) readChains(q *nftables.Conn, table *nftables.Table) error {
	tables, err := q.ListTablesOfFamily(table.Family)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table.Name }) {
		return &firewall.ChainError{Chain: o.chain, Detail: fmt.Sprintf(
			"there is no table %s %s; start the firewall that makes it before portcullis, or correct the name",
			o.chain.Family, o.chain.Table)}
	}
	chains, err := q.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Table.Name != table.Name {
			continue
		}
		if ofIptables(o.chain, c) {
			return &firewall.ChainError{Chain: o.chain, Detail: "that table belongs to iptables, " +
				"which shows and saves rules it did not write without their conditions, so that a ruleset " +
				"saved and restored would accept everything; set firewall.backend to iptables"}
		}
		if c.Name == acceptChainName {
			o.ours = true
		}
		if c.Name == o.chain.Name {
			o.chainThere = true
			if c.Hooknum != nil && (*c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter) {
				return &firewall.ChainError{Chain: o.chain, Detail: "it does not filter forwarded packets; " +
					"name a chain of type filter at hook forward, or one that it jumps to"}
			}
		}
	}
	if !o.chainThere {
		return &firewall.ChainError{Chain: o.chain, Detail: fmt.Sprintf(
			"table %s %s has no chain %s; name the chain that filters forwarded packets (nft list ruleset shows it)",
			o.chain.Family, o.chain.Table, o.chain.Name)}
	}
	return nil
}

// ofIptables says whether a chain shows that its table is iptables' own
// (measured with iptables-nft 1.8.9: it drops a set lookup from what it saves).
func ofIptables(want firewall.Chain, c *nftables.Chain) bool {
	return want.Family == "ip" && want.Table == "filter" && c.Name == "FORWARD" && c.Hooknum != nil
}

// The methods below are called with the lock held.

// installAccept puts our part into the owner's table, in place of what is there
// of it, with all mappings. It does nothing where no accept chain is wanted.
func (b *Backend) installAccept(ctx context.Context) error {
	b.accept = nil
	if b.gateway.AcceptChain == "" {
		return nil
	}
	ctx, cancel := fresh(ctx) // what it belongs to is in the kernel already
	defer cancel()
	chain, err := firewall.ParseChain(b.gateway.AcceptChain)
	if err != nil {
		return err
	}
	// The owner's firewall may be reloading at this very moment, so what was
	// read may be gone when it is written.
	for range 2 {
		err = b.tryAccept(ctx, chain)
		if !drifted(err) {
			break
		}
	}
	return err
}

func (b *Backend) tryAccept(ctx context.Context, chain firewall.Chain) error {
	there, err := b.quick.inspect(ctx, chain)
	if err != nil {
		return err
	}
	a := newAcceptSets(chain, uint32(b.cfg.Size))
	ops := (&target{accept: a}).all(b.state.Entries()).ops()
	if err := b.writer.open(); err != nil {
		return err
	}
	begin := func(q *nftables.Conn) error { return errors.Join(there.remove(q), a.createSets(q)) }
	if b.writer.fits(ops, skeletonSize) {
		err = b.writer.commit(ctx, func(q *nftables.Conn) error {
			return errors.Join(begin(q), queueAll(q, ops), a.createRules(q))
		})
	} else {
		err = b.writer.commit(ctx, begin)
		for _, batch := range b.writer.batches(ops) {
			if err == nil {
				err = b.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) })
			}
		}
		if err == nil {
			err = b.writer.commit(ctx, a.createRules)
		}
	}
	if err != nil {
		return err
	}
	if there, err = b.quick.inspect(ctx, chain); err != nil {
		return err
	}
	a.rules = there.rules
	b.accept = a
	return nil
}

// ensureAccept puts our part back where it is missing.
func (b *Backend) ensureAccept(ctx context.Context) error {
	if b.gateway.AcceptChain == "" {
		return nil
	}
	if b.accept != nil {
		if there, err := b.quick.inspect(ctx, b.accept.chain); err == nil && there.intact(b.accept.rules) {
			return nil
		}
	}
	return b.installAccept(ctx)
}

// removeAccept takes our part out of the table of an accept chain, if any.
func (b *Backend) removeAccept(ctx context.Context, chainName string) error {
	b.accept = nil
	if chainName == "" {
		return nil
	}
	chain, err := firewall.ParseChain(chainName)
	if err != nil {
		return err
	}
	for range 2 { // as in installAccept
		var there *ownersTable
		there, err = b.quick.inspect(ctx, chain)
		var gone *firewall.ChainError
		if errors.As(err, &gone) {
			return nil // and our part with it
		}
		if err == nil {
			err = b.writer.commit(ctx, there.remove)
		}
		if !drifted(err) {
			break
		}
	}
	return err
}

// noteAccept logs when the accept chain is lost or found, and hands err on.
func (b *Backend) noteAccept(err error) error {
	switch ok := err == nil; {
	case ok == b.acceptOK:
	case ok:
		b.cfg.Log.Info("the accept chain lets mapped traffic pass again", "chain", b.gateway.AcceptChain)
	default:
		b.cfg.Log.Warn("the accept chain is missing, mapped traffic may not pass", "chain", b.gateway.AcceptChain, "err", err)
	}
	b.acceptOK = err == nil
	if err == nil {
		return nil
	}
	return fmt.Errorf("nft: %w", explain(err))
}
