package main

import (
	"context"
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
	OutboundTimeout(portmap.Transport) (time.Duration, error)
}

// openFirewall opens the backend that the configuration names, or the one that
// suits the machine, and says which and why.
func (g *gate) openFirewall(ctx context.Context) error {
	switch g.cfg.Firewall.Backend {
	case config.BackendNFTables:
		return g.openNFTables(ctx)
	case config.BackendIPTables:
		program, _ := iptables.LegacyRules(ctx)
		return g.openIPTables(ctx, program)
	}
	table, nftErr := nft.Open(ctx, nft.Config{Log: g.log})
	m := firewall.Machine{NFTables: nftErr}
	program := ""
	if program, m.LegacyRules = iptables.LegacyRules(ctx); nftErr == nil && m.LegacyRules {
		var err error
		if m.NFTRules, err = table.Owned(ctx); err != nil {
			m.NFTRules = true // then nothing speaks for iptables
		}
	}
	var chains *iptables.Backend
	if nftErr != nil || m.LegacyRules && !m.NFTRules {
		chains, m.IPTables = iptables.Open(ctx, iptables.Config{Log: g.log, Program: program})
	}
	name, why := firewall.Choose(m)
	if name == firewall.NFTables && nftErr != nil {
		return nftErr // with a remedy
	}
	g.log.Info("firewall", "choice", why)
	if name == firewall.IPTables {
		g.firewall, g.backend = chains, name
		if table != nil {
			return table.Close(ctx, true) // it has written nothing
		}
		return nil
	}
	g.firewall, g.backend = table, name
	return nil
}

func (g *gate) openNFTables(ctx context.Context) error {
	b, err := nft.Open(ctx, nft.Config{Log: g.log})
	if err != nil {
		return err
	}
	g.firewall, g.backend = b, firewall.NFTables
	return nil
}

func (g *gate) openIPTables(ctx context.Context, program string) error {
	b, err := iptables.Open(ctx, iptables.Config{Log: g.log, Program: program})
	if err != nil {
		return err
	}
	g.log.Info("firewall", "choice", "iptables, as the configuration says", "flavour", b.Flavour())
	g.firewall, g.backend = b, firewall.IPTables
	return nil
}
