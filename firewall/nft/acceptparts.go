package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"

	"portcullis/firewall"
)

// How our parts get into the owner's table, stay there, and leave it.

// wantedChain is an accept chain and what names it.
type wantedChain struct {
	firewall.Chain // zero: none is wanted
	setting        string
}

func (w wantedChain) none() bool { return w.Chain == firewall.Chain{} }

// acceptWanted gives the chains where the two parts should stand, and why one
// cannot be told.
//
// One accept chain of family ip is an error, but only for IPv6: no pinhole passes
// there, and a chain that drops them elsewhere would not be told.
//
// With marks, those of iptables are somebody else's to tell (firewall/iptables).
func acceptWanted(g firewall.Gateway, marks bool) (wanted [2]wantedChain, wrong [2]error) {
	want := func(f family, c firewall.Chain, setting string, err error) {
		if wrong[f] = err; err == nil {
			wanted[f] = wantedChain{c, setting}
		}
	}
	chain6, setting6 := g.AcceptChain6, "accept_chain6"
	if chain := g.AcceptChain; chain != (firewall.Chain{}) {
		want(family4, chain, "accept_chain", chain.Check4())
		switch {
		case wrong[family4] != nil, chain6 != firewall.Chain{}:
		case chain.Family == "inet":
			chain6, setting6 = chain, "accept_chain"
		case chain.Family == "ip" && len(g.WAN6) > 0:
			wrong[family6] = &firewall.ChainError{Chain: chain, Detail: "it sees IPv4 only, so that IPv6 pinholes may not pass; " +
				"name a chain of family inet, or one of family inet or ip6 in firewall.accept_chain6"}
		}
	}
	if chain6 != (firewall.Chain{}) {
		want(family6, chain6, setting6, chain6.Check6())
	}
	for f := range wanted {
		if marks && wanted[f].OfIPTables() {
			wanted[f] = wantedChain{}
		}
	}
	return wanted, wrong
}

// The methods below are called with the lock held.

// installAccept puts our parts into the owner's tables, in place of what is there
// of them, with all mappings. It does nothing where no accept chain is wanted.
func (b *Backend) installAccept(ctx context.Context) error {
	b.accept = acceptedHere{}
	return b.restoreAccept(ctx)
}

// restoreAccept puts in those that are not there.
func (b *Backend) restoreAccept(ctx context.Context) error {
	errs := b.unfit
	for _, f := range families {
		if !b.wanted[f].none() && b.accept[f] == nil {
			errs[f] = b.installPart(ctx, f, b.wanted[f])
		}
	}
	return b.noteAccept(errs)
}

func (b *Backend) installPart(ctx context.Context, f family, chain wantedChain) error {
	b.accept[f] = nil
	ctx, cancel := fresh(ctx) // what it belongs to is in the kernel already
	defer cancel()
	// The owner's firewall may be reloading at this very moment, so what was
	// read may be gone when it is written.
	var err error
	for range 2 {
		err = b.tryAccept(ctx, f, chain)
		if !drifted(err) {
			break
		}
	}
	return err
}

func (b *Backend) tryAccept(ctx context.Context, f family, chain wantedChain) error {
	there, err := b.quick.inspect(ctx, f, chain)
	if err != nil {
		return err
	}
	a := newAcceptPart(f, chain.Chain, uint32(b.cfg.Size))
	only := acceptedHere{}
	only[f] = a
	ops := append(a.facts(b.gateway).ops(), (&target{accept: only}).all(b.state.Entries()).ops()...)
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
	if there, err = b.quick.inspect(ctx, f, chain); err != nil {
		return err
	}
	a.rules = there.rules
	b.accept[f] = a
	return nil
}

// ensureAccept puts our parts back when one is missing or not as written, and says
// whether one was. All of them: what emptied one may have emptied the other.
func (b *Backend) ensureAccept(ctx context.Context) (lost bool, err error) {
	for _, f := range families {
		if part := b.accept[f]; part != nil && !b.partIntact(ctx, part) {
			lost = true
		}
	}
	if lost {
		b.accept = acceptedHere{}
	}
	if err = b.restoreAccept(ctx); lost && err == nil {
		b.repaired++
	}
	return lost, err
}

// lostLooks is how often in a row our part must be missing: a look is several
// listings, and what others write between two of them looks like a loss.
const lostLooks = 3

func (b *Backend) partIntact(ctx context.Context, part *acceptPart) bool {
	for range lostLooks {
		if b.partThere(ctx, part) {
			return true
		}
	}
	return false
}

func (b *Backend) partThere(ctx context.Context, part *acceptPart) bool {
	there, err := b.quick.inspect(ctx, part.family, wantedChain{Chain: part.chain})
	if err != nil || !there.intact(part.rules) {
		return false
	}
	held, err := b.quick.holds(ctx, part.facts(b.gateway), part.factSets())
	return err == nil && held
}

// removePart takes our part out of the table of an accept chain, if any.
func (b *Backend) removePart(ctx context.Context, f family, chain wantedChain) error {
	b.accept[f] = nil
	if chain.none() {
		return nil
	}
	var err error
	for range 2 { // as in installPart
		var there *ownersTable
		there, err = b.quick.inspect(ctx, f, chain)
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

// leaveAccept takes out the parts that a gateway wanted, and another, if any, does
// not want there.
func (b *Backend) leaveAccept(ctx context.Context, before firewall.Gateway, next *firewall.Gateway) error {
	was, _ := acceptWanted(before, b.cfg.Mark != 0)
	var is [2]wantedChain
	if next != nil {
		is, _ = acceptWanted(*next, b.cfg.Mark != 0)
	}
	var err error
	for _, f := range families {
		if was[f].Chain != is[f].Chain {
			if e := b.removePart(ctx, f, was[f]); e != nil {
				err = errors.Join(err, fmt.Errorf("leaving %q: %w", was[f].Chain, explain(e)))
			}
		}
	}
	return err
}

// noteAccept logs when an accept chain is lost or found, and hands the errors on.
func (b *Backend) noteAccept(errs [2]error) error {
	for _, f := range families {
		switch ok := errs[f] == nil; {
		case ok == !b.acceptLost[f]:
		case !ok:
			b.cfg.Log.Warn("the accept chain is missing, mapped traffic may not pass", "family", f, "err", errs[f])
		case !b.wanted[f].none():
			b.cfg.Log.Info("the accept chain lets mapped traffic pass again", "family", f, "chain", b.wanted[f].String())
		}
		b.acceptLost[f] = errs[f] != nil
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("nft: %w", explain(err))
	}
	return nil
}
