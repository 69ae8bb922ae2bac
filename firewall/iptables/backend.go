package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/portmap"
)

// MaxRules is how many entries are kept at most. Every packet of a mapped flow
// walks the list, so there must be an end to it.
const MaxRules = 32768

// Config is what a Backend needs.
type Config struct {
	Log     *slog.Logger // must not be nil
	Program string       // the command for IPv4: "iptables-legacy", "iptables-nft"; "": "iptables"
	NetNS   int          // file descriptor of a network namespace, open until Close; 0: the current one
	Size    int          // mappings it may hold; 0: MaxRules
}

// Backend keeps the kernel's iptables and conntrack as the mappings want them. Its
// methods are safe for concurrent use, and wait for one another.
type Backend struct {
	cfg   Config
	flows *flows.Keeper

	mu        sync.Mutex // guards what follows, and all writing to the kernel
	closed    bool
	installed bool // the rules have been written
	timeless  bool // the kernel has no xt_time
	programs  [2]*programs
	gateway   firewall.Gateway
	state     *firewall.State
	stops     map[firewall.Key]stop
	seen      map[firewall.Key]firewall.Counter // of each counting rule
	short     map[firewall.Key]firewall.Counter // what a counting rule lacks
	base      map[uint64]firewall.Counter       // of each mapping, by rules it no longer has
	refused   []refusal
	kernel    [2]kernelView
	repaired  uint64
}

// stop is the date a rule ends, and the lease it stands for.
type stop struct{ expires, date time.Time }

// kernelView is what was last written for a family, and what the kernel made of it.
type kernelView struct{ wrote, echo string }

// Open gives a backend, or the reason why this machine or this process cannot have
// one. It leaves nothing in the kernel before the first Configure, Apply or
// Replace.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Log == nil {
		return nil, errors.New("iptables: Config.Log must be set")
	}
	if cfg.Program == "" {
		cfg.Program = "iptables"
	}
	if cfg.Size == 0 {
		cfg.Size = MaxRules
	}
	b := &Backend{
		cfg: cfg, state: firewall.NewState(), stops: make(map[firewall.Key]stop),
		seen: make(map[firewall.Key]firewall.Counter), base: make(map[uint64]firewall.Counter),
		short: make(map[firewall.Key]firewall.Counter),
	}
	if err := b.probe(ctx); err != nil {
		return nil, err
	}
	if b.timeless {
		cfg.Log.Warn("this kernel has no xt_time, so that mappings do not end by themselves when portcullis is killed; " +
			"load or install the module xt_time")
	}
	b.flows = flows.New(flows.Config{Log: cfg.Log, NetNS: cfg.NetNS, Look: b.lend, Refuse: b.refuse})
	return b, nil
}

// Flavour gives "legacy" or "nf_tables": where the program keeps its rules.
func (b *Backend) Flavour() string { return b.programs[four].flavour }

// Apply removes del, then adds add. With an error nothing has changed, in the
// kernel and here: a *portmap.Error is a mapping that cannot be enforced; all
// others are failures.
func (b *Backend) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := b.plan(ctx, add, del)
	if err != nil {
		return err
	}
	if b.installed && c.Empty() {
		b.state.Commit(c)
		return nil
	}
	return b.bring(ctx, c)
}

// Replace makes the kernel hold exactly these mappings, whatever it held before.
func (b *Backend) Replace(ctx context.Context, want []portmap.Mapping) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	wanted := make(map[uint64]bool, len(want))
	for _, m := range want {
		wanted[m.ID] = true
	}
	del := slices.DeleteFunc(b.state.Mappings(), func(m portmap.Mapping) bool { return wanted[m.ID] })
	c, err := b.plan(ctx, want, del)
	if err != nil {
		return err
	}
	return b.bring(ctx, c)
}

// Prepare tells what the gateway is before the first Replace, which then writes
// everything at once. Nothing is written now.
func (b *Backend) Prepare(g firewall.Gateway) error {
	if err := check(g); err != nil {
		return fmt.Errorf("iptables prepare: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return firewall.ErrClosed
	case b.installed:
		return errors.New("iptables prepare: the rules are in force already; Configure changes them")
	}
	b.gateway = g
	return nil
}

// Configure tells the rules what has changed about the gateway. With an error
// nothing has changed.
func (b *Backend) Configure(ctx context.Context, g firewall.Gateway) error {
	if err := check(g); err != nil {
		return fmt.Errorf("iptables configure: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return firewall.ErrClosed
	}
	before := b.gateway
	b.gateway = g
	if _, err := b.sync(ctx, b.state); err != nil {
		b.gateway = before
		b.undo(ctx)
		return fmt.Errorf("iptables configure: %w", err)
	}
	b.installed = true
	b.flows.AddressesGone(before, g)
	return nil
}

// ifaceName is narrower than what the kernel allows: a "+" at the end means any
// name that begins so, and quotes are the program's own.
var ifaceName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$`)

func check(g firewall.Gateway) error {
	if g.AcceptChain != "" || g.AcceptChain6 != "" {
		return errors.New("firewall.accept_chain and accept_chain6 are for nftables: with iptables our jump stands " +
			"first in FORWARD, and what it accepts no later rule can drop; leave them empty")
	}
	if err := g.Validate(); err != nil {
		return err
	}
	for _, name := range slices.Concat(wanNames(g), g.WAN6, g.LAN) {
		if !ifaceName.MatchString(name) {
			return fmt.Errorf("iptables cannot name the interface %q; rename it, with letters, digits and _ . : @ - only", name)
		}
	}
	return nil
}

// Close ends the backend. It removes our chains and the flows of all mappings; or,
// with keep, leaves all of it as it is, to end by the dates of the rules.
func (b *Backend) Close(ctx context.Context, keep bool) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var held []portmap.Mapping
	var err error
	if !keep {
		held = b.state.Mappings()
		err = b.remove(ctx)
	}
	b.mu.Unlock()
	if err = errors.Join(err, b.flows.Close(ctx, held)); err != nil {
		return fmt.Errorf("iptables close: %w", err)
	}
	return nil
}

// remove takes all of ours out of the kernel, and tries all of it.
func (b *Backend) remove(ctx context.Context) error {
	var failed error
	for _, p := range b.programs {
		if p == nil {
			continue
		}
		there, err := b.read(ctx, p)
		if err == nil {
			if script := removal(p.family, there); script != "" {
				err = p.restore(ctx, script)
			}
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Repaired counts how often the kernel was found not to hold what it should and
// was written anew.
func (b *Backend) Repaired() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.repaired
}

// The methods below are called with the lock held.

func (b *Backend) plan(ctx context.Context, add, del []portmap.Mapping) (*firewall.Change, error) {
	if b.closed {
		return nil, firewall.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := b.state.Plan(add, del)
	if err != nil {
		return nil, err
	}
	if b.programs[six] == nil && slices.ContainsFunc(c.Add, func(e firewall.Entry) bool { return e.Kind == firewall.Pin }) {
		return nil, fmt.Errorf("%w: no IPv6 pinholes without a working ip6tables", firewall.ErrUnsupported)
	}
	return c, nil
}

// bring gets the kernel from the state to the one behind c, or back.
func (b *Backend) bring(ctx context.Context, c *firewall.Change) error {
	next := b.state.Clone()
	next.Commit(c)
	if next.Len() > b.cfg.Size || len(c.Add) > 0 && len(next.Entries()) > 2*MaxRules {
		return firewall.ErrFull
	}
	drift, err := b.sync(ctx, next)
	if err != nil {
		b.undo(ctx)
		return fmt.Errorf("iptables apply: %w", err)
	}
	if drift && b.installed {
		b.repaired++
		b.cfg.Log.Warn("the kernel did not hold our mappings, they were written anew")
	}
	b.installed = true
	b.account(c, next)
	b.state.Commit(c)
	b.flows.Changed(c)
	return nil
}

// undo writes the state before a change that failed half-way.
func (b *Backend) undo(ctx context.Context) {
	if !b.installed {
		return
	}
	if _, err := b.sync(ctx, b.state); err != nil {
		b.cfg.Log.Error("the mappings could not be restored after a failed change", "err", err)
	}
}

// sync makes the kernel hold a state, writing as little as it may: a family that
// is as it should be is left alone. It says whether the kernel did not hold what
// was written last.
func (b *Backend) sync(ctx context.Context, next *firewall.State) (drift bool, err error) {
	for _, f := range families {
		p := b.programs[f]
		if p == nil {
			continue
		}
		there, err := b.read(ctx, p)
		if err != nil {
			return drift, err
		}
		changed := !b.intact(f, there)
		drift = drift || changed
		rules := b.rules(f, next)
		text := rules.text()
		if !changed && text == b.kernel[f].wrote {
			continue
		}
		b.kernel[f] = kernelView{}
		begun := make(map[firewall.Key]firewall.Counter)
		counter := func(k firewall.Key) firewall.Counter {
			begun[k] = b.carried(k, next)
			return begun[k]
		}
		if err := p.restore(ctx, rules.script(f, there, counter)); err != nil {
			return drift, err
		}
		for k := range begun {
			delete(b.short, k)
		}
		if there, err = b.read(ctx, p); err != nil {
			return drift, err
		}
		b.began(there, begun)
		if err := complete(f, rules, there); err != nil {
			return drift, err
		}
		b.kernel[f] = kernelView{text, there.ours()}
	}
	return drift, nil
}

// complete makes sure that the kernel took every rule.
func complete(f family, rules *ruleset, there *saved) error {
	held := 0
	for _, table := range tables[f] {
		for _, chain := range chains[f][table] {
			held += len(there.chains[place{table, chain}])
		}
	}
	if held != len(rules.rules) {
		return fmt.Errorf("of %d rules the kernel holds %d", len(rules.rules), held)
	}
	for _, j := range jumps[f] {
		if !j.intact(there) {
			return fmt.Errorf("the jump from %s to %s is not there", j.from, j.to)
		}
	}
	return nil
}

// intact says whether the kernel holds what was written last.
func (b *Backend) intact(f family, there *saved) bool {
	return b.kernel[f].echo != "" && there.ours() == b.kernel[f].echo &&
		!slices.ContainsFunc(jumps[f], func(j jump) bool { return !j.intact(there) })
}

// read reads the rules of a family, and with them the counters.
func (b *Backend) read(ctx context.Context, p *programs) (*saved, error) {
	text, err := p.save(ctx)
	if err != nil {
		return nil, err
	}
	there := parseSaved(text)
	b.saw(there)
	return there, nil
}

// rules gives what the kernel shall hold of one family.
func (b *Backend) rules(f family, next *firewall.State) *ruleset {
	now := time.Now()
	r := &ruleset{
		stop: func(e firewall.Entry) string { return b.stopOf(e, now) },
		id: func(k firewall.Key) uint64 {
			m, _ := next.Holder(k)
			return m.ID
		},
	}
	r.facts(f, b.gateway)
	b.forgetRefusals(now)
	r.refuse(f, b.refused)
	r.entries(f, b.gateway, next.Entries())
	return r
}

// clockSlack is how far the wall clock may go from the monotonic one before the
// dates are reckoned anew.
const clockSlack = 2 * time.Second

// stopOf gives the date when an entry's rules end, "" for never. The lease runs by
// the monotonic clock, so a date that was reckoned stays until the wall clock is
// set.
func (b *Backend) stopOf(e firewall.Entry, now time.Time) string {
	if e.Expires.IsZero() || b.timeless {
		delete(b.stops, e.Key())
		return ""
	}
	left := max(e.Expires.Sub(now)+grace, time.Second)
	at := now.Round(0).Add(left + time.Second - 1).Truncate(time.Second)
	was, known := b.stops[e.Key()]
	if !known || !was.expires.Equal(e.Expires) || at.Sub(was.date).Abs() > clockSlack && left > time.Second {
		was = stop{e.Expires, at}
		b.stops[e.Key()] = was
	}
	return date(was.date)
}
