package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/firewall"
	"portcullis/portmap"
)

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

// B10 and RFC 6887 section 13.3: networks and source ports, in both transports;
// what a hole admits no longer ends.
func TestFilters(t *testing.T) {
	t.Parallel()
	h := newHomeNet(t)
	limited, anyone := h.alice.udp(aliceAddr+":6000"), h.alice.udp(aliceAddr+":6001")
	x, x1 := h.world.udp(peerX+":7000"), h.world.udp(peerX+":7001")
	y, y1 := h.world.udp(peerY+":7000"), h.world.udp(peerY+":7001")
	both := func(m *portmap.Mapping) { // both peers from port 7000, and X from any
		m.Remotes = []portmap.Remote{
			{Prefix: netip.MustParsePrefix("203.0.113.66/31"), Port: 7000}, {Prefix: netip.MustParsePrefix(peerX + "/32")},
		}
	}
	m := h.open("udp 5000", aliceAddr+":6000", both)
	for name, c := range map[string]*net.UDPConn{"x": x, "x from another port": x1, "y": y} {
		send(t, c, wanAddr+":5000", name)
		send(t, limited, receive(t, limited, name), "answer")
		receive(t, c, "answer")
	}
	send(t, y1, wanAddr+":5000", "y from another port")
	receiveNothing(t, limited, "B10/another source port")
	inside := h.bob.udp(bobAddr + ":7000")
	send(t, inside, wanAddr+":5000", "from bob")
	receiveNothing(t, limited, "B10/a LAN host")

	h.open("udp 5000", aliceAddr+":6001")
	h.eventually("who is not admitted reaches the one for anyone", func() bool {
		send(t, y1, wanAddr+":5000", "y1")
		return arrives(anyone)
	})
	onlyX := m
	onlyX.Remotes = onlyX.Remotes[1:]
	h.apply([]portmap.Mapping{onlyX}, nil)
	h.eventually("who is admitted no longer does as well", func() bool {
		send(t, y, wanAddr+":5000", "y")
		return arrives(anyone)
	})
	for arrives(limited) { // what came before the flow ended
	}
	send(t, x1, wanAddr+":5000", "x1 still")
	receive(t, limited, "x1 still")

	h.alice.echo(aliceAddr + ":80")
	h.open("tcp 8080", aliceAddr+":80", func(m *portmap.Mapping) {
		m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("203.0.113.66/32"), Port: 7002}, {Prefix: netip.MustParsePrefix("203.0.113.0/26")}}
	})
	c, err := h.world.dial(peerX+":7002", wanAddr+":8080", reach)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(c, "hello", reach); err != nil {
		t.Error(err)
	}
	for _, from := range []string{peerX + ":7003", peerY} {
		if _, err := h.world.dial(from, wanAddr+":8080", silence); err == nil {
			t.Errorf("%s connected", from)
		}
	}
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
