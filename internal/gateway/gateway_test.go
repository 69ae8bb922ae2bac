package gateway

import (
	"net/netip"
	"reflect"
	"testing"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

// TestView: what netif has read is what the engine sees, and each network replaces the
// one before it.
func TestView(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	g := (&machine{}).gateway()
	if v := g.View(); v.WAN().Name != "" || len(v.LAN) != 0 || len(g.LANs()) != 0 {
		t.Errorf("before the first network there is %+v", v)
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}
	lan := netif.LAN{Name: "br-lan", Index: 3, Addr: addr("192.168.1.1"), Addrs: []netip.Addr{addr("192.168.1.1")}, Prefixes: prefixes}
	g.Set(netif.State{}, netif.Roles{
		LAN:  []netif.LAN{lan},
		WAN:  netif.WAN{Uplink: netif.Uplink{Name: "ppp0", Up: true, Addrs: []netip.Addr{addr("10.1.1.1")}}, External: addr("10.1.1.1"), Refused: true},
		WAN6: netif.Uplink{Name: "eth0", Up: true, Addrs: []netip.Addr{addr("2001:db8::1")}},
	})
	v := g.View()
	if want := (portmap.WAN{Name: "ppp0", Up: true, External: addr("10.1.1.1"), Private: true}); v.WAN() != want {
		t.Errorf("the WAN is %+v, want %+v", v.WAN(), want)
	}
	if want := map[string]portmap.LAN{"br-lan": {Prefixes: prefixes, Addrs: lan.Addrs}}; !reflect.DeepEqual(v.LAN, want) {
		t.Errorf("the LANs are %+v, want %+v", v.LAN, want)
	}
	if want := []netip.Addr{addr("10.1.1.1"), addr("2001:db8::1")}; !reflect.DeepEqual(v.WANAddrs, want) || v.WAN6 != "eth0" || !v.WAN6Up {
		t.Errorf("the WANs' addresses are %v, want %v; IPv6 by %q, up %v", v.WANAddrs, want, v.WAN6, v.WAN6Up)
	}
	if got := g.LANs()["br-lan"]; !reflect.DeepEqual(got, lan) {
		t.Errorf("the LAN is %+v, want %+v", got, lan)
	}
	g.Set(netif.State{}, netif.Roles{})
	if w := g.View().WANs; len(w) != 0 || len(g.LANs()) != 0 || v.WAN().Name != "ppp0" {
		t.Errorf("when the network is gone there is %+v, and the view of before has %+v", w, v.WAN())
	}
}
