package portmap

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// Source is whom a mapping lets in: the hosts of a prefix, as far as they send from a
// port of a range. The zero Source is anyone. It is comparable.
//
// There are three classes, and a packet follows the first that has room for it:
// one host with all of its ports, then what is limited otherwise, then anyone.
// Within a class no two sources of one external port overlap, and no two of one
// pinhole's endpoint, so that it never matters which of them is looked at first.
type Source struct {
	Prefix    netip.Prefix // masked, of the family of the mapping; invalid: anyone
	Low, High uint16       // the first and the last source port
}

const lastPort = 1<<16 - 1

// Anyone reports whether the source is not limited at all.
func (s Source) Anyone() bool { return !s.Prefix.IsValid() }

// OneHost reports whether the source is one address with all of its ports.
func (s Source) OneHost() bool {
	return s.Prefix.IsSingleIP() && s.Low == 0 && s.High == lastPort
}

// Filtered reports whether the source is neither: a prefix, a port, or both.
func (s Source) Filtered() bool { return !s.Anyone() && !s.OneHost() }

// Admits reports whether a packet from src may pass.
func (s Source) Admits(src netip.AddrPort) bool {
	return s.Anyone() || s.Prefix.Contains(src.Addr()) && s.Low <= src.Port() && src.Port() <= s.High
}

// Overlaps reports whether some packet may pass both.
func (s Source) Overlaps(o Source) bool {
	return s.Anyone() || o.Anyone() ||
		s.Prefix.Overlaps(o.Prefix) && s.Low <= o.High && o.Low <= s.High
}

// String returns "anyone", "198.51.100.7", "198.51.100.0/24",
// "198.51.100.0/24 port 53" or "198.51.100.0/24 port 0-52".
func (s Source) String() string {
	if s.Anyone() {
		return "anyone"
	}
	text := network(s.Prefix)
	switch {
	case s.Low == s.High:
		text += fmt.Sprintf(" port %d", s.Low)
	case s.Low != 0 || s.High != lastPort:
		text += fmt.Sprintf(" port %d-%d", s.Low, s.High)
	}
	return text
}

// Compare orders sources by prefix and port.
func (s Source) Compare(o Source) int {
	return cmp.Or(
		s.Prefix.Addr().Compare(o.Prefix.Addr()), cmp.Compare(s.Prefix.Bits(), o.Prefix.Bits()),
		cmp.Compare(s.Low, o.Low), cmp.Compare(s.High, o.High),
	)
}

// Host returns the source that is one address with all of its ports.
func Host(a netip.Addr) Source {
	return Source{Prefix: netip.PrefixFrom(a, a.BitLen()), High: lastPort}
}

// Sources returns what restrictions come to, sorted: sources that do not overlap
// within a class and together let in exactly whom one of the restrictions allows. The
// restrictions must have passed Check.
func Sources(remotes []Remote) []Source { return disjoint(widest(remotes)) }

// widest drops the restrictions that another one covers. A restriction to the
// whole Internet and any port leaves none: anyone.
func widest(remotes []Remote) []Remote {
	var rest []Remote
	for i, r := range remotes {
		covered := false
		for j, o := range remotes {
			if covers(o, r) && (!covers(r, o) || j < i) { // of equal ones the first stays
				covered = true
				break
			}
		}
		if !covered {
			rest = append(rest, r)
		}
	}
	if len(rest) == 1 && rest[0].Prefix.Bits() == 0 && rest[0].Port == 0 {
		return nil
	}
	return rest
}

func covers(wide, r Remote) bool {
	return wide.Prefix.Bits() <= r.Prefix.Bits() && wide.Prefix.Contains(r.Prefix.Addr()) &&
		(wide.Port == 0 || wide.Port == r.Port)
}

// disjoint turns restrictions of which none covers another into sources. Two of
// them may still overlap: 198.51.100.0/24 with any port and 198.51.0.0/16 with
// port 53. Then the narrow network leaves that port to the wide one. Eight
// restrictions come to 24 sources at most: four networks, each cut at the ports
// of four wider ones.
func disjoint(remotes []Remote) []Source {
	if len(remotes) == 0 {
		return []Source{{}}
	}
	var all []Source
	for _, r := range remotes {
		switch {
		case r.Port != 0:
			all = append(all, Source{r.Prefix, r.Port, r.Port})
		case r.Prefix.IsSingleIP():
			all = append(all, Host(r.Prefix.Addr()))
		default:
			all = append(all, between(r.Prefix, portsAround(r.Prefix, remotes))...)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Compare(all[j]) < 0 })
	return all
}

// portsAround returns the ports for which a wider network than p is let in,
// sorted, each once.
func portsAround(p netip.Prefix, remotes []Remote) []uint16 {
	var ports []uint16
	for _, r := range remotes {
		if r.Port != 0 && r.Prefix.Overlaps(p) {
			ports = append(ports, r.Port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// between returns a network with all ports but those of the list.
func between(p netip.Prefix, ports []uint16) []Source {
	var all []Source
	low := 0
	for _, port := range ports {
		if low < int(port) {
			all = append(all, Source{p, uint16(low), port - 1})
		}
		low = int(port) + 1
	}
	if low <= lastPort {
		all = append(all, Source{p, uint16(low), lastPort})
	}
	return all
}
