package homenet

import (
	"net"
	"testing"

	"portcullis/internal/netns/netnstest"
)

// KeptPorts: "open NAT". A mapped endpoint has one name for everybody, the
// gateway's address and the mapped port, in both directions and on the LAN too.
func KeptPorts(t *testing.T, fw Firewall) {
	run(t, fw,
		test{"Outbound", keptPorts},
		test{"Hairpin", hairpin},
		test{"TwoConsoles", twoConsoles},
	)
}

func keptPorts(t *testing.T, h *Home) {
	h.Open("udp 6001", Alice+":3074")
	h.Open("udp 6002", Bob+":3074")
	peer := h.World.UDP(PeerX + ":7000")
	for _, tc := range []struct {
		name, from string
		who        *netnstest.Space
		want       string
	}{
		{"alice's mapped port", Alice + ":3074", h.Alice, WAN + ":6001"},
		{"bob's, with the same internal port", Bob + ":3074", h.Bob, WAN + ":6002"},
		{"a port without a mapping", Alice + ":4000", h.Alice, WAN + ":4000"},
	} {
		c := tc.who.UDP(tc.from)
		Send(t, c, PeerX+":7000", tc.name)
		if got := Receive(t, peer, tc.name); got != tc.want {
			t.Errorf("%s: the peer sees %s, want %s", tc.name, got, tc.want)
		}
		Send(t, peer, tc.want, "answer to "+tc.name)
		Receive(t, c, "answer to "+tc.name)
	}
}

// From the LAN a mapping is reached at the gateway's WAN address, by its own host
// as well.
func hairpin(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice + ":6000")
	h.Open("udp 5000", Alice+":6000")
	h.Open("tcp 8080", Alice+":80")
	h.Alice.Echo(Alice + ":80")
	for _, from := range []struct {
		who  *netnstest.Space
		addr string
	}{{h.Bob, Bob}, {h.Alice, Alice}} {
		c := from.who.UDP(from.addr + ":7000")
		if _, got := Answer(t, c, game, WAN+":5000", "hairpin"); got != WAN+":5000" {
			t.Errorf("%s sees the answer from %s, want %s:5000", from.addr, got, WAN)
		}
		h.Connect(from.who, from.addr, WAN+":8080")
	}
}

// Two consoles know each other by their external endpoints, as they do the world
// (RFC 4787 section 6, REQ-9).
func twoConsoles(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":3074"), h.Bob.UDP(Bob+":3074")
	h.Open("udp 6001", Alice+":3074")
	h.Open("udp 6002", Bob+":3074")
	asker, answerer := Answer(t, bob, alice, WAN+":6001", "console")
	if asker != WAN+":6002" {
		t.Errorf("alice sees %s, want bob's external endpoint %s:6002", asker, WAN)
	}
	if answerer != WAN+":6001" {
		t.Errorf("bob sees %s, want alice's external endpoint %s:6001", answerer, WAN)
	}
	// The very same sockets, and flows beside those, in the world.
	peer := h.World.UDP(PeerX + ":7000")
	for text, tc := range map[string]struct {
		c    *net.UDPConn
		want string
	}{"alice": {alice, WAN + ":6001"}, "bob": {bob, WAN + ":6002"}} {
		Send(t, tc.c, PeerX+":7000", text)
		if got := Receive(t, peer, text); got != tc.want {
			t.Errorf("%s: the peer sees %s, want %s", text, got, tc.want)
		}
	}
}
