package abuse

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// A flood is so many datagrams, so many a second.
const (
	floodSize = 15_000
	floodRate = 5_000
)

// floods are what one machine sends, as host b, to drown the others: datagram i.
var floods = map[string]func(r *rig, f *lab.Forger, i int) (from netip.Addr){
	"forged sources of a /24": func(_ *rig, _ *lab.Forger, i int) netip.Addr {
		return netip.AddrFrom4([4]byte{192, 168, 77, byte(30 + i%200)})
	},
	"a neighbour's address": func(r *rig, _ *lab.Forger, _ int) netip.Addr { return r.Host("a").Addr },
	"16 aliases":            func(_ *rig, _ *lab.Forger, i int) netip.Addr { return alias(i % 16) },
	"200 aliases":           func(_ *rig, _ *lab.Forger, i int) netip.Addr { return alias(i % 200) },
	"forged MAC addresses": func(_ *rig, f *lab.Forger, i int) netip.Addr {
		f.MAC = net.HardwareAddr{2, 9, 0, 0, byte(i >> 8), byte(i)}
		return netip.AddrFrom4([4]byte{192, 168, 77, byte(30 + i%200)})
	},
}

// alias is one of host b's own addresses.
func alias(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 77, byte(30 + i)}) }

// drown floods a port of the gateway, and gives a turn to ask 20 times while it does.
func (r *rig) drown(t *testing.T, flood string, to netip.AddrPort, payload func(i int) []byte) (turns <-chan struct{}) {
	t.Helper()
	f := r.forger(t, "b")
	turn, ended := make(chan struct{}, 20), make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		began := time.Now()
		for i := range floodSize {
			// Who was late sends faster.
			for time.Since(began) < time.Duration(i)*time.Second/floodRate {
				time.Sleep(time.Millisecond)
			}
			if i%(floodSize/20) == floodSize/40 {
				turn <- struct{}{}
			}
			from := netip.AddrPortFrom(floods[flood](r, f, i), 20000+uint16(i%1000))
			_ = f.Send(from, to, payload(i)) // a full queue is no matter
		}
	}()
	return turn
}

// withAliases gives host b 200 more addresses that it answers ARP for, which the
// gateway knows.
func (r *rig) withAliases(t *testing.T) {
	t.Helper()
	for i := range 200 {
		if err := r.Host("b").AddAddress(alias(i)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, soon)
		_, err := r.Host("b").ExchangeFrom(ctx, alias(i), lab.GatewayLAN, natpmpAddress)
		cancel()
		if err != nil {
			t.Fatalf("alias %d: %v", i, err)
		}
	}
}

// collect counts the answers, 20 at most, until none comes any more.
func collect(t *testing.T, conn *net.UDPConn, good func([]byte) bool) (served int) {
	t.Helper()
	for buf := make([]byte, 2048); served < 20; {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		if good(buf[:n]) {
			served++
		}
	}
	return served
}

// TestFloodOfOneMachine: K2, L2. Whatever one machine floods port 5351 with, at
// least 19 of 20 requests of another host, each sent once, are answered.
func TestFloodOfOneMachine(t *testing.T) {
	t.Parallel()
	for flood := range floods {
		t.Run(flood, func(t *testing.T) {
			t.Parallel()
			r := start(t, "[limits]\ngrants_per_second = 0\n")
			if strings.HasSuffix(flood, "aliases") {
				r.withAliases(t)
			}
			a := r.talker(t, "a")
			grant(t, a, 1, 6000)
			turn := r.drown(t, flood, server, func(i int) []byte { return pmp(1, 8000+uint16(i%20), 8000, 3600) })
			for i := range uint16(20) {
				<-turn
				a.send(t, server, pmp(1, 6000+i, 6000+i, 3600))
			}
			served := collect(t, a.conn, func(b []byte) bool { return len(b) == 16 && b[1] == 0x81 && b[3] == 0 })
			if served < 19 {
				t.Errorf("%d of 20 requests were answered", served)
			}
		})
	}
}

// TestFloodOfNewMachines: K1, L2. One machine invents another one for each of its
// datagrams: a host that the gateway knows, though not from its asking for ports, is
// answered.
func TestFloodOfNewMachines(t *testing.T) {
	t.Parallel()
	r := start(t, "[limits]\ngrants_per_second = 0\n")
	a := r.talker(t, "a")
	r.known(t, "a")
	turn := r.drown(t, "forged MAC addresses", server, func(i int) []byte { return pmp(1, 8000+uint16(i%20), 8000, 3600) })
	for i := range uint16(20) {
		<-turn
		testrig.On(t, r.Gateway, "nft", "flush", "set", "inet", "portcullis_frames", "machines") // what it is after ten minutes of silence
		a.send(t, server, pmp(1, 6000+i, 6000+i, 3600))
	}
	served := collect(t, a.conn, func(b []byte) bool { return len(b) == 16 && b[1] == 0x81 && b[3] == 0 })
	if served < 19 {
		t.Errorf("%d of 20 requests were answered", served)
	}
}

// known has the gateway answer a host, and so hear the host's answer to its question.
func (r *rig) known(t *testing.T, host string) {
	t.Helper()
	h := r.Host(host)
	conn, err := h.Dial(t.Context(), "tcp", net.JoinHostPort(lab.GatewayLAN.String(), "5000"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	testrig.Eventually(t, soon, "the gateway has heard it", func() bool {
		held := testrig.On(t, r.Gateway, "nft", "list", "set", "inet", "portcullis_frames", "known")
		return strings.Contains(held, h.MAC.String())
	})
}

// TestSearchFloodOfOneMachine: L2. The same for searches, which share the room.
func TestSearchFloodOfOneMachine(t *testing.T) {
	t.Parallel()
	for flood := range floods {
		t.Run(flood, func(t *testing.T) {
			t.Parallel()
			r := start(t, "")
			if strings.HasSuffix(flood, "aliases") {
				r.withAliases(t)
			}
			search := []byte(fmt.Sprintf("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", lab.IGD1))
			group := netip.MustParseAddrPort("239.255.255.250:1900")
			a, err := r.Host("a").ListenPacket(hostPort(hostA, 0))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { a.Close() })
			grant(t, r.talker(t, "a"), 1, 6000) // the gateway knows it
			turn := r.drown(t, flood, group, func(int) []byte { return search })
			for range 20 {
				<-turn
				if _, err := a.WriteToUDPAddrPort(search, group); err != nil {
					t.Fatal(err)
				}
			}
			served := collect(t, a, func(b []byte) bool { return bytes.HasPrefix(b, []byte("HTTP/1.1 200 OK")) })
			if served < 19 {
				t.Errorf("%d of 20 searches were answered", served)
			}
		})
	}
}
