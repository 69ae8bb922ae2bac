package wiring

import (
	"context"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/firewall/nft"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Listing shows mappings as rules to programs that list a chain; nft.Listing and
// iptables.Listing are such.
type Listing interface {
	Show(ctx context.Context, ifindex int, all []portmap.Mapping)
	Audit(context.Context)
	Close(ctx context.Context, keep bool) error
}

// Listed returns the listing that the configuration wants, nil for none.
func Listed(log *slog.Logger, c config.Config) Listing {
	if c.Miniupnpd.Chain == (firewall.Chain{}) {
		return nil
	}
	if c.Miniupnpd.Chain.OfNAT() {
		return iptables.NewListing(log, 0, "", c.Miniupnpd.Chain)
	}
	return nft.NewListing(log, 0, c.Miniupnpd.Chain)
}
