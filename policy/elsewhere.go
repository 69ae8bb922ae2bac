package policy

import (
	"slices"

	"portcullis/portmap"
)

// stretch is external ports among which no rule tells any difference, and one
// of them that is not Tier 0: deciding for it is deciding for all of them.
type stretch struct {
	ports portmap.PortRange
	probe uint16
}

// stretches cuts the ports that the engine chooses from, 1024 and above (IGD:2
// wants no others from AddAnyPortMapping), where a rule's condition starts or
// ends.
func stretches(rules []Rule, t portmap.Transport) []stretch {
	cuts := []int{systemPorts, 1 << 16}
	for i := range rules {
		for _, e := range rules[i].External {
			cuts = append(cuts, max(systemPorts, int(e.First)), max(systemPorts, int(e.Last)+1))
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var list []stretch
	for i := range len(cuts) - 1 {
		for port := cuts[i]; port < cuts[i+1]; port++ {
			if tier, _ := TierOf(External, t, uint16(port)); tier == Ordinary {
				list = append(list, stretch{portmap.PortRange{First: uint16(cuts[i]), Last: uint16(cuts[i+1] - 1)}, uint16(port)})
				break
			}
		}
	}
	return list
}

// survey returns the most welcome verdict that any external port would get, and
// which ports get one as welcome; nil means all that the engine chooses from.
func (p *Policy) survey(r *portmap.Request, f *portmap.Facts) (portmap.Decision, []portmap.PortRange) {
	list := p.tcp
	if r.Transport == portmap.UDP {
		list = p.udp
	}
	var best portmap.Decision
	var where []portmap.PortRange
	for i, s := range list {
		d, depends := p.verdict(r, s.probe, f)
		if !depends {
			return d, nil
		}
		if i == 0 || welcome(d) > welcome(best) {
			best, where = d, where[:0]
		}
		if welcome(d) == welcome(best) {
			where = join(where, s.ports)
		}
	}
	if len(where) == 1 && where[0] == (portmap.PortRange{First: systemPorts, Last: 1<<16 - 1}) {
		return best, nil
	}
	return best, where
}

// anywhere is the verdict on a request that leaves the port to the engine.
func (p *Policy) anywhere(r *portmap.Request, f *portmap.Facts) portmap.Decision {
	d, where := p.survey(r, f)
	if d.Action != portmap.Deny {
		d.Elsewhere = where
	}
	return d
}

// join adds a range to sorted ones, and makes one of two that touch.
func join(list []portmap.PortRange, p portmap.PortRange) []portmap.PortRange {
	if n := len(list); n > 0 && int(list[n-1].Last)+1 == int(p.First) {
		list[n-1].Last = p.Last
		return list
	}
	return append(list, p)
}

// welcome orders decisions by what a client hopes for.
func welcome(d portmap.Decision) int {
	switch d.Action {
	case portmap.Allow:
		return 2
	case portmap.Ask:
		return 1
	}
	return 0
}

// addElsewhere reports whether another external port would be more welcome than
// the one d speaks of, and where, or where one that is as welcome can be found
// if this one is taken.
func (p *Policy) addElsewhere(d *portmap.Decision, r *portmap.Request, f *portmap.Facts) {
	best, where := p.survey(r, f)
	d.OverExternalPort = welcome(best) > welcome(*d)
	switch {
	case d.OverExternalPort, d.Action == portmap.Allow && best.Action == portmap.Allow:
		d.Elsewhere = where
	case d.Action == portmap.Allow: // below 1024, where a rule names it: nowhere else
		port := r.ExternalPort
		d.Elsewhere = []portmap.PortRange{{First: port, Last: port}}
	}
}
