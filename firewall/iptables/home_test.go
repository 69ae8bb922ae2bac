package iptables_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/firewall"
	"portcullis/firewall/iptables"
	"portcullis/portmap"
)

// homeNet is a gateway with two hosts on one LAN and an Internet of one machine
// with two addresses.
type homeNet struct {
	t                     *testing.T
	gw, alice, bob, world *namespace
	backend               *iptables.Backend
	flavour               string
	lastID                uint64
}

const (
	wanAddr   = "203.0.113.5"
	peerX     = "203.0.113.66"
	peerY     = "203.0.113.67"
	aliceAddr = "192.168.1.10"
	bobAddr   = "192.168.1.20"
)

// reach is how long a packet may take; silence is how long none may come.
const (
	reach   = 5 * time.Second
	silence = 100 * time.Millisecond
)

func newHomeNet(t *testing.T, flavour string) *homeNet {
	h := &homeNet{
		t: t, gw: newNamespace(t, "gateway"), alice: newNamespace(t, "alice"), bob: newNamespace(t, "bob"),
		world: newNamespace(t, "world"), flavour: flavour,
	}
	h.gw.links(func(l *netlink.Handle) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}
		addr, err := netlink.ParseAddr("192.168.1.1/24")
		if err != nil {
			return err
		}
		return errors.Join(l.LinkAdd(bridge), l.AddrAdd(bridge, addr), l.LinkSetUp(bridge))
	})
	for _, host := range []struct {
		n          *namespace
		port, addr string
	}{{h.alice, "port1", aliceAddr}, {h.bob, "port2", bobAddr}} {
		cable(host.n, "eth0 "+host.addr+"/24", h.gw, host.port+" -")
		h.gw.links(func(l *netlink.Handle) error {
			port, err := l.LinkByName(host.port)
			if err != nil {
				return err
			}
			bridge, err := l.LinkByName("lan0")
			if err != nil {
				return err
			}
			return l.LinkSetMaster(port, bridge)
		})
		host.n.route("192.168.1.1")
	}
	cable(h.world, "eth0 "+peerX+"/24", h.gw, "wan0 "+wanAddr+"/24")
	h.world.links(func(l *netlink.Handle) error {
		eth0, err := l.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(peerY + "/24")
		if err != nil {
			return err
		}
		return l.AddrAdd(eth0, addr)
	})
	h.gw.sysctl("net/ipv4/ip_forward", "1")
	// Where br_netfilter is loaded, bridged packets would pass our rules before
	// they are routed, and a host could not reach itself.
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err == nil {
		h.gw.sysctl("net/bridge/bridge-nf-call-iptables", "0")
	}
	h.owner()
	h.backend = open(t, h.gw, flavour)
	return h
}

// owner writes the rules that the owner of a home router has, as a reload does:
// everything else is gone, ours too.
func (h *homeNet) owner() {
	h.t.Helper()
	wipe(h.gw, h.flavour)
	h.gw.iptables("", h.flavour, "-t nat -A POSTROUTING -o wan0 -j MASQUERADE")
	for _, family := range []string{"", "6"} {
		h.gw.iptables(family, h.flavour, "-P FORWARD DROP")
		h.gw.iptables(family, h.flavour, "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
		h.gw.iptables(family, h.flavour, "-A FORWARD -i lan0 -j ACCEPT")
	}
}

// open maps an external port, "udp 5000", to an internal endpoint.
func (h *homeNet) open(port, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	h.lastID++
	m := h.mapping(h.lastID, port, internal, change...)
	h.apply([]portmap.Mapping{m}, nil)
	return m
}

func (h *homeNet) mapping(id uint64, port, internal string, change ...func(*portmap.Mapping)) portmap.Mapping {
	h.t.Helper()
	proto, number, _ := strings.Cut(port, " ")
	m := portmap.Mapping{
		ID: id, Transport: portmap.UDP, External: netip.MustParseAddrPort(wanAddr + ":" + number),
		Internal: netip.MustParseAddrPort(internal), Created: time.Now(), Expires: time.Now().Add(time.Hour),
	}
	if proto == "tcp" {
		m.Transport = portmap.TCP
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func (h *homeNet) close(ms ...portmap.Mapping) {
	h.t.Helper()
	h.apply(nil, ms)
}

func (h *homeNet) apply(add, del []portmap.Mapping) {
	h.t.Helper()
	if err := h.backend.Apply(ctx(h.t), add, del); err != nil {
		h.t.Fatal(err)
	}
}

func onlyFrom(remote string) func(*portmap.Mapping) {
	return func(m *portmap.Mapping) {
		m.Remotes = []portmap.Remote{{Prefix: netip.PrefixFrom(netip.MustParseAddr(remote), 32)}}
	}
}

// udp binds a socket in a namespace.
func (n *namespace) udp(addr string) *net.UDPConn {
	n.t.Helper()
	var c *net.UDPConn
	n.must(func() (err error) {
		c, err = net.ListenUDP(network("udp", addr), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	n.t.Cleanup(func() { _ = c.Close() })
	return c
}

// network gives the family of an address and port.
func network(transport, addr string) string {
	if strings.HasPrefix(addr, "[") {
		return transport + "6"
	}
	return transport + "4"
}

// send sends a datagram.
func send(t *testing.T, c *net.UDPConn, to, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// receive waits for a datagram and gives where it came from.
func receive(t *testing.T, c *net.UDPConn, want string) string {
	t.Helper()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(reach))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("waiting for %q: %v", want, err)
	}
	if string(buf[:n]) != want {
		t.Fatalf("received %q, want %q", buf[:n], want)
	}
	return from.String()
}

// receiveNothing makes sure that no datagram comes.
func receiveNothing(t *testing.T, c *net.UDPConn, what string) {
	t.Helper()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(silence))
	if n, from, err := c.ReadFromUDPAddrPort(buf); err == nil {
		t.Fatalf("%s: received %q from %s", what, buf[:n], from)
	}
}

// echo answers on a TCP port with what it gets, until the test ends.
func (n *namespace) echo(addr string) {
	n.t.Helper()
	var l *net.TCPListener
	n.must(func() (err error) {
		l, err = net.ListenTCP(network("tcp", addr), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	n.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

// dial connects from an address of the namespace.
func (n *namespace) dial(from, to string, patience time.Duration) (net.Conn, error) {
	var c net.Conn
	err := n.in(func() (err error) {
		local, err := net.ResolveTCPAddr(network("tcp", to), from) // a literal
		if err != nil {
			local = &net.TCPAddr{IP: net.ParseIP(strings.Trim(from, "[]"))}
		}
		d := net.Dialer{LocalAddr: local, Timeout: patience}
		c, err = d.DialContext(context.Background(), network("tcp", to), to)
		return err
	})
	if err == nil {
		n.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// say sends a line over a connection and waits for its echo.
func say(c net.Conn, text string, patience time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	if err == nil && string(buf) != text {
		return errors.New("another echo: " + string(buf))
	}
	return err
}

// arrives says whether a datagram comes within a moment.
func arrives(c *net.UDPConn) bool {
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _, err := c.ReadFromUDPAddrPort(buf)
	return err == nil
}

// eventually tries until it holds or the test's patience is over.
func (h *homeNet) eventually(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(reach); !holds(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s", what)
		}
	}
}

// receiveSome empties a socket.
func receiveSome(c *net.UDPConn) {
	for arrives(c) {
	}
}

// withWAN gives the facts with another WAN address.
func withWAN(addrs ...string) firewall.Gateway {
	g := home()
	g.WAN[0].Addrs = nil
	for _, a := range addrs {
		g.WAN[0].Addrs = append(g.WAN[0].Addrs, netip.MustParseAddr(a))
	}
	return g
}

// probe sends to a UDP port and gives the ICMP error that comes back.
func (n *namespace) probe(to string) error {
	n.t.Helper()
	var c *net.UDPConn
	n.must(func() (err error) {
		c, err = net.DialUDP(network("udp", to), nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	})
	defer c.Close()
	if _, err := c.Write([]byte("probe")); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(reach))
	_, err := c.Read(make([]byte, 10))
	return err
}
