package faults

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// fw4 is OpenWrt's ruleset with our files.
func fw4(t *testing.T) string { return testrig.FW4(t, "../../etc/nftables.d") }

// TestFW4Glue: with the files of etc/nftables.d a reload of fw4 loses nothing in the
// first place: no packet of a new flow, and nothing for us to repair.
func TestFW4Glue(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	r := &testrig.Rig{Network: n}
	nft(t, r, fw4(t))
	r = testrig.StartWith(t, n, strings.Replace(lab.Settings, lab.FirewallChain, "inet fw4 forward", 1))
	a := r.Host("a")
	opened(t, r, 6000)
	if _, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var senders sync.WaitGroup
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(lab.GatewayWAN, 6000), netip.AddrPortFrom(a.Addr6, 9000)} {
		senders.Go(func() { stream(t, r, to, done) })
	}
	for range 40 {
		nft(t, r, fw4(t))
	}
	close(done)
	senders.Wait()
	s, err := r.Owner.Status(t.Context())
	if err != nil || s.Firewall.DriftRepaired != 0 {
		t.Errorf("%d repairs, %v\n%s", s.Firewall.DriftRepaired, err, r.Daemon.Log())
	}
	// A restart of fw4 deletes its table, and with it the elements.
	nft(t, r, "delete table inet fw4\n"+fw4(t))
	working(t, r, 6000)
}

// stream sends one datagram after the other, each from another port and so a flow
// of its own, and wants every one to arrive.
func stream(t *testing.T, r *testrig.Rig, to netip.AddrPort, done <-chan struct{}) {
	any := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	in, err := r.Host("a").ListenPacket(netip.AddrPortFrom(any, to.Port()).String())
	if err != nil {
		t.Error(err)
		return
	}
	defer in.Close()
	sent := 0
	for buf := make([]byte, 8); ; sent++ {
		select {
		case <-done:
			if sent < 100 {
				t.Errorf("only %d datagrams went to %s: this proves little", sent, to)
			}
			return
		default:
		}
		out, err := r.Internet.ListenPacket(netip.AddrPortFrom(any, 0).String())
		if err != nil {
			t.Error(err)
			return
		}
		_, err = out.WriteToUDPAddrPort([]byte{byte(sent)}, to)
		out.Close()
		if err != nil {
			t.Error(err)
			return
		}
		_ = in.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, _, err := in.ReadFromUDPAddrPort(buf); err != nil {
			t.Errorf("datagram %d to %s did not arrive: %v", sent, to, err)
			return
		}
	}
}
