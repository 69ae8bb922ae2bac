package nft

import (
	"context"
	"slices"

	"github.com/google/nftables"

	"portcullis/firewall"
)

// Traffic is counted by the elements of the sets of flows and of pinholes, in the forward hook
// and behind the owner's filter: all packets that passed, both directions,
// hairpin included. A mapping has an element for each of its holes, and what it
// counted is their sum (firewall.Driver). The maps of the NAT chains would not do: they see
// only the first packet of a flow. What a flowtable carries past the forward
// hook is not seen.

// counters reads all of them.
func (r *reader) counters(ctx context.Context) ([]firewall.Count, error) {
	var all []firewall.Count
	for _, set := range slices.Concat(ownFlowNames.list(), ownPinNames.list()) {
		before := len(all)
		again := func() { all = all[:before] }
		_, err := r.scan(ctx, nftables.TableFamilyINet, Table, set, again, func(el element) { all = appendCounted(all, set, el) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func appendCounted(all []firewall.Count, set string, el element) []firewall.Count {
	read := flowIn
	if slices.Contains(ownPinNames.list(), set) {
		read = pinIn
	}
	if e, ok := read(set, el); ok {
		all = append(all, firewall.Count{Entry: e, Counter: el.counter})
	}
	return all
}

// countedBy returns the element that counts the traffic of a hole or a pin.
func (s *skeleton) countedBy(e firewall.Entry) (*nftables.Set, []byte) {
	if e.Kind == firewall.Pin {
		return s.pins.of(e), pinElement(e).Key
	}
	return s.flows.of(e), flowElement(e).Key
}

// countersOf reads those of some holes and pins, until it fails.
func (k *kernel) countersOf(ctx context.Context, holes []firewall.Entry) ([]firewall.Count, error) {
	keys := make(map[*nftables.Set][][]byte)
	for _, e := range holes {
		set, key := k.own.countedBy(e)
		keys[set] = append(keys[set], key)
	}
	read := make([]firewall.Count, 0, len(holes))
	var failed error
	for set, wanted := range keys {
		for part := range slices.Chunk(wanted, elementsPerMessage) {
			err := k.quick.eachOf(ctx, set, part, func(el element) { read = appendCounted(read, set.Name, el) })
			if err != nil {
				failed = err
				break
			}
		}
	}
	return read, failed
}
