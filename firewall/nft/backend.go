package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/portmap"
)

// DefaultSize is how many elements each set of mappings may hold. Empty room
// costs nothing: the sets grow with what is in them.
const DefaultSize = 2 * 65536

// Config is what a Backend needs.
type Config struct {
	Log    *slog.Logger // must not be nil
	NetNS  int          // file descriptor of a network namespace, open until Close; 0: the current one
	Size   int          // elements a set may hold; 0: DefaultSize
	Buffer int          // bytes of send buffer to ask for, which bounds a transaction; 0: what suits a large change
	Mark   uint32       // bits that packets of mappings carry while they are forwarded, for a filter of iptables; 0: none
}

// Backend keeps the kernel's nf_tables and conntrack as the mappings want them.
// Its methods are safe for concurrent use; Apply, Replace, Configure, Audit,
// Counter and Close wait for one another, the others wait for nobody.
type Backend struct {
	cfg    Config
	reader reader // for listings, which may take seconds
	flows  *flows.Keeper

	watched atomic.Pointer[[2]wantedChain] // wanted, for Watch, which does not wait

	mu        sync.Mutex // guards what follows, and all writing to the kernel
	writer    writer
	quick     reader // for questions under the lock, which no listing must hold up
	closed    bool
	gateway   firewall.Gateway
	wanted    [2]wantedChain // by the gateway: where our parts of the owner's tables should stand
	unfit     [2]error       // and why one cannot
	state     *firewall.State
	own       *skeleton    // what the kernel holds, while installed
	installed bool         // the kernel is believed to hold own and state
	accept    acceptedHere // our parts of the owner's tables
	print     string       // the rules as the kernel tells them, see audit.go
	tallies   map[uint64]tally
	writes    uint64 // transactions since the start
	repaired  uint64

	acceptLost [2]bool // for logging a change only
}

// Open gives a backend, or the reason why this kernel or this process cannot
// have one: errors that wrap firewall.ErrPermission or firewall.ErrUnsupported
// are sentences for the owner. Nothing is written to the kernel before the first
// Configure, Apply or Replace, so that the mappings of an earlier run that was
// told to keep them stay open until then.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Log == nil {
		return nil, errors.New("nft: Config.Log must be set")
	}
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	b := &Backend{
		cfg:     cfg,
		reader:  reader{netns: cfg.NetNS},
		quick:   reader{netns: cfg.NetNS},
		writer:  writer{netns: cfg.NetNS, buffer: cfg.Buffer},
		state:   firewall.NewState(),
		tallies: make(map[uint64]tally),
	}
	// A table that is made and removed within one transaction tells whether we
	// may, and leaves no trace.
	probe := &nftables.Table{Name: Table + "_probe", Family: nftables.TableFamilyINet}
	err := b.writer.commit(ctx, func(q *nftables.Conn) error {
		q.AddTable(probe)
		q.DelTable(probe)
		return nil
	})
	if err != nil {
		b.writer.drop()
		return nil, fmt.Errorf("nft: %w", explain(err))
	}
	b.flows = flows.New(flows.Config{Log: cfg.Log, NetNS: cfg.NetNS, Look: b.lend, Refuse: b.refuse})
	return b, nil
}

// Apply removes del, then adds add, in one kernel transaction. With an error
// nothing has changed, in the kernel and here: a *portmap.Error is a mapping
// that cannot be enforced; all others are failures.
//
// When the kernel does not hold what it should (its ruleset was flushed, an
// element is gone), the whole table is written anew with the change in it.
//
// Flows of others that leave from a port that is mapped now are ended.
func (b *Backend) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	c, err := b.apply(ctx, add, del)
	if err == nil {
		b.flows.Free(c)
	}
	return err
}

func (b *Backend) apply(ctx context.Context, add, del []portmap.Mapping) (*firewall.Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, firewall.ErrClosed
	}
	c, err := b.state.Plan(add, del)
	if err != nil {
		return nil, err
	}
	if b.installed && c.Empty() {
		b.state.Commit(c)
		return c, nil
	}
	if err := b.bring(ctx, c); err != nil {
		return nil, fmt.Errorf("nft apply: %w", explain(err))
	}
	b.committed(c)
	// Without it the mapping is there all the same, and the audit tries again; the
	// owner is told in the log.
	_ = b.restoreAccept(ctx)
	return c, nil
}

// Replace makes the kernel hold exactly these mappings, whatever it held before,
// by writing the whole table. Up to some thousand mappings that is one
// transaction; beyond, new flows find no mapping while it is written (a second
// for sixty thousand), and established ones go on. When it fails, the kernel
// holds what it held before.
// A *firewall.ChainError says that all is in force but the accept chain.
func (b *Backend) Replace(ctx context.Context, want []portmap.Mapping) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return firewall.ErrClosed
	}
	wanted := make(map[uint64]bool, len(want))
	for _, m := range want {
		wanted[m.ID] = true
	}
	del := slices.DeleteFunc(b.state.Mappings(), func(m portmap.Mapping) bool { return wanted[m.ID] })
	c, err := b.state.Plan(want, del)
	if err != nil {
		return err
	}
	b.look(ctx)
	if err := b.rewrite(ctx, c); err != nil {
		return fmt.Errorf("nft replace: %w", explain(err))
	}
	b.committed(c)
	return b.installAccept(ctx)
}

// Prepare tells what the gateway is before the first Replace, which then writes
// everything at once. Nothing is written now: what an earlier run left in the
// kernel stays open until then.
func (b *Backend) Prepare(g firewall.Gateway) error {
	if err := g.Validate(); err != nil {
		return fmt.Errorf("nft prepare: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return firewall.ErrClosed
	case b.installed:
		return errors.New("nft prepare: the rules are in force already; Configure changes them")
	}
	b.follow(g)
	return nil
}

// Configure tells the rules what has changed about the gateway. Its cost does
// not depend on the number of mappings, unless the accept chain changes.
// A *firewall.ChainError says that all is in force but the accept chain; with
// another error nothing has changed, unless it says that our part of the former
// accept chain could not be removed.
func (b *Backend) Configure(ctx context.Context, g firewall.Gateway) error {
	if err := g.Validate(); err != nil {
		return fmt.Errorf("nft configure: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return firewall.ErrClosed
	}
	before := b.gateway
	b.follow(g)
	if err := b.writeFacts(ctx); err != nil {
		b.follow(before)
		return fmt.Errorf("nft configure: %w", explain(err))
	}
	b.flows.AddressesGone(before, g)
	left := b.leaveAccept(ctx, before, &g)
	if left != nil {
		left = fmt.Errorf("nft configure: %w", left)
	}
	lost, err := b.ensureAccept(ctx)
	if lost && err == nil {
		b.cfg.Log.Warn("the kernel's rules were put right", "drift", acceptLost)
	}
	return errors.Join(left, err)
}

// Close ends the backend. It removes the table, what it added to the accept
// chain's table, and the flows of all mappings; or, with keep, leaves all of it
// as it is, to end by the kernel's own timeouts. It waits for work under way.
func (b *Backend) Close(ctx context.Context, keep bool) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var err error
	var held []portmap.Mapping
	if !keep {
		held = b.state.Mappings()
		err = errors.Join(b.leaveAccept(ctx, b.gateway, nil), b.removeTable(ctx))
	}
	b.mu.Unlock()

	err = errors.Join(err, b.flows.Close(ctx, held))
	b.mu.Lock()
	b.writer.drop()
	b.mu.Unlock()
	b.reader.close()
	b.quick.close()
	if err != nil {
		return fmt.Errorf("nft close: %w", explain(err))
	}
	return nil
}

// Repaired counts how often the kernel was found not to hold what it should and
// was written anew.
func (b *Backend) Repaired() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.repaired
}

// The methods below are called with the lock held.

// follow takes over facts of the gateway.
func (b *Backend) follow(g firewall.Gateway) {
	b.gateway = g
	b.wanted, b.unfit = acceptWanted(g, b.cfg.Mark != 0)
	wanted := b.wanted
	b.watched.Store(&wanted)
}

// after gives the state behind a planned change.
func (b *Backend) after(c *firewall.Change) *firewall.State {
	next := b.state.Clone()
	next.Commit(c)
	return next
}

// committed takes over what the kernel holds now.
func (b *Backend) committed(c *firewall.Change) {
	b.state.Commit(c)
	renewed := make(map[uint64]bool, len(c.Renewed))
	for _, m := range c.Renewed {
		renewed[m.ID] = true
	}
	for _, m := range c.Gone {
		if !renewed[m.ID] {
			delete(b.tallies, m.ID)
		}
	}
	for _, e := range c.New { // a mapping that now leads elsewhere among them
		if m, ok := b.state.Holder(e.Key()); ok && !renewed[m.ID] {
			b.tallies[m.ID] = tally{since: b.writes}
		}
	}
	b.flows.Changed(c)
}

func (b *Backend) target() *target { return &target{own: b.own, accept: b.accept} }

// bring gets the kernel from the state to the one behind c.
func (b *Backend) bring(ctx context.Context, c *firewall.Change) error {
	if !b.installed {
		return b.rewrite(ctx, c)
	}
	if err := b.writer.open(); err != nil {
		return err
	}
	ops := b.target().change(c).ops()
	if !b.writer.fits(ops, 0) {
		b.look(ctx)
		return b.rewrite(ctx, c)
	}
	b.carry(ctx, c.Renewed)
	queue := func(q *nftables.Conn) error { return queueAll(q, ops) }
	err := b.writer.commit(ctx, queue)
	if errors.Is(err, errUnknown) {
		err = b.settle(ctx, c, queue, err)
	}
	if drifted(err) {
		b.cfg.Log.Warn("the kernel did not hold our mappings, writing them anew", "err", err)
		b.repaired++
		b.look(ctx)
		return b.rewrite(ctx, c)
	}
	if err == nil {
		b.writes++
		b.rebase(c.Renewed)
	}
	return err
}

// drifted says whether a refusal means that the kernel holds something else than
// we believe.
func drifted(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) }

// rewrite writes the whole state behind c. When that fails half-way, it tries to
// get back to the state before.
func (b *Backend) rewrite(ctx context.Context, c *firewall.Change) error {
	was := b.installed
	if err := b.install(ctx, b.after(c)); err != nil {
		if was && !b.installed {
			ctx, cancel := fresh(ctx)
			defer cancel()
			if undo := b.install(ctx, b.state); undo != nil {
				b.cfg.Log.Error("the mappings could not be restored after a failed change", "err", undo)
			}
		}
		return err
	}
	b.accept = acceptedHere{} // to be written with the state that the caller commits next
	return nil
}

// settle finds out what became of a transaction whose outcome the kernel did not
// tell, and does it again where nothing came of it.
func (b *Backend) settle(ctx context.Context, c *firewall.Change, queue func(*nftables.Conn) error, unknown error) error {
	b.cfg.Log.Warn("the outcome of a change is unknown, asking the kernel", "err", unknown)
	ctx, cancel := fresh(ctx)
	defer cancel()
	done, err := b.happened(ctx, c)
	if err == nil && !done {
		err = b.writer.commit(ctx, queue)
	}
	if errors.Is(err, errUnknown) || err != nil && !refusal(err) {
		b.installed = false // the next change writes everything anew
	}
	return err
}

// happened says whether a change is in the kernel. A transaction is all or
// nothing, so one element tells.
func (b *Backend) happened(ctx context.Context, c *firewall.Change) (bool, error) {
	own := &target{own: b.own}
	look := func(e firewall.Entry) (found bool, err error) {
		asked := false
		own.each(e, func(set *nftables.Set, el nftables.SetElement) {
			if asked {
				return
			}
			asked = true
			var got []element
			got, err = b.quick.get(ctx, set, [][]byte{el.Key})
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

// fresh gives a context for work that must be done although the caller's time
// is over.
func fresh(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}
