package nft

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/firewall/flows"
	"portcullis/portmap"
)

// lend gives f the committed mappings and the facts, under the lock.
func (b *Backend) lend(f func(*firewall.State, firewall.Gateway)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.state, b.gateway)
}

// refuse puts the hosts of these flows into the sets of ended flows, which the
// rules answer with resets and errors.
func (b *Backend) refuse(list []flows.Flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.installed {
		return nil
	}
	e := newElements()
	for _, f := range list {
		set, key := b.own.ended, append(endpointValue(f.AnswersFrom), endpointValue(f.Src)...)
		if f.Src.Addr().Is6() {
			set, key = b.own.ended6, append(appendProto(nil, f.Transport), key...)
		}
		e.add(set, nftables.SetElement{Key: key, Timeout: flows.RefuseTime})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, batch := range b.writer.batches(e.ops()) {
		if err := b.writer.commit(ctx, func(q *nftables.Conn) error { return queueAll(q, batch) }); err != nil {
			return fmt.Errorf("refusing the hosts of ended flows: %w", explain(err))
		}
	}
	return nil
}

// Held says whether another host's flow, or one of the gateway itself, leaves from an
// external port, as far as that can be told at once.
func (b *Backend) Held(t portmap.Transport, external uint16, host netip.Addr) bool {
	return b.flows.Held(t, external, host)
}

// OutboundTimeout gives how long the kernel lets answers in, at least, after the
// last packet of what a host began itself.
func (b *Backend) OutboundTimeout(t portmap.Transport) (time.Duration, error) {
	return flows.OutboundTimeout(b.cfg.NetNS, t)
}
