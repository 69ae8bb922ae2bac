package abuse

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// wishes are requests that a host of the LAN would get an answer to.
func wishes(t *testing.T, client netip.Addr) [][]byte {
	return [][]byte{
		natpmpAddress, pcpAnnounce, {0, 3}, {3, 0},
		pmp(1, 6001, 6001, 3600), pmp(2, 445, 44500, 3600), pmp(1, 0, 0, 0),
		pcpMap{client: client, internal: 6001, suggested: 6001}.octets(t),
		pcpMap{client: client, delete: true}.octets(t),
	}
}

// TestPortControlOnlyLAN: A1 to A6, PMP-22, PCP-46. Who is not a host of the LAN, or
// asks another address than the LAN's, meets silence, and changes nothing; no
// reply leaves by another interface than the one the request came in by.
func TestPortControlOnlyLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.50.0/24")); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	a := r.talker(t, "a")
	grant(t, a, 1, 6000)
	r.inhabit(t)
	before := r.World(t)
	leaves := watch(t, n)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, x := range []struct {
		id       string
		from     *lab.Host
		src, dst string // src "": the host's own
	}{
		{"A1", n.Internet, "", "203.0.113.5:5351"},
		{"A2", n.Internet, "", "192.168.77.1:5351"},
		{"A2/broadcast", n.Internet, "", "203.0.113.255:5351"},
		{"A2/all hosts", n.Internet, "", "224.0.0.1:5351"},
		{"A3", n.Internet, "192.168.77.10:40000", "203.0.113.5:5351"},
		{"A3/LAN address", n.Internet, "192.168.77.10:40000", "192.168.77.1:5351"},
		{"A4", n.Host("a"), "", "203.0.113.5:5351"},
		{"A4/broadcast", n.Host("a"), "", "192.168.77.255:5351"},
		{"A4/network", n.Host("a"), "", "192.168.77.0:5351"},
		{"A4/limited broadcast", n.Host("a"), "", "255.255.255.255:5351"},
		{"A4/all hosts", n.Host("a"), "", "224.0.0.1:5351"},
		{"A4/SSDP's group", n.Host("a"), "", "239.255.255.250:5351"},
		{"A5", n.Host("guest"), "", "192.168.50.1:5351"},
		{"A5/LAN address", n.Host("guest"), "", "192.168.77.1:5351"},
		{"A5/as a LAN host", n.Host("guest"), "192.168.77.10:40000", "192.168.77.1:5351"},
		{"A6", n.Host("a"), "10.9.9.9:40000", "192.168.77.1:5351"},
		{"A6/Internet host", n.Host("a"), "203.0.113.66:40000", "192.168.77.1:5351"},
		{"A6/guest", n.Host("a"), "192.168.50.10:40000", "192.168.77.1:5351"},
		{"A6/WAN address", n.Host("a"), "203.0.113.5:40000", "192.168.77.1:5351"},
		{"A6/gateway", n.Host("a"), "192.168.77.1:40000", "192.168.77.1:5351"},
		{"A6/broadcast", n.Host("a"), "192.168.77.255:40000", "192.168.77.1:5351"},
		{"A6/network", n.Host("a"), "192.168.77.0:40000", "192.168.77.1:5351"},
		{"A6/loopback", n.Host("a"), "127.0.0.1:40000", "192.168.77.1:5351"},
		{"A6/all hosts", n.Host("a"), "224.0.0.1:40000", "192.168.77.1:5351"},
		{"E5/port 0", n.Host("a"), "192.168.77.10:0", "192.168.77.1:5351"},
		{"E5/echo", n.Host("a"), "192.168.77.10:7", "192.168.77.1:5351"},
		{"E5/time", n.Host("a"), "192.168.77.10:19", "192.168.77.1:5351"},
		{"E5/name server", n.Host("a"), "192.168.77.10:53", "192.168.77.1:5351"},
	} {
		t.Run(x.id, func(t *testing.T) {
			leaves.sent(t)
			src := netip.AddrPortFrom(x.from.Addr, 40000)
			if x.src != "" {
				src = at(x.src)
			}
			for _, b := range wishes(t, src.Addr()) {
				forge(t, x.from, src, at(x.dst), b)
			}
			a.nothing(t)
			frames := leaves.sent(t)
			if len(frames) == 0 {
				t.Error("the good request's reply was not seen")
			}
			for _, f := range frames {
				toA := f.to.String() == a.conn.LocalAddr().String()
				if !strings.HasPrefix(f.ifname, "lan") && f.ifname != lab.Bridge || f.from != server || !toA && f.to != announced {
					t.Errorf("%v to %v by %s: % x", f.from, f.to, f.ifname, f.payload)
				}
			}
			r.Unchanged(t, before)
		})
	}
}

// TestPortControlUnseen: A1, PMP-23. From the WAN, ports 5350 and 5351 look as they
// do without the daemon, whatever is sent, and so they do from the LAN when both
// protocols are off.
func TestPortControlUnseen(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := errors.Join(n.Gateway.SetSysctl("ipv4/icmp_ratelimit", "0"), n.Gateway.SetSysctl("ipv4/icmp_ratemask", "0")); err != nil {
		t.Fatal(err)
	}
	look := func(h *lab.Host) map[string]string {
		seen := map[string]string{}
		for _, to := range []netip.Addr{lab.GatewayWAN, lab.GatewayLAN} {
			for _, port := range []uint16{5350, 5351} {
				for _, payload := range [][]byte{natpmpAddress, pcpAnnounce, pmp(1, 6001, 6001, 3600), []byte("hello"), {}} {
					key := fmt.Sprintf("%s:%d % x", to, port, payload)
					seen[key] = knock(t, h, netip.AddrPortFrom(to, port), payload)
				}
			}
		}
		return seen
	}
	outside, inside := look(n.Internet), look(n.Host("a"))
	r := startOn(t, n, noRates)
	if diff := cmp.Diff(outside, look(n.Internet)); diff != "" {
		t.Errorf("the WAN sees a difference (-without +with):\n%s", diff)
	}
	for to, want := range map[netip.Addr]string{lab.GatewayLAN: "answer", lab.GatewayWAN: "silence"} {
		if got := knock(t, n.Host("a"), netip.AddrPortFrom(to, 5351), natpmpAddress); got != want {
			t.Errorf("PMP-22: %s from the LAN: %s, want %s", to, got, want)
		}
	}
	if err := r.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	r = startOn(t, n, noRates+"[pcp]\nnatpmp = false\npcp = false\n")
	if diff := cmp.Diff(inside, look(n.Host("a"))); diff != "" {
		t.Errorf("PMP-23: the LAN sees a difference (-without +with):\n%s", diff)
	}
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Errorf("UPnP: %v", err)
	}
}

// TestPortControlOneProtocol: H3, I3, CHOICE-2 and CHOICE-3. With one protocol off, its
// requests are told of the version that there is.
func TestPortControlOneProtocol(t *testing.T) {
	t.Parallel()
	pcp := pcpMap{client: hostA}.octets(t)
	// The lifetime that is left when it is answered, which takes a slow machine a moment.
	for name, x := range map[string]struct {
		off     string
		replies map[string]string // by request
	}{
		"without NAT-PMP": {"natpmp", map[string]string{
			"0000":                       "02800001 00000708 ........ 00000000 00000000 00000000",
			"00010000 17701770 00000e10": "02810001 00000708 ........ ........ ........ ........",
			"0101":                       "02810001 00000708 ........ 00000000 00000000 00000000",
			fmt.Sprintf("%x", pcp):       "02810000 00000e.. ........" + strings.Repeat(".", 2*(len(pcp)-12)),
		}},
		"without PCP": {"pcp", map[string]string{
			"0200":                       "00800001 ........",
			"0101":                       "00810001 ........",
			"ff02":                       "00820001 ........",
			fmt.Sprintf("%x", pcp):       "00810001 ........",
			"0000":                       "00800000 ........ cb007105",
			"00010000 17701770 00000e10": "00810000 ........ 17701770 00000e..",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, noRates+"[pcp]\n"+x.off+" = false\n")
			a := r.talker(t, "a")
			for request, want := range x.replies {
				// Their epochs stand at different places, and receive does not
				// know which reply is which.
				a.epoch = 0
				if reply := a.ask(t, octets(t, request)); !like(reply, want) {
					t.Errorf("% s was answered % x", request, reply)
				}
			}
			if list := r.List(t); len(list) != 1 || list[0].Via == x.off {
				t.Errorf("mapped: %+v", list)
			}
		})
	}
}

// TestPortControlAnyTTL: A10.
func TestPortControlAnyTTL(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	a := r.talker(t, "a")
	for _, ttl := range []int{1, 2, 4, 64, 128, 255} {
		setTTL(t, a.conn, ttl)
		if result, _ := a.mapping(t, 1, 6000+uint16(ttl), 0, 3600); result != 0 {
			t.Errorf("TTL %d: result %d", ttl, result)
		}
	}
}

// TestPortControlExtraPrefix: A6. The owner may name a routed network, whose
// hosts are then served like others.
func TestPortControlExtraPrefix(t *testing.T) {
	t.Parallel()
	r, host := startRouted(t, "10.9.9.0/24", "")
	c := talk(t, host)
	if reply := c.ask(t, natpmpAddress); !like(reply, "00800000 ........ cb007105") {
		t.Errorf("answered % x", reply)
	}
	if result, port := c.mapping(t, 1, 6000, 6000, 3600); result != 0 || port != 6000 {
		t.Errorf("NAT-PMP: result %d, port %d", result, port)
	}
	if m := c.mapPCP(t, pcpMap{internal: 6001, suggested: 6001}); m.code != 0 || m.external.Port() != 6001 {
		t.Errorf("PCP: %+v", m)
	}
	for port := uint16(6000); port < 6002; port++ {
		if !r.Passes(t, "UDP", port, r.Host("a"), port) {
			t.Errorf("no packet arrives at port %d", port)
		}
	}
}

// TestForgottenNeighbour: a host that the kernel has forgotten is answered at its
// first request, and known by its MAC; one that does not exist gets nothing.
func TestForgottenNeighbour(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.talker(t, "a")
	for i := range uint16(5) {
		r.forget(t, hostA)
		grant(t, a, 1, 6000+2*i)
		r.forget(t, hostA)
		if m := a.mapPCP(t, pcpMap{internal: 6001 + 2*i, suggested: 6001 + 2*i}); m.code != 0 {
			t.Errorf("PCP: %+v", m)
		}
	}
	list := r.List(t)
	for _, m := range list {
		if m.ClientMAC != r.Host("a").MAC.String() {
			t.Errorf("recorded: %+v", m)
		}
	}
	if len(list) != 10 {
		t.Errorf("%d mappings", len(list))
	}
	before := r.World(t)
	for i := range byte(40) { // more than may wait
		nobody := netip.AddrFrom4([4]byte{192, 168, 77, 100 + i})
		forge(t, r.Host("b"), netip.AddrPortFrom(nobody, 40000), server, pmp(1, 7000+uint16(i), 7000+uint16(i), 3600))
		if i%10 == 0 {
			a.nothing(t)
		}
	}
	a.nothing(t)
	r.Unchanged(t, before)
}

// TestPortControlFlood: section 3.7, K4. Whatever one host sends, as fast as it
// can with its own address, or a thousand a second with addresses that nobody
// has, another is answered at once, and the log stays bounded.
func TestPortControlFlood(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		forged   bool
		requests [][]byte
	}{
		"its own address":    {false, wishes(t, hostB)},
		"forged, to map":     {true, [][]byte{pmp(1, 8000, 8000, 3600), pcpMap{internal: 8000}.octets(t)}},
		"forged, to be told": {true, [][]byte{natpmpAddress, pcpAnnounce, {0, 3}, {3, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, "[log]\nlevel = \"debug\"\n")
			a := r.talker(t, "a")
			grant(t, a, 1, 6000)
			began := time.Now()
			stop := r.flood(t, x.forged, x.requests)
			for i := range uint16(10) {
				ask, cancel := context.WithTimeout(t.Context(), soon)
				reply, err := r.Host("a").Exchange(ask, lab.GatewayLAN, pmp(1, 6000+i, 6000+i, 3600))
				cancel()
				if err != nil || reply[3] != 0 {
					t.Errorf("request %d during the flood: % x, %v", i, reply, err)
				}
			}
			stop()
			a.nothing(t) // all that was sent has been looked at
			log, seconds := r.Daemon.Log(), int(time.Since(began)/time.Second)+1
			if lines, most := strings.Count(log, "subsystem=pcp"), 10*(seconds+1); lines > most || lines == 0 {
				t.Errorf("%d lines about datagrams in %d s, want at most %d", lines, seconds, most)
			}
			for _, m := range r.List(t) {
				if m.InternalIP != hostA.String() && m.InternalIP != hostB.String() {
					t.Errorf("mapped for a host that does not exist: %+v", m)
				}
			}
		})
	}
}

// flood has host b send until stop is called, and returns when it has sent much.
func (r *rig) flood(t *testing.T, forged bool, requests [][]byte) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pace, much := time.NewTicker(time.Millisecond), 2000
	if forged {
		much = 500
	}
	enough, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for sent := 0; ctx.Err() == nil; sent++ {
			if sent == much {
				close(enough)
			}
			src := hostB
			if forged {
				src = netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + sent%150)})
				<-pace.C
			}
			_ = tryForge(r.Host("b"), netip.AddrPortFrom(src, 40000), server, requests[sent%len(requests)]) // a full queue is no matter
		}
	}()
	<-enough
	return func() {
		cancel()
		<-ended
		pace.Stop()
	}
}
