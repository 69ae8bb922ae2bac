package nft

import (
	"fmt"
	"strings"

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

// CommentIn reads a comment from a rule's user data.
func CommentIn(data []byte) string { return commentIn(data) }

// Multiport reads that extension's ports.
func Multiport(info []byte) string {
	cond := anything()
	if !multiport(&cond, info) {
		return "not understood"
	}
	var ports []string
	for _, c := range cond.claims {
		ports = append(ports, fmt.Sprintf("%d-%d", c.low, c.high))
	}
	return strings.Join(ports, " ")
}
