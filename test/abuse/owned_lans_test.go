package abuse

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/portmap"
	testrig "portcullis/test/rig"
)

// TestOwnedFrontTunnel (M1): on a LAN without MAC addresses an owned front meets no rule that
// names another device, by the MAC address that it says or by the name that DHCP gave that
// one; nor has a host there a quota for each that it says.
func TestOwnedFrontTunnel(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	openTunnel(t, n)
	server := dhcpServer{filepath.Join(t.TempDir(), "leases")}
	a := n.Host("a")
	server.gives(t, lease(a.MAC, tunFar.Addr(), "console"), lease(a.MAC, a.Addr, "console"))
	settings := strings.Replace(lab.Settings, `["br-lan"]`, fmt.Sprintf("[\"br-lan\", \"tun0\"]\nleases = [%q]", server.path), 1)
	r := startOwnableOn(t, n, settings+strings.Replace(noRates, "[limits]", "[limits]\nmappings_per_client = 2", 1)+fmt.Sprintf(`
[policy]
default = "deny"
[[rule]]
name = "by MAC"
action = "allow"
clients = [%q]
external_ports = ["41000", "443"]
[[rule]]
name = "by name"
action = "allow"
clients = ["host:console"]
external_ports = ["42000", "80"]
[[rule]]
name = "by interface"
action = "allow"
clients = ["iface:tun0"]
external_ports = ["43000-43010"]
`, a.MAC))
	r.talks(t, "a")
	p := r.own(t)
	of := func(port uint16, mac portmap.MAC) portmap.Request {
		q := r.wish()
		q.Client.Addr, q.Client.Interface, q.Client.MAC = tunFar.Addr(), "tun0", mac
		q.Internal, q.ExternalPort = netip.AddrPortFrom(tunFar.Addr(), port), port
		return q
	}
	var all []wall.Body
	for _, port := range []uint16{41000, 443, 42000, 80} {
		all = append(all, inEachWay(of(port, portmap.MAC(a.MAC)))...)
	}
	r.refuses(t, all)
	for port, want := range map[uint16]bool{41000: true, 42000: true, 43000: false} {
		q := r.wish()
		q.Internal, q.ExternalPort = netip.AddrPortFrom(a.Addr, port), port
		if _, granted := p.ask(t, &wall.Map{Request: q, N: 1}).body.(*wall.Mappings); granted != want {
			t.Errorf("port %d for the device that is named, on its LAN: %v: the rest proves little", port, granted)
		}
	}
	granted := 0
	for i := range 6 {
		b, ok := p.ask(t, &wall.Map{Request: of(43000+uint16(i), portmap.MAC{2, 6, 5: byte(i)}), N: 1}).body.(*wall.Mappings)
		if !ok {
			continue
		}
		granted++
		if mac := b.Mappings[0].Client.MAC; mac != (portmap.MAC{}) {
			t.Errorf("a mapping of %s, which nobody has seen", mac)
		}
	}
	if granted != 2 {
		t.Errorf("a host of the tunnel has %d mappings, and 2 are its quota", granted)
	}
}

// TestOwnedFrontAnotherLAN (M1): that a machine has sent on one LAN says nothing of the host that
// has its MAC address on another. Who moves from one to the other is served there.
func TestOwnedFrontAnotherLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.AddInterface("iot0", "camera", netip.MustParsePrefix("192.168.99.0/24")); err != nil {
		t.Fatal(err)
	}
	b, camera := n.Host("b"), n.Host("camera")
	testrig.On(t, camera, "ip", "link", "set", "dev", lab.HostPort, "address", b.MAC.String()) // b's, on its own LAN
	r := startOwnableOn(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "iot0"]`, 1)+noRates)
	r.talks(t, "a")
	r.talks(t, "camera")
	p := r.own(t)
	of := func(h *lab.Host, lan string) portmap.Request {
		q := r.wish()
		q.Client = client(h, lan)
		q.Client.MAC = portmap.MAC(b.MAC)
		q.Internal = netip.AddrPortFrom(h.Addr, 41000)
		return q
	}
	// What was sent before the rules were there nobody knows: for a while all are believed.
	testrig.Eventually(t, time.Minute, "the silent host is refused", func() bool {
		p.ask(t, &wall.Resolve{LAN: lab.Bridge, Addr: b.Addr})
		no, refused := p.ask(t, &wall.Map{Request: of(b, lab.Bridge), N: 1}).body.(*wall.Refused)
		return refused && no.Reason == portmap.NotRequester
	})
	p.ask(t, &wall.Unmap{Selector: portmap.Selector{Client: of(b, lab.Bridge).Client}})
	if b, ok := p.ask(t, &wall.Map{Request: of(camera, "iot0"), N: 1}).body.(*wall.Mappings); !ok {
		t.Fatalf("the host that sends, on its LAN: %+v: the rest proves nothing", b)
	}
	p.ask(t, &wall.Unmap{Selector: portmap.Selector{Client: of(camera, "iot0").Client}})
	r.refuses(t, inEachWay(of(b, lab.Bridge)))
	r.refuses(t, inEachWay(of(b, "iot0")))
	// The same machine, which moves: its first packets on the other LAN are answered.
	r.free(t)
	grant(t, r.talker(t, "b"), 1, 6001)
}
