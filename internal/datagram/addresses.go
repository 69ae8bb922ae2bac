package datagram

import (
	"net/netip"
	"slices"

	"portcullis/internal/special"
)

// Addresses are what a server knows of its interface: its own addresses there, all
// of one family and without zone, the one it would rather speak from first, and the
// networks on the link, configured routed prefixes included.
type Addresses struct {
	Locals   []netip.Addr
	Prefixes []netip.Prefix
}

// Local returns the address to speak from; the zero Addr when there is none.
func (a Addresses) Local() netip.Addr {
	if len(a.Locals) == 0 {
		return netip.Addr{}
	}
	return a.Locals[0]
}

// loopPorts are source ports of services that answer whatever they are sent; an
// answer of ours would start a conversation (abuse case E5). Port 1900 is not
// among them, though E5 names it: control points that share the port search from
// it (js-libp2p's does), and no discovery service answers an answer.
var loopPorts = []uint16{0, 7, 19, 53}

// Refuses returns why a packet's addresses rule out an answer, "" when they do not.
// It must have been sent to an address of the server's own, or to one of groups, by a
// host on the link that is of the same family.
func (a Addresses) Refuses(p Packet, groups ...netip.Addr) string {
	source := p.Source.Addr()
	switch {
	case len(a.Locals) == 0:
		return "no address"
	case !slices.Contains(groups, p.Destination) && !slices.Contains(a.Locals, p.Destination):
		return "sent to another address" // abuse case A4
	case slices.Contains(loopPorts, p.Source.Port()):
		return "loop port"
	case source.BitLen() != a.Local().BitLen() || source.Is4In6() || source.IsMulticast() ||
		source.IsUnspecified() || slices.Contains(a.Locals, source):
		return "not a host's address" // abuse case A8
	case !slices.ContainsFunc(a.Prefixes, func(n netip.Prefix) bool { return n.Contains(source) }):
		return "off link" // abuse case A6
	case slices.ContainsFunc(a.Prefixes, func(n netip.Prefix) bool { return special.Edge(n, source) }):
		return "network, broadcast or anycast address"
	}
	return ""
}
