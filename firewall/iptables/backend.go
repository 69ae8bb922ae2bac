package iptables

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"portcullis/firewall"
	"portcullis/firewall/nft"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Config is what a Backend needs.
type Config struct {
	Log     *slog.Logger // must not be nil
	Program string       // the command for IPv4: "iptables-legacy", "iptables-nft"; "": "iptables"
	NetNS   int          // file descriptor of a network namespace, open until Close; 0: the current one
	Size    int          // elements a set may hold; 0: nft.DefaultSize
	Mark    uint32       // the bits of the mark; must not be 0

	// Named limits the rules to the chains that the gateway names as its accept
	// chains, where these are FORWARD of iptables: the backend is nftables else.
	Named bool
}

// Backend is the table of firewall/nft and the rules in FORWARD. Its methods are safe
// for concurrent use.
type Backend struct {
	*nft.Backend
	cfg     Config
	looks   looks
	scanned atomic.Pointer[scan] // the last look at the owner's forwards; nil: none

	// mu guards what follows, and is held while programs run: never by what a
	// client waits for.
	mu       sync.Mutex
	rules    [2]*rule // nil: there is no such program
	wanted   [2]bool
	closed   bool
	failing  bool // for logging a change only
	repaired uint64
}

// Open returns a backend, or the reason why this machine or this process cannot have
// one. It leaves nothing in the kernel before the first Configure, Apply or
// Replace.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Log == nil || cfg.Mark == 0 {
		return nil, errors.New("iptables: Config.Log and Config.Mark must be set")
	}
	if cfg.Program == "" {
		cfg.Program = mainProgram
	}
	b := &Backend{cfg: cfg}
	for _, f := range families {
		p, err := findPrograms(f, cfg.Program, cfg.NetNS)
		if err == nil {
			_, err = p.forward(ctx)
		}
		switch {
		case err == nil:
			b.rules[f] = &rule{programs: p, mark: cfg.Mark}
		case f == four:
			return nil, err
		default:
			cfg.Log.Warn("ip6tables is unusable; pinholes cannot pass your IPv6 rules", "err", err)
		}
	}
	var err error
	b.Backend, err = nft.Open(ctx, nft.Config{Log: cfg.Log, NetNS: cfg.NetNS, Size: cfg.Size, Mark: cfg.Mark})
	return b, err
}

// Flavour returns "legacy" or "nf_tables": where the program keeps its rules.
func (b *Backend) Flavour() string { return b.rules[four].programs.flavour }

// Prepare sets the facts of the gateway before the first Replace.
func (b *Backend) Prepare(g firewall.Facts) error {
	return b.Backend.Prepare(b.follow(g))
}

// Configure changes the facts of the gateway in the rules. A *firewall.ChainError
// means that all is in force but the rules in FORWARD.
func (b *Backend) Configure(ctx context.Context, g firewall.Facts) error {
	err := b.Backend.Configure(ctx, b.follow(g))
	lost, failed := b.keep(ctx)
	if lost != "" && failed == nil {
		b.repair()
		b.cfg.Log.Warn("repaired firewall rules", "drift", lost)
	}
	return errors.Join(err, failed)
}

// Replace makes the kernel hold exactly these mappings. A *firewall.ChainError means
// that all is in force but the rules in FORWARD.
func (b *Backend) Replace(ctx context.Context, want []portmap.Mapping) error {
	err := b.Backend.Replace(ctx, want)
	var chain *firewall.ChainError
	if err != nil && !errors.As(err, &chain) {
		return err
	}
	_, failed := b.keep(ctx)
	return errors.Join(err, failed)
}

// Audit compares the kernel with what it should hold, writes it anew where it
// differs, and returns what was wrong; "" is nothing.
func (b *Backend) Audit(ctx context.Context, full bool) (drift string, err error) {
	drift, err = b.Backend.Audit(ctx, full)
	if errors.Is(err, firewall.ErrClosed) {
		return drift, err
	}
	lost, failed := b.keepStill(ctx)
	switch {
	case lost == "":
	case drift != "":
		drift += "; "
	case failed == nil:
		b.repair()
	}
	return drift + lost, errors.Join(err, failed)
}

// keepStill is keep, but that what others may still be changing is left alone first, and
// that no program is run for what has not changed.
func (b *Backend) keepStill(ctx context.Context) (lost string, err error) {
	if b.written() && b.looks.needless() {
		return "", nil
	}
	wrong, err := b.wrong(ctx)
	if err == nil && wrong {
		if err := b.still(ctx); err != nil {
			b.looks.found(false)
			return "", err
		}
	}
	if err != nil || wrong || !b.written() {
		lost, err = b.keep(ctx)
	}
	b.looks.found(lost == "" && err == nil)
	return lost, err
}

// written reports whether all rules that are wanted have been written, and could be at the
// last try.
func (b *Backend) written() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f, r := range b.rules {
		if r != nil && b.wanted[f] && r.echo == "" {
			return false
		}
	}
	return !b.failing
}

func (b *Backend) repair() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.repaired++
}

// Repaired counts how often the kernel was found not to hold what it should and was
// written anew.
func (b *Backend) Repaired() uint64 {
	n := b.Backend.Repaired()
	b.mu.Lock()
	defer b.mu.Unlock()
	return n + b.repaired
}

// Close ends the backend. It removes the table, the rules in FORWARD and the flows of
// all mappings; or, with keep, leaves all of it, to end by the kernel's own timeouts.
func (b *Backend) Close(ctx context.Context, keep bool) error {
	// The table comes first: without its marks the rules in FORWARD let nothing pass, and
	// programs may have to wait for their lock.
	err := b.Backend.Close(ctx, keep)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rules {
		if r != nil && !keep && !b.closed {
			err = errors.Join(err, r.remove(ctx))
		}
	}
	b.closed = true
	return err
}

// follow finds out where a rule is wanted, and returns the facts for the table. Beside
// FORWARD a chain of nftables may drop as well, as Docker's and nftables.service's do on
// one host: it gets its jump like any other.
func (b *Backend) follow(g firewall.Facts) firewall.Facts {
	wanted := [2]bool{true, true}
	if b.cfg.Named {
		wanted = [2]bool{four: g.AcceptChain.OfIPTables(), six: g.AcceptChain6.OfIPTables()}
	} else if none := (firewall.Chain{}); g.AcceptChain.Family == names[four] && g.AcceptChain6 == none {
		g.AcceptChain6 = firewall.Chain{Family: names[six], Table: "filter", Name: "FORWARD"} // where pinholes pass
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted = wanted
	return g
}

// keep makes sure that the rules are there, and returns what was wrong with them.
func (b *Backend) keep(ctx context.Context) (lost string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return "", firewall.ErrClosed
	}
	var wrong []string
	for f, r := range b.rules {
		if r == nil || !b.wanted[f] {
			continue
		}
		was, failed := r.keep(ctx)
		if was != "" {
			wrong = append(wrong, was)
		}
		if failed != nil {
			err = errors.Join(err, &firewall.ChainError{
				Chain: firewall.Chain{Family: names[f], Table: "filter", Name: "FORWARD"}, Setting: b.setting(family(f)),
				Detail: "mapped traffic may be dropped: " + failed.Error(),
			})
		}
	}
	b.note(err)
	return strings.Join(wrong, "; "), err
}

// note logs when the rules cannot be had, and when they can again.
func (b *Backend) note(err error) {
	switch {
	case b.failing == (err != nil):
	case err != nil:
		b.cfg.Log.Warn("cannot write the rule in FORWARD; mapped traffic may be dropped", "err", err)
	default:
		b.cfg.Log.Info("rule in FORWARD passes mapped traffic again")
	}
	b.failing = err != nil
}

// setting returns the key of the configuration that wants the rule.
func (b *Backend) setting(f family) string {
	switch {
	case !b.cfg.Named:
		return `backend = "iptables":`
	case f == six:
		return "accept_chain6"
	}
	return "accept_chain"
}
