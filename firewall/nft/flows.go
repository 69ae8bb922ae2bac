package nft

import (
	"context"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/firewall/flows"
)

// writeRefusals puts hosts into the sets of ended flows, which the rules answer with
// resets and errors.
func (k *kernel) writeRefusals(ctx context.Context, hosts []firewall.Refusal) error {
	e := newElements()
	for _, h := range hosts {
		set, key := k.own.ended, append(endpointValue(h.From), endpointValue(h.To)...)
		if h.To.Addr().Is6() {
			set, key = k.own.ended6, append(appendProto(nil, h.Transport), key...)
		}
		e.add(set, nftables.SetElement{Key: key, Timeout: flows.RefuseTime})
	}
	for _, batch := range k.writer.batches(e.ops()) {
		if err := k.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) }); err != nil {
			return err
		}
	}
	return nil
}
