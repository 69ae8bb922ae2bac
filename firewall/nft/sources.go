package nft

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/google/nftables"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Where a hole stands depends on whom it lets in (portmap.Source):
//
//	anyone     mapped           mapped_flows
//	one host   mapped_from      mapped_flows_from
//	filtered   mapped_filtered  mapped_flows_filtered_tcp, mapped_flows_filtered_udp
//
// The first two rows are hash tables. The last has a range in each part of its
// keys, which the kernel keeps in a set of type pipapo (Linux 5.6). That one
// takes what overlaps or refuses it with EEXIST, depending on which was there
// first, and then finds either; so the model lets no two filtered holes of a
// port overlap.

// filteredSize bounds the sets of filtered holes, because a change of one copies
// it: granting and ending one took 0.5 ms beside none and 4 ms beside a thousand,
// where a mapping for anyone took 0.1 ms beside either (go test -bench Filtered
// ./firewall/nft).
const filteredSize = 8192

// flowSets are the sets of flows that holes let through: in our table with
// counters, beside the accept chain without.
type flowSets struct {
	anyone, host *nftables.Set
	tcp, udp     *nftables.Set // of filtered holes
}

type flowNames struct{ anyone, host, tcp, udp string }

var ownFlowNames = flowNames{
	anyone: "mapped_flows", host: "mapped_flows_from",
	tcp: "mapped_flows_filtered_tcp", udp: "mapped_flows_filtered_udp",
}

func (n flowNames) list() []string { return []string{n.anyone, n.host, n.tcp, n.udp} }

func (s *skeleton) flowSets(names flowNames, size uint32) flowSets {
	return flowSets{
		anyone: s.leases(names.anyone, size, flowKey, nil),
		host:   s.leases(names.host, size, fromKey(flowKey), nil),
		tcp:    s.ranges(names.tcp, size, filteredFlowKey, nil),
		udp:    s.ranges(names.udp, size, filteredFlowKey, nil),
	}
}

func (f flowSets) all() []*nftables.Set { return []*nftables.Set{f.anyone, f.host, f.tcp, f.udp} }

// of returns the set that has the flows of a hole.
func (f flowSets) of(e firewall.Entry) *nftables.Set {
	switch {
	case e.Source.Anyone():
		return f.anyone
	case e.Source.OneHost():
		return f.host
	case e.Transport == portmap.TCP:
		return f.tcp
	}
	return f.udp
}

// mapOf returns the map that has the holes of a source.
func (s *skeleton) mapOf(src portmap.Source) *nftables.Set {
	switch {
	case src.Anyone():
		return s.mapped
	case src.OneHost():
		return s.mappedFrom
	}
	return s.mappedFiltered
}

// holeElement returns a hole's element of its map.
func holeElement(e firewall.Entry) nftables.SetElement {
	el := nftables.SetElement{Val: endpointValue(e.Internal)}
	rest := func(key []byte) []byte { return appendPort(key, e.External) }
	if !e.Source.Filtered() {
		el.Key = rest(appendProto(appendHost(e.Source), e.Transport))
		return el
	}
	first, last := ends(e.Source.Prefix)
	el.Key = rest(appendPort(appendProto(first, e.Transport), e.Source.Low))
	el.KeyEnd = rest(appendPort(appendProto(last, e.Transport), e.Source.High))
	return el
}

// flowElement returns a hole's element of its set of flows.
func flowElement(e firewall.Entry) nftables.SetElement {
	rest := func(key []byte) []byte {
		return appendPort(appendAddr(appendPort(key, e.External), e.Internal.Addr()), e.Internal.Port())
	}
	if !e.Source.Filtered() {
		return nftables.SetElement{Key: rest(appendProto(appendHost(e.Source), e.Transport))}
	}
	first, last := ends(e.Source.Prefix)
	return nftables.SetElement{
		Key:    rest(appendPort(first, e.Source.Low)),
		KeyEnd: rest(appendPort(last, e.Source.High)),
	}
}

// appendHost begins a key with the one host, if there is one.
func appendHost(src portmap.Source) []byte {
	key := make([]byte, 0, keyRoom)
	if src.Anyone() {
		return key
	}
	return appendAddr(key, src.Prefix.Addr())
}

// ends returns the first and the last address of a prefix.
func ends(p netip.Prefix) (first, last []byte) {
	first, last = p.Addr().AsSlice(), p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return first, last
}

// holeIn reads an element of a map of holes, without its lease.
func holeIn(el element) (firewall.Entry, bool) {
	e := firewall.Entry{Kind: firewall.Hole}
	key := el.key
	switch {
	case len(key) == 8 && el.keyEnd == nil:
	case len(key) == 12 && el.keyEnd == nil:
		e.Source = portmap.Host(netip.AddrFrom4([4]byte(key)))
		key = key[4:]
	case len(key) == 16 && len(el.keyEnd) == 16:
		var ok bool
		if e.Source, ok = sourceIn(key, el.keyEnd, 4, 8); !ok {
			return e, false
		}
		key = append(key[4:8:8], key[12:]...)
	default:
		return e, false
	}
	if len(el.val) < 6 {
		return e, false
	}
	e.Transport, e.External = portmap.Transport(key[0]), binary.BigEndian.Uint16(key[4:])
	e.Internal = endpointIn(el.val)
	return e, true
}

// flowIn reads an element of one of our sets of flows, without its lease.
func flowIn(set string, el element) (firewall.Entry, bool) {
	e := firewall.Entry{Kind: firewall.Hole}
	key := el.key
	switch {
	case set == ownFlowNames.tcp || set == ownFlowNames.udp:
		if len(key) != 20 || len(el.keyEnd) != 20 {
			return e, false
		}
		e.Transport = portmap.UDP
		if set == ownFlowNames.tcp {
			e.Transport = portmap.TCP
		}
		e.External, e.Internal = binary.BigEndian.Uint16(key[8:]), endpointIn(key[12:])
		var ok bool
		e.Source, ok = sourceIn(key, el.keyEnd, 4, 4)
		return e, ok
	case len(key) == 16 && set == ownFlowNames.anyone:
	case len(key) == 20 && set == ownFlowNames.host:
		e.Source = portmap.Host(netip.AddrFrom4([4]byte(key)))
		key = key[4:]
	default:
		return e, false
	}
	e.Transport, e.External = portmap.Transport(key[0]), binary.BigEndian.Uint16(key[4:])
	e.Internal = endpointIn(key[8:])
	return e, true
}

// sourceIn reads a filtered source from the ends of a key, which begins with an
// address of so many bytes and has the source ports at portAt. It is not ok where
// the addresses are no prefix, or anything but the source is a range.
func sourceIn(key, end []byte, size, portAt int) (portmap.Source, bool) {
	first, ok := netip.AddrFromSlice(key[:size])
	prefix := netip.PrefixFrom(first, commonBits(key[:size], end[:size]))
	_, high := ends(prefix)
	if !ok || prefix != prefix.Masked() || string(high) != string(end[:size]) ||
		string(key[size:portAt]) != string(end[size:portAt]) || string(key[portAt+4:]) != string(end[portAt+4:]) {
		return portmap.Source{}, false
	}
	return portmap.Source{
		Prefix: prefix,
		Low:    binary.BigEndian.Uint16(key[portAt:]), High: binary.BigEndian.Uint16(end[portAt:]),
	}, true
}

// commonBits returns how many bits two addresses have in common at their beginning.
func commonBits(a, b []byte) int {
	for i := range a {
		if differ := a[i] ^ b[i]; differ != 0 {
			return 8*i + bits.LeadingZeros8(differ)
		}
	}
	return 8 * len(a)
}

// endpointIn reads an address and a port.
func endpointIn(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:]))
}
