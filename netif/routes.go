package netif

import (
	"encoding/binary"
	"net/netip"
	"sort"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routeDump is what State needs of the main routing tables.
type routeDump struct {
	default4, default6 []DefaultRoute
	uplinks            map[int]bool
}

// routes dumps the routes of both families. The library could list them, but it
// decodes every attribute of every route, and one route of an exotic kind
// (segment routing, a rewritten destination) makes the whole list fail; a
// gateway with a full Internet table has a million of them. Here a route costs
// a look at its header unless it matters.
func (k *Kernel) routes() (routeDump, error) {
	d := routeDump{uplinks: map[int]bool{}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := request(k.raw, unix.NETLINK_ROUTE, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(m []byte) bool {
			d.add(family, m)
			return true
		})
		if err != nil {
			return routeDump{}, err
		}
	}
	for _, all := range [][]DefaultRoute{d.default4, d.default6} {
		sort.SliceStable(all, func(i, j int) bool { return all[i].Metric < all[j].Metric })
	}
	return d, nil
}

// route is one decoded route message.
type route struct {
	table  uint32
	dst    netip.Prefix
	source netip.Addr
	metric uint32
	hops   []hop
}

type hop struct {
	index   int
	gateway netip.Addr
	via     bool // there is a gateway, perhaps of the other family (RFC 5549)
}

// add takes one RTM_NEWROUTE message into account.
func (d *routeDump) add(family uint8, m []byte) {
	if len(m) < unix.SizeofRtMsg || m[0] != family {
		return
	}
	r, ok := parseRoute(m)
	if !ok || r.table != unix.RT_TABLE_MAIN {
		return
	}
	isDefault := r.dst.Bits() == 0
	for _, h := range r.hops {
		// Anything wider than /8 is half of a default route, as VPN clients
		// set it. IPv6 does not count: a LAN behind an inner router has routed
		// global prefixes as a matter of course.
		if family == unix.AF_INET && h.via && (r.dst.Bits() < 8 || Public(r.dst.Addr())) {
			d.uplinks[h.index] = true
		}
		if !isDefault {
			continue
		}
		def := DefaultRoute{Index: h.index, Gateway: h.gateway, Source: r.source, Metric: r.metric}
		if family == unix.AF_INET {
			d.default4 = append(d.default4, def)
		} else {
			d.default6 = append(d.default6, def)
		}
	}
}

// parseRoute decodes an ordinary (unicast, not cached, living) route; others
// give false. Layout of the header: struct rtmsg of linux/rtnetlink.h.
func parseRoute(m []byte) (route, bool) {
	if len(m) < unix.SizeofRtMsg {
		return route{}, false
	}
	family, bits, table, typ := m[0], int(m[1]), m[4], m[7]
	flags := binary.NativeEndian.Uint32(m[8:])
	if typ != unix.RTN_UNICAST || flags&(unix.RTM_F_CLONED|unix.RTNH_F_DEAD) != 0 {
		return route{}, false
	}
	dst := netip.IPv4Unspecified() // a route without destination is a default route
	if family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	r := route{table: uint32(table)}
	var one hop
	for t, v := range attributes(m[unix.SizeofRtMsg:]) {
		switch t {
		case unix.RTA_TABLE:
			r.table = attrUint32(v)
		case unix.RTA_DST:
			dst = attrAddr(v)
		case unix.RTA_PREFSRC:
			r.source = attrAddr(v)
		case unix.RTA_PRIORITY:
			r.metric = attrUint32(v)
		case unix.RTA_OIF:
			one.index = int(attrUint32(v))
		case unix.RTA_GATEWAY:
			one.gateway, one.via = attrAddr(v), true
		case unix.RTA_VIA:
			one.gateway, one.via = viaAddr(v), true
		case unix.RTA_MULTIPATH:
			r.hops = parseHops(v)
		}
	}
	if len(r.hops) == 0 && one.index != 0 {
		r.hops = []hop{one}
	}
	r.dst = netip.PrefixFrom(dst, bits)
	return r, r.dst.IsValid()
}

// viaAddr reads struct rtvia: the address family, then the address.
func viaAddr(v []byte) netip.Addr {
	if len(v) < 2 {
		return netip.Addr{}
	}
	return attrAddr(v[2:])
}

// parseHops decodes RTA_MULTIPATH, a list of struct rtnexthop with attributes.
func parseHops(b []byte) []hop {
	var hops []hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := hop{index: int(binary.NativeEndian.Uint32(b[4:]))}
		for t, v := range attributes(b[unix.SizeofRtNexthop:n]) {
			switch t {
			case unix.RTA_GATEWAY:
				h.gateway, h.via = attrAddr(v), true
			case unix.RTA_VIA:
				h.gateway, h.via = viaAddr(v), true
			}
		}
		if b[2]&unix.RTNH_F_DEAD == 0 {
			hops = append(hops, h)
		}
		b = b[min(len(b), (n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return hops
}
