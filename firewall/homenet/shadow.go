package homenet

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"portcullis/firewall"
	"portcullis/internal/netns/netnstest"
)

// PortShadow: L1. An external port is its client's in both directions. Who has no mapping
// of it neither takes what a peer sends to it nor what its client sends there (the
// kind of CVE-2021-3773), whoever came first, and goes on by itself.
func PortShadow(t *testing.T, fw Firewall) {
	run(t, fw,
		test{"MappingFirst", shadowAfterMapping},
		test{"FlowFirst", shadowBeforeMapping},
		test{"FlowAmongMappings", shadowAmongMappings},
		test{"TCP", shadowTCP},
		test{"Hairpin", shadowHairpin},
		test{"Gateway", shadowGateway},
	)
}

// spare reports whether a peer sees somebody at one of our spare ports.
func spare(seen string) bool {
	at := netip.MustParseAddrPort(seen)
	return at.Addr().String() == WAN && firewall.Spare(at.Port())
}

func shadowAfterMapping(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":6000"), h.Bob.UDP(Bob+":5000")
	x, y := h.World.UDP(PeerX+":7000"), h.World.UDP(PeerY+":7000")
	h.Open("udp 5000", Alice+":6000")

	Send(t, bob, PeerX+":7000", "bob")
	seen := Receive(t, x, "bob")
	if !spare(seen) {
		t.Errorf("bob leaves from %s, not from a spare port", seen)
	}
	Send(t, bob, PeerY+":7000", "bob")
	if got := Receive(t, y, "bob"); got != seen {
		t.Errorf("one peer sees bob at %s, the other at %s", seen, got)
	}
	Send(t, x, WAN+":5000", "to the mapping")
	Receive(t, alice, "to the mapping")
	Send(t, alice, PeerX+":7000", "from the mapping")
	if got := Receive(t, x, "from the mapping"); got != WAN+":5000" {
		t.Errorf("alice leaves from %s, want %s:5000", got, WAN)
	}
	Send(t, x, seen, "to bob")
	Receive(t, bob, "to bob")

	// What is not mapped is nobody's.
	other := h.Bob.UDP(Bob + ":5001")
	Send(t, other, PeerX+":7000", "no mapping has this number")
	if got := Receive(t, x, "no mapping has this number"); got != WAN+":5001" {
		t.Errorf("bob leaves from %s, want %s:5001", got, WAN)
	}
}

// Two consoles of which one has no mapping, and it was first.
func shadowBeforeMapping(t *testing.T, h *Home) {
	alice, bob := h.Alice.UDP(Alice+":3074"), h.Bob.UDP(Bob+":3074")
	x := h.World.UDP(PeerX + ":3074")
	Send(t, bob, PeerX+":3074", "bob")
	if got := Receive(t, x, "bob"); got != WAN+":3074" {
		t.Fatalf("bob leaves from %s", got)
	}
	h.Open("udp 3074", Alice+":3074")
	Send(t, alice, PeerX+":3074", "alice")
	if got := Receive(t, x, "alice"); got != WAN+":3074" {
		t.Errorf("alice leaves from %s, want %s:3074", got, WAN)
	}
	Send(t, x, WAN+":3074", "answer")
	Receive(t, alice, "answer")
	Send(t, bob, PeerX+":3074", "bob goes on")
	seen := Receive(t, x, "bob goes on")
	if !spare(seen) {
		t.Errorf("bob goes on from %s, not from a spare port", seen)
	}
	Send(t, x, seen, "answer to bob")
	Receive(t, bob, "answer to bob")
}

// Mappings in a row are not looked at one by one.
func shadowAmongMappings(t *testing.T, h *Home) {
	for _, port := range strings.Fields("5000 5001 5002") {
		h.Open("udp "+port, Alice+":"+port)
	}
	shadowBeforeMapping(t, h)
}

func shadowTCP(t *testing.T, h *Home) {
	h.World.Echo(PeerX + ":90")
	early := h.Connect(h.Bob, Bob+":8080", PeerX+":90")
	h.Open("tcp 8080", Alice+":80")
	h.Eventually("what left from the port before ends", func() bool { return ended(early) })
	_ = early.Close()
	h.Connect(h.Alice, Alice+":80", PeerX+":90")
	h.Connect(h.Bob, Bob+":8080", PeerX+":90")

	// Whoever has the mapping has both ways, also after that.
	h.Alice.Echo(Alice + ":81")
	h.Open("tcp 8081", Alice+":81")
	h.Connect(h.Bob, Bob+":8081", PeerX+":90")
	h.Connect(h.World, PeerX, WAN+":8081")
}

// On the LAN the gateway's WAN address has the same ports, and the same owners.
func shadowHairpin(t *testing.T, h *Home) {
	six, seven := h.Alice.UDP(Alice+":6000"), h.Alice.UDP(Alice+":7000")
	bob := h.Bob.UDP(Bob + ":5000")
	h.Open("udp 5000", Alice+":6000")
	h.Open("udp 5001", Alice+":7000")
	Send(t, bob, WAN+":5001", "bob")
	seen := Receive(t, seven, "bob")
	if !spare(seen) {
		t.Errorf("bob is seen at %s, not at a spare port", seen)
	}
	Send(t, seven, WAN+":5000", "to the mapping")
	if got := Receive(t, six, "to the mapping"); got != WAN+":5001" {
		t.Errorf("the sender is seen at %s", got)
	}
	Send(t, seven, seen, "answer")
	if got := Receive(t, bob, "answer"); got != WAN+":5001" {
		t.Errorf("bob is answered from %s", got)
	}
}

// The gateway itself is no owner: what it begins leaves from another port. What it
// began before goes on.
func shadowGateway(t *testing.T, h *Home) {
	alice, x := h.Alice.UDP(Alice+":6000"), h.World.UDP(PeerX+":7000")
	h.World.Echo(PeerX + ":90")
	before := h.Connect(h.Gateway, WAN+":8080", PeerX+":90")
	h.Open("tcp 8080", Alice+":80")
	h.Open("udp 5000", Alice+":6000")
	own := h.Gateway.UDP(WAN + ":5000")
	Send(t, own, PeerX+":7000", "the gateway")
	if got := Receive(t, x, "the gateway"); !spare(got) {
		t.Errorf("the gateway leaves from %s, not from a spare port", got)
	}
	Send(t, alice, PeerX+":7000", "alice")
	if got := Receive(t, x, "alice"); got != WAN+":5000" {
		t.Errorf("alice leaves from %s", got)
	}
	goOn(t, map[string]net.Conn{"the gateway's earlier": before})
}

// Masquerade: where the owner's masquerade chooses ports itself, it never gets a
// mapped one. The script has it choose from ports 5000 to 5003 of wan0.
func Masquerade(t *testing.T, fw Firewall, script string) {
	run(t, fw, test{"Masquerade", func(t *testing.T, h *Home) {
		h.Do(script)
		for _, port := range strings.Fields("5000 5001 5002") {
			h.Open("udp "+port, Alice+":6"+port[1:])
		}
		for i := range 10 {
			x := h.World.UDP(netip.AddrPortFrom(netip.MustParseAddr(PeerX), uint16(7000+i)).String())
			bob := h.Bob.UDP(Bob + ":0")
			h.Eventually("bob gets another port", func() bool {
				Send(t, bob, x.LocalAddr().String(), "bob")
				return arrivesFrom(x, WAN+":5003")
			})
			Drain(x)
		}
	}})
}

// Untranslated: what a public subnet behind the gateway sends is not translated,
// whatever its port. The script lets the owner's masquerade pass it by.
func Untranslated(t *testing.T, fw Firewall, script string) {
	run(t, fw, test{"Untranslated", func(t *testing.T, h *Home) {
		const public = "198.51.100.20"
		h.Do(script)
		h.Bob.Address("eth0", public+"/32")
		h.Gateway.Route(public+"/32", Bob)
		h.World.Route(public+"/32", WAN)
		h.Open("udp 5000", Alice+":6000")
		x := h.World.UDP(PeerX + ":7000")
		h.untranslated(h.Bob, public, x)
	}})
}

func (h *Home) untranslated(who *netnstest.Space, from string, x *net.UDPConn) {
	h.t.Helper()
	Send(h.t, who.UDP(from+":5000"), PeerX+":7000", "public")
	if got := Receive(h.t, x, "public"); got != from+":5000" {
		h.t.Errorf("it leaves from %s, want %s:5000", got, from)
	}
}
