package netif

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flow is a packet that comes in by an interface and is to be forwarded.
type Flow struct {
	Ifindex  int // it comes in by
	From, To netip.Addr
	Mark     uint32 // that the rules of the firewall have given it by then
	Protocol uint8  // unix.IPPROTO_UDP, say; with the port for rules that ask for such
	Port     uint16 // it comes from
}

// Next is where the kernel sends a packet.
type Next struct {
	Ifindex int
	Gateway netip.Addr // zero: the host is on the link
	Table   uint32     // that said so
}

// Lookup asks the kernel by which way it would forward a packet, with all rules and
// tables as they are now. Its error is the kernel's where it would not forward it at
// all: there is no route, one that refuses, or reverse path filtering.
func (k *Kernel) Lookup(f Flow) (Next, error) {
	family, bits := uint8(unix.AF_INET), uint8(32)
	if f.To.Is6() {
		family, bits = unix.AF_INET6, 128
	}
	req := request(k.raw, unix.NETLINK_ROUTE, unix.RTM_GETROUTE, 0)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family, Dst_len: bits, Src_len: bits, Flags: unix.RTM_F_LOOKUP_TABLE}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, f.To.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_SRC, f.From.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_IIF, nl.Uint32Attr(uint32(f.Ifindex))))
	if f.Mark != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_MARK, nl.Uint32Attr(f.Mark)))
	}
	if f.Protocol != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_IP_PROTO, nl.Uint8Attr(f.Protocol)))
		req.AddData(nl.NewRtAttr(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, f.Port)))
	}
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return Next{}, fmt.Errorf("route from %s to %s: %w", f.From, f.To, err)
	}
	for _, m := range messages {
		if r, ok := decodeRoute(m); ok && len(r.hops) > 0 {
			return Next{Ifindex: r.hops[0].index, Gateway: r.hops[0].gateway, Table: r.table}, nil
		}
	}
	return Next{}, fmt.Errorf("route from %s to %s: %w", f.From, f.To, unix.ENETUNREACH)
}
