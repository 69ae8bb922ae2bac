package homenet

import (
	"errors"
	"syscall"
	"testing"

	"portcullis/test/netns"
)

// Guard: a service port is closed to everybody but the LAN, and looks closed
// rather than guarded (A1 to A3).
func Guard(t *testing.T, fw Firewall) {
	run(t, fw, test{"TCP", guardTCP}, test{"UDP", guardUDP})
}

func guardTCP(t *testing.T, h *Home) {
	h.Gateway.Echo("0.0.0.0:5000")
	h.Gateway.Echo("[::]:5000")
	h.Gateway.Echo("0.0.0.0:5001") // no service of ours
	for name, tc := range map[string]struct {
		who      *netns.Space
		from, to string
		want     error
	}{
		"A1/WAN to the WAN address":           {h.World, PeerX, WAN + ":5000", syscall.ECONNREFUSED},
		"A1/WAN to the WAN address, IPv6":     {h.World, PeerX6, WAN6 + ":5000", syscall.ECONNREFUSED},
		"A2/WAN to the LAN address, IPv6":     {h.World, PeerX6, Gate6 + ":5000", syscall.ECONNREFUSED},
		"A1/WAN, a port nobody listens on":    {h.World, PeerX, WAN + ":5002", syscall.ECONNREFUSED},
		"WAN, a port that is none of ours":    {h.World, PeerX, WAN + ":5001", nil},
		"LAN":                                 {h.Alice, Alice, Gate + ":5000", nil},
		"LAN, IPv6":                           {h.Alice, Alice6, Gate6 + ":5000", nil},
		"the gateway itself":                  {h.Gateway, "127.0.0.1", "127.0.0.1:5000", nil},
		"the gateway itself, its WAN address": {h.Gateway, WAN, WAN + ":5000", nil},
	} {
		c, err := tc.who.Dial(tc.from, tc.to, Reach)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if c != nil {
			if err := netns.Say(c, "hello", Reach); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// The LAN address is no way round.
	h.World.Route("", WAN)
	if _, err := h.World.Dial(PeerX, Gate+":5000", Reach); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("A2/WAN to the LAN address: %v, want %v", err, syscall.ECONNREFUSED)
	}
}

// The answer of a closed port is an ICMP error.
func guardUDP(t *testing.T, h *Home) {
	service, service6 := h.Gateway.UDP("0.0.0.0:5351"), h.Gateway.UDP("[::]:5351")
	for name, to := range map[string]string{
		"a service port": WAN + ":5351", "a closed port": WAN + ":5352", "a service port, IPv6": WAN6 + ":5351",
	} {
		if err := h.World.Probe(to, Reach); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("A1/%s: %v, want %v", name, err, syscall.ECONNREFUSED)
		}
	}
	ReceiveNothing(t, service, "A1/from the WAN")
	ReceiveNothing(t, service6, "A1/from the WAN, IPv6")
	lan := h.Alice.UDP(Alice + ":7000")
	Send(t, lan, Gate+":5351", "from the LAN")
	Receive(t, service, "from the LAN")

	// What the gateway asks from such a port is answered.
	Answer(t, service, h.World.UDP(PeerX+":7000"), PeerX+":7000", "question")
}
