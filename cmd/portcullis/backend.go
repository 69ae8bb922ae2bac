package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/firewall/nft"
	"portcullis/portmap"
)

// backend is a firewall as the daemon uses it; firewall/nft and firewall/iptables
// are such.
type backend interface {
	portmap.Firewall
	Prepare(firewall.Gateway) error
	Configure(context.Context, firewall.Gateway) error
	Close(ctx context.Context, keep bool) error
	Counters(context.Context) (map[uint64]firewall.Counter, error)
	Counter(ctx context.Context, id uint64) (firewall.Counter, error)
	Forwarded(context.Context) (*firewall.Forwards, error)
	Audit(ctx context.Context, full bool) (drift string, err error)
	Watch(context.Context, func(firewall.Intrusion)) error
	Repaired() uint64
	Held(tr portmap.Transport, port uint16, host netip.Addr) bool
	OutboundTimeout(portmap.Transport) (time.Duration, error)
}

// openFirewall opens the backend that the configuration names, or the one that
// suits the machine, and says which and why.
func (g *gate) openFirewall(ctx context.Context) error {
	if g.cfg.Firewall.Backend == config.BackendNFTables {
		return g.openNFTables(ctx)
	}
	program, legacy := iptables.LegacyRules(ctx)
	if g.cfg.Firewall.Backend == config.BackendIPTables {
		return g.openIPTables(ctx, program, "iptables, as the configuration says")
	}
	m := firewall.Machine{LegacyRules: legacy}
	if legacy {
		m.IPTables = iptables.Usable(program)
		m.NFTRules = g.ownedNFTables(ctx)
	}
	name, why := firewall.Choose(m)
	if name == firewall.IPTables {
		return g.openIPTables(ctx, program, why)
	}
	g.log.Info("firewall", "choice", why)
	return g.openNFTables(ctx)
}

// ownedNFTables says whether others have rules in nf_tables. Where that cannot be
// told, nothing speaks for iptables.
func (g *gate) ownedNFTables(ctx context.Context) bool {
	b, err := nft.Open(ctx, nft.Config{Log: g.log})
	if err != nil {
		return true
	}
	owned, err := b.Owned(ctx)
	return errors.Join(err, b.Close(ctx, true)) != nil || owned // it has written nothing
}

// openNFTables also opens iptables where the accept chain is one of its chains.
func (g *gate) openNFTables(ctx context.Context) (err error) {
	g.backend = firewall.NFTables
	g.firewall, err = g.nftables(ctx, 0)
	return err
}

func (g *gate) openIPTables(ctx context.Context, program, why string) error {
	b, err := iptables.Open(ctx, iptables.Config{Log: g.log, Program: program, Mark: uint32(g.cfg.Firewall.Mark)})
	if err != nil {
		return err
	}
	g.log.Info("firewall", "choice", why, "flavour", b.Flavour())
	g.firewall, g.backend = b, firewall.IPTables
	return nil
}

// nftables opens that backend in a network namespace. Where an accept chain belongs
// to iptables, its programs write what stands there.
func (g *gate) nftables(ctx context.Context, netns int) (backend, error) {
	if g.cfg.Firewall.AcceptChain.OfIPTables() || g.cfg.Firewall.AcceptChain6.OfIPTables() {
		return iptables.Open(ctx, iptables.Config{
			Log: g.log, NetNS: netns, Program: iptables.NFTProgram, Mark: uint32(g.cfg.Firewall.Mark), Named: true,
		})
	}
	return nft.Open(ctx, nft.Config{Log: g.log, NetNS: netns})
}
