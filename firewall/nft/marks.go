package nft

import (
	"context"
	"iter"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"portcullis/firewall"
)

// Marked packets, for a filter that is not ours to put a chain or a set into: that
// of iptables (firewall/iptables), where one rule lets pass what carries the mark.
//
// The mark is the packet's, not the connection's, and it lives between two chains of
// the forward hook: the first clears it, whoever has set it, and sets it for what
// belongs to a mapping at this very moment; the second clears it again. So nobody
// else's mark opens anything, in either family; what has ended is not marked any
// more, and needs no flow to be found for that; and nothing of it is left for
// routing, shaping or the owner's marks of connections, whose other bits are never
// touched.
//
// The flows and pinholes that are looked up stand in sets of their own, as beside an
// accept chain: those of the table count what has really passed.

// Priorities: just before the owner's filter, and behind all of ours.
const (
	priorityMark   = nftables.ChainPriority(0 - 1)
	priorityUnmark = priorityForward + 1
)

// Names of what there is with marks and not without.
const (
	chainMark, chainUnmark        = "mark_forward", "unmark_forward"
	chainMarkFlows, chainMarkPins = "mark_mapped", "mark_pinholes"
)

var (
	markFlowNames = flowNames{
		anyone: "marked_flows", host: "marked_flows_from",
		tcp: "marked_flows_filtered_tcp", udp: "marked_flows_filtered_udp",
	}
	markPinNames = pinNames{anyone: "marked_pinholes", host: "marked_pinholes_from", filtered: "marked_pinholes_filtered"}
)

// marks is the part of the skeleton that marks.
type marks struct {
	bits  uint32
	flows flowSets
	pins  pinSets
}

// marking adds it, where there are bits to be set.
func (s *skeleton) marking(bits, size uint32) *skeleton {
	if bits != 0 {
		s.marks = &marks{bits, s.flowSets(markFlowNames, size), s.pinSets(markPinNames, size)}
	}
	return s
}

// sets returns those of the marks; m may be nil.
func (m *marks) sets() []*nftables.Set {
	if m == nil {
		return nil
	}
	return append(m.flows.all(), m.pins.all()...)
}

// each returns the element of one entry, without its timeout; m may be nil.
func (m *marks) each(e firewall.Entry, do func(*nftables.Set, nftables.SetElement)) {
	switch {
	case m == nil:
	case e.Kind == firewall.Hole:
		do(m.flows.of(e), flowElement(e))
	case e.Kind == firewall.Pin:
		do(m.pins.of(e), pinElement(e))
	}
}

// markRules mark what is forwarded.
func (s *skeleton) markRules(b *chainBuilder) {
	if s.marks == nil {
		return
	}
	set, clear := setBits(expr.MetaKeyMARK, s.marks.bits, s.marks.bits), setBits(expr.MetaKeyMARK, s.marks.bits, 0)
	before := b.base(chainMark, nftables.ChainTypeFilter, nftables.ChainHookForward, priorityMark)
	flows, pins := b.plain(chainMarkFlows), b.plain(chainMarkPins)
	b.rule(before, "the mark is ours alone", clear)
	b.rule(before, "only what was translated can be ours", ctStatusDNAT(), jump(flows))
	b.rule(before, "IPv6 is not translated", ipv6(s.table), jump(pins))
	pass := rule(set, accept())
	b.allowMapped(flows, s.marks.flows, pass)
	b.allowPins(pins, s.marks.pins, s.wan6Ifaces, s.lanIfaces, pass)
	after := b.base(chainUnmark, nftables.ChainTypeFilter, nftables.ChainHookForward, priorityUnmark)
	b.rule(after, "nothing of the mark is left", clear)
}

// marksIntact reports whether the sets of the marks hold what they should.
func (k *kernel) marksIntact(ctx context.Context, entries iter.Seq[firewall.Entry]) (bool, error) {
	m := k.own.marks
	if m == nil {
		return true, nil
	}
	return k.quick.holdsMappings(ctx, entries, m.each, m.sets())
}
