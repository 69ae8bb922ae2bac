package netif_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
)

// Route messages of a little-endian kernel. The header: family, length of
// destination and source, TOS, table, protocol, scope, type, flags.
var (
	// default via 203.0.113.1 dev 3 metric 10 src 203.0.113.5
	routeDefault = unhex("02 00 00 00 fe 04 00 01 00000000" +
		"08000f00 fe000000" + "08000600 0a000000" + "08000700 cb007105" + "08000500 cb007101" + "08000400 03000000")
	// default nexthop via 203.0.113.1 dev 3 nexthop dev 4 (dead) nexthop via inet6 fe80::1 dev 5
	routeMultipath = unhex("02 00 00 00 fe 04 00 01 00000000" +
		"08000f00 fe000000" +
		"3c000900" +
		"1000 00 00 03000000 08000500 cb007101" +
		"0800 01 00 04000000" +
		"2000 00 00 05000000 16001200 0a00 fe80000000000000 0000000000000001 0000")
	// 203.0.113.0/24 dev 3
	routeOnLink = unhex("02 18 00 00 fe 02 fd 01 00000000 08000100 cb007100 08000400 03000000")
)

func change(m []byte, at int, to byte) []byte {
	m = slices.Clone(m)
	m[at] = to
	return m
}

func TestParseRoute(t *testing.T) {
	t.Parallel()
	if !littleEndian() {
		t.Skip("the examples are of a little-endian machine")
	}
	a := netip.MustParseAddr
	first := netif.DefaultRoute{Index: 3, Gateway: a("203.0.113.1"), Source: a("203.0.113.5"), Metric: 10}
	for _, tc := range []struct {
		name    string
		m       []byte
		want    []netif.DefaultRoute
		uplinks []int
	}{
		{"default", routeDefault, []netif.DefaultRoute{first}, []int{3}},
		{"several next hops, one dead", routeMultipath, []netif.DefaultRoute{
			{Index: 3, Gateway: a("203.0.113.1")}, {Index: 5, Gateway: a("fe80::1")},
		}, []int{3, 5}},
		{"on-link", routeOnLink, nil, nil},
		{"unreachable", change(routeDefault, 7, unix.RTN_UNREACHABLE), nil, nil},
		{"dead", change(routeDefault, 8, unix.RTNH_F_DEAD), nil, nil},
		{"cached", change(routeDefault, 9, unix.RTM_F_CLONED>>8), nil, nil},
		{"other table, by attribute", change(routeDefault, 16, 100), nil, []int{3}},
		{"other family", change(routeDefault, 0, unix.AF_INET6), nil, nil},
		{"impossible length", change(routeDefault, 1, 33), nil, nil},
		{"only a header", routeDefault[:12], nil, nil},
		{"empty", nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, v6, uplinks := netif.ParseRouteMessage(unix.AF_INET, tc.m)
			if diff := cmp.Diff(tc.want, got, compareAddrs); diff != "" || len(v6) != 0 {
				t.Errorf("(-want +got), IPv6 %v:\n%s", v6, diff)
			}
			if diff := cmp.Diff(tc.uplinks, slices.Sorted(maps.Keys(uplinks))); diff != "" {
				t.Errorf("uplinks (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzRoute(f *testing.F) {
	// id 1 dev 3 via 203.0.113.1; id 10 group 1/3
	object := unhex("02 fd 00 00 00000000" + "08000100 01000000" + "08000500 03000000" + "08000600 cb007101")
	group := unhex("00 00 00 00 00000000" + "08000100 0a000000" + "14000200 01000000 00000000 03000000 00000000")
	for _, m := range [][]byte{routeDefault, routeMultipath, routeOnLink, routeDefault[:20], object, group} {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			v4, v6, _ := netif.ParseRouteMessage(family, m)
			if len(v4)+len(v6) > len(m)/unix.SizeofRtNexthop {
				t.Errorf("%d routes out of %d bytes", len(v4)+len(v6), len(m))
			}
			if n := netif.ParseNexthop(m); n > len(m)/4 {
				t.Errorf("%d next hops out of %d bytes", n, len(m))
			}
			if r, ok := netif.ParseRule(family, m); ok && (r.Text == "" || !r.From.IsValid()) {
				t.Errorf("a rule %+v", r)
			}
		}
	})
}
