package nft

import (
	"github.com/google/nftables"

	"portcullis/firewall"
)

// Steal queues the removal of all elements of an entry, by another hand.
func Steal(q *nftables.Conn, e firewall.Entry) {
	(&target{own: newSkeleton(DefaultSize)}).each(e, func(set *nftables.Set, el nftables.SetElement) {
		if err := q.SetDeleteElements(set, []nftables.SetElement{{Key: el.Key}}); err != nil {
			panic(err)
		}
	})
}

// FlowKey is the key of an entry in the sets of flows.
func FlowKey(e firewall.Entry) string { return string(flowKeyOf(e)) }
