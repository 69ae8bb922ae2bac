package homenet

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Packets: what an IPv4 mapping lets in, from whom, and that it is nothing else.
func Packets(t *testing.T, fw Firewall) {
	run(t, fw,
		test{"Inbound", inbound},
		test{"StaleFlowIsLookedUpAgain", staleFlow},
		test{"RemoteHosts", remoteHosts},
		test{"Filters", filters},
		test{"PassingTrafficIsUntouched", passingTraffic},
		test{"NewWANAddress", newWANAddress},
		test{"StaticForwardWins", staticForward},
	)
}

func inbound(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice + ":6000")
	peer := h.World.UDP(PeerX + ":7000")
	h.Alice.Echo(Alice + ":80")

	Send(t, peer, WAN+":5000", "closed")
	ReceiveNothing(t, game, "without a mapping")
	if _, err := h.World.Dial(PeerX, WAN+":8080", Silence); err == nil {
		t.Error("connected without a mapping")
	}

	h.Open("udp 5000", Alice+":6000")
	h.Open("tcp 8080", Alice+":80")
	other := h.World.UDP(PeerX + ":7001")
	asker, answerer := Answer(t, other, game, WAN+":5000", "open")
	if asker != PeerX+":7001" {
		t.Errorf("the host sees %s, want the peer's own address", asker)
	}
	if answerer != WAN+":5000" {
		t.Errorf("the peer sees %s, want %s:5000", answerer, WAN)
	}
	h.Connect(h.World, PeerX, WAN+":8080")

	// Only what is addressed to us: the LAN address from outside is not.
	h.World.Route("", WAN)
	Send(t, other, Gate+":5000", "weak host")
	ReceiveNothing(t, game, "A2/to the LAN address")
}

// A peer that kept sending to a closed port has a flow that no translation was
// found for. It must be looked up again when the port opens.
func staleFlow(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice + ":6000")
	peer := h.World.UDP(PeerX + ":7000")
	_ = h.Gateway.UDP(WAN + ":5000") // so that the gateway takes the packet, and keeps the flow
	Send(t, peer, WAN+":5000", "early")
	ReceiveNothing(t, game, "without a mapping")
	h.Open("udp 5000", Alice+":6000")
	h.Eventually("the old flow is translated", func() bool {
		Send(t, peer, WAN+":5000", "late")
		return Arrives(game)
	})
}

// B10: one port, for one host, for a network and source port, and for anyone.
func remoteHosts(t *testing.T, h *Home) {
	anyone, limited, filtered := h.Alice.UDP(Alice+":6000"), h.Alice.UDP(Alice+":6001"), h.Bob.UDP(Bob+":6000")
	x, y, y53 := h.World.UDP(PeerX+":7000"), h.World.UDP(PeerY+":7000"), h.World.UDP(PeerY+":53")

	host := h.Open("udp 5000", Alice+":6001", From(PeerX))
	Send(t, x, WAN+":5000", "from x")
	Receive(t, limited, "from x")
	Send(t, y, WAN+":5000", "from y")
	ReceiveNothing(t, limited, "B10/another remote host")
	// A hairpin packet is not from that host either.
	inside := h.Bob.UDP(Bob + ":7000")
	Send(t, inside, WAN+":5000", "from bob")
	ReceiveNothing(t, limited, "B10/a LAN host")

	// The narrower comes before the wider.
	h.Open("udp 5000", Alice+":6000")
	h.Open("udp 5000", Bob+":6000", From("203.0.113.0/24 53"))
	Send(t, x, WAN+":5000", "from x again")
	Receive(t, limited, "from x again")
	h.Eventually("the network's source port comes before anyone", func() bool {
		Send(t, y53, WAN+":5000", "y53")
		return Arrives(filtered)
	})
	h.Eventually("anyone else reaches the third endpoint", func() bool {
		Send(t, y, WAN+":5000", "from y again")
		return Arrives(anyone)
	})
	Drain(filtered)
	Send(t, y53, WAN+":5000", "y53")
	Receive(t, filtered, "y53")
	h.Delete(host)
	h.Eventually("without it, that host is anyone", func() bool {
		Send(t, x, WAN+":5000", "from x")
		return Arrives(anyone)
	})
}

// B10 and RFC 6887 section 13.3: networks and source ports, in both transports;
// what a hole admits no longer ends.
func filters(t *testing.T, h *Home) {
	limited, anyone := h.Alice.UDP(Alice+":6000"), h.Alice.UDP(Alice+":6001")
	x, x1 := h.World.UDP(PeerX+":7000"), h.World.UDP(PeerX+":7001")
	y, y1 := h.World.UDP(PeerY+":7000"), h.World.UDP(PeerY+":7001")
	// Both peers from port 7000, and X from any.
	m := h.Open("udp 5000", Alice+":6000", From("203.0.113.66/31 7000", PeerX))
	for name, c := range map[string]*net.UDPConn{"x": x, "x from another port": x1, "y": y} {
		Answer(t, c, limited, WAN+":5000", name)
	}
	Send(t, y1, WAN+":5000", "y from another port")
	ReceiveNothing(t, limited, "B10/another source port")
	inside := h.Bob.UDP(Bob + ":7000")
	Send(t, inside, WAN+":5000", "from bob")
	ReceiveNothing(t, limited, "B10/a LAN host")

	h.Open("udp 5000", Alice+":6001")
	h.Eventually("who is not admitted reaches the one for anyone", func() bool {
		Send(t, y1, WAN+":5000", "y1")
		return Arrives(anyone)
	})
	onlyX := m
	onlyX.Remotes = onlyX.Remotes[1:]
	h.Apply([]portmap.Mapping{onlyX}, nil)
	h.Eventually("who is admitted no longer does as well", func() bool {
		Send(t, y, WAN+":5000", "y")
		return Arrives(anyone)
	})
	Drain(limited) // what came before the flow ended
	Send(t, x1, WAN+":5000", "x1 still")
	Receive(t, limited, "x1 still")

	h.Alice.Echo(Alice + ":80")
	h.Open("tcp 8080", Alice+":80", From(PeerX+" 7002", "203.0.113.0/26"))
	h.Connect(h.World, PeerX+":7002", WAN+":8080")
	for _, from := range []string{PeerX + ":7003", PeerY} {
		if _, err := h.World.Dial(from, WAN+":8080", Silence); err == nil {
			t.Errorf("B10/%s connected", from)
		}
	}
}

// B9: traffic through the gateway that is not addressed to it is not ours.
func passingTraffic(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice + ":6000")
	h.Open("udp 7000", Alice+":6000")
	peer := h.World.UDP(PeerX + ":7000")
	bob := h.Bob.UDP(Bob + ":4000")
	Send(t, bob, PeerX+":7000", "to the Internet")
	Receive(t, peer, "to the Internet")
	ReceiveNothing(t, game, "B9/LAN to Internet at a mapped port")
}

func newWANAddress(t *testing.T, h *Home) {
	const fresh = "203.0.113.9"
	game := h.Alice.UDP(Alice + ":6000")
	peer := h.World.UDP(PeerX + ":7000")
	h.Open("udp 5000", Alice+":6000")
	Send(t, game, PeerX+":7000", "before")
	if got := Receive(t, peer, "before"); got != WAN+":5000" {
		t.Fatalf("the peer sees %s", got)
	}
	beginner := h.World.UDP(PeerY + ":7000")
	Answer(t, beginner, game, WAN+":5000", "a flow that the peer began")
	h.Gateway.Links(func(l *netlink.Handle) error {
		wan, err := l.LinkByName("wan0")
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr(WAN + "/24")
		if err != nil {
			return err
		}
		return l.AddrDel(wan, old)
	})
	h.Gateway.Address("wan0", fresh+"/24")
	h.Configure(func(g *firewall.Facts) { g.WAN[0].Addrs = []netip.Addr{netip.MustParseAddr(fresh)} })
	// The flows that went through the old address must not keep it, whoever began.
	for to, c := range map[string]*net.UDPConn{PeerX: peer, PeerY: beginner} {
		h.Eventually("the flow leaves from the new address", func() bool {
			Send(t, game, to+":7000", "after")
			return arrivesFrom(c, fresh+":5000")
		})
	}
	other := h.World.UDP(PeerX + ":7001")
	Send(t, other, fresh+":5000", "in")
	Receive(t, game, "in")
}

// The owner's static forward comes first, even one made after the mapping.
func staticForward(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":6000"), h.Bob.UDP(Bob+":6000")
	h.Open("udp 5000", Alice+":6000")
	h.Do(h.fw.Scripts.Forward)
	// Rules that are looked at in turn have to be put in order first, as Watch would.
	if _, err := h.Backend.Audit(Context(t), true); err != nil {
		t.Fatal(err)
	}
	peer := h.World.UDP(PeerX + ":7000")
	Send(t, peer, WAN+":5000", "to the static forward")
	Receive(t, bob, "to the static forward")
	ReceiveNothing(t, alice, "the mapping")
}
