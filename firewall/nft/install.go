package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// install writes the whole table, in place of whatever is there. On success the kernel
// holds it; on a refusal it holds what it held, or, when that was too large for one
// transaction, nothing (ErrNothingLeft).
func (k *kernel) install(ctx context.Context, w firewall.Whole) error {
	if err := k.writer.open(); err != nil {
		return err
	}
	sk := newSkeleton(uint32(k.cfg.Size)).marking(k.cfg.Mark, uint32(k.cfg.Size))
	size := skeletonSize
	if sk.marks != nil {
		size += marksSize
	}
	err := k.writeAll(filling{sk.facts(w.Facts).ops(), &target{own: sk}, w.Entries}, size,
		func(ops []elementOp) error { return k.installWhole(ctx, sk, ops) },
		func(all filling) error { return k.installInParts(ctx, sk, all) })
	if err != nil {
		why := k.diagnose(ctx, err)
		if errors.Is(err, firewall.ErrNothingLeft) && !errors.Is(why, firewall.ErrNothingLeft) {
			why = fmt.Errorf("%w: %w", firewall.ErrNothingLeft, why)
		}
		return why
	}
	k.own = sk
	k.follow(w.Facts)
	k.accept = acceptedHere{} // to be written with the same entries
	if k.print, err = k.fingerprint(ctx); err != nil {
		k.print = "" // the next audit takes it
	}
	return nil
}

// filling is what new sets are filled with: facts, and entries whose elements are made
// when they are written, because those of many take several times their memory.
type filling struct {
	facts   []elementOp
	target  *target
	entries iter.Seq[firewall.Entry]
}

// entriesAtOnce is of how many the elements are made; more than fit one transaction.
const entriesAtOnce = maxMessages * elementsPerMessage

// writeAll writes all of it in one transaction if it fits beside size bytes, or in parts.
func (k *kernel) writeAll(c filling, size int, whole func([]elementOp) error, inParts func(filling) error) error {
	if some, more := firstOf(c.entries, entriesAtOnce); !more {
		ops := append(c.facts[:len(c.facts):len(c.facts)], c.target.all(some).ops()...)
		if k.writer.fits(ops, size) {
			return whole(ops)
		}
	}
	return inParts(c)
}

// firstOf returns the first entries, at most so many, and whether there are more.
func firstOf(all iter.Seq[firewall.Entry], most int) (some []firewall.Entry, more bool) {
	for e := range all {
		if len(some) == most {
			return some, true
		}
		some = append(some, e)
	}
	return some, false
}

// fill makes as many transactions as it needs.
func (w *writer) fill(ctx context.Context, c filling) error {
	for _, batch := range w.batches(c.facts) {
		if err := w.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) }); err != nil {
			return err
		}
	}
	b := &bulk{ctx: ctx, w: w}
	for e := range c.entries {
		c.target.each(e, b.add)
	}
	return b.flush()
}

func (k *kernel) installWhole(ctx context.Context, sk *skeleton, ops []elementOp) error {
	queue := func(q *nftables.Conn) error {
		if err := sk.createTable(q); err != nil {
			return err
		}
		if err := queueAll(q, ops); err != nil {
			return err
		}
		return sk.createRules(q)
	}
	err := k.writer.commit(ctx, queue)
	if errors.Is(err, firewall.ErrUnknown) {
		// Doing it twice comes to the same.
		ctx, cancel := fresh(ctx)
		defer cancel()
		err = k.writer.commit(ctx, queue)
	}
	return err
}

// installInParts writes the sets first and the rules last, so that all of it
// takes effect at once; until then no mapping is open.
func (k *kernel) installInParts(ctx context.Context, sk *skeleton, all filling) error {
	err := k.writer.commit(ctx, sk.createTable)
	if err == nil {
		err = k.writer.fill(ctx, all)
	}
	if err == nil {
		err = k.writer.commit(ctx, sk.createRules)
	}
	if err != nil {
		ctx, cancel := fresh(ctx)
		defer cancel()
		return fmt.Errorf("%w: %w", firewall.ErrNothingLeft, errors.Join(err, k.removeTable(ctx)))
	}
	return nil
}

// removeTable removes our table, if it is there.
func (k *kernel) removeTable(ctx context.Context) error {
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	return k.writer.commit(ctx, func(q *nftables.Conn) error {
		q.AddTable(table)
		q.DelTable(table)
		return nil
	})
}

// writeFacts brings the gateway's facts into the kernel.
func (k *kernel) writeFacts(ctx context.Context, g firewall.Facts) error {
	queue := func(q *nftables.Conn) error {
		for _, set := range k.own.factSets() {
			q.FlushSet(set)
		}
		ops := k.own.facts(g).ops()
		if part := k.accept[family6]; part != nil {
			for _, set := range part.factSets() {
				q.FlushSet(set)
			}
			ops = append(ops, part.facts(g).ops()...)
		}
		return queueAll(q, ops)
	}
	err := k.writer.commit(ctx, queue)
	if errors.Is(err, firewall.ErrUnknown) {
		ctx, cancel := fresh(ctx)
		defer cancel()
		err = k.writer.commit(ctx, queue)
	}
	if err == nil {
		k.follow(g)
	}
	return err
}

// diagnose finds the one feature the kernel lacks, when that is why the table
// was refused. The kernel does not say which part of a batch it did not like, so
// each is tried alone, in a table that is removed in the same transaction.
func (k *kernel) diagnose(ctx context.Context, err error) error {
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	for _, f := range features {
		if missing := k.try(ctx, f); missing != nil {
			return missing
		}
	}
	return err
}

// try returns the kernel's error about a feature, or nil.
func (k *kernel) try(ctx context.Context, f feature) error {
	sk := newSkeleton(uint32(k.cfg.Size))
	sk.table.Name = Table + "_probe"
	err := k.writer.commit(ctx, func(q *nftables.Conn) error {
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
