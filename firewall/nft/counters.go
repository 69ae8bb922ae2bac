package nft

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Traffic is counted by the elements of the sets of flows and of pinholes, in the forward hook
// and behind the owner's filter: all packets that passed, both directions,
// hairpin included. A mapping has an element for each of its holes, and what it
// counted is their sum. The maps of the NAT chains would not do: they see
// only the first packet of a flow. What a flowtable carries past the forward
// hook is not seen.

// tally is what is known of a mapping's traffic beside the kernel's counter,
// which starts again whenever its elements are written anew. That happens to all
// of them at once (firewall.Change.Renewed).
type tally struct {
	base  firewall.Counter // before the elements were last written
	seen  firewall.Counter // the elements' own count when they were last read
	since uint64           // Backend.writes when the elements were last written
}

// restarted gives the tally after the elements were lost: what was last seen of
// them is kept.
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

// Counter gives the traffic of one mapping by its ID. It reads that mapping's
// elements only. One that is not open has none; of one whose elements somebody
// took away it gives what was last seen.
func (b *Backend) Counter(ctx context.Context, id uint64) (firewall.Counter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return firewall.Counter{}, firewall.ErrClosed
	}
	if b.installed {
		if err := b.count(ctx, []uint64{id}); err != nil && !drifted(err) {
			return firewall.Counter{}, fmt.Errorf("nft counter: %w", explain(err))
		}
	}
	t := b.tallies[id]
	return t.base.Plus(t.seen), nil
}

// counted is one counter read, with the hole or the pin it belongs to.
type counted struct {
	hole    firewall.Entry
	counter firewall.Counter
}

func readCounters(ctx context.Context, r *reader) ([]counted, error) {
	var all []counted
	for _, set := range slices.Concat(ownFlowNames.list(), ownPinNames.list()) {
		elements, err := r.dump(ctx, nftables.TableFamilyINet, Table, set)
		if err != nil {
			return nil, err
		}
		all = appendCounted(all, set, elements)
	}
	return all, nil
}

func appendCounted(all []counted, set string, elements []element) []counted {
	read := flowIn
	if slices.Contains(ownPinNames.list(), set) {
		read = pinIn
	}
	for _, el := range elements {
		if e, ok := read(set, el); ok {
			all = append(all, counted{e, el.counter})
		}
	}
	return all
}

// countedBy gives the element that counts the traffic of a hole or a pin.
func (s *skeleton) countedBy(e firewall.Entry) (*nftables.Set, []byte) {
	if e.Kind == firewall.Pin {
		return s.pins.of(e), pinElement(e).Key
	}
	return s.flows.of(e), flowElement(e).Key
}

// saw keeps what was read, at once, when the kernel had seen so many writes. A
// counter whose element was written anew meanwhile is passed over: what it had
// counted is in the base already. The lock is held.
func (b *Backend) saw(read []counted, at uint64) {
	sums := make(map[uint64]firewall.Counter, len(read))
	for _, c := range read {
		if m, ok := b.state.Holder(c.hole.Key()); ok {
			sums[m.ID] = sums[m.ID].Plus(c.counter)
		}
	}
	for id, sum := range sums {
		if t := b.tallies[id]; t.since <= at && t.seen.Packets < sum.Packets {
			t.seen = sum
			b.tallies[id] = t
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

// carry reads the counters of mappings whose elements are about to be written
// anew. It is no matter if it fails: then what was last seen is carried over.
// The lock is held.
func (b *Backend) carry(ctx context.Context, renewed []portmap.Mapping) {
	ids := make([]uint64, len(renewed))
	for i := range renewed {
		ids[i] = renewed[i].ID
	}
	_ = b.count(ctx, ids)
}

// count reads the counters of these mappings. What of them is read before it
// fails is kept. The lock is held.
func (b *Backend) count(ctx context.Context, ids []uint64) error {
	keys := make(map[*nftables.Set][][]byte)
	for _, id := range ids {
		for _, e := range b.state.Holes(id) {
			set, key := b.own.countedBy(e)
			keys[set] = append(keys[set], key)
		}
	}
	var read []counted
	var failed error
	for set, wanted := range keys {
		for part := range slices.Chunk(wanted, elementsPerMessage) {
			elements, err := b.quick.get(ctx, set, part)
			if err != nil {
				failed = err
				break
			}
			read = appendCounted(read, set.Name, elements)
		}
	}
	b.saw(read, b.writes)
	return failed
}

// rebase notes that the elements of these mappings have been written anew. The
// lock is held.
func (b *Backend) rebase(renewed []portmap.Mapping) {
	for _, m := range renewed {
		b.tallies[m.ID] = b.tallies[m.ID].restarted(b.writes)
	}
}
