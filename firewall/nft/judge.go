package nft

import (
	"net/netip"
	"slices"

	conntrack "github.com/vishvananda/netlink"

	"portcullis/portmap"
)

// Which flows must end. Those of pinholes are in pinflows.go.

// judgement is the filter form that the conntrack library wants.
type judgement func(flow) bool

// MatchConntrackFlow says whether the flow must end.
func (j judgement) MatchConntrackFlow(f *conntrack.ConntrackFlow) bool {
	fl, ok := flowOf(f)
	return ok && j(fl)
}

// noting gives the same judgement, and collects the TCP connections it ends that
// their host could carry on alone: translated ones, but not those whose other end
// the host knows as the gateway, which resets them itself.
func (j judgement) noting(connections *[]flow) judgement {
	return func(f flow) bool {
		if !j(f) {
			return false
		}
		if f.transport == portmap.TCP && f.answersFrom != f.dst && f.answersTo == f.src {
			*connections = append(*connections, f)
		}
		return true
	}
}

// listing gives a filter that ends nothing, and collects what would be ended.
func (j judgement) listing(flows *[]flow) judgement {
	return func(f flow) bool {
		if j(f) {
			*flows = append(*flows, f)
		}
		return false
	}
}

func flowOf(f *conntrack.ConntrackFlow) (flow, bool) {
	t := portmap.Transport(f.Forward.Protocol)
	if !t.Valid() {
		return flow{}, false
	}
	src, ok1 := netip.AddrFromSlice(f.Forward.SrcIP)
	dst, ok2 := netip.AddrFromSlice(f.Forward.DstIP)
	from, ok3 := netip.AddrFromSlice(f.Reverse.SrcIP)
	to, ok4 := netip.AddrFromSlice(f.Reverse.DstIP)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return flow{}, false
	}
	return flow{
		transport:   t,
		src:         netip.AddrPortFrom(src, f.Forward.SrcPort),
		dst:         netip.AddrPortFrom(dst, f.Forward.DstPort),
		answersFrom: netip.AddrPortFrom(from, f.Reverse.SrcPort),
		answersTo:   netip.AddrPortFrom(to, f.Reverse.DstPort),
	}, true
}

// judge decides over flows. The state is asked under the backend's lock, flow by
// flow, and only for flows of ports that the job is about.
func (k *flowKeeper) judge(job flowJob) judgement {
	return func(f flow) bool {
		if f.dst.Addr().Is6() {
			return k.judgePin(job, f)
		}
		port := firewallPort{f.transport, f.dst.Port()}
		for _, e := range job.force[port] {
			if f.answersFrom == e.internal && e.admits(f.src) && f.dst != f.answersFrom {
				return true
			}
		}
		lost := job.lost[f.dst.Addr()] || job.lost[f.answersTo.Addr()]
		if !lost && !job.ports[port] {
			return false
		}
		k.backend.mu.Lock()
		defer k.backend.mu.Unlock()
		if lost {
			return k.backend.ours(f)
		}
		return slices.Contains(wanAddrs(k.backend.gateway), f.dst.Addr()) &&
			k.backend.misled(f, job.ended[endedFlow{port, f.answersFrom}])
	}
}

// misled says whether a flow to one of our external ports goes where the
// mappings no longer, or did not yet, send it. Flows that were translated by
// somebody else, to somewhere no mapping ever led, are left alone. The lock is
// held.
func (b *Backend) misled(f flow, ledThere bool) bool {
	m, governed := b.state.Governing(f.transport, f.dst.Port(), f.src)
	if !governed {
		return ledThere
	}
	if f.answersFrom == m.Internal {
		return false
	}
	untranslated := f.answersFrom == f.dst
	return ledThere || untranslated || b.state.Leads(f.transport, f.dst.Port(), f.answersFrom)
}

// ours says whether a flow was translated by our rules: inbound by a mapping, or
// outbound keeping a port. The lock is held.
func (b *Backend) ours(f flow) bool {
	if m, ok := b.state.Governing(f.transport, f.dst.Port(), f.src); ok && m.Internal == f.answersFrom {
		return true
	}
	kept, ok := b.state.KeptPort(f.transport, f.src)
	return ok && kept == f.answersTo.Port()
}
