package netif

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sort"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"portcullis/internal/special"
)

// mainTable is the routing table that is asked where no rule of the owner's is first.
const mainTable = unix.RT_TABLE_MAIN

// routeDump is what State needs of the routing tables: the default routes of the
// main one, and of all tables what shows that a link leads outside.
type routeDump struct {
	default4, default6 []DefaultRoute
	uplinks            map[int]Way
	wide               uint64 // see State.Wide
	objects            nexthops
	missing            bool // a route that matters names an object that is not among them
}

// seed makes digests differ from process to process, which nobody minds.
var seed = maphash.MakeSeed()

// routes dumps the routes of both families, and next-hop objects if a route names one.
func (k *Kernel) routes() (routeDump, error) { return resolved(k.dumpRoutes, k.nexthops) }

// resolved makes a dump in which no way is missing. Where the kernel does not tell of an
// object that a route names, it fails: that route may lead outside.
func resolved(dump func(nexthops) (routeDump, error), ask func() (nexthops, error)) (routeDump, error) {
	d, err := dump(nil)
	if err != nil || !d.missing {
		return d, err
	}
	objects, err := ask()
	if err != nil {
		return routeDump{}, fmt.Errorf("list next-hop objects: %w", err)
	}
	if d, err = dump(objects); err == nil && d.missing {
		err = nl.ErrDumpInterrupted // it came between the two dumps
	}
	return d, err
}

// dumpRoutes dumps the routes of both families. The library could list them, but it
// decodes every attribute of every route, and one route of an exotic kind
// (segment routing, a rewritten destination) makes the whole list fail; a
// gateway with a full Internet table has a million of them. Here a route costs
// a look at its header unless it matters.
func (k *Kernel) dumpRoutes(objects nexthops) (routeDump, error) {
	d := routeDump{uplinks: map[int]Way{}, objects: objects}
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
	object uint32 // id of the next-hop object that it names, or 0
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
	if !ok {
		return
	}
	if len(r.hops) == 0 && r.object != 0 && r.leadsOutside(hop{via: true}) {
		known := false
		if r.hops, known = d.objects.find(r.object); !known {
			d.missing = true
		}
	}
	for _, h := range r.hops {
		if r.leadsOutside(h) {
			d.note(h.index, Way{To: r.dst, Gateway: h.gateway, Table: r.table}, r.wide())
		}
		if r.table != mainTable || r.dst.Bits() != 0 {
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

// note keeps the route that says most plainly that a link leads outside.
func (d *routeDump) note(index int, w Way, wide bool) {
	type there struct {
		index int
		way   Way
	}
	if wide {
		d.wide += maphash.Comparable(seed, there{index, w}) // in whatever order they come
	}
	if was, known := d.uplinks[index]; !known || w.before(was) {
		d.uplinks[index] = w
	}
}

// leadsOutside reports whether a next hop shows that its link leads to the Internet,
// whatever the table: which rule leads to a table, and whether one does at this
// moment, is not asked, because rules come and go with a failover (mwan) or a tunnel
// (wg-quick), and what was the outside a moment ago must not be a LAN now.
//
// A default route does, with a gateway or without, and parts of one as VPN clients set
// them: what is wider than any network that is anybody's own. With a gateway, so
// does a route to a public IPv4 address. One to private addresses does not: that is an
// inner router's network. Nor does one to a public IPv6 network: a LAN behind an inner
// router has such as a matter of course.
func (r route) leadsOutside(h hop) bool {
	a := r.dst.Addr()
	return r.wide() || a.Is4() && h.via && special.Public(a)
}

// wide reports whether a route is a default route, or a part of one.
func (r route) wide() bool {
	a, bits := r.dst.Addr(), r.dst.Bits()
	if a.Is4() {
		return bits < 8 && a.As4()[0] < 224 // and no multicast
	}
	return bits < 7 && a.As16()[0] < 0xfc // fc00::/7 and what lies above are of the site
}

// parseRoute decodes an ordinary (unicast, not cached, living) route; others
// give false. Layout of the header: struct rtmsg of linux/rtnetlink.h.
func parseRoute(m []byte) (route, bool) {
	if len(m) < unix.SizeofRtMsg {
		return route{}, false
	}
	flags := binary.NativeEndian.Uint32(m[8:])
	if m[7] != unix.RTN_UNICAST || flags&(unix.RTM_F_CLONED|unix.RTNH_F_DEAD) != 0 {
		return route{}, false
	}
	return decodeRoute(m)
}

// decodeRoute decodes a route of whatever kind.
func decodeRoute(m []byte) (route, bool) {
	if len(m) < unix.SizeofRtMsg {
		return route{}, false
	}
	family, bits, table := m[0], int(m[1]), m[4]
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
		case rtaNHID:
			r.object = attrUint32(v)
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
