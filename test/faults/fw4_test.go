package faults

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// fw4 is the shape of OpenWrt's ruleset and of its reload: one transaction that
// flushes the table and declares everything again, with the includes of
// /usr/share/nftables.d where fw4 puts them.
func fw4(t *testing.T) string {
	t.Helper()
	include := func(name string) string {
		data, err := os.ReadFile("../../etc/nftables.d/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return `table inet fw4
flush table inet fw4
table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy drop;
		` + include("chain-pre/forward/20-portcullis.nft") + `
		ct state vmap { established : accept, related : accept } comment "!fw4: Handle forwarded flows"
		iifname "br-lan" jump forward_lan comment "!fw4: Handle lan IPv4/IPv6 forward traffic"
		iifname "wan0" jump forward_wan comment "!fw4: Handle wan IPv4/IPv6 forward traffic"
		jump handle_reject
	}
	chain forward_lan {
		oifname "wan0" accept comment "!fw4: Accept lan to wan forwarding"
	}
	chain forward_wan {
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply } accept
	}
	chain handle_reject {
		meta l4proto tcp reject with tcp reset
		reject with icmpx port-unreachable
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		meta nfproto ipv4 oifname "wan0" masquerade
	}
	` + include("table-post/20-portcullis.nft") + `
}
`
}

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
