package wiring

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/firewall/nft"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Backend is a firewall as the daemon uses it: a firewall.Driver, and what only its
// kernel knows. It is an interface because firewall/iptables stands before half of the
// Driver's methods with its rule in FORWARD, which its programs are too slow to write
// below the Driver's lock.
type Backend interface {
	portmap.Firewall
	Prepare(firewall.Facts) error
	Configure(context.Context, firewall.Facts) error
	Close(ctx context.Context, keep bool) error
	Counters(context.Context) (map[uint64]firewall.Counter, error)
	Counter(ctx context.Context, id uint64) (firewall.Counter, error)
	CountersOf(ctx context.Context, ids []uint64) (map[uint64]firewall.Counter, error)
	Forwarded(context.Context) (*firewall.Forwards, error)
	Audit(ctx context.Context, full bool) (drift string, err error)
	Watch(context.Context, func(firewall.Intrusion)) error
	Repaired() uint64
	Held(tr portmap.Transport, port uint16, host netip.Addr) bool
	OutboundTimeout(portmap.Transport) (time.Duration, error)
}

// Choice is a backend, and why it is the one.
type Choice struct {
	Name    string
	Why     string // a sentence that begins with the name
	program string // of iptables, "" for the usual one
}

// Choose returns the backend that the configuration names, or the one that suits the
// machine.
func Choose(ctx context.Context, log *slog.Logger, c config.Config) (Choice, error) {
	switch c.Firewall.Backend {
	case config.BackendNFTables:
		return Choice{Name: firewall.NFTables, Why: "nftables, as the configuration says"}, nil
	case config.BackendIPTables:
		program, _, _ := iptables.LegacyRules(ctx)
		return Choice{firewall.IPTables, "iptables, as the configuration says", program}, nil
	case config.BackendAuto:
		program, legacy, hidden := iptables.LegacyRules(ctx)
		m := firewall.Machine{LegacyRules: legacy, Hidden: hidden}
		if legacy {
			m.IPTables = iptables.Usable(program)
			m.NFTRules = ownedNFTables(ctx, log)
		}
		name, why := firewall.Choose(m)
		return Choice{name, why, program}, nil
	}
	return Choice{}, unknown(string(c.Firewall.Backend))
}

// Firewall opens the backend that Choose names, logs which and why, and returns its name
// as well.
func Firewall(ctx context.Context, log *slog.Logger, c config.Config) (b Backend, name string, err error) {
	choice, err := Choose(ctx, log, c)
	if err != nil {
		return nil, "", err
	}
	if choice.Name == firewall.IPTables {
		return openIPTables(ctx, log, c, choice.program, choice.Why)
	}
	if c.Firewall.Backend == config.BackendAuto {
		log.Info("firewall chosen", "why", choice.Why)
	}
	b, err = nftables(ctx, log, c, 0)
	return b, firewall.NFTables, err
}

// FirewallIn opens the backend with this name in a network namespace, by its file
// descriptor.
func FirewallIn(ctx context.Context, log *slog.Logger, c config.Config, name string, netns int) (Backend, error) {
	switch name {
	case firewall.NFTables:
		return nftables(ctx, log, c, netns)
	case firewall.IPTables:
		program, _, _ := iptables.LegacyRules(ctx)
		return iptables.Open(ctx, iptables.Config{Log: log, NetNS: netns, Program: program, Mark: uint32(c.Firewall.Mark)})
	}
	return nil, unknown(name)
}

// unknown is the error for a backend that is not opened here.
func unknown(name string) error { return fmt.Errorf("there is no firewall backend %q", name) }

// ownedNFTables reports whether others have rules in nf_tables. Where that cannot be
// told, nothing speaks for iptables.
func ownedNFTables(ctx context.Context, log *slog.Logger) bool {
	b, err := nft.Open(ctx, nft.Config{Log: log})
	if err != nil {
		return true
	}
	owned, err := b.Owned(ctx)
	return errors.Join(err, b.Close(ctx, true)) != nil || owned // it has written nothing
}

func openIPTables(ctx context.Context, log *slog.Logger, c config.Config, program, why string) (Backend, string, error) {
	b, err := iptables.Open(ctx, iptables.Config{Log: log, Program: program, Mark: uint32(c.Firewall.Mark)})
	if err != nil {
		return nil, "", err
	}
	log.Info("firewall chosen", "why", why, "flavour", b.Flavour())
	return b, firewall.IPTables, nil
}

// nftables opens that backend in a network namespace; 0 is the current one. Where an
// accept chain belongs to iptables, its programs write what stands there.
func nftables(ctx context.Context, log *slog.Logger, c config.Config, netns int) (Backend, error) {
	if c.Firewall.AcceptChain.OfIPTables() || c.Firewall.AcceptChain6.OfIPTables() {
		return iptables.Open(ctx, iptables.Config{
			Log: log, NetNS: netns, Program: iptables.NFTProgram, Mark: uint32(c.Firewall.Mark), Named: true,
		})
	}
	return nft.Open(ctx, nft.Config{Log: log, NetNS: netns})
}
