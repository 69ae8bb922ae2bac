package homenet

import (
	"testing"

	"portcullis/internal/netns/netnstest"
)

// GatewayServices: the rules close no port of the gateway, not to anybody, and not by
// either family. The owner may have services of his own where ours are, on other
// interfaces; that ours answer the LAN alone is the sockets' doing, which are bound
// to it (test/abuse).
func GatewayServices(t *testing.T, fw Firewall) {
	run(t, fw, test{"GatewayServices", gatewayServices})
}

func gatewayServices(t *testing.T, h *Home) {
	h.Gateway.Echo("0.0.0.0:5000")
	h.Gateway.Echo("[::]:5000")
	for name, tc := range map[string]struct {
		who      *netnstest.Space
		from, to string
	}{
		"WAN":                                 {h.World, PeerX, WAN + ":5000"},
		"WAN, IPv6":                           {h.World, PeerX6, WAN6 + ":5000"},
		"LAN":                                 {h.Alice, Alice, Gate + ":5000"},
		"LAN, IPv6":                           {h.Alice, Alice6, Gate6 + ":5000"},
		"the gateway itself":                  {h.Gateway, "127.0.0.1", "127.0.0.1:5000"},
		"the gateway itself, its WAN address": {h.Gateway, WAN, WAN + ":5000"},
	} {
		c, err := tc.who.Dial(tc.from, tc.to, Reach)
		if err == nil {
			err = netnstest.Say(c, "hello", Reach)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, port := range []string{":1900", ":5351"} {
		for _, to := range []struct{ peer, at string }{{PeerX, WAN}, {PeerX6, WAN6}} {
			service := h.Gateway.UDP(to.at + port)
			Answer(t, h.World.UDP(to.peer+":0"), service, to.at+port, "question")
		}
	}
}
