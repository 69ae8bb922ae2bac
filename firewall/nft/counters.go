package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Traffic is counted by the elements of mapped_flows and mapped_flows_from, in
// the forward hook and behind the owner's filter: all packets that passed, both
// directions, hairpin included. The maps of the NAT chains would not do: they see
// only the first packet of a flow. What a flowtable carries past the forward
// hook is not seen.

// tally is what is known of a mapping's traffic beside the kernel's counter,
// which starts again whenever the element is written anew.
type tally struct {
	base  firewall.Counter // before the element was last written
	seen  firewall.Counter // the element's own count when it was last read
	since uint64           // Backend.writes when the element was last written
}

// restarted gives the tally after the element was lost: what was last seen of it
// is kept.
func (t tally) restarted(writes uint64) tally {
	return tally{base: t.base.Plus(t.seen), since: writes}
}

// lookLimit is the most mappings whose counters are read before the table is
// rewritten; beyond it the reading takes longer than the writing.
const lookLimit = 4096

// Counters gives the traffic of each open mapping, by its ID. It reads all
// elements: 6 ms for a thousand mappings, seconds for sixty thousand.
func (b *Backend) Counters(ctx context.Context) (map[uint64]firewall.Counter, error) {
	b.mu.Lock()
	at, closed, installed := b.writes, b.closed, b.installed
	b.mu.Unlock()
	if closed {
		return nil, firewall.ErrClosed
	}
	var read []counted
	if installed {
		var err error
		if read, err = readCounters(ctx, &b.reader); err != nil {
			return nil, fmt.Errorf("nft counters: %w", explain(err))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saw(read, at)
	all := make(map[uint64]firewall.Counter, b.state.Len())
	for _, m := range b.state.Mappings() {
		t := b.tallies[m.ID]
		all[m.ID] = t.base.Plus(t.seen)
	}
	return all, nil
}

// counted is one counter read, with the mapping it belongs to.
type counted struct {
	transport portmap.Transport
	external  uint16
	remote    netip.Addr
	counter   firewall.Counter
}

func readCounters(ctx context.Context, r *reader) ([]counted, error) {
	var all []counted
	for _, set := range []string{"mapped_flows", "mapped_flows_from"} {
		elements, err := r.dump(ctx, nftables.TableFamilyINet, Table, set)
		if err != nil {
			return nil, err
		}
		for _, el := range elements {
			if c, ok := countedOf(el); ok {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// countedOf reads the key of a flow element: the remote address, if any, then
// transport, external port, internal address, internal port.
func countedOf(el element) (counted, bool) {
	c := counted{counter: el.counter}
	key := el.key
	switch len(key) {
	case 16:
	case 20:
		c.remote = netip.AddrFrom4([4]byte(key))
		key = key[4:]
	default:
		return counted{}, false
	}
	c.transport, c.external = portmap.Transport(key[0]), binary.BigEndian.Uint16(key[4:])
	return c, true
}

// saw keeps what was read when the kernel had seen so many writes. A counter
// whose element was written anew meanwhile is passed over: what it had counted
// is in the base already. The lock is held.
func (b *Backend) saw(read []counted, at uint64) {
	for _, c := range read {
		m, ok := b.state.Hole(c.transport, c.external, c.remote)
		if !ok {
			continue
		}
		if t := b.tallies[m.ID]; t.since <= at && t.seen.Packets < c.counter.Packets {
			t.seen = c.counter
			b.tallies[m.ID] = t
		}
	}
}

// look reads all counters before the table is rewritten, as far as that is
// quick; it is no matter if it fails. The lock is held.
func (b *Backend) look(ctx context.Context) {
	if !b.installed || b.state.Len() == 0 || b.state.Len() > lookLimit {
		return
	}
	if read, err := readCounters(ctx, &b.quick); err == nil {
		b.saw(read, b.writes)
	}
}

// carry reads the counters of entries whose elements are about to be written
// anew. It is no matter if it fails: then what was last seen is carried over.
// The lock is held.
func (b *Backend) carry(ctx context.Context, retimed []firewall.Entry) []firewall.Entry {
	plain, from := b.own.flows, b.own.flowsFrom
	keys := make(map[*nftables.Set][][]byte)
	var holes []firewall.Entry
	for _, e := range retimed {
		if e.Kind != firewall.Hole {
			continue
		}
		set := plain
		if e.Remote.IsValid() {
			set = from
		}
		keys[set] = append(keys[set], flowKeyOf(e))
		holes = append(holes, e)
	}
	for set, wanted := range keys {
		for len(wanted) > 0 {
			n := min(len(wanted), elementsPerMessage)
			elements, err := b.quick.get(ctx, set, wanted[:n])
			if err != nil {
				break
			}
			for _, el := range elements {
				if c, ok := countedOf(el); ok {
					b.saw([]counted{c}, b.writes)
				}
			}
			wanted = wanted[n:]
		}
	}
	return holes
}

// rebase notes that the elements of these holes have been written anew. The lock
// is held.
func (b *Backend) rebase(holes []firewall.Entry) {
	for _, e := range holes {
		if m, ok := b.state.Hole(e.Transport, e.External, e.Remote); ok {
			b.tallies[m.ID] = b.tallies[m.ID].restarted(b.writes)
		}
	}
}
