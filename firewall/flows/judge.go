package flows

import (
	"net/netip"
	"slices"

	"portcullis/firewall"
	"portcullis/portmap"
)

// table is what a backend holds: its mappings and its facts of the gateway.
type table struct {
	state *firewall.State
	facts firewall.Facts
}

// over reports whether a flow must end. The backend is asked flow by flow, and only
// about flows of ports and addresses that the job is about.
func (k *Keeper) over(j *job, f Flow) bool {
	if f.Dst.Addr().Is6() {
		return k.pinOver(j.pins[endpoint{f.Transport, f.Dst}], f)
	}
	at := port{f.Transport, f.Dst.Port()}
	for _, e := range j.force[at] {
		if f.AnswersFrom == e.internal && f.AnswersFrom != f.Dst && e.admits(f.Src) {
			return true
		}
	}
	lost := j.lost[f.Dst.Addr()] || j.lost[f.AnswersTo.Addr()]
	taken := j.taken[port{f.Transport, f.AnswersTo.Port()}]
	if !lost && !taken && !j.ports[at] {
		return false
	}
	return k.asked(j, f, lost, taken)
}

// asked asks the backend about a flow that the job is about. (Apart, so that a flow
// which it is not about costs no memory.)
func (k *Keeper) asked(j *job, f Flow, lost, taken bool) (over bool) {
	at := port{f.Transport, f.Dst.Port()}
	k.look(func(t table) {
		switch {
		case taken && t.trespasses(f):
			over = true
		case lost:
			over = t.ours(f)
		case j.ports[at]:
			over = slices.Contains(t.facts.WANAddrs(), f.Dst.Addr()) && t.misled(f, j.ended[led{at, f.AnswersFrom}])
		}
	})
	return over
}

// pinOver decides over a flow to an endpoint of which these pinholes ended.
func (k *Keeper) pinOver(list []pinEnded, f Flow) bool {
	ended, force := false, false
	for _, e := range list {
		if e.admits(f.Src) {
			ended, force = true, force || e.force
		}
	}
	if !ended {
		return false
	}
	over := false
	k.look(func(t table) {
		if t.inside(f.Src.Addr()) {
			return
		}
		_, governed := t.state.GoverningPin(f.Transport, f.Dst, f.Src)
		over = force || !governed
	})
	return over
}

// misled reports whether a flow to one of our external ports goes where the mappings
// no longer, or did not yet, send it. Flows that were translated by somebody else,
// to somewhere no mapping ever led, are left alone.
func (t table) misled(f Flow, ledThere bool) bool {
	m, governed := t.state.Governing(f.Transport, f.Dst.Port(), f.Src)
	if !governed {
		return ledThere
	}
	if f.AnswersFrom == m.Internal {
		return false
	}
	untranslated := f.AnswersFrom == f.Dst
	return ledThere || untranslated || t.state.Leads(f.Transport, f.Dst.Port(), f.AnswersFrom)
}

// ours reports whether a flow was translated by our rules: inbound by a mapping, or
// outbound keeping a port.
func (t table) ours(f Flow) bool {
	if m, ok := t.state.Governing(f.Transport, f.Dst.Port(), f.Src); ok && m.Internal == f.AnswersFrom {
		return true
	}
	kept, ok := t.state.KeptPort(f.Transport, f.Src)
	return ok && kept == f.AnswersTo.Port()
}

// trespasses reports whether a flow leaves from an external port that is mapped to
// somebody else. The gateway's own flows are let be: they were there first, their
// answers lead where they should, and none of them could be moved.
func (t table) trespasses(f Flow) bool {
	wan := t.facts.WANAddrs()
	if !slices.Contains(wan, f.AnswersTo.Addr()) || slices.Contains(wan, f.Src.Addr()) {
		return false
	}
	kept, ok := t.state.KeptPort(f.Transport, f.Src)
	return t.state.Mapped(f.Transport, f.AnswersTo.Port()) && !(ok && kept == f.AnswersTo.Port())
}

// inside reports whether an address is of a LAN.
func (t table) inside(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() ||
		slices.ContainsFunc(t.facts.LANPrefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// carriedOn reports whether its host could carry on a flow alone that the kernel has
// forgotten. Of translated ones that is TCP only, and not one whose other end the
// host knows as the gateway, which resets it by itself.
func (f Flow) carriedOn() bool {
	return f.Dst.Addr().Is6() || f.Transport == portmap.TCP && f.AnswersFrom != f.Dst && f.AnswersTo == f.Src
}
