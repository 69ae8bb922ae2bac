package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// carryLimit is how long the kernel may take until a new cable carries.
const carryLimit = 10 * time.Second

// End is one end of a cable.
type End struct {
	Space *Space
	Name  string
	MAC   net.HardwareAddr // nil: any
}

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// Cable joins two namespaces by a veth pair, both ends up.
func Cable(a, b End) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(vethInfoPeer, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, attr := range b.attrs() {
		peer.AddChild(attr)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(b.Space.fd)))
	if err := a.Space.newLink(a, info); err != nil {
		return fmt.Errorf("veth %s-%s: %w", a.Name, b.Name, err)
	}
	return errors.Join(a.Space.Up(a.Name), b.Space.Up(b.Name))
}

// Bridge makes a bridge, down, without ports.
func (s *Space) Bridge(name string, mac net.HardwareAddr) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("bridge"))
	if err := s.newLink(End{s, name, mac}, info); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return nil
}

func (e End) attrs() []*nl.RtAttr {
	all := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(e.Name))}
	if e.MAC != nil {
		all = append(all, nl.NewRtAttr(unix.IFLA_ADDRESS, e.MAC))
	}
	return all
}

func (s *Space) newLink(e End, info *nl.RtAttr) error {
	return s.tell(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), append(e.attrs(), info)...)
}

// Plug makes a link a port of a bridge.
func (s *Space) Plug(port, bridge string) error {
	b, err := s.link(bridge)
	if err != nil {
		return err
	}
	return s.with(port, func(l link) error {
		return s.tell(unix.RTM_NEWLINK, 0, l.header(), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(b.index))))
	})
}

// Up brings a link up.
func (s *Space) Up(name string) error {
	return s.with(name, func(l link) error {
		h := l.header()
		h.Flags, h.Change = unix.IFF_UP, unix.IFF_UP
		return s.tell(unix.RTM_NEWLINK, 0, h)
	})
}

// Index returns the number of a link.
func (s *Space) Index(name string) (int, error) {
	l, err := s.link(name)
	return l.index, err
}

// Address adds an address to a link, with the length of its network. Duplicates are
// not looked for: an IPv6 address is usable at once.
func (s *Space) Address(name string, p netip.Prefix) error {
	return s.with(name, func(l link) error {
		attrs := addressAttrs(p)
		if p.Addr().Is6() {
			attrs = append(attrs, nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
		} else if p.Bits() < 31 {
			broadcast := p.Masked().Addr().As4()
			host := ^uint32(0) >> p.Bits()
			binary.BigEndian.PutUint32(broadcast[:], binary.BigEndian.Uint32(broadcast[:])|host)
			attrs = append(attrs, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast[:]))
		}
		return s.tell(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.addressHeader(p), attrs...)
	})
}

func (l link) addressHeader(p netip.Prefix) *nl.IfAddrmsg {
	h := nl.NewIfAddrmsg(int(family(p.Addr())))
	h.Index, h.Prefixlen = uint32(l.index), uint8(p.Bits())
	return h
}

func addressAttrs(p netip.Prefix) []*nl.RtAttr {
	return []*nl.RtAttr{nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice())}
}

// RemoveAddresses takes from a link every address in a prefix.
func (s *Space) RemoveAddresses(name string, p netip.Prefix) error {
	return s.with(name, func(l link) error {
		addrs, err := s.addresses(l)
		for _, a := range addrs {
			if p.Contains(a.Addr()) {
				err = errors.Join(err, s.tell(unix.RTM_DELADDR, 0, l.addressHeader(a), addressAttrs(a)...))
			}
		}
		return err
	})
}

// Neighbours tells a link the MAC address of another at which the addresses of that one
// are, so that nobody has to ask.
func (s *Space) Neighbours(name string, other *Space, there string) error {
	peer, err := other.link(there)
	if err != nil {
		return err
	}
	addrs, err := other.addresses(peer)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", there, err)
	}
	return s.with(name, func(l link) error {
		for _, a := range addrs {
			// struct ndmsg of linux/neighbour.h: family, padding, interface, state, flags, type
			h := make(header, 12)
			h[0] = family(a.Addr())
			binary.NativeEndian.PutUint32(h[4:], uint32(l.index))
			binary.NativeEndian.PutUint16(h[8:], unix.NUD_PERMANENT)
			err = errors.Join(err, s.tell(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h,
				nl.NewRtAttr(unix.NDA_DST, a.Addr().AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, peer.mac)))
		}
		return err
	})
}

// Route adds a route by way of a router, or straight to the link where via is invalid.
// The kernel finds the link where its name is "".
func (s *Space) Route(link string, to netip.Prefix, via netip.Addr) error {
	return s.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewRtMsg(), link, to, via)
}

// RemoveRoute takes it away.
func (s *Space) RemoveRoute(link string, to netip.Prefix, via netip.Addr) error {
	return s.route(unix.RTM_DELROUTE, 0, nl.NewRtDelMsg(), link, to, via)
}

func (s *Space) route(typ, flags int, h *nl.RtMsg, link string, to netip.Prefix, via netip.Addr) error {
	h.Family, h.Dst_len = family(to.Addr()), uint8(to.Bits())
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.RTA_DST, to.Addr().AsSlice())}
	if via.IsValid() {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_GATEWAY, via.AsSlice()))
	} else {
		h.Scope = unix.RT_SCOPE_LINK
	}
	if link != "" {
		index, err := s.Index(link)
		if err != nil {
			return err
		}
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	}
	if err := s.tell(typ, flags, h, attrs...); err != nil {
		return fmt.Errorf("%s: route to %s: %w", s.name, to, err)
	}
	return nil
}

// Carries waits until links carry packets, and until the kernel takes what is sent to
// their IPv6 addresses. It does both in its own time, and drops packets until then.
func (s *Space) Carries(names ...string) error {
	deadline := time.Now().Add(carryLimit)
	for _, name := range names {
		for {
			ready, err := s.carries(name)
			if err != nil {
				return err
			}
			if ready {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %s does not carry", s.name, name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (s *Space) carries(name string) (bool, error) {
	l, err := s.link(name)
	if err != nil || !l.carries {
		return false, err
	}
	addrs, err := s.addresses(l)
	if err != nil {
		return false, err
	}
	var routes []byte // read at once; a list of them makes garbage of each route
	err = s.In(func() (err error) {
		routes, err = os.ReadFile("/proc/thread-self/net/ipv6_route")
		return err
	})
	for _, a := range addrs {
		if a.Addr().Is6() && !bytes.Contains(routes, fmt.Appendf(nil, "%032x 80 ", a.Addr().AsSlice())) {
			return false, err
		}
	}
	return err == nil, err
}

// with does something with a link; an error names it.
func (s *Space) with(name string, do func(link) error) error {
	l, err := s.link(name)
	if err != nil {
		return err
	}
	if err := do(l); err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	return nil
}
