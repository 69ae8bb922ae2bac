package faults

import (
	"errors"
	"net"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestLateService: abuse case B8. A service of the gateway, or a forward of its owner,
// that comes to a mapped port is noticed within a sweep: the mapping ends, its renewal
// is refused, the log names both, and the service gets what is sent to it. What asks
// for an answer from that port for a moment, as a resolver does, ends nothing.
func TestLateService(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	r := testrig.Start(t, n, "")
	c := opened(t, r, 6000)
	over := udp(6001)
	over.Protocol = "TCP"
	for _, m := range []lab.Mapping{over, udp(6002), udp(6003)} {
		if err := c.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	service, err := n.Gateway.ListenPacket("0.0.0.0:6000")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	var refusal *lab.UPnPError
	testrig.Eventually(t, soon, "its renewal is refused", func() bool { return errors.As(c.Add(t.Context(), udp(6000)), &refusal) })
	if refusal.Code != 718 {
		t.Errorf("its renewal: %v, want 718", refusal)
	}
	web, err := n.Gateway.Listen("0.0.0.0:6001")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	testrig.On(t, n.Gateway, "nft", "add table ip owner; add chain ip owner pre { type nat hook prerouting priority -100; };"+
		"add rule ip owner pre iifname wan0 udp dport 6002 dnat to 192.168.77.99:53")
	testrig.Eventually(t, 30*time.Second, "the mappings of ports in use end", func() bool {
		list := r.List(t)
		return len(list) == 1 && list[0].ExternalPort == 6003
	})
	for _, line := range []string{
		`external_port=6000 internal=192.168.77.10:6000 mac=` + r.Host("a").MAC.String() + ` why="the gateway itself listens on 0.0.0.0:6000"`,
		`external_port=6001 internal=192.168.77.10:6001`,
		`external_port=6002 internal=192.168.77.10:6002 mac=` + r.Host("a").MAC.String() + ` why="the owner's own firewall forwards it`,
	} {
		r.Logged(t, line)
	}
	got := make(chan error, 1)
	go func() {
		_, _, err := service.ReadFromUDPAddrPort(make([]byte, 8))
		got <- err
	}()
	conn, err := n.Internet.Dial(t.Context(), "udp", net.JoinHostPort(lab.GatewayWAN.String(), "6000"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	testrig.Eventually(t, soon, "the service is reached", func() bool {
		_, _ = conn.Write([]byte("hello"))
		return len(got) == 1
	})
	working(t, r, 6003)
}
