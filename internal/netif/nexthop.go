package netif

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// NextHop asks the kernel by which interface, and by which router of its link, a
// packet from an address of the machine gets to another one. Without a router the
// next hop is the address itself; ifindex 0 says that there is no way.
func (k *Kernel) NextHop(from, to netip.Addr) (ifindex int, next netip.Addr, err error) {
	req := request(k.neighbours, unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0)
	bits := uint8(to.BitLen())
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family(to), Dst_len: bits, Src_len: bits}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, to.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_SRC, from.AsSlice()))
	next = to
	err = k.ask(req, func(m []byte) {
		if len(m) < unix.SizeofRtMsg || m[7] != unix.RTN_UNICAST {
			return
		}
		for t, v := range attributes(m[unix.SizeofRtMsg:]) {
			switch t {
			case unix.RTA_OIF:
				ifindex = int(attrUint32(v))
			case unix.RTA_GATEWAY:
				next = attrAddr(v)
			case unix.RTA_VIA:
				next = viaAddr(v)
			}
		}
	})
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES):
		return 0, netip.Addr{}, nil // unreachable, prohibit, blackhole
	case err != nil:
		return 0, netip.Addr{}, fmt.Errorf("ask for the route to %s: %w", to, err)
	}
	return ifindex, next, nil
}

// MACEnding looks for a machine on a link whose MAC address ends in these octets: among
// the neighbours, and among what a bridge has seen at its ports. It is false where
// there is none, or more than one. It reads all of them, and is for questions that
// are rare.
func (k *Kernel) MACEnding(ifindex int, ending []byte) (mac [6]byte, found bool, err error) {
	several := false
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		req := request(k.neighbours, unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		req.AddData(ndmsg(family, 0, 0))
		err := req.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH, func(m []byte) bool {
			link, seen := linkLayer(m)
			if link != ifindex || string(seen[len(seen)-len(ending):]) != string(ending) {
				return true
			}
			several = several || found && seen != mac
			mac, found = seen, true
			return true
		})
		if err != nil {
			return mac, false, fmt.Errorf("look for a MAC address among the neighbours: %w", err)
		}
	}
	return mac, found && !several, nil
}

// linkLayer decodes of a neighbour, or of an entry of a bridge's, on which link it
// is and its MAC address, zeros if it has none.
func linkLayer(m []byte) (ifindex int, mac [6]byte) {
	if len(m) < sizeofNdmsg {
		return 0, mac
	}
	ifindex = int(attrUint32(m[4:]))
	for t, v := range attributes(m[sizeofNdmsg:]) {
		switch {
		case t == unix.NDA_LLADDR && len(v) == len(mac):
			copy(mac[:], v)
		case t == unix.NDA_MASTER: // of a bridge's entry the link is the port
			ifindex = int(attrUint32(v))
		}
	}
	return ifindex, mac
}
