package netif

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of linux/if_link.h that x/sys has not.
const iflaInfoKind = 1

// links dumps the interfaces, without their addresses. The library could, with every
// attribute of every kind of link there is: 0.2 MB of program.
func (k *Kernel) links() ([]Link, error) {
	var all []Link
	req := request(k.route, unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(m []byte) bool {
		if l, _, ok := parseLink(m); ok {
			all = append(all, l)
		}
		return true
	})
	return all, err
}

// linkAddr is an address, and the index of its link.
type linkAddr struct {
	index int
	Addr
}

// addrs dumps the addresses of both families.
func (k *Kernel) addrs() ([]linkAddr, error) {
	var all []linkAddr
	req := request(k.route, unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, func(m []byte) bool {
		if a, ok := parseAddr(m); ok {
			all = append(all, a)
		}
		return true
	})
	return all, err
}

// parseLink decodes an interface and what it has carried. Layout of the header: struct
// ifinfomsg of linux/rtnetlink.h.
func parseLink(m []byte) (l Link, s Stats, ok bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return l, s, false
	}
	flags := binary.NativeEndian.Uint32(m[8:])
	l = Link{
		Index:        int(attrUint32(m[4:])),
		Kind:         "device",
		Up:           flags&unix.IFF_UP != 0,
		Running:      flags&unix.IFF_RUNNING != 0,
		Loopback:     flags&unix.IFF_LOOPBACK != 0,
		PointToPoint: flags&unix.IFF_POINTOPOINT != 0,
	}
	s = Stats{Up: l.Up, Carrier: flags&unix.IFF_LOWER_UP != 0}
	for t, v := range attributes(m[unix.SizeofIfInfomsg:]) {
		switch t {
		case unix.IFLA_IFNAME:
			l.Name = attrString(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.MAC) {
				copy(l.MAC[:], v)
			}
		case unix.IFLA_MASTER:
			l.Master = int(attrUint32(v))
		case unix.IFLA_LINKINFO:
			for t, v := range attributes(v) {
				if t == iflaInfoKind {
					l.Kind = attrString(v)
				}
			}
		case unix.IFLA_STATS64: // struct rtnl_link_stats64
			if len(v) >= 32 {
				s.RxPackets, s.TxPackets = binary.NativeEndian.Uint64(v), binary.NativeEndian.Uint64(v[8:])
				s.RxBytes, s.TxBytes = binary.NativeEndian.Uint64(v[16:]), binary.NativeEndian.Uint64(v[24:])
			}
		}
	}
	return l, s, l.Index > 0 && l.Name != ""
}

// parseAddr decodes an address. Layout of the header: struct ifaddrmsg of
// linux/if_addr.h.
func parseAddr(m []byte) (linkAddr, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return linkAddr{}, false
	}
	bits, flags, scope := int(m[1]), uint32(m[2]), m[3]
	var local, there netip.Addr
	for t, v := range attributes(m[unix.SizeofIfAddrmsg:]) {
		switch t {
		case unix.IFA_ADDRESS:
			there = attrAddr(v)
		case unix.IFA_LOCAL:
			local = attrAddr(v)
		case unix.IFA_FLAGS: // of which the header has only the first eight
			flags = attrUint32(v)
		}
	}
	a := linkAddr{index: int(attrUint32(m[4:]))}
	// IFA_ADDRESS is the other end of a point-to-point address, whose length is that of
	// the network there; of any other it is the address itself, and IPv6 has only that.
	if a.Prefix = netip.PrefixFrom(there, bits); local.IsValid() && local != there {
		a.Prefix, a.Peer = netip.PrefixFrom(local, local.BitLen()), a.Prefix
	}
	v6 := a.Prefix.Addr().Is6()
	a.LinkScope = scope == unix.RT_SCOPE_LINK
	// One bit, two meanings: IFA_F_SECONDARY is IFA_F_TEMPORARY.
	a.Secondary = !v6 && flags&unix.IFA_F_SECONDARY != 0
	a.Temporary = v6 && flags&unix.IFA_F_TEMPORARY != 0
	a.Tentative = flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	a.Deprecated = flags&unix.IFA_F_DEPRECATED != 0
	a.Dynamic = flags&unix.IFA_F_PERMANENT == 0
	return a, a.Prefix.IsValid()
}

// attrString reads a text, which ends with a zero octet.
func attrString(v []byte) string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}
