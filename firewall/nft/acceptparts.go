package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"

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

// acceptWanted returns the chains where the two parts should stand, and why one
// cannot be told.
//
// One accept chain of family ip is an error, but only for IPv6: no pinhole passes
// there, and a chain that drops them elsewhere would not be told.
//
// With marks, those of iptables are somebody else's to tell (firewall/iptables).
func acceptWanted(g firewall.Facts, marks bool) (wanted [2]wantedChain, wrong [2]error) {
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

// lacking reports whether restoreAccept or leaveAccept has something to do or to say.
func (k *kernel) lacking() bool {
	for _, f := range families {
		if !k.wanted[f].none() && k.accept[f] == nil || k.unfit[f] != nil || k.acceptLost[f] || k.left(f) {
			return true
		}
	}
	return false
}

// left reports whether a part of ours may stand where it is no longer wanted.
func (k *kernel) left(f family) bool {
	return !k.stands[f].none() && k.stands[f].Chain != k.wanted[f].Chain
}

// restoreAccept puts in the parts that are not there.
func (k *kernel) restoreAccept(ctx context.Context, entries iter.Seq[firewall.Entry]) error {
	errs := k.unfit
	for _, f := range families {
		if !k.wanted[f].none() && k.accept[f] == nil {
			k.stands[f] = k.wanted[f]
			errs[f] = k.installPart(ctx, f, k.wanted[f], entries)
		}
	}
	return k.noteAccept(errs)
}

func (k *kernel) installPart(ctx context.Context, f family, chain wantedChain, entries iter.Seq[firewall.Entry]) error {
	k.accept[f] = nil
	ctx, cancel := fresh(ctx) // what it belongs to is in the kernel already
	defer cancel()
	// The owner's firewall may be reloading at this very moment, so what was
	// read may be gone when it is written.
	var err error
	for range 2 {
		err = k.tryAccept(ctx, f, chain, entries)
		if !drifted(err) {
			break
		}
	}
	return err
}

func (k *kernel) tryAccept(ctx context.Context, f family, chain wantedChain, entries iter.Seq[firewall.Entry]) error {
	there, err := k.quick.inspect(ctx, f, chain)
	if err != nil {
		return err
	}
	a := newAcceptPart(f, chain.Chain, uint32(k.cfg.Size))
	only := acceptedHere{}
	only[f] = a
	if err := k.writer.open(); err != nil {
		return err
	}
	begin := func(q *nftables.Conn) error { return errors.Join(there.remove(q), a.createSets(q)) }
	err = k.writeAll(filling{a.facts(k.facts).ops(), &target{accept: only}, entries}, skeletonSize,
		func(ops []elementOp) error {
			return k.writer.commit(ctx, func(q *nftables.Conn) error {
				return errors.Join(begin(q), queueAll(q, ops), a.createRules(q))
			})
		},
		func(all filling) error {
			if err := k.writer.commit(ctx, begin); err != nil {
				return err
			}
			if err := k.writer.fill(ctx, all); err != nil {
				return err
			}
			return k.writer.commit(ctx, a.createRules)
		})
	if err != nil {
		return err
	}
	if there, err = k.quick.inspect(ctx, f, chain); err != nil {
		return err
	}
	a.rules = there.rules
	k.accept[f] = a
	return nil
}

// acceptDrifted reports whether a part that is wanted is missing or not as written. All
// of them are written anew then: what emptied one may have emptied the other.
func (k *kernel) acceptDrifted(ctx context.Context) (lost bool) {
	for _, f := range families {
		if part := k.accept[f]; part != nil && !k.left(f) && !k.partIntact(ctx, part) {
			lost = true
		}
	}
	if lost {
		k.accept = acceptedHere{}
	}
	return lost
}

// lostLooks is how often in a row our part must be missing: a look is several
// listings, and what others write between two of them looks like a loss.
const lostLooks = 3

func (k *kernel) partIntact(ctx context.Context, part *acceptPart) bool {
	for range lostLooks {
		if k.partThere(ctx, part) {
			return true
		}
	}
	return false
}

func (k *kernel) partThere(ctx context.Context, part *acceptPart) bool {
	there, err := k.quick.inspect(ctx, part.family, wantedChain{Chain: part.chain})
	if err != nil || !there.intact(part.rules) {
		return false
	}
	held, err := k.quick.holds(ctx, part.facts(k.facts), part.factSets())
	return err == nil && held
}

// removePart takes our part out of the table of an accept chain, if any.
func (k *kernel) removePart(ctx context.Context, f family, chain wantedChain) error {
	k.accept[f] = nil
	if chain.none() {
		return nil
	}
	var err error
	for range 2 { // as in installPart
		var there *ownersTable
		there, err = k.quick.inspect(ctx, f, chain)
		var gone *firewall.ChainError
		if errors.As(err, &gone) {
			return nil // and our part with it
		}
		if err == nil {
			err = k.writer.commit(ctx, there.remove)
		}
		if !drifted(err) {
			break
		}
	}
	return err
}

// leaveAccept takes out the parts that stand where they are no longer wanted.
func (k *kernel) leaveAccept(ctx context.Context) error {
	var err error
	for _, f := range families {
		if !k.left(f) {
			continue
		}
		was := k.stands[f]
		k.stands[f] = wantedChain{}
		if e := k.removePart(ctx, f, was); e != nil {
			err = errors.Join(err, fmt.Errorf("nft: leaving %q: %w", was.Chain, explain(e)))
		}
	}
	return err
}

// noteAccept logs when an accept chain is not there yet, and when it has come, and hands
// the errors on. One that was there is mostly being loaded anew, which is no alarm.
func (k *kernel) noteAccept(errs [2]error) error {
	for _, f := range families {
		switch ok := errs[f] == nil; {
		case ok == !k.acceptLost[f]:
		case k.acceptHad[f]:
			k.cfg.Log.Debug("accept chain looked for", "family", f, "err", errs[f])
		case !ok:
			k.cfg.Log.Warn("accept chain missing; mapped traffic may be dropped", "family", f, "err", errs[f])
		case !k.wanted[f].none():
			k.cfg.Log.Info("accept chain passes mapped traffic now", "family", f, "chain", k.wanted[f].String())
		}
		k.acceptLost[f] = errs[f] != nil
		k.acceptHad[f] = k.acceptHad[f] || errs[f] == nil && !k.wanted[f].none()
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("nft: %w", explain(err))
	}
	return nil
}
