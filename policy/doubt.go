package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"portcullis/portmap"
)

// Doubt is something in a rule that cannot do what it says.
type Doubt struct {
	Rule   int    // from 0
	Key    string // of the rule, such as "internal_ports"; "": the rule as a whole
	Index  int    // of the element of its list, from 0
	What   string // a sentence
	Remedy string // what to do about it
}

// Doubts returns what is certain to be in vain in rules that are valid: rules that no
// request comes to, because one above decides first, and ports that stay closed. Other
// rules may be in vain as well, in ways that this does not see.
func Doubts(rules []Rule) []Doubt {
	var all []Doubt
	match := make([]ports, len(rules))
	for i := range rules {
		match[i] = portsOf(&rules[i])
		covered := func(k int) bool { return match[k].cover(&match[i]) && rules[k].covers(&rules[i]) }
		above := 0
		for above < i && !covered(above) {
			above++
		}
		if above < i {
			all = append(all, unreached(i, &rules[i], &rules[above]))
		} else if rules[i].Action != portmap.Deny {
			all = append(all, rules[i].closed(i)...)
		}
	}
	return all
}

func unreached(i int, rl, above *Rule) Doubt {
	what := fmt.Sprintf("the rule %q decides nothing: %q above it matches everything that it matches", rl.Name, above.Name)
	return Doubt{Rule: i, What: what, Remedy: fmt.Sprintf("move it above %q, or remove it", above.Name)}
}

// covers reports whether the rule is certain to match every request that b matches, as far
// as ports do not matter.
func (rl *Rule) covers(b *Rule) bool {
	return (rl.Description == nil || b.Description != nil && rl.Description.String() == b.Description.String()) &&
		holdsAll(rl.Transports, b.Transports, []portmap.Transport{portmap.TCP, portmap.UDP}) &&
		holdsAll(rl.Via, b.Via, []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP, portmap.ViaOwner}) &&
		rl.meansAll(b.Clients)
}

// holdsAll reports whether a list of words, of which an empty one means all, has every
// word of another.
func holdsAll[T comparable](a, b, all []T) bool {
	if len(b) == 0 {
		b = all
	}
	return len(a) == 0 || !slices.ContainsFunc(b, func(w T) bool { return !slices.Contains(a, w) })
}

// ports are those that a rule matches, in sorted ranges that do not touch.
type ports struct{ internal, external []portmap.PortRange }

func portsOf(rl *Rule) ports { return ports{merged(rl.Internal), merged(rl.External)} }

func (p *ports) cover(q *ports) bool {
	return hold(p.internal, q.internal) && hold(p.external, q.external)
}

// merged returns what ranges cover; none mean every port.
func merged(list []portmap.PortRange) []portmap.PortRange {
	if len(list) == 0 {
		return []portmap.PortRange{{First: 1, Last: 1<<16 - 1}}
	}
	sorted := slices.Clone(list)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].First < sorted[j].First })
	all := sorted[:1]
	for _, p := range sorted[1:] {
		if last := &all[len(all)-1]; int(p.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, p.Last)
		} else {
			all = append(all, p)
		}
	}
	return all
}

// hold reports whether merged ranges a have every port of merged ranges b.
func hold(a, b []portmap.PortRange) bool {
	for _, p := range b {
		for len(a) > 0 && a[0].Last < p.First {
			a = a[1:]
		}
		if len(a) == 0 || a[0].First > p.First || a[0].Last < p.Last {
			return false
		}
	}
	return true
}

// meansAll reports whether the rule's clients are certain to include all of a list's. A
// name is compared as it stands: which names a pattern matches is not worked out.
func (rl *Rule) meansAll(clients []ClientMatch) bool {
	if len(rl.Clients) == 0 {
		return true
	}
	return len(clients) > 0 && !slices.ContainsFunc(clients, func(c ClientMatch) bool {
		return !slices.ContainsFunc(rl.Clients, func(m ClientMatch) bool {
			inside := m.Prefix.IsValid() && c.Prefix.IsValid() && m.Prefix.Bits() <= c.Prefix.Bits() && m.Prefix.Contains(c.Prefix.Addr())
			return m == c || inside
		})
	})
}

// closed returns which ports of a rule stay closed, although it speaks of them.
func (rl *Rule) closed(i int) []Doubt {
	var all []Doubt
	for _, side := range []Side{Internal, External} {
		list := rl.Internal
		if side == External {
			list = rl.External
		}
		for j, p := range list {
			if rl.openable(side, list, p) {
				continue
			}
			all = append(all, Doubt{i, side.String() + "_ports", j,
				fmt.Sprintf("the rule %q opens none of the %s ports %s: a port like these is opened only where it is written alone, or in a range of at most %d",
					rl.Name, side, p, NamingWidth),
				"write the ports that are meant, one by one"})
		}
	}
	return append(all, rl.outsideOnly(i)...)
}

// openable reports whether one of a range's ports can be opened on its side.
func (rl *Rule) openable(side Side, list []portmap.PortRange, p portmap.PortRange) bool {
	for port := int(p.First); port <= int(p.Last); port++ {
		for _, t := range rl.transports() {
			tier, _ := TierOf(side, t, uint16(port))
			if tier == Ordinary || tier == Privileged && named(list, uint16(port)) {
				return true
			}
		}
	}
	return false
}

// transports returns what the rule is about.
func (rl *Rule) transports() []portmap.Transport {
	if len(rl.Transports) == 0 {
		return []portmap.Transport{portmap.TCP, portmap.UDP}
	}
	return rl.Transports
}

// outsideOnly returns the ports that are named outside and that stay closed inside.
func (rl *Rule) outsideOnly(i int) []Doubt {
	if len(rl.Internal) > 0 { // which says what is meant inside
		return nil
	}
	var all []Doubt
	for j, p := range rl.External {
		var words []string
		for port := int(p.First); port <= int(p.Last) && names(p); port++ {
			for _, t := range rl.transports() {
				if tier, _ := TierOf(Internal, t, uint16(port)); tier == Privileged {
					words = append(words, portmap.PortRange{First: uint16(port), Last: uint16(port)}.String())
					break
				}
			}
		}
		if len(words) == 0 {
			continue
		}
		all = append(all, Doubt{i, "external_ports", j,
			fmt.Sprintf("the rule %q names %s outside only: inside, where the service is, that stays closed", rl.Name, enumerate(words)),
			fmt.Sprintf("add internal_ports = [%q]", p)})
	}
	return all
}

// enumerate lists a few words and counts the others.
func enumerate(words []string) string {
	const most = 5
	if more := len(words) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), more)
	}
	return strings.Join(words, ", ")
}
