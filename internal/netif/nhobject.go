package netif

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Layouts of linux/nexthop.h: struct nhmsg, and struct nexthop_grp, of which the first
// four octets are the id.
const (
	sizeofNhmsg      = 8
	sizeofNexthopGrp = 8
)

// rtaNHID is RTA_NH_ID of linux/rtnetlink.h, which x/sys has not.
const rtaNHID = 30

// nexthops are the kernel's next-hop objects by their ids. A route may name one of them
// instead of telling its interface and gateway: with net.ipv4.nexthop_compat_mode = 0
// a dump of routes has nothing but the id.
type nexthops map[uint32]nexthop

// nexthop is one object: a next hop, or a group of such. A blackhole has neither, nor
// has a dead one.
type nexthop struct {
	hops  []hop // one at most
	group []uint32
}

// nexthops dumps the objects of both families.
func (k *Kernel) nexthops() (nexthops, error) {
	all := nexthops{}
	req := request(k.raw, unix.NETLINK_ROUTE, unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
	req.AddRawData(make([]byte, sizeofNhmsg))
	err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP, func(m []byte) bool {
		all.add(m)
		return true
	})
	return all, err
}

// add takes one RTM_NEWNEXTHOP message into account.
func (n nexthops) add(m []byte) {
	if len(m) < sizeofNhmsg {
		return
	}
	var id uint32
	var o nexthop
	var one hop
	for t, v := range attributes(m[sizeofNhmsg:]) {
		switch t {
		case unix.NHA_ID:
			id = attrUint32(v)
		case unix.NHA_GROUP:
			for ; len(v) >= sizeofNexthopGrp; v = v[sizeofNexthopGrp:] {
				o.group = append(o.group, attrUint32(v))
			}
		case unix.NHA_OIF:
			one.index = int(attrUint32(v))
		case unix.NHA_GATEWAY:
			one.gateway, one.via = attrAddr(v), true
		}
	}
	if one.index != 0 && binary.NativeEndian.Uint32(m[4:])&unix.RTNH_F_DEAD == 0 {
		o.hops = []hop{one}
	}
	n[id] = o
}

// find returns the next hops of the object with this id, false when it, or one of its
// group, is not known. The kernel has no groups of groups.
func (n nexthops) find(id uint32) (hops []hop, known bool) {
	o, known := n[id]
	hops = o.hops
	for _, member := range o.group {
		m, there := n[member]
		hops, known = append(hops, m.hops...), known && there
	}
	return hops, known
}
