package homenet

import (
	"net"
	"net/netip"
	"testing"

	"portcullis/firewall"
	"portcullis/internal/netns/netnstest"
)

// Pinholes: what an IPv6 pinhole lets in, from whom, and how its flows end with
// it. For a Firewall whose owner drops what he does not know.
func Pinholes(t *testing.T, fw Firewall) {
	run(t, fw,
		test{"Opens", pinhole},
		test{"Interfaces", pinholeInterfaces},
		test{"RemoteHosts", pinholeRemotes},
		test{"ICMP", pinholeLeavesICMP},
		test{"DeleteEndsConnections", pinholeDeleteEndsConnections},
		test{"DeleteEndsStream", pinholeDeleteEndsStream},
		test{"DeleteEndsDatagrams", pinholeDeleteEndsDatagrams},
	)
}

// pinhole: what a pinhole opens, and nothing else.
func pinhole(t *testing.T, h *Home) {
	game, other, bob := h.Alice.UDP(Alice6+":6000"), h.Alice.UDP(Alice6+":6001"), h.Bob.UDP(Bob6+":6000")
	h.Alice.Echo(Alice6 + ":6000")
	peer := h.World.UDP(PeerX6 + ":7000")

	Send(t, peer, Alice6+":6000", "closed")
	ReceiveNothing(t, game, "without a pinhole")
	m := h.Pin("udp", Alice6+":6000")
	asker, answerer := Answer(t, peer, game, Alice6+":6000", "open")
	if asker != PeerX6+":7000" {
		t.Errorf("the host sees %s, want the peer's own address", asker)
	}
	if answerer != Alice6+":6000" {
		t.Errorf("the peer sees %s, want %s:6000", answerer, Alice6)
	}
	Send(t, peer, Alice6+":6001", "another port")
	ReceiveNothing(t, other, "J7/another port")
	Send(t, peer, Bob6+":6000", "another host")
	ReceiveNothing(t, bob, "J7/another host")
	if _, err := h.World.Dial(PeerX6, Alice6+":6000", Silence); err == nil {
		t.Error("J7/another protocol: connected")
	}
	h.Pin("tcp", Alice6+":6000")
	h.Connect(h.World, PeerX6, Alice6+":6000")

	h.Pin("udp", Bob6+":6000", From(PeerX6))
	h.Stops("B10/another remote host", bob, PeerY6, Bob6+":6000")
	h.Passes(bob, PeerX6, Bob6+":6000")
	h.Delete(m)
	h.Eventually("the flow ends", func() bool {
		Send(t, peer, Alice6+":6000", "more")
		return !Arrives(game)
	})
}

// A pinhole is for what comes by the IPv6 WAN and goes to a LAN, wherever it is
// looked up.
func pinholeInterfaces(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice6 + ":6000")
	h.Pin("udp", Alice6+":6000")
	h.Passes(game, PeerX6, Alice6+":6000")
	for name, change := range OtherInterfaces {
		h.Configure(change)
		h.Stops(name, game, PeerX6, Alice6+":6000")
		if drift, err := h.Backend.Audit(Context(t), true); err != nil || drift != "" {
			t.Errorf("%s: audit found %q, %v", name, drift, err)
		}
		h.Configure()
		h.Passes(game, PeerX6, Alice6+":6000")
	}
}

// OtherInterfaces are facts by which the LAN is not reached from the IPv6 WAN.
var OtherInterfaces = map[string]func(*firewall.Facts){
	"another WAN":        func(g *firewall.Facts) { g.WAN6 = []string{"wan9"} },
	"no IPv6 WAN":        func(g *firewall.Facts) { g.WAN6 = nil },
	"A8/not behind us":   func(g *firewall.Facts) { g.LAN = []string{"lan9"} },
	"the WAN is the LAN": func(g *firewall.Facts) { g.WAN6, g.LAN = []string{"lan0"}, []string{"wan0"} },
}

// B10: pinholes for one host, for networks and for source ports.
func pinholeRemotes(t *testing.T, h *Home) {
	one, some := h.Alice.UDP(Alice6+":6000"), h.Alice.UDP(Alice6+":6001")
	h.Pin("udp", Alice6+":6000", From(PeerX6))
	h.Pin("udp", Alice6+":6001", From("2001:db8:5::66/127 7000", PeerX6+" 7001", "2001:db8:6::/48"))
	x, x1, x2 := h.World.UDP(PeerX6+":7000"), h.World.UDP(PeerX6+":7001"), h.World.UDP(PeerX6+":7002")
	y, y1 := h.World.UDP(PeerY6+":7000"), h.World.UDP(PeerY6+":7001")
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
		if tc.open {
			Answer(t, tc.from, tc.to, Alice6+tc.addr, tc.name)
		} else {
			Send(t, tc.from, Alice6+tc.addr, tc.name)
			ReceiveNothing(t, tc.to, tc.name)
		}
	}

	h.Alice.Echo(Alice6 + ":80")
	h.Pin("tcp", Alice6+":80", From("::/0 7000", PeerY6+" 7001"))
	h.Connect(h.World, PeerX6+":7000", Alice6+":80")
	h.Connect(h.World, PeerY6+":7001", Alice6+":80")
	if _, err := h.World.Dial(PeerX6+":7001", Alice6+":80", Silence); err == nil {
		t.Error("B10/tcp: another port connected")
	}
}

// ICMPv6 is the owner's: we neither open nor close it, to the host of a pinhole or
// to the gateway.
func pinholeLeavesICMP(t *testing.T, h *Home) {
	h.Pin("udp", Alice6+":6000")
	if err := h.World.Ping(Alice6, Silence); err == nil {
		t.Error("an echo passes that the owner drops")
	}
	if err := h.World.Ping(WAN6, Reach); err != nil {
		t.Errorf("the gateway itself: %v", err)
	}
	h.Do(h.fw.Scripts.AcceptEcho)
	if err := h.World.Ping(Alice6, Reach); err != nil {
		t.Errorf("an echo that the owner lets pass: %v", err)
	}
	// A datagram that is too big for the way to the host: the gateway says so, and
	// the sender is heard when it sends smaller ones.
	if _, err := h.Gateway.Run("", "ip", "link", "set", "lan0", "mtu", "1280"); err != nil {
		t.Fatal(err)
	}
	game, peer := h.Alice.UDP(Alice6+":6000"), h.World.UDP(PeerX6+":7000")
	Send(t, peer, Alice6+":6000", string(make([]byte, 1400)))
	h.Eventually("what is too big arrives in parts", func() bool {
		Send(t, peer, Alice6+":6000", string(make([]byte, 1400)))
		return Arrives(game)
	})
}

// guest adds a second LAN with a host, and a rule of the owner that lets it reach
// the first.
func (h *Home) guest() *netnstest.Space {
	h.t.Helper()
	guest := netnstest.New(h.t, "guest")
	netnstest.Cable(guest, "eth0 2001:db8:78::30/64", h.Gateway, "lan1 2001:db8:78::1/64")
	guest.Route("::/0", "2001:db8:78::1")
	h.Do(h.fw.Scripts.AcceptGuest)
	h.Configure(func(g *firewall.Facts) {
		g.LAN = append(g.LAN, "lan1")
		g.LANPrefixes = append(g.LANPrefixes, netip.MustParsePrefix("2001:db8:78::/64"))
	})
	return guest
}
