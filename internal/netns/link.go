package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
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

// Cable joins two namespaces by a veth pair, both ends up.
func Cable(a, b End) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = a.Name, a.MAC
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerHardwareAddr: b.MAC, PeerNamespace: netlink.NsFd(b.Space.fd)}
	if err := a.Space.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s-%s: %w", a.Name, b.Name, err)
	}
	return errors.Join(a.Space.Up(a.Name), b.Space.Up(b.Name))
}

// Bridge makes a bridge, down, without ports.
func (s *Space) Bridge(name string, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	if err := s.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return nil
}

// Plug makes a link a port of a bridge.
func (s *Space) Plug(port, bridge string) error {
	b, err := s.link(bridge)
	if err != nil {
		return err
	}
	return s.with(port, func(l netlink.Link) error { return s.links.LinkSetMaster(l, b) })
}

// Up brings a link up.
func (s *Space) Up(name string) error { return s.with(name, s.links.LinkSetUp) }

// Index returns the number of a link.
func (s *Space) Index(name string) (index int, err error) {
	l, err := s.link(name)
	if err == nil {
		index = l.Attrs().Index
	}
	return index, err
}

// Address adds an address to a link, with the length of its network. Duplicates are
// not looked for: an IPv6 address is usable at once.
func (s *Space) Address(name string, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return s.with(name, func(l netlink.Link) error { return s.links.AddrAdd(l, a) })
}

// RemoveAddresses takes from a link every address in a prefix.
func (s *Space) RemoveAddresses(name string, p netip.Prefix) error {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	return s.with(name, func(l netlink.Link) error {
		addrs, err := s.links.AddrList(l, family)
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && p.Contains(ip.Unmap()) {
				err = errors.Join(err, s.links.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}))
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
	addrs, err := other.links.AddrList(peer, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", there, err)
	}
	return s.with(name, func(l netlink.Link) error {
		for _, a := range addrs {
			err = errors.Join(err, s.links.NeighSet(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.IP, HardwareAddr: peer.Attrs().HardwareAddr,
			}))
		}
		return err
	})
}

// Route adds a route by way of a router, or straight to the link where via is invalid.
// The kernel finds the link where its name is "".
func (s *Space) Route(link string, to netip.Prefix, via netip.Addr) error {
	return s.route(link, to, via, s.links.RouteAdd)
}

// RemoveRoute takes it away.
func (s *Space) RemoveRoute(link string, to netip.Prefix, via netip.Addr) error {
	return s.route(link, to, via, s.links.RouteDel)
}

func (s *Space) route(link string, to netip.Prefix, via netip.Addr, do func(*netlink.Route) error) error {
	r := &netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}
	if !via.IsValid() {
		r.Scope = netlink.SCOPE_LINK
	}
	if link != "" {
		index, err := s.Index(link)
		if err != nil {
			return err
		}
		r.LinkIndex = index
	}
	if err := do(r); err != nil {
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
	if err != nil || l.Attrs().OperState != netlink.OperUp {
		return false, err
	}
	addrs, err := s.links.AddrList(l, netlink.FAMILY_V6)
	if err != nil || len(addrs) == 0 {
		return err == nil, err
	}
	var routes []byte // read at once; the netlink library's own list makes garbage of each route
	err = s.In(func() (err error) {
		routes, err = os.ReadFile("/proc/thread-self/net/ipv6_route")
		return err
	})
	for _, a := range addrs {
		if !bytes.Contains(routes, fmt.Appendf(nil, "%032x 80 ", []byte(a.IP.To16()))) {
			return false, err
		}
	}
	return err == nil, err
}

func (s *Space) link(name string) (netlink.Link, error) {
	l, err := s.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	return l, nil
}

// with does something with a link; an error names it.
func (s *Space) with(name string, do func(netlink.Link) error) error {
	l, err := s.link(name)
	if err != nil {
		return err
	}
	if err := do(l); err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
