package nft

import (
	"context"
	"fmt"

	"portcullis/firewall"
)

// FindChain returns why an accept chain, of IPv6 if six is set, could not be used now: a
// *firewall.ChainError where it is not there or does not filter what is forwarded. It
// changes nothing.
func FindChain(ctx context.Context, c firewall.Chain, six bool) error {
	f, setting := family4, "accept_chain"
	if six {
		f, setting = family6, "accept_chain6"
	}
	r := &reader{}
	defer r.close()
	if _, err := r.inspect(ctx, f, wantedChain{c, setting}); err != nil {
		return fmt.Errorf("nft: %w", explain(err))
	}
	return nil
}
