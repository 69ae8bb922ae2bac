package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"portcullis/firewall"
)

// facts returns the elements of the sets that describe the gateway.
func (s *skeleton) facts(g firewall.Facts) *elements {
	e := newElements()
	var wan []string
	sourced := make(map[string]bool)
	for _, up := range g.WAN {
		wan = append(wan, up.Interface)
		if v4 := up.IPv4(); len(v4) > 0 && !sourced[up.Interface] {
			sourced[up.Interface] = true
			e.add(s.wanSource, nftables.SetElement{Key: ifnameKey(up.Interface), Val: v4[0].AsSlice()})
		}
	}
	e.interfaces(s.wanIfaces, wan)
	e.interfaces(s.wan6Ifaces, g.WAN6)
	e.interfaces(s.lanIfaces, g.LAN)
	for _, a := range g.WANAddrs() {
		e.add(s.wanAddrs, nftables.SetElement{Key: a.AsSlice()})
	}
	for _, el := range intervals(g.LANPrefixes) {
		e.add(s.lanPrefixes, el)
	}
	for _, el := range intervals(g.Inside()) {
		e.add(s.inside, el)
	}
	if g.FrontUID != 0 {
		e.add(s.frontUser, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(g.FrontUID)})
	}
	return e
}

// interfaces adds interface names.
func (e *elements) interfaces(set *nftables.Set, names []string) {
	for _, name := range unique(names) {
		e.add(set, nftables.SetElement{Key: ifnameKey(name)})
	}
}

func unique[T comparable](list []T) []T {
	var out []T
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// intervals returns prefixes as the kernel's interval set wants them: ranges that
// do not touch, each as its first address and the address after its last.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	type span struct{ first, last uint32 }
	var spans []span
	for _, p := range prefixes {
		if !p.Addr().Is4() {
			continue
		}
		first := addrNumber(p.Masked().Addr())
		spans = append(spans, span{first, first | uint32(1<<(32-p.Bits())-1)})
	}
	sort.Slice(spans, func(i, j int) bool { return spans[i].first < spans[j].first })
	var out []nftables.SetElement
	for i := 0; i < len(spans); {
		joined := spans[i]
		for i++; i < len(spans) && uint64(spans[i].first) <= uint64(joined.last)+1; i++ {
			joined.last = max(joined.last, spans[i].last)
		}
		out = append(out, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, joined.first)})
		if joined.last != 1<<32-1 {
			end := binary.BigEndian.AppendUint32(nil, joined.last+1)
			out = append(out, nftables.SetElement{Key: end, IntervalEnd: true})
		}
	}
	return out
}

func addrNumber(a netip.Addr) uint32 {
	v4 := a.As4()
	return binary.BigEndian.Uint32(v4[:])
}
