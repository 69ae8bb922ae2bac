package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"portcullis/internal/netns"
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

	anywhere4 = netip.MustParsePrefix("0.0.0.0/0")
)

// The gateway's interfaces, and the one that every other host has.
const (
	Bridge       = "br-lan"
	WANInterface = "wan0"
	HostPort     = "eth0"
)

// Network is one home network with the Internet beside it.
type Network struct {
	Gateway  *Host
	Internet *Host
	hosts    map[string]*Host
	order    []*Host
	lan      []*Host // those on the bridge

	ipv6 bool
	lan6 []netip.Prefix // what the LAN has now, the newest last
}

// New builds a gateway, the Internet, and a LAN host for each name. Close must
// be called. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN in its user namespace. All
// have IPv4 and IPv6; on a kernel without IPv6 it does what NewIPv4 does.
func New(names ...string) (*Network, error) { return build(kernelHasIPv6(), names) }

// NewIPv4 builds the same network without IPv6: its hosts do not even have
// link-local addresses.
func NewIPv4(names ...string) (*Network, error) { return build(false, names) }

func build(ipv6 bool, names []string) (_ *Network, err error) {
	n := &Network{hosts: make(map[string]*Host), ipv6: ipv6}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.Gateway, err = n.add("gateway", Bridge); err != nil {
		return nil, err
	}
	if n.Internet, err = n.add("internet", HostPort); err != nil {
		return nil, err
	}
	if err = n.buildGateway(); err != nil {
		return nil, fmt.Errorf("lab: gateway: %w", err)
	}
	if err = n.buildInternet(); err != nil {
		return nil, fmt.Errorf("lab: internet: %w", err)
	}
	if ipv6 {
		if err = n.build6(); err != nil {
			return nil, fmt.Errorf("lab: IPv6: %w", err)
		}
	}
	if err = errors.Join(n.Gateway.space.Carries(WANInterface), n.Internet.space.Carries(HostPort)); err != nil {
		return nil, fmt.Errorf("lab: the WAN: %w", err)
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

// Host returns a LAN host by name, or nil.
func (n *Network) Host(name string) *Host { return n.hosts[name] }

// Hosts lists the machines, the gateway first.
func (n *Network) Hosts() []*Host { return n.order }

// Close ends all namespaces and everything in them.
func (n *Network) Close() {
	for _, h := range n.order {
		h.close()
	}
	n.order = nil
}

// add makes a host whose own interface will have that name.
func (n *Network) add(name, ifname string) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	h.ifname = ifname
	n.order = append(n.order, h)
	if err := prepare6(h, n.ipv6); err != nil {
		return nil, fmt.Errorf("lab: IPv6 of %s: %w", name, err)
	}
	return h, h.space.Up("lo")
}

func (n *Network) buildGateway() error {
	g := n.Gateway
	g.Addr, g.MAC = GatewayLAN, mac(0, 1)
	if err := g.space.Bridge(Bridge, g.MAC); err != nil {
		return err
	}
	if err := errors.Join(g.learnIndex(), address(g, Bridge, GatewayLAN, LANPrefix), g.space.Up(Bridge)); err != nil {
		return err
	}
	// Where br_netfilter is loaded (Docker does that), translation would happen
	// inside the bridge, which then refuses to send a host its own packet back. A
	// router has it off.
	for _, name := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		if err := g.SetSysctl(name, "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return g.SetSysctl("ipv4/ip_forward", "1")
}

func (n *Network) buildInternet() error {
	i := n.Internet
	if err := n.wire(WANInterface, wanMAC, i, mac(1, 66)); err != nil {
		return err
	}
	i.Addr = InternetOne
	return errors.Join(
		address(n.Gateway, WANInterface, GatewayWAN, WANPrefix),
		address(i, HostPort, InternetOne, WANPrefix),
		address(i, HostPort, InternetTwo, WANPrefix),
		// The attacker may address the LAN through the gateway (abuse case A2).
		i.space.Route(HostPort, LANPrefix, GatewayWAN),
		n.Gateway.space.Route(WANInterface, anywhere4, InternetOne),
	)
}

// AddHost connects one more host to the LAN. Its IPv6 addresses end as the given
// IPv4 address does.
func (n *Network) AddHost(name string, addr netip.Addr) error {
	if n.hosts[name] != nil {
		return errors.New("there is such a host already")
	}
	h, err := n.add(name, HostPort)
	if err != nil {
		return err
	}
	n.hosts[name] = h
	h.Addr = addr
	last := addr.As4()[3]
	port := fmt.Sprintf("lan%d", last)
	if err := n.wire(port, mac(2, last), h, mac(0, last)); err != nil {
		return err
	}
	n.lan = append(n.lan, h)
	return errors.Join(
		n.Gateway.space.Plug(port, Bridge),
		address(h, HostPort, addr, LANPrefix),
		h.space.Route(HostPort, anywhere4, GatewayLAN),
		n.join6(h, port),
		n.Gateway.space.Carries(port, Bridge),
		h.space.Carries(HostPort),
	)
}

// AddInterface connects a host to an interface of the gateway's own, beside the
// LAN: a guest network, say. The gateway has the first address of the IPv4
// prefix, the host the tenth; both have the same of 2001:db8:N::/64, where N is
// the third number of the IPv4 prefix.
func (n *Network) AddInterface(ifname, host string, p netip.Prefix) error {
	if n.hosts[host] != nil {
		return errors.New("there is such a host already")
	}
	h, err := n.add(host, HostPort)
	if err != nil {
		return err
	}
	n.hosts[host] = h
	third := p.Addr().As4()[2]
	if err := n.wire(ifname, mac(3, third), h, mac(4, third)); err != nil {
		return err
	}
	first, tenth := p.Addr().As4(), p.Addr().As4()
	first[3], tenth[3] = 1, 10
	gateway := netip.AddrFrom4(first)
	h.Addr = netip.AddrFrom4(tenth)
	return errors.Join(
		address(n.Gateway, ifname, gateway, p),
		address(h, HostPort, h.Addr, p),
		h.space.Route(HostPort, anywhere4, gateway),
		n.guest6(ifname, h, third),
		n.Gateway.space.Carries(ifname),
		h.space.Carries(HostPort),
	)
}

// wanMAC is the gateway's on its WAN interface.
var wanMAC = mac(1, 5)

func mac(network, host byte) net.HardwareAddr { return []byte{2, 0, 0, 77, network, host} }

// wire lays a cable from a new interface of the gateway to the own interface of h.
func (n *Network) wire(name string, own net.HardwareAddr, h *Host, mac net.HardwareAddr) error {
	h.MAC = mac
	err := netns.Cable(netns.End{Space: n.Gateway.space, Name: name, MAC: own}, netns.End{Space: h.space, Name: h.ifname, MAC: mac})
	if err != nil {
		return err
	}
	return h.learnIndex()
}

// address adds an address to an interface, in a network of the prefix's length.
func address(h *Host, name string, a netip.Addr, p netip.Prefix) error {
	return h.space.Address(name, netip.PrefixFrom(a, p.Bits()))
}
