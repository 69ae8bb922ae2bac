package abuse

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestTwoLANs: A5, C3, E7, E8. Of two LANs that are served each has its own: no host of one
// opens, sees or ends anything of the other, by its own address or by one of the other
// LAN, and each is told the gateway's address on its own.
func TestTwoLANs(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.AddInterface("iot0", "camera", netip.MustParsePrefix("192.168.50.0/24")); err != nil {
		t.Fatal(err)
	}
	r := &rig{testrig.StartWith(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "iot0"]`, 1)+noRates)}
	a, camera, other := r.talker(t, "a"), r.talker(t, "camera"), netip.MustParseAddrPort("192.168.50.1:5351")
	grant(t, a, 1, 6000)
	if found := testrig.Found(t, lab.NewControlPoint(r.Host("camera")), lab.Search{Target: lab.IGD1}); !strings.HasPrefix(found.Location(), "http://192.168.50.1:5000/") {
		t.Errorf("E8: the other LAN is told %s", found.Location())
	}
	if found := testrig.Found(t, lab.NewControlPoint(r.Host("a")), lab.Search{Target: lab.IGD1}); !strings.HasPrefix(found.Location(), "http://192.168.77.1:5000/") {
		t.Errorf("E8: the LAN is told %s", found.Location())
	}
	c := r.v1(t, "camera")
	if err := c.Add(t.Context(), udp(7000, 7000)); err != nil || !r.Passes(t, "UDP", 7000, r.Host("camera"), 7000) {
		t.Fatalf("the other LAN is not served: %v", err)
	}
	r.inhabit(t)
	before := r.World(t)
	for _, target := range []string{"192.168.77.10", "192.168.77.20", "192.168.77.1", "192.168.50.1", "192.168.50.11", "192.168.77.99"} {
		if err := c.Add(t.Context(), tcp(7001, 7001, target)); code(err) != 606 {
			t.Errorf("a mapping to %s: %v", target, err)
		}
	}
	if err := c.Add(t.Context(), udp(6000, 7000)); code(err) != 718 {
		t.Errorf("the port of the other LAN: %v", err)
	}
	if err := c.Delete(t.Context(), 6000, "UDP"); code(err) != 714 {
		t.Errorf("delete of the other LAN's: %v", err)
	}
	r.Unchanged(t, before, "A5", "C3")

	// By the other LAN's address, and from its hosts' addresses.
	forged := netip.AddrPortFrom(hostA, 40000)
	for _, to := range []netip.AddrPort{server, other} {
		for _, payload := range wishes(t, hostA) {
			forge(t, r.Host("camera"), forged, to, payload)
			forge(t, r.Host("a"), netip.AddrPortFrom(r.Host("camera").Addr, 40000), to, payload)
		}
		forge(t, r.Host("camera"), forged, netip.AddrPortFrom(to.Addr(), 1900), search(lab.IGD1))
	}
	for _, payload := range [][]byte{natpmpAddress, pmp(1, 7001, 7001, 3600), pmp(1, 0, 0, 0)} {
		camera.send(t, server, payload)
	}
	a.nothing(t)
	ctx, cancel := contextFor(t, soon)
	defer cancel()
	if reply, err := r.Host("camera").Exchange(ctx, other.Addr(), natpmpAddress); err != nil || len(reply) != 12 { // all before it has been looked at
		t.Errorf("the other LAN: % x, %v", reply, err)
	}
	if reply := camera.receive(t, 10*time.Millisecond); reply != nil {
		t.Errorf("asked by the other LAN's address: % x", reply)
	}
	at := hostPort(lab.GatewayLAN, 5000)
	if answer := raw(t, r.Host("camera"), at, "GET / HTTP/1.1\r\nHost: "+at+"\r\n\r\n"); status(answer) != "" {
		t.Errorf("HTTP of the other LAN answers %.80q", answer)
	}
	r.Unchanged(t, before, "E7")
	// The owner's firewall keeps the LANs apart; what is mapped is open to both, as it is
	// to the Internet (docs/firewalls.md).
	short, end := contextFor(t, 500*time.Millisecond)
	defer end()
	if conn, err := r.Host("camera").Dial(short, "tcp4", hostPort(hostB, 46001)); err == nil {
		conn.Close()
		t.Error("the owner's firewall does not keep the LANs apart")
	}
	if !r.hairpins(t, r.Host("camera"), soon) {
		t.Error("a mapping of the other LAN is closed")
	}
}
