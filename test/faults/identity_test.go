package faults

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestAddressToAnotherDevice: when the address of a mapping is another device's, the
// mapping is closed before a packet reaches the newcomer, and nothing of it is the
// newcomer's; the mappings of others stay.
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
	testrig.Eventually(t, soon, "the mapping of the host that left is suspended", func() bool { return r.List(t)[0].Suspended })
	if m := r.List(t)[1]; m.ExternalPort != 7000 || m.Suspended {
		t.Errorf("the other one is %+v", m)
	}
	if !r.Blocked(t, "UDP", 6000, b, 6000) {
		t.Error("a packet reached the newcomer")
	}
	if !r.Passes(t, "UDP", 7000, b, 7000) {
		t.Error("the newcomer's own mapping is gone")
	}
}

// TestSameDeviceComesBack: L8. A host that was away for a moment keeps its mappings.
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

// neighbour says which MAC the gateway believes to be behind a's address.
func neighbour(t *testing.T, r *testrig.Rig, mac string) {
	t.Helper()
	ip(t, r, "neigh replace 192.168.77.10 lladdr "+mac+" dev br-lan nud reachable")
}

// suspended waits until the one mapping is suspended, or not.
func suspended(t *testing.T, r *testrig.Rig, want bool) {
	t.Helper()
	testrig.Eventually(t, soon, "the mapping is suspended, or is not", func() bool {
		list := r.List(t)
		return len(list) == 1 && list[0].Suspended == want
	})
}

// TestMACFlips: L8, pucherot/Pi.Alert#32. A proxy for ARP makes the MAC of an address
// change and change back: meanwhile nothing comes in, old flows end, and then all is as
// it was, over a restart too. What changes hands again and again is believed only when
// it has settled, so that it costs a transaction a minute.
func TestMACFlips(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	const proxy = "02:aa:bb:cc:dd:01"
	neighbour(t, r, proxy)
	suspended(t, r, true)
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a packet came through while another device had the address")
	}
	if held := testrig.On(t, r.Gateway, "nft", "list", "map", "inet", "portcullis", "mapped"); strings.Contains(held, "6000") {
		t.Errorf("the kernel holds %s", held)
	}
	neighbour(t, r, r.Host("a").MAC.String())
	suspended(t, r, false)
	working(t, r, 6000)
	if err := c.Add(t.Context(), udp(6000)); err != nil {
		t.Errorf("its renewal: %v", err)
	}

	neighbour(t, r, proxy)
	suspended(t, r, true)
	neighbour(t, r, r.Host("a").MAC.String())
	r.Logged(t, "mappings suspended")
	if list := r.List(t); len(list) != 1 || !list[0].Suspended {
		t.Errorf("the second time it is believed at once: %+v", list)
	}
	neighbour(t, r, proxy)
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	suspended(t, r, true)
	if !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a packet came through after a restart")
	}
	neighbour(t, r, r.Host("a").MAC.String())
	suspended(t, r, false)
	working(t, r, 6000)
}

// TestNewcomerStays: C6. The device that stays at the address is told of a conflict
// (718), on which it tries another port; it is a host like others otherwise.
func TestNewcomerStays(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "down")
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "address", "02:aa:bb:cc:dd:ee")
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "up")
	ip(t, r, "neigh flush to 192.168.77.10 dev br-lan")
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	var refusal *lab.UPnPError
	for !errors.As(c.Add(ctx, udp(6000)), &refusal) { // the bridge learns where it is
		if ctx.Err() != nil {
			t.Fatal("the newcomer is not answered")
		}
	}
	if refusal.Code != 718 {
		t.Errorf("the newcomer is answered %v, want 718", refusal)
	}
	suspended(t, r, true)
	if err := c.Add(ctx, udp(6001)); err != nil {
		t.Errorf("another port: %v", err)
	}
	if !r.Passes(t, "UDP", 6001, r.Host("a"), 6001) || !r.Blocked(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("its own port does not work, or its predecessor's does")
	}
}

// TestEndlessLease: a lease of 0 goes on by itself while its device is there, also over
// a restart, and in the kernel; it ends lease.max after its device was last seen. One
// with an end ends.
func TestEndlessLease(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a", "b"), "[lease]\nmax = \"20s\"\nmin = \"20s\"\n")
	c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
	endless, finite := udp(6000), udp(6001)
	endless.Lease, finite.Lease = 0, 20*time.Second
	for _, m := range []lab.Mapping{endless, finite} {
		if err := c.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := c.Call(t.Context(), "GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", "6000", "NewProtocol", "UDP"); err != nil || out["NewLeaseDuration"] != "0" {
		t.Errorf("version 1 shows %v, %v", out, err) // SOAP-10
	}
	alone := func() bool {
		list := r.List(t)
		return len(list) == 1 && list[0].ExternalPort == 6000 && list[0].Endless
	}
	const while = 40 * time.Second
	testrig.Eventually(t, while, "the lease with an end is over", alone)
	for range 2 {
		testrig.Eventually(t, while, "the endless one has less time", func() bool { return alone() && r.List(t)[0].ExpiresIn < 14 })
		testrig.Eventually(t, while, "and then more", func() bool { return alone() && r.List(t)[0].ExpiresIn > 14 })
	}
	working(t, r, 6000)
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if !alone() {
		t.Errorf("after a restart there is %+v", r.List(t))
	}
	testrig.Eventually(t, while, "it has less time", func() bool { return alone() && r.List(t)[0].ExpiresIn < 14 })
	testrig.Eventually(t, while, "and then more", func() bool { return alone() && r.List(t)[0].ExpiresIn > 14 })
	working(t, r, 6000)
	testrig.On(t, r.Host("a"), "ip", "link", "set", "eth0", "down")
	testrig.Eventually(t, 2*time.Minute, "it ends with its device", func() bool { return len(r.List(t)) == 0 })
	r.Logged(t, "endless=true reason=ended")
}
