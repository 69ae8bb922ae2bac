package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
)

// kernel is nf_tables as the firewall.Driver calls it.
type kernel struct {
	cfg    Config
	reader reader // for listings, which may take seconds

	watched atomic.Pointer[[2]wantedChain] // wanted, for Watch, which does not wait
	unheard unheard                        // what the writer does, for Watch
	thread  func(id uint32) bool           // says whether it is of this process, for Watch
	inPlace bool                           // an element that is there takes a new end

	// What follows is guarded by the Driver's lock, as all writing is.
	writer writer
	quick  reader // for questions under the lock, which no listing must hold up
	facts  firewall.Facts
	wanted [2]wantedChain // by the gateway: where our parts of the owner's tables should stand
	stands [2]wantedChain // where they may stand, since they were wanted there
	unfit  [2]error       // why one that is wanted cannot stand
	own    *skeleton      // what the kernel holds, once it has been written
	accept acceptedHere   // our parts of the owner's tables
	print  string         // the rules as the kernel tells them, see audit.go

	acceptLost [2]bool // for logging a change only
	acceptHad  [2]bool // it has been there: whoever audits tells of a loss that lasts
}

// told returns an error of the kernel as the Driver understands it, and a person.
func told(err error) error {
	switch {
	case err == nil:
		return nil
	case drifted(err):
		return fmt.Errorf("nft: %w: %w", firewall.ErrDrifted, err)
	}
	return fmt.Errorf("nft: %w", explain(err))
}

// drifted reports whether a refusal means that the kernel holds something else than
// we believe.
func drifted(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) }

// Write implements firewall.Kernel.
func (k *kernel) Write(ctx context.Context, u firewall.Update) (lacking bool, err error) {
	switch {
	case u.Facts != nil:
		err = k.writeFacts(ctx, *u.Facts)
	case u.Delta != nil:
		err = k.writeDelta(ctx, u.Delta)
	default:
		err = k.writeRefusals(ctx, u.Refuse)
	}
	return k.lacking(), told(err)
}

func (k *kernel) writeDelta(ctx context.Context, c *firewall.Delta) error {
	if err := k.writer.open(); err != nil {
		return err
	}
	var ops []elementOp
	var write func() error
	extra := 0
	if k.inPlace && c.LeasesOnly() {
		ops = k.target().leases(c).ops()
		for _, op := range ops {
			extra += len(op.elements) * expirySize
		}
		write = func() error { return k.writer.retime(ctx, ops) }
	} else {
		ops = k.target().change(c).ops()
		write = func() error {
			return k.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, ops) })
		}
	}
	if !k.writer.fits(ops, extra) {
		return firewall.ErrTooLarge
	}
	err := write()
	if errors.Is(err, firewall.ErrUnknown) {
		err = k.settle(ctx, c, write, err)
	}
	return err
}

// Retimes implements firewall.Kernel.
func (k *kernel) Retimes() bool { return k.inPlace }

// Rewrite implements firewall.Kernel.
func (k *kernel) Rewrite(ctx context.Context, p firewall.Part, w firewall.Whole) error {
	if p == firewall.OurTable {
		return told(k.install(ctx, w))
	}
	return errors.Join(k.leaveAccept(ctx), k.restoreAccept(ctx, w.Entries))
}

// Read implements firewall.Kernel.
func (k *kernel) Read(ctx context.Context, q firewall.Query) (h firewall.Held, err error) {
	r := &k.reader
	if q.Quick {
		r = &k.quick
	}
	switch {
	case q.Rules:
		h.Drift, err = k.rulesDrift(ctx)
	case q.OwnersTables:
		h.Lost = k.acceptDrifted(ctx)
		h.Lacking = k.lacking()
	case q.Copies != nil:
		h.Drift, h.Lost, err = k.copiesDrift(ctx, q.Copies)
	case q.Holds != nil:
		h.Drift, err = k.entriesDrift(ctx, q.Holds)
	case q.Entries:
		h.Entries, err = r.entries(ctx)
	case q.Counters:
		h.Counters, err = r.counters(ctx)
	default:
		h.Counters, err = k.countersOf(ctx, q.CountersOf)
	}
	return h, told(err)
}

// Remove implements firewall.Kernel.
func (k *kernel) Remove(ctx context.Context) error {
	k.follow(firewall.Facts{})
	return errors.Join(k.leaveAccept(ctx), told(k.removeTable(ctx)))
}

// close ends what uses the sockets.
func (k *kernel) close() {
	k.writer.drop()
	k.reader.close()
	k.quick.close()
}

// follow takes over facts of the gateway.
func (k *kernel) follow(g firewall.Facts) {
	k.facts = g
	k.wanted, k.unfit = acceptWanted(g, k.cfg.Mark != 0)
	wanted := k.wanted
	k.watched.Store(&wanted)
}

func (k *kernel) target() *target { return &target{own: k.own, accept: k.accept} }

// settle finds out what became of a transaction whose outcome the kernel did not
// tell, and does it again where nothing came of it.
func (k *kernel) settle(ctx context.Context, c *firewall.Delta, write func() error, unknown error) error {
	k.cfg.Log.Warn("outcome of a change is unknown; reading the kernel state", "err", unknown)
	ctx, cancel := fresh(ctx)
	defer cancel()
	done, err := k.happened(ctx, c)
	if err == nil && !done {
		err = write()
	}
	if err != nil && !errors.Is(err, firewall.ErrUnknown) && !refusal(err) {
		err = fmt.Errorf("%w: %w", firewall.ErrUnknown, err)
	}
	return err
}

// happened reports whether a change is in the kernel. A transaction is all or
// nothing, so one element tells.
func (k *kernel) happened(ctx context.Context, c *firewall.Delta) (bool, error) {
	own := &target{own: k.own}
	look := func(e firewall.Entry) (found bool, err error) {
		asked := false
		own.each(e, func(set *nftables.Set, el nftables.SetElement) {
			if asked {
				return
			}
			asked = true
			var got []element
			got, err = k.quick.get(ctx, set, [][]byte{el.Key})
			if errors.Is(err, unix.ENOENT) {
				err = nil
				return
			}
			found = len(got) == 1 && slices.Equal(got[0].val, el.Val) &&
				slices.Equal(got[0].key, el.Key) && slices.Equal(got[0].keyEnd, el.KeyEnd)
		})
		return found, err
	}
	switch {
	case len(c.Add) > 0:
		return look(c.Add[0])
	case len(c.Del) > 0:
		found, err := look(c.Del[0])
		return !found, err
	}
	return false, nil // new leases only: writing them twice does no harm
}

// fresh returns a context for work that must be done although the caller's time
// is over.
func fresh(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}
