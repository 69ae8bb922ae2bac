package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// The addresses of the network. The WAN's are from a documentation range, which
// Portcullis treats as public.
var (
	LANPrefix   = netip.MustParsePrefix("192.168.77.0/24")
	GatewayLAN  = netip.MustParseAddr("192.168.77.1")
	WANPrefix   = netip.MustParsePrefix("203.0.113.0/24")
	GatewayWAN  = netip.MustParseAddr("203.0.113.5")
	InternetOne = netip.MustParseAddr("203.0.113.66")
	InternetTwo = netip.MustParseAddr("203.0.113.67") // a second address of the same host
)

// The gateway's interfaces.
const (
	Bridge       = "br-lan"
	WANInterface = "wan0"
)

// Network is one home network with the Internet beside it.
type Network struct {
	Gateway  *Host
	Internet *Host
	hosts    map[string]*Host
	order    []*Host
}

// New builds a gateway, the Internet, and a LAN host for each name. Close must
// be called. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN in its user namespace.
func New(names ...string) (_ *Network, err error) {
	n := &Network{hosts: make(map[string]*Host)}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.Gateway, err = n.add("gateway"); err != nil {
		return nil, err
	}
	if n.Internet, err = n.add("internet"); err != nil {
		return nil, err
	}
	if err = n.buildGateway(); err != nil {
		return nil, fmt.Errorf("lab: gateway: %w", err)
	}
	if err = n.buildInternet(); err != nil {
		return nil, fmt.Errorf("lab: internet: %w", err)
	}
	for i, name := range names {
		addr := LANPrefix.Addr().As4()
		addr[3] = byte(10 * (i + 1))
		if err = n.AddHost(name, netip.AddrFrom4(addr)); err != nil {
			return nil, fmt.Errorf("lab: %s: %w", name, err)
		}
	}
	return n, nil
}

// Host gives a LAN host by name, or nil.
func (n *Network) Host(name string) *Host { return n.hosts[name] }

// Close ends all namespaces and everything in them.
func (n *Network) Close() {
	for _, h := range n.order {
		h.close()
	}
	n.order = nil
}

func (n *Network) add(name string) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	n.order = append(n.order, h)
	return h, up(h, "lo")
}

func (n *Network) buildGateway() error {
	g := n.Gateway
	g.Addr = GatewayLAN
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Bridge, HardwareAddr: mac(0, 1)}}
	if err := g.handle.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := address(g, Bridge, GatewayLAN, LANPrefix); err != nil {
		return err
	}
	// Where br_netfilter is loaded (Docker does that), translation would happen
	// inside the bridge, which then refuses to send a host its own packet back. A
	// router has it off.
	if err := g.SetSysctl("bridge/bridge-nf-call-iptables", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return g.SetSysctl("ipv4/ip_forward", "1")
}

func (n *Network) buildInternet() error {
	i := n.Internet
	if err := n.wire(n.Gateway, WANInterface, mac(1, 5), i, "eth0", mac(1, 66)); err != nil {
		return err
	}
	i.Addr = InternetOne
	err := errors.Join(
		address(n.Gateway, WANInterface, GatewayWAN, WANPrefix),
		address(i, "eth0", InternetOne, WANPrefix),
		address(i, "eth0", InternetTwo, WANPrefix),
		// The attacker may address the LAN through the gateway (abuse case A2).
		route(i, "eth0", LANPrefix, GatewayWAN),
		route(n.Gateway, WANInterface, netip.MustParsePrefix("0.0.0.0/0"), InternetOne),
	)
	return err
}

// AddHost connects one more host to the LAN.
func (n *Network) AddHost(name string, addr netip.Addr) error {
	if n.hosts[name] != nil {
		return errors.New("there is such a host already")
	}
	h, err := n.add(name)
	if err != nil {
		return err
	}
	n.hosts[name] = h
	h.Addr = addr
	last := addr.As4()[3]
	port := fmt.Sprintf("lan%d", last)
	if err := n.wire(n.Gateway, port, mac(2, last), h, "eth0", mac(0, last)); err != nil {
		return err
	}
	return errors.Join(
		enslave(n.Gateway, port, Bridge),
		address(h, "eth0", addr, LANPrefix),
		route(h, "eth0", netip.MustParsePrefix("0.0.0.0/0"), GatewayLAN),
	)
}

// wire lays a cable between two hosts.
func (n *Network) wire(a *Host, aName string, aMAC net.HardwareAddr, b *Host, bName string, bMAC net.HardwareAddr) error {
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: aName, HardwareAddr: aMAC},
		PeerName:         bName,
		PeerHardwareAddr: bMAC,
		PeerNamespace:    netlink.NsFd(b.ns),
	}
	if err := a.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s-%s: %w", aName, bName, err)
	}
	b.MAC = bMAC
	return errors.Join(up(a, aName), up(b, bName))
}

func mac(net, host byte) net.HardwareAddr { return []byte{2, 0, 0, 77, net, host} }

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
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), a.BitLen())}}
	if err := h.handle.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", a, name, err)
	}
	return h.handle.LinkSetUp(l)
}

func route(h *Host, name string, to netip.Prefix, via netip.Addr) error {
	l, err := h.handle.LinkByName(name)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: via.AsSlice(),
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}}
	if err := h.handle.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

// Hosts lists the machines, the gateway first.
func (n *Network) Hosts() []*Host { return n.order }

// AddInterface connects a host to an interface of the gateway's own, beside the
// LAN: a guest network, say. The gateway has the first address of the prefix,
// the host the tenth.
func (n *Network) AddInterface(ifname, host string, p netip.Prefix) error {
	if n.hosts[host] != nil {
		return errors.New("there is such a host already")
	}
	h, err := n.add(host)
	if err != nil {
		return err
	}
	n.hosts[host] = h
	third := p.Addr().As4()[2]
	if err := n.wire(n.Gateway, ifname, mac(3, third), h, "eth0", mac(4, third)); err != nil {
		return err
	}
	first, tenth := p.Addr().As4(), p.Addr().As4()
	first[3], tenth[3] = 1, 10
	gateway := netip.AddrFrom4(first)
	h.Addr = netip.AddrFrom4(tenth)
	return errors.Join(
		address(n.Gateway, ifname, gateway, p),
		address(h, "eth0", h.Addr, p),
		route(h, "eth0", netip.MustParsePrefix("0.0.0.0/0"), gateway),
	)
}
