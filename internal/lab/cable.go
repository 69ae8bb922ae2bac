package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wanMAC is the gateway's on its WAN interface.
var wanMAC = mac(1, 5)

func mac(net, host byte) net.HardwareAddr { return []byte{2, 0, 0, 77, net, host} }

// wire lays a cable from a new interface of a to the own interface of b.
func (n *Network) wire(a *Host, aName string, aMAC net.HardwareAddr, b *Host, bMAC net.HardwareAddr) error {
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: aName, HardwareAddr: aMAC},
		PeerName:         b.ifname,
		PeerHardwareAddr: bMAC,
		PeerNamespace:    netlink.NsFd(b.ns),
	}
	if err := a.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s-%s: %w", aName, b.ifname, err)
	}
	b.MAC = bMAC
	for _, end := range []struct {
		host *Host
		name string
	}{{a, aName}, {b, b.ifname}} {
		if err := up(end.host, end.name); err != nil {
			return err
		}
	}
	return b.learnIndex()
}

func up(h *Host, name string) error {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return h.handle.LinkSetUp(l)
}

func enslave(h *Host, port, bridge string) error {
	p, err := h.handle.LinkByName(port)
	if err != nil {
		return err
	}
	b, err := h.handle.LinkByName(bridge)
	if err != nil {
		return err
	}
	return h.handle.LinkSetMaster(p, b)
}

// address gives an interface an address and brings it up.
func address(h *Host, name string, a netip.Addr, p netip.Prefix) error {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, p.Bits()))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD // usable at once
	}
	if err := h.handle.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", a, name, err)
	}
	return h.handle.LinkSetUp(l)
}

// strip takes from an interface every address of a prefix.
func strip(h *Host, name string, p netip.Prefix) error {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return err
	}
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := h.handle.AddrList(l, family)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); !ok || !p.Contains(ip.Unmap()) {
			continue
		}
		if err := h.handle.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}); err != nil {
			return fmt.Errorf("take %s from %s: %w", a.IPNet, name, err)
		}
	}
	return nil
}

func route(h *Host, name string, to netip.Prefix, via netip.Addr) error {
	r, err := routeOf(h, name, to, via)
	if err != nil {
		return err
	}
	if err := h.handle.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

func unroute(h *Host, name string, to netip.Prefix, via netip.Addr) error {
	r, err := routeOf(h, name, to, via)
	if err != nil {
		return err
	}
	if err := h.handle.RouteDel(r); err != nil {
		return fmt.Errorf("take the route to %s: %w", to, err)
	}
	return nil
}

func routeOf(h *Host, name string, to netip.Prefix, via netip.Addr) (*netlink.Route, error) {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return &netlink.Route{LinkIndex: l.Attrs().Index, Gw: via.AsSlice(), Dst: ipNet(to)}, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// carryLimit is how long the kernel may take until a new cable carries.
const carryLimit = 10 * time.Second

// carries waits until interfaces of a host carry packets, and until the kernel takes
// what is sent to their IPv6 addresses. It does both in its own time, and drops
// packets until then.
func carries(h *Host, names ...string) error {
	deadline := time.Now().Add(carryLimit)
	for _, name := range names {
		for {
			ready, err := carrying(h, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if ready {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s of %s does not carry", name, h.Name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func carrying(h *Host, name string) (bool, error) {
	l, err := h.handle.LinkByName(name)
	if err != nil || l.Attrs().OperState != netlink.OperUp {
		return false, err
	}
	addrs, err := h.handle.AddrList(l, netlink.FAMILY_V6)
	if err != nil || len(addrs) == 0 {
		return err == nil, err
	}
	var routes []byte // the netlink library's own list would cost the program 60 kB
	err = h.Do(func() (err error) {
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
