package datagram

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// View is what a server knows of its interface: its own address there (invalid:
// none) and the networks on the link, the owner's routed prefixes included.
type View struct {
	Local    netip.Addr
	Prefixes []netip.Prefix
}

// loopPorts are source ports of services that answer whatever they are sent; an
// answer of ours would start a conversation (abuse case E5). Port 1900 is not
// among them, though E5 names it: control points that share the port search from
// it (js-libp2p's does), and no discovery service answers an answer.
var loopPorts = []uint16{0, 7, 19, 53}

// Refuses says why a packet's addresses rule out an answer, "" when they do not.
// It must have been sent to the server's own address, or to group where that is
// valid, by a host on the link.
func (v View) Refuses(p Packet, group netip.Addr) string {
	source := p.Source.Addr()
	switch {
	case !v.Local.IsValid():
		return "no address"
	case (!group.IsValid() || p.Destination != group) && p.Destination != v.Local:
		return "sent to another address" // abuse case A4
	case slices.Contains(loopPorts, p.Source.Port()):
		return "loop port"
	case !source.Is4() || source.IsMulticast() || source.IsUnspecified() || source == v.Local:
		return "not a host's address"
	case !slices.ContainsFunc(v.Prefixes, func(n netip.Prefix) bool { return n.Contains(source) }):
		return "off link" // abuse case A6
	case slices.ContainsFunc(v.Prefixes, func(n netip.Prefix) bool { return isEnd(n, source) }):
		return "network or broadcast address"
	}
	return ""
}

// isEnd reports whether a is the first or the last address of a network large
// enough to keep these from hosts (RFC 3021: one of two addresses does not).
func isEnd(n netip.Prefix, a netip.Addr) bool {
	if !n.Addr().Is4() || !a.Is4() || n.Bits() > 30 || !n.Contains(a) {
		return false
	}
	octets := a.As4()
	hosts := uint32(1)<<(32-n.Bits()) - 1
	host := binary.BigEndian.Uint32(octets[:]) & hosts
	return host == 0 || host == hosts
}
