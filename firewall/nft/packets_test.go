package nft_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/firewall"
	"portcullis/firewall/nft"
	"portcullis/portmap"
)

// homeNet is a gateway with two hosts on one LAN and an Internet of one machine
// with two addresses.
type homeNet struct {
	t                     *testing.T
	gw, alice, bob, world *namespace
	backend               *nft.Backend
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
	silence = 200 * time.Millisecond
)

func newHomeNet(t *testing.T) *homeNet {
	h := &homeNet{
		t: t, gw: newNamespace(t, "gateway"), alice: newNamespace(t, "alice"), bob: newNamespace(t, "bob"),
		world: newNamespace(t, "world"),
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
	// The owner's masquerade, as every home router has it.
	h.gw.nft(`table ip owner {
		chain postrouting {
			type nat hook postrouting priority srcnat; policy accept;
			oifname "wan0" masquerade
		}
	}`)
	h.backend = open(t, h.gw)
	return h
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
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	n.t.Cleanup(func() { _ = c.Close() })
	return c
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
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
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
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c, err = d.DialContext(context.Background(), "tcp4", to)
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

func TestInbound(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game := h.alice.udp(aliceAddr + ":6000")
	peer := h.world.udp(peerX + ":7000")
	h.alice.echo(aliceAddr + ":80")

	send(t, peer, wanAddr+":5000", "closed")
	receiveNothing(t, game, "without a mapping")
	if _, err := h.world.dial(peerX, wanAddr+":8080", silence); err == nil {
		t.Error("connected without a mapping")
	}

	h.open("udp 5000", aliceAddr+":6000")
	h.open("tcp 8080", aliceAddr+":80")
	other := h.world.udp(peerX + ":7001")
	send(t, other, wanAddr+":5000", "open")
	from := receive(t, game, "open")
	if from != peerX+":7001" {
		t.Errorf("the host sees %s, want the peer's own address", from)
	}
	send(t, game, from, "answer")
	if got := receive(t, other, "answer"); got != wanAddr+":5000" {
		t.Errorf("the peer sees %s, want %s:5000", got, wanAddr)
	}
	c, err := h.world.dial(peerX, wanAddr+":8080", reach)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(c, "hello", reach); err != nil {
		t.Error(err)
	}

	// Only what is addressed to us: the LAN address from outside is not.
	h.world.route(wanAddr)
	send(t, other, "192.168.1.1:5000", "weak host")
	receiveNothing(t, game, "A2/to the LAN address")
}

// A peer that kept sending to a closed port has a flow that no translation was
// found for. It must be looked up again when the port opens.
func TestStaleFlowIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game := h.alice.udp(aliceAddr + ":6000")
	peer := h.world.udp(peerX + ":7000")
	_ = h.gw.udp(wanAddr + ":5000") // so that the gateway takes the packet, and keeps the flow
	send(t, peer, wanAddr+":5000", "early")
	receiveNothing(t, game, "without a mapping")
	h.open("udp 5000", aliceAddr+":6000")
	h.eventually("the old flow is translated", func() bool {
		send(t, peer, wanAddr+":5000", "late")
		return arrives(game)
	})
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

func TestRemoteHost(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	any, limited := h.alice.udp(aliceAddr+":6000"), h.alice.udp(aliceAddr+":6001")
	x, y := h.world.udp(peerX+":7000"), h.world.udp(peerY+":7000")

	m := h.open("udp 5000", aliceAddr+":6001", onlyFrom(peerX))
	send(t, x, wanAddr+":5000", "from x")
	receive(t, limited, "from x")
	send(t, y, wanAddr+":5000", "from y")
	receiveNothing(t, limited, "B10/another remote host")

	// A hairpin packet is not from that host either.
	inside := h.bob.udp(bobAddr + ":7000")
	send(t, inside, wanAddr+":5000", "from bob")
	receiveNothing(t, limited, "B10/a LAN host")

	// The one for that host comes before the one for anyone.
	h.open("udp 5000", aliceAddr+":6000")
	send(t, x, wanAddr+":5000", "from x again")
	receive(t, limited, "from x again")
	h.eventually("anyone else reaches the other endpoint", func() bool {
		send(t, y, wanAddr+":5000", "from y again")
		return arrives(any)
	})
	h.close(m)
	h.eventually("without it, that host is anyone", func() bool {
		send(t, x, wanAddr+":5000", "from x")
		return arrives(any)
	})
}

func TestHairpin(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game := h.alice.udp(aliceAddr + ":6000")
	h.open("udp 5000", aliceAddr+":6000")
	h.open("tcp 8080", aliceAddr+":80")
	h.alice.echo(aliceAddr + ":80")
	for _, from := range []struct {
		n    *namespace
		addr string
	}{{h.bob, bobAddr}, {h.alice, aliceAddr}} {
		c := from.n.udp(from.addr + ":7000")
		send(t, c, wanAddr+":5000", "hairpin")
		send(t, game, receive(t, game, "hairpin"), "answer")
		if got := receive(t, c, "answer"); got != wanAddr+":5000" {
			t.Errorf("%s sees the answer from %s, want %s:5000", from.n.name, got, wanAddr)
		}
		conn, err := from.n.dial(from.addr, wanAddr+":8080", reach)
		if err != nil {
			t.Fatalf("%s: %v", from.n.name, err)
		}
		if err := say(conn, "hello", reach); err != nil {
			t.Errorf("%s: %v", from.n.name, err)
		}
	}
}

// "Open NAT": the outside sees one port in both directions.
func TestKeptPorts(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.open("udp 6001", aliceAddr+":3074")
	h.open("udp 6002", bobAddr+":3074")
	peer := h.world.udp(peerX + ":7000")
	for _, tc := range []struct {
		name, from string
		n          *namespace
		want       string
	}{
		{"alice's mapped port", aliceAddr + ":3074", h.alice, wanAddr + ":6001"},
		{"bob's, with the same internal port", bobAddr + ":3074", h.bob, wanAddr + ":6002"},
		{"a port without a mapping", aliceAddr + ":4000", h.alice, wanAddr + ":4000"},
	} {
		c := tc.n.udp(tc.from)
		send(t, c, peerX+":7000", tc.name)
		if got := receive(t, peer, tc.name); got != tc.want {
			t.Errorf("%s: the peer sees %s, want %s", tc.name, got, tc.want)
		}
		send(t, peer, tc.want, "answer to "+tc.name)
		receive(t, c, "answer to "+tc.name)
	}
}

// B9: traffic through the gateway that is not addressed to it is not ours.
func TestPassingTrafficIsUntouched(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game := h.alice.udp(aliceAddr + ":6000")
	h.open("udp 7000", aliceAddr+":6000")
	peer := h.world.udp(peerX + ":7000")
	bob := h.bob.udp(bobAddr + ":4000")
	send(t, bob, peerX+":7000", "to the Internet")
	receive(t, peer, "to the Internet")
	receiveNothing(t, game, "B9/LAN to Internet at a mapped port")
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

func TestNewWANAddress(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game := h.alice.udp(aliceAddr + ":6000")
	peer := h.world.udp(peerX + ":7000")
	h.open("udp 5000", aliceAddr+":6000")
	send(t, game, peerX+":7000", "before")
	if got := receive(t, peer, "before"); got != wanAddr+":5000" {
		t.Fatalf("the peer sees %s", got)
	}
	h.gw.links(func(l *netlink.Handle) error {
		wan, err := l.LinkByName("wan0")
		if err != nil {
			return err
		}
		old, err1 := netlink.ParseAddr(wanAddr + "/24")
		fresh, err2 := netlink.ParseAddr("203.0.113.9/24")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		return errors.Join(l.AddrDel(wan, old), l.AddrAdd(wan, fresh))
	})
	if err := h.backend.Configure(ctx(t), withWAN("203.0.113.9")); err != nil {
		t.Fatal(err)
	}
	// The flow that went through the old address must not keep it.
	h.eventually("the flow leaves from the new address", func() bool {
		send(t, game, peerX+":7000", "after")
		buf := make([]byte, 100)
		_ = peer.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, from, err := peer.ReadFromUDPAddrPort(buf)
		return err == nil && from.String() == "203.0.113.9:5000"
	})
	other := h.world.udp(peerX + ":7001")
	send(t, other, "203.0.113.9:5000", "in")
	receive(t, game, "in")
}

// C8: a mapping's flows end with it, and no others.
func TestDeleteEndsFlows(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.alice.echo(aliceAddr + ":80")
	h.alice.echo(aliceAddr + ":81")
	h.world.echo(peerX + ":90")
	gone := h.open("tcp 8080", aliceAddr+":80")
	h.open("tcp 8081", aliceAddr+":81")
	dial := func(n *namespace, from, to string) net.Conn {
		t.Helper()
		c, err := n.dial(from, to, reach)
		if err != nil {
			t.Fatal(err)
		}
		if err := say(c, "hello", reach); err != nil {
			t.Fatal(err)
		}
		return c
	}
	cut := dial(h.world, peerX, wanAddr+":8080")
	cutHairpin := dial(h.bob, bobAddr, wanAddr+":8080")
	kept := dial(h.world, peerX, wanAddr+":8081")
	outbound := dial(h.alice, aliceAddr, peerX+":90")

	renewed := gone
	renewed.Expires = renewed.Expires.Add(time.Hour)
	h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{gone})
	if err := say(cut, "still here", reach); err != nil {
		t.Fatalf("a renewal ended the flow: %v", err)
	}

	h.close(renewed)
	h.eventually("the flow of the deleted mapping ends", func() bool { return say(cut, "x", silence) != nil })
	h.eventually("its hairpin flow ends", func() bool { return say(cutHairpin, "x", silence) != nil })
	for name, c := range map[string]net.Conn{"another mapping's": kept, "an outbound": outbound} {
		if err := say(c, "hello", reach); err != nil {
			t.Errorf("%s flow was ended: %v", name, err)
		}
	}

	// A clean stop ends the rest.
	if err := h.backend.Close(ctx(t), false); err != nil {
		t.Fatal(err)
	}
	if err := say(kept, "x", silence); err == nil {
		t.Error("a flow outlived the table")
	}
	if err := say(outbound, "hello", reach); err != nil {
		t.Errorf("closing ended an outbound flow: %v", err)
	}
}

// A take-over ends what led to the old host, and nothing of what now leads to
// the new one.
func TestTakeOverEndsFlows(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	alice, bob := h.alice.udp(aliceAddr+":6000"), h.bob.udp(bobAddr+":6000")
	peer := h.world.udp(peerX + ":7000")
	old := h.open("udp 5000", aliceAddr+":6000")
	send(t, peer, wanAddr+":5000", "to alice")
	receive(t, alice, "to alice")
	h.apply([]portmap.Mapping{h.mapping(99, "udp 5000", bobAddr+":6000")}, []portmap.Mapping{old})
	h.eventually("the same flow leads to the new host", func() bool {
		send(t, peer, wanAddr+":5000", "to bob")
		return arrives(bob)
	})
	receiveSome(alice)
	send(t, peer, wanAddr+":5000", "to bob")
	receiveNothing(t, alice, "after the take-over")
}

// receiveSome empties a socket.
func receiveSome(c *net.UDPConn) {
	for arrives(c) {
	}
}

// C7: the kernel ends a mapping when nobody does.
func TestKernelEndsLease(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	over := h.open("udp 5000", aliceAddr+":6000", func(m *portmap.Mapping) {
		m.Expires = time.Now().Add(-59 * time.Second)
	})
	h.open("udp 5001", aliceAddr+":6000")
	held := func() string {
		entries, err := h.backend.Entries(ctx(t))
		if err != nil {
			return err.Error()
		}
		return firewall.World(entries)
	}
	want := "udp 5001 -> 192.168.1.10:6000\n"
	h.eventually("the lease is over", func() bool { return held() == want })
	// The daemon comes late to remove it, and the other keeps its port now.
	h.close(over)
	if got := held(); got != want+"udp 192.168.1.10:6000 keeps 5001\n" {
		t.Errorf("the kernel holds\n%s", got)
	}
}

func TestCounters(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	game, voice := h.alice.udp(aliceAddr+":6000"), h.alice.udp(aliceAddr+":6001")
	x, y := h.world.udp(peerX+":7000"), h.world.udp(peerY+":7000")
	anyone := h.open("udp 5000", aliceAddr+":6000")
	limited := h.open("udp 5001", aliceAddr+":6001", onlyFrom(peerY))
	talk := func(outside, inside *net.UDPConn, to string, rounds int) {
		for range rounds {
			send(t, outside, to, "0123456789")
			send(t, inside, receive(t, inside, "0123456789"), "0123456789")
			receive(t, outside, "0123456789")
		}
	}
	const size = 20 + 8 + 10 // IPv4 and UDP headers, text
	counts := func(what string, wantAnyone, wantLimited uint64) {
		t.Helper()
		got, err := h.backend.Counters(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			m    portmap.Mapping
			want uint64
		}{{anyone, wantAnyone}, {limited, wantLimited}} {
			if want := (firewall.Counter{Packets: c.want, Bytes: c.want * size}); got[c.m.ID] != want {
				t.Errorf("%s: %s counted %+v, want %+v", what, &c.m, got[c.m.ID], want)
			}
		}
	}
	counts("at first", 0, 0)
	talk(x, game, wanAddr+":5000", 3)
	talk(y, voice, wanAddr+":5001", 2)
	counts("both directions", 6, 4)

	for i := range 2 {
		talk(x, game, wanAddr+":5000", 1)
		renewed := anyone
		renewed.Expires = renewed.Expires.Add(time.Hour)
		h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{anyone})
		anyone = renewed
		counts("a renewal carries over", uint64(8+2*i), 4)
	}
	if err := h.backend.Replace(ctx(t), []portmap.Mapping{anyone, limited}); err != nil {
		t.Fatal(err)
	}
	counts("a replacement carries over", 10, 4)
	talk(x, game, wanAddr+":5000", 1)
	counts("and goes on", 12, 4)
	h.gw.nft("flush ruleset")
	h.open("udp 5002", aliceAddr+":6002")
	counts("what was last seen survives a flush", 12, 4)
}

// The owner's static forward comes first, even one made after the mapping.
func TestStaticForwardWins(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	alice, bob := h.alice.udp(aliceAddr+":6000"), h.bob.udp(bobAddr+":6000")
	h.open("udp 5000", aliceAddr+":6000")
	h.gw.nft(`table ip owner {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			iifname "wan0" udp dport 5000 dnat to 192.168.1.20:6000
		}
	}`)
	peer := h.world.udp(peerX + ":7000")
	send(t, peer, wanAddr+":5000", "to the static forward")
	receive(t, bob, "to the static forward")
	receiveNothing(t, alice, "the mapping")
}

// The guard: a service port is closed to everybody but the LAN, and looks closed
// rather than guarded.
func TestGuard(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	h.gw.echo("0.0.0.0:5000")
	h.gw.echo("0.0.0.0:5001") // no service of ours
	service := h.gw.udp("0.0.0.0:5351")

	for name, tc := range map[string]struct {
		n        *namespace
		from, to string
		want     error
	}{
		"A1/WAN to the WAN address":           {h.world, peerX, wanAddr + ":5000", syscall.ECONNREFUSED},
		"A1/WAN, a port nobody listens on":    {h.world, peerX, wanAddr + ":5002", syscall.ECONNREFUSED},
		"WAN, a port that is none of ours":    {h.world, peerX, wanAddr + ":5001", nil},
		"LAN":                                 {h.alice, aliceAddr, "192.168.1.1:5000", nil},
		"the gateway itself":                  {h.gw, "127.0.0.1", "127.0.0.1:5000", nil},
		"the gateway itself, its WAN address": {h.gw, wanAddr, wanAddr + ":5000", nil},
	} {
		c, err := tc.n.dial(tc.from, tc.to, reach)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if c != nil {
			if err := say(c, "hello", reach); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// UDP: the answer of a closed port is an ICMP error.
	for name, to := range map[string]string{"a service port": wanAddr + ":5351", "a closed port": wanAddr + ":5352"} {
		if err := h.world.probe(to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("A1/%s: %v, want %v", name, err, syscall.ECONNREFUSED)
		}
	}
	receiveNothing(t, service, "A1/from the WAN")
	lan := h.alice.udp(aliceAddr + ":7000")
	send(t, lan, "192.168.1.1:5351", "from the LAN")
	receive(t, service, "from the LAN")

	// A2: the LAN address is no way round.
	h.world.route(wanAddr)
	if _, err := h.world.dial(peerX, "192.168.1.1:5000", reach); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("A2/WAN to the LAN address: %v, want %v", err, syscall.ECONNREFUSED)
	}

	// What the gateway asks from such a port is answered.
	peer := h.world.udp(peerX + ":7000")
	send(t, service, peerX+":7000", "question")
	send(t, peer, receive(t, peer, "question"), "answer")
	receive(t, service, "answer")
}

// probe sends to a UDP port and gives the ICMP error that comes back.
func (n *namespace) probe(to string) error {
	n.t.Helper()
	var c *net.UDPConn
	n.must(func() (err error) {
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
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
