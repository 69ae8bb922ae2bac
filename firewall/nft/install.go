package nft

import (
	"context"
	"errors"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// The methods of this file are called with the lock held.

// install writes the whole table for a state, in place of whatever is there. On
// success the kernel holds it; on a refusal it holds what it held, or, when the
// state was too large for one transaction, nothing (installed tells).
func (b *Backend) install(ctx context.Context, st *firewall.State) error {
	if err := b.writer.open(); err != nil {
		return err
	}
	sk := newSkeleton(uint32(b.cfg.Size)).marking(b.cfg.Mark, uint32(b.cfg.Size))
	facts := sk.facts(b.gateway).ops()
	ops := append(facts, (&target{own: sk}).all(st.Entries()).ops()...)
	var err error
	size := skeletonSize
	if sk.marks != nil {
		size += marksSize
	}
	if b.writer.fits(ops, size) {
		err = b.installWhole(ctx, sk, ops)
	} else {
		err = b.installInParts(ctx, sk, ops)
	}
	if err != nil {
		return b.diagnose(ctx, err)
	}
	b.own, b.installed = sk, true
	b.writes++
	for _, m := range st.Mappings() {
		b.tallies[m.ID] = b.tallies[m.ID].restarted(b.writes)
	}
	if b.print, err = b.fingerprint(ctx); err != nil {
		b.print = "" // the next audit takes it
	}
	return nil
}

func (b *Backend) installWhole(ctx context.Context, sk *skeleton, ops []elementOp) error {
	queue := func(q *nftables.Conn) error {
		if err := sk.createTable(q); err != nil {
			return err
		}
		if err := queueAll(q, ops); err != nil {
			return err
		}
		return sk.createRules(q)
	}
	err := b.writer.commit(ctx, queue)
	if errors.Is(err, errUnknown) {
		// Doing it twice comes to the same.
		ctx, cancel := fresh(ctx)
		defer cancel()
		if err = b.writer.commit(ctx, queue); errors.Is(err, errUnknown) {
			b.installed = false
		}
	}
	return err
}

// installInParts writes the sets first and the rules last, so that all of it
// takes effect at once; until then no mapping is open.
func (b *Backend) installInParts(ctx context.Context, sk *skeleton, ops []elementOp) error {
	b.installed = false
	err := b.writer.commit(ctx, sk.createTable)
	for _, batch := range b.writer.batches(ops) {
		if err != nil {
			break
		}
		err = b.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) })
	}
	if err == nil {
		err = b.writer.commit(ctx, sk.createRules)
	}
	if err != nil {
		ctx, cancel := fresh(ctx)
		defer cancel()
		return errors.Join(err, b.removeTable(ctx))
	}
	return nil
}

// removeTable removes our table, if it is there.
func (b *Backend) removeTable(ctx context.Context) error {
	b.installed = false
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	return b.writer.commit(ctx, func(q *nftables.Conn) error {
		q.AddTable(table)
		q.DelTable(table)
		return nil
	})
}

// writeFacts brings the gateway's facts into the kernel.
func (b *Backend) writeFacts(ctx context.Context) error {
	if !b.installed {
		return b.install(ctx, b.state)
	}
	queue := func(q *nftables.Conn) error {
		for _, set := range b.own.factSets() {
			q.FlushSet(set)
		}
		ops := b.own.facts(b.gateway).ops()
		if part := b.accept[family6]; part != nil {
			for _, set := range part.factSets() {
				q.FlushSet(set)
			}
			ops = append(ops, part.facts(b.gateway).ops()...)
		}
		return queueAll(q, ops)
	}
	err := b.writer.commit(ctx, queue)
	if errors.Is(err, errUnknown) {
		ctx, cancel := fresh(ctx)
		defer cancel()
		if err = b.writer.commit(ctx, queue); errors.Is(err, errUnknown) {
			b.installed = false
		}
	}
	if drifted(err) {
		b.cfg.Log.Warn("the kernel did not hold our table, writing it anew", "err", err)
		b.repaired++
		b.accept = acceptedHere{} // the caller puts them back
		return b.install(ctx, b.state)
	}
	return err
}

// diagnose finds the one feature the kernel lacks, when that is why the table
// was refused. The kernel does not say which part of a batch it did not like, so
// each is tried alone, in a table that is removed in the same transaction.
func (b *Backend) diagnose(ctx context.Context, err error) error {
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	for _, f := range features {
		if missing := b.try(ctx, f); missing != nil {
			return missing
		}
	}
	return err
}

// try tells what the kernel said to a feature, or nil.
func (b *Backend) try(ctx context.Context, f feature) error {
	sk := newSkeleton(uint32(b.cfg.Size))
	sk.table.Name = Table + "_probe"
	err := b.writer.commit(ctx, func(q *nftables.Conn) error {
		if err := sk.createTable(q); err != nil {
			return err
		}
		cb := &chainBuilder{queue: q, table: sk.table, nextID: sk.nextID}
		f.build(sk, cb)
		q.DelTable(sk.table)
		return cb.err
	})
	if err == nil || !refusal(err) {
		return nil
	}
	return &firewall.FeatureError{Feature: f.name, Module: f.module, Err: err}
}

// feature is one thing the skeleton needs of the kernel.
type feature struct {
	name, module string
	build        func(*skeleton, *chainBuilder)
}

// features in the order in which they build on one another.
var features = []feature{
	{"nf_tables sets with concatenated keys and timeouts", "nf_tables", func(*skeleton, *chainBuilder) {}},
	{"conntrack matching in nf_tables", "nft_ct", func(_ *skeleton, b *chainBuilder) {
		b.rule(b.plain("probe"), "", ctStatusDNAT(), ctDirection(0), accept())
	}},
	{"address translation chains", "nft_chain_nat", func(_ *skeleton, b *chainBuilder) {
		b.base("probe", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priorityDNAT)
	}},
	{"address translation", "nft_nat", func(s *skeleton, b *chainBuilder) { s.dnatRules(b) }},
	{"translation of sources", "nft_nat", func(s *skeleton, b *chainBuilder) { s.snatRules(b) }},
	{"rejecting packets", "nft_reject_inet", func(s *skeleton, b *chainBuilder) { s.forwardRules(b) }},
}
