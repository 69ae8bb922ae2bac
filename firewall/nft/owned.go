package nft

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Ours reports whether a table of family inet is one of those that this program makes.
func Ours(table string) bool { return table == Table || table == FramesTable }

// Owned reports whether anybody else has a rule in nf_tables, or a chain that drops;
// iptables-nft and its like among them.
func (b *Backend) Owned(ctx context.Context) (owned bool, err error) {
	var theirs []*nftables.Chain
	err = b.kernel.reader.do(ctx, func(q *nftables.Conn, _ *netlink.Conn) error {
		chains, err := q.ListChains()
		for _, c := range chains {
			if c.Table.Family == nftables.TableFamilyINet && Ours(c.Table.Name) {
				continue
			}
			if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
				owned = true
			}
			theirs = append(theirs, c)
		}
		return err
	})
	for i := 0; err == nil && !owned && i < len(theirs); i++ {
		var rules []ruleRead
		rules, err = b.kernel.reader.rules(ctx, theirs[i].Table, theirs[i].Name)
		owned = len(rules) > 0
	}
	if err != nil {
		return false, fmt.Errorf("nft: listing the owner's rules: %w", explain(err))
	}
	return owned, nil
}
