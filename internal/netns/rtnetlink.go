package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// header is the fixed part of a message.
type header []byte

func (h header) Len() int          { return len(h) }
func (h header) Serialize() []byte { return h }

func (s *Space) request(typ, flags int, h nl.NetlinkRequestData, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	req.AddData(h)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

// tell has the kernel change something.
func (s *Space) tell(typ, flags int, h nl.NetlinkRequestData, attrs ...*nl.RtAttr) error {
	_, err := s.request(typ, flags|unix.NLM_F_ACK, h, attrs...).Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// link is what is asked of one.
type link struct {
	index   int
	mac     net.HardwareAddr
	carries bool
}

func (l link) header() *nl.IfInfomsg {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index = int32(l.index)
	return h
}

// operUp is IF_OPER_UP of linux/if.h.
const operUp = 6

func (s *Space) link(name string) (l link, err error) {
	req := s.request(unix.RTM_GETLINK, unix.NLM_F_ACK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err == nil && len(messages) != 1 {
		err = unix.ENODEV
	}
	if err != nil {
		return link{}, fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	attrs, err := nl.ParseRouteAttr(messages[0][unix.SizeofIfInfomsg:])
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_ADDRESS:
			l.mac = a.Value
		case unix.IFLA_OPERSTATE:
			l.carries = a.Value[0] == operUp
		}
	}
	l.index = int(nl.DeserializeIfInfomsg(messages[0]).Index)
	return l, err
}

// addresses returns those of a link, of both families.
func (s *Space) addresses(l link) (all []netip.Prefix, err error) {
	req := s.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	for _, m := range messages {
		if int(binary.NativeEndian.Uint32(m[4:])) != l.index {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
		if err != nil {
			return nil, err
		}
		var local, there netip.Addr // the first is missing for IPv6
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(a.Value)
			case unix.IFA_ADDRESS:
				there, _ = netip.AddrFromSlice(a.Value)
			}
		}
		if !local.IsValid() {
			local = there
		}
		all = append(all, netip.PrefixFrom(local, int(m[1])))
	}
	return all, err
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
