package faults

import (
	"net/netip"
	"testing"

	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// TestAddressToAnotherDevice: issue 5 item 4. When the address of a mapping is
// another device's, the mapping is gone before a packet reaches the newcomer; the
// mappings of others stay.
func TestAddressToAnotherDevice(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a", "b"), "")
	opened(t, r, 6000)
	b := r.Host("b")
	if err := r.Point(t, "b", lab.IGD1, lab.WANIP1).Add(t.Context(), udp(7000)); err != nil {
		t.Fatal(err)
	}
	// Host a leaves, and the newcomer is told its address; the first that the
	// gateway hears of it is an ARP request.
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "down")
	testrig.On(t, b, "ip", "addr", "add", "192.168.77.10/24", "dev", "eth0")
	testrig.On(t, b, "ip", "neigh", "flush", "all")
	conn, err := b.ListenPacket("192.168.77.10:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(lab.GatewayLAN, 9)); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the mapping of the host that left is revoked", func() bool { return len(r.List(t)) == 1 })
	if m := r.List(t)[0]; m.ExternalPort != 7000 {
		t.Errorf("what is left is %+v", m)
	}
	if !r.Blocked(t, "UDP", 6000, b, 6000) {
		t.Error("a packet reached the newcomer")
	}
	if !r.Passes(t, "UDP", 7000, b, 7000) {
		t.Error("the newcomer's own mapping is gone")
	}
}

// TestSameDeviceComesBack: a host that was away for a moment keeps its mappings.
func TestSameDeviceComesBack(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	opened(t, r, 6000)
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "down")
	testrig.On(t, r.Gateway, "ip", "neigh", "flush", "to", "192.168.77.10", "dev", "br-lan") // gone it may be already
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "up")
	testrig.On(t, r.Host("a"), "ip", "route", "replace", "default", "via", "192.168.77.1")
	working(t, r, 6000)
}
