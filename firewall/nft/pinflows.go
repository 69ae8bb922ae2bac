package nft

import (
	"net/netip"
	"slices"

	"portcullis/portmap"
)

// Flows through pinholes. They are not translated, so a flow does not tell that it
// came through one. It is taken for such a flow if it began outside the LANs,
// leads to the endpoint of a pinhole that ended, and that one admitted its sender.
// One that the owner's own rules let in to the same port is ended with them, once;
// whatever the host began itself has the other direction.
//
// That the kernel forgets a flow would not end it: the next packet of the host
// begins one of its own, which the owner lets out, and back comes the peer. With
// the translated flows of IPv4 that can happen to TCP only, under one port in two;
// here to all. So before the flows are forgotten their hosts are refused
// (refuseEnded), for as long as with IPv4.

// pinnedEnd is where a pinhole leads.
type pinnedEnd struct {
	transport portmap.Transport
	internal  netip.AddrPort
}

// pinEnding is a pinhole that ended, or that lets in less.
type pinEnding struct {
	ending
	force bool // whatever the table says
}

// endPin makes the flows of a pinhole part of a job.
func (j *flowJob) endPin(m *portmap.Mapping, force bool) {
	end := pinnedEnd{m.Transport, m.Internal}
	j.pins[end] = append(j.pins[end], pinEnding{ending{m.Internal, m.Remotes}, force})
}

// judgePin decides over a flow of IPv6.
func (k *flowKeeper) judgePin(job flowJob, f flow) bool {
	ended, force := false, false
	for _, e := range job.pins[pinnedEnd{f.transport, f.dst}] {
		if e.admits(f.src) {
			ended, force = true, force || e.force
		}
	}
	if !ended {
		return false
	}
	k.backend.mu.Lock()
	defer k.backend.mu.Unlock()
	if k.backend.inside(f.src.Addr()) {
		return false
	}
	_, governed := k.backend.state.GoverningPin(f.transport, f.dst, f.src)
	return force || !governed
}

// inside says whether an address is of a LAN. The lock is held.
func (b *Backend) inside(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() ||
		slices.ContainsFunc(b.gateway.LANPrefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// ended gives the flow's key in the set of ended flows of its family.
func (f flow) ended() (six bool, key []byte) {
	key = append(endpointValue(f.answersFrom), endpointValue(f.src)...)
	if six = f.src.Addr().Is6(); six {
		key = append(appendProto(nil, f.transport), key...)
	}
	return six, key
}
