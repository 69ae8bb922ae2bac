package nft_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// strict puts an owner's forward chain with a drop policy around the home, and
// has our part of it installed.
func (h *homeNet) strict() {
	h.t.Helper()
	h.gw.nft(strictOwner)
	if err := h.configure("inet fw4 forward"); err != nil {
		h.t.Fatal(err)
	}
}

// reaches says whether a datagram from a fresh port of an address comes to a host.
func (h *homeNet) reaches(c *net.UDPConn, from, to string) bool {
	h.t.Helper()
	send(h.t, h.world.udp(from+":0"), to, "in")
	return arrives(c)
}

// Issue 4 item 2: what a pinhole opens, and nothing else. The owner's chain drops
// what it does not know.
func TestPinhole(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	game, other, bob := h.alice.udp(alice6+":6000"), h.alice.udp(alice6+":6001"), h.bob.udp(bob6+":6000")
	h.alice.echo(alice6 + ":6000")
	peer := h.world.udp(peerX6 + ":7000")

	send(t, peer, alice6+":6000", "closed")
	receiveNothing(t, game, "without a pinhole")
	h.pin("udp", alice6+":6000")
	send(t, peer, alice6+":6000", "open")
	from := receive(t, game, "open")
	if from != peerX6+":7000" {
		t.Errorf("the host sees %s, want the peer's own address", from)
	}
	send(t, game, from, "answer")
	if got := receive(t, peer, "answer"); got != alice6+":6000" {
		t.Errorf("the peer sees %s, want %s:6000", got, alice6)
	}
	send(t, peer, alice6+":6001", "another port")
	receiveNothing(t, other, "J7/another port")
	send(t, peer, bob6+":6000", "another host")
	receiveNothing(t, bob, "J7/another host")
	if _, err := h.world.dial(peerX6, alice6+":6000", silence); err == nil {
		t.Error("J7/another protocol: connected")
	}

	h.pin("tcp", alice6+":6000")
	c, err := h.world.dial(peerX6, alice6+":6000", reach)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(c, "hello", reach); err != nil {
		t.Error(err)
	}
}

// A pinhole is for what comes by the IPv6 WAN and goes to a LAN, wherever it is
// looked up.
func TestPinholeInterfaces(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	game := h.alice.udp(alice6 + ":6000")
	h.pin("udp", alice6+":6000")
	if !h.reaches(game, peerX6, alice6+":6000") {
		t.Fatal("closed with everything in place")
	}
	jumps := h.gw.nft("", "-a", "list", "chain", "inet", "fw4", "forward")
	for name, change := range map[string]func(*firewall.Gateway){
		"another WAN":        func(g *firewall.Gateway) { g.WAN6 = []string{"wan9"} },
		"no IPv6 WAN":        func(g *firewall.Gateway) { g.WAN6 = nil },
		"A8/not behind us":   func(g *firewall.Gateway) { g.LAN = []string{"lan9"} },
		"the WAN is the LAN": func(g *firewall.Gateway) { g.WAN6, g.LAN = []string{"lan0"}, []string{"wan0"} },
	} {
		g := home()
		g.AcceptChain = "inet fw4 forward"
		change(&g)
		if err := h.backend.Configure(ctx(t), g); err != nil {
			t.Fatal(err)
		}
		if h.reaches(game, peerX6, alice6+":6000") {
			t.Errorf("%s: open", name)
		}
		if drift, err := h.backend.Audit(ctx(t), true); err != nil || drift != "" {
			t.Errorf("%s: audit found %q, %v", name, drift, err)
		}
		if err := h.configure("inet fw4 forward"); err != nil {
			t.Fatal(err)
		}
		if !h.reaches(game, peerX6, alice6+":6000") {
			t.Errorf("%s: closed afterwards", name)
		}
	}
	if now := h.gw.nft("", "-a", "list", "chain", "inet", "fw4", "forward"); now != jumps {
		t.Errorf("facts alone made us write the owner's chain anew:\n%s\nwas\n%s", now, jumps)
	}
}

// B10: pinholes for one host, for networks and for source ports.
func TestPinholeRemotes(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	one, some := h.alice.udp(alice6+":6000"), h.alice.udp(alice6+":6001")
	h.pin("udp", alice6+":6000", from("2001:db8:5::66/128"))
	h.pin("udp", alice6+":6001", from("2001:db8:5::66/127 7000", "2001:db8:5::66/128 7001", "2001:db8:6::/48"))
	x, x1, x2 := h.world.udp(peerX6+":7000"), h.world.udp(peerX6+":7001"), h.world.udp(peerX6+":7002")
	y, y1 := h.world.udp(peerY6+":7000"), h.world.udp(peerY6+":7001")
	for _, tc := range []struct {
		name     string
		from, to *net.UDPConn
		addr     string
		open     bool
	}{
		{"the one host", x, one, ":6000", true},
		{"from another port of it", x2, one, ":6000", true},
		{"B10/another host", y, one, ":6000", false},
		{"a network and a port", x, some, ":6001", true},
		{"its other host", y, some, ":6001", true},
		{"one host and a port", x1, some, ":6001", true},
		{"B10/that port of another host", y1, some, ":6001", false},
		{"B10/another port", x2, some, ":6001", false},
	} {
		send(t, tc.from, alice6+tc.addr, tc.name)
		if !tc.open {
			receiveNothing(t, tc.to, tc.name)
			continue
		}
		send(t, tc.to, receive(t, tc.to, tc.name), "answer")
		receive(t, tc.from, "answer")
	}

	h.alice.echo(alice6 + ":80")
	h.pin("tcp", alice6+":80", from("::/0 7000", "2001:db8:5::67/128 7001"))
	for from, open := range map[string]bool{peerX6 + ":7000": true, peerY6 + ":7001": true, peerX6 + ":7001": false} {
		patience := reach
		if !open {
			patience = silence
		}
		c, err := h.world.dial(from, alice6+":80", patience)
		if (err == nil) != open {
			t.Errorf("B10/tcp from %s: %v, want it open: %v", from, err, open)
		}
		if err == nil {
			if err := say(c, "hello", reach); err != nil {
				t.Error(err)
			}
		}
	}
}

// C7: the kernel ends a pinhole when nobody does.
func TestKernelEndsPinhole(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	game := h.alice.udp(alice6 + ":6000")
	over := h.pin("udp", alice6+":6000", func(m *portmap.Mapping) { m.Expires = time.Now().Add(-58500 * time.Millisecond) })
	if !h.reaches(game, peerX6, alice6+":6000") {
		t.Fatal("closed before its end")
	}
	h.eventually("the lease is over", func() bool { return !h.reaches(game, peerX6, alice6+":6000") })
	h.close(over) // the daemon comes late
	if got := world(t, h.backend); got != "" {
		t.Errorf("the kernel holds\n%s", got)
	}
}

// GetPinholePackets: both directions, each pinhole for itself, over renewals.
func TestPinholeCounters(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	game := h.alice.udp(alice6 + ":6000")
	x, y, y1 := h.world.udp(peerX6+":7000"), h.world.udp(peerY6+":7000"), h.world.udp(peerY6+":7001")
	talk := func(outside *net.UDPConn, rounds int) {
		t.Helper()
		for range rounds {
			send(t, outside, alice6+":6000", "0123456789")
			send(t, game, receive(t, game, "0123456789"), "0123456789")
			receive(t, outside, "0123456789")
		}
	}
	anyone := h.pin("udp", alice6+":6000")
	onlyY := h.pin("udp", alice6+":6000", from("2001:db8:5::67/128"))
	port := h.pin("udp", alice6+":6000", from("2001:db8:5::66/127 7000"))
	const size = 40 + 8 + 10 // IPv6 and UDP headers, text
	counts := func(what string, want ...uint64) {
		t.Helper()
		all, err := h.backend.Counters(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range []portmap.Mapping{anyone, onlyY, port} {
			want := firewall.Counter{Packets: want[i], Bytes: want[i] * size}
			alone, err := h.backend.Counter(ctx(t), m.ID)
			if err != nil || alone != want || all[m.ID] != want {
				t.Errorf("%s: %s counted %+v, %+v, %v; want %+v", what, &m, alone, all[m.ID], err, want)
			}
		}
	}
	counts("at first", 0, 0, 0)
	talk(y, 1)
	talk(y1, 2)
	talk(x, 3)
	talk(h.world.udp(peerX6+":7001"), 4)
	counts("each to the narrowest", 8, 6, 6)
	// An answer to what the host began did not come by the pinhole.
	own := h.alice.udp(alice6 + ":5999")
	send(t, own, peerX6+":7000", "question")
	send(t, x, receive(t, x, "question"), "answer")
	receive(t, own, "answer")
	counts("a flow of the host's own", 8, 6, 6)

	x2 := h.world.udp(peerX6 + ":7002")
	for i := range 2 {
		renewed := anyone
		renewed.Expires = renewed.Expires.Add(time.Hour)
		h.apply([]portmap.Mapping{renewed}, []portmap.Mapping{anyone})
		anyone = renewed
		talk(x2, 1)
		counts("a renewal carries over", uint64(10+2*i), 6, 6)
	}
	if err := h.backend.Replace(ctx(t), []portmap.Mapping{anyone, onlyY, port}); err != nil {
		t.Fatal(err)
	}
	counts("a replacement carries over", 12, 6, 6)
	h.gw.nft("flush set inet portcullis pinholes")
	counts("what was last seen survives a loss", 12, 6, 6)
	if c, err := h.backend.Counter(ctx(t), 999); err != nil || c != (firewall.Counter{}) {
		t.Errorf("no such mapping: %+v, %v", c, err)
	}
}

// ICMPv6 is the owner's: we neither open nor close it, to the host of a pinhole or
// to the gateway.
func TestPinholeLeavesICMP(t *testing.T) {
	t.Parallel()
	h := newHomeNet6(t)
	h.strict()
	h.pin("udp", alice6+":6000")
	if err := h.world.ping(alice6, silence); err == nil {
		t.Error("an echo passes that the owner drops")
	}
	if err := h.world.ping(wan6, reach); err != nil {
		t.Errorf("the gateway itself: %v", err)
	}
	h.gw.nft(`add rule inet fw4 forward meta l4proto ipv6-icmp accept`)
	if err := h.world.ping(alice6, reach); err != nil {
		t.Errorf("an echo that the owner lets pass: %v", err)
	}
	// A datagram that is too big for the way to the host: the gateway says so, and
	// the sender is heard when it sends smaller ones.
	h.gw.run("", "ip", "link", "set", "lan0", "mtu", "1280")
	game, peer := h.alice.udp(alice6+":6000"), h.world.udp(peerX6+":7000")
	send(t, peer, alice6+":6000", string(make([]byte, 1400)))
	h.eventually("what is too big arrives in parts", func() bool {
		send(t, peer, alice6+":6000", string(make([]byte, 1400)))
		return arrives(game)
	})
}

// ping sends an echo request, of a flow of its own, and waits for the reply.
func (n *namespace) ping(to string, patience time.Duration) error {
	var c net.PacketConn
	n.must(func() (err error) {
		c, err = net.ListenPacket("ip6:ipv6-icmp", "::")
		return err
	})
	defer c.Close()
	const request, reply = 128, 129
	id := rand.N[uint16](1 << 15)
	host := netip.MustParseAddrPort(to + ":1").Addr()
	if _, err := c.WriteTo([]byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, &net.IPAddr{IP: host.AsSlice()}); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for buf := make([]byte, 100); ; {
		got, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if got > 6 && buf[0] == reply && buf[4] == byte(id>>8) && buf[5] == byte(id) && from.String() == host.String() {
			return nil
		}
	}
}

// The kernel's own word on flows that a host began.
func TestOutboundTimeout(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, "gateway")
	b := open(t, n)
	for _, tc := range []struct {
		transport portmap.Transport
		file      string
		seconds   string
		want      time.Duration
	}{
		{portmap.UDP, "net/netfilter/nf_conntrack_udp_timeout", "37", 37 * time.Second},
		{portmap.TCP, "net/netfilter/nf_conntrack_tcp_timeout_established", "7440", 7440 * time.Second},
	} {
		n.sysctl(tc.file, tc.seconds)
		if got, err := b.OutboundTimeout(tc.transport); got != tc.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", tc.transport, got, err, tc.want)
		}
	}
	if got, err := b.OutboundTimeout(1); err == nil {
		t.Errorf("another protocol: %v", got)
	}
}
