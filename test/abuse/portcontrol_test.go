package abuse

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/lab"
)

// ask sends a datagram to port 5351 of the gateway and then an address request,
// whose answer ends the waiting; nil is silence. Answers must come from the very
// address and port that were asked.
func ask(t *testing.T, h *lab.Host, to netip.Addr, payload []byte) []byte {
	t.Helper()
	conn, err := h.ListenPacket(hostPort(h.Addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, x := range []struct {
		to      netip.Addr
		payload []byte
	}{{to, payload}, {lab.GatewayLAN, natpmpAddress}} {
		if _, err := conn.WriteToUDPAddrPort(x.payload, netip.AddrPortFrom(x.to, 5351)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("not even the address request was answered: %v", err)
	}
	if want := netip.AddrPortFrom(lab.GatewayLAN, 5351); from != want {
		t.Errorf("answered from %v, want %v", from, want)
	}
	if n == 12 && buf[0] == 0 && buf[1] == 0x80 {
		return nil
	}
	return buf[:n]
}

// mapPCP is a MAP request of a host (RFC 6887 section 11.1).
func mapPCP(h *lab.Host, protocol byte, internal, external uint16, lifetime uint32, options ...byte) []byte {
	client := h.Addr.As16()
	b := binary.BigEndian.AppendUint32([]byte{2, 1, 0, 0}, lifetime)
	b = append(b, client[:]...)
	b = append(b, secret...)
	b = append(b, protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0)
	return append(b, options...)
}

// secret is the nonce of our requests.
var secret = []byte("open \xf0\x9f\x9a\xaa!!!")

// mapNATPMP is a mapping request (RFC 6886 section 3.3).
func mapNATPMP(op byte, internal, external uint16, lifetime uint32) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, op, 0, 0}, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	return binary.BigEndian.AppendUint32(b, lifetime)
}

// filter is a FILTER option (RFC 6887 section 13.3).
func filter(prefix string, port uint16) []byte {
	p := netip.MustParsePrefix(prefix)
	a := p.Addr().As16()
	b := []byte{3, 0, 0, 20, 0, byte(p.Bits() + 96), byte(port >> 8), byte(port)}
	return append(b, a[:]...)
}

// TestRefusedOnPort5351: H1 to H8, I1 to I15 in the whole program. What is
// refused, or not understood, changes nothing in the kernel or in the list.
func TestRefusedOnPort5351(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.Host("a"), r.Host("b")
	if _, err := b.MapNATPMP(contextOf(t), "UDP", 7000, 7000, time.Hour); err != nil {
		t.Fatal(err)
	}
	before := r.world(t)
	long := mapPCP(a, 17, 6000, 0, 3600)
	header := long[:24]
	another := func(addr netip.Addr) []byte {
		m, as := mapPCP(a, 17, 6000, 0, 3600), addr.As16()
		copy(m[8:24], as[:])
		return m
	}
	version := func(v byte) []byte { m := mapPCP(a, 17, 6000, 0, 3600); m[0] = v; return m }
	opcode := func(o byte) []byte { m := mapPCP(a, 17, 6000, 0, 3600); m[1] = o; return m }
	victim := b.Addr.As16()
	thirdParty := append([]byte{1, 0, 0, 16}, victim[:]...)
	for _, x := range []struct {
		id      string
		request []byte
		want    string // "silence", "N" and a NAT-PMP result, "P" and a PCP result
	}{
		{"H1/empty", nil, "silence"},
		{"H1/one octet", []byte{0}, "silence"},
		{"H1/eleven octets", mapNATPMP(1, 6000, 6000, 3600)[:11], "silence"},
		{"H2/a reply", mapNATPMP(0x81, 6000, 6000, 3600), "silence"},
		{"H3/version 1", mapNATPMP(1, 6000, 6000, 3600)[:2:2], "silence"},
		{"H3/version 255", []byte{255, 1}, "P1"},
		{"H4/opcode 3", []byte{0, 3}, "N5"},
		{"H4/opcode 127", mapNATPMP(127, 6000, 6000, 3600), "N5"},
		{"H5/internal port 0", mapNATPMP(1, 0, 6000, 3600), "N2"},
		{"H6/internal port 445", mapNATPMP(2, 445, 6000, 3600), "N2"},
		{"H6/internal port 139, UDP", mapNATPMP(1, 139, 6000, 3600), "N2"},
		{"H7/delete all, nothing of ours", mapNATPMP(1, 0, 0, 0), "N0"},
		{"H8/delete what is another's", mapNATPMP(1, 7000, 7000, 0), "N0"},
		{"I1/23 octets", header[:23], "silence"},
		{"I1/25 octets", append(header[:24:24], 0), "P3"},
		{"I1/a header", header, "P3"},
		{"I1/1104 octets", append(mapPCP(a, 17, 6000, 0, 3600), make([]byte, 1044)...), "P3"},
		{"I2/a reply", opcode(0x81), "silence"},
		{"I3/version 1", version(1), "P1"},
		{"I3/version 3", version(3), "P1"},
		{"I4/another host", another(b.Addr), "P12"},
		{"I4/nobody", another(netip.IPv6Unspecified()), "P12"},
		{"I5/third party", mapPCP(a, 17, 6000, 0, 3600, thirdParty...), "P5"},
		{"I5/third party, twice", mapPCP(a, 17, 6000, 0, 3600, append(thirdParty, thirdParty...)...), "P6"},
		{"I6/past the end", mapPCP(a, 17, 6000, 0, 3600, 3, 0, 1, 0x90), "P6"},
		{"I6/unknown", mapPCP(a, 17, 6000, 0, 3600, 80, 0, 0, 0), "P5"},
		{"I7/a filter of IPv6", mapPCP(a, 17, 6000, 0, 3600, append([]byte{3, 0, 0, 20, 0, 128, 0, 0, 0x20, 1}, make([]byte, 14)...)...), "P6"},
		{"I8/the port of another", mapPCP(a, 17, 6000, 7000, 3600, 2, 0, 0, 0), "P11"},
		{"I8/a port that is never mapped", mapPCP(a, 6, 6000, 445, 3600, 2, 0, 0, 0), "P11"},
		{"P37/the port of NAT-PMP", mapPCP(a, 17, 6000, 5351, 3600, 2, 0, 0, 0), "P11"},
		{"B2/internal port 445", mapPCP(a, 6, 445, 0, 3600), "P2"},
		{"I10/delete all", mapPCP(a, 0, 0, 0, 0), "P0"},
		{"I11/protocol 0 with a port", mapPCP(a, 0, 6000, 0, 3600), "P3"},
		{"I12/all ports", mapPCP(a, 17, 0, 0, 3600), "P9"},
		{"I12/all protocols", mapPCP(a, 0, 0, 0, 3600), "P9"},
		{"I13/GRE", mapPCP(a, 47, 6000, 0, 3600), "P9"},
		{"I15/PEER", append(opcode(2), make([]byte, 20)...), "P4"},
		{"I15/AUTHENTICATION", opcode(3), "P4"},
		{"delete what is another's", mapPCP(a, 17, 7000, 7000, 0), "P0"},
	} {
		t.Run(x.id, func(t *testing.T) {
			got := "silence"
			if reply := ask(t, a, lab.GatewayLAN, x.request); len(reply) >= 8 {
				got = fmt.Sprintf("N%d", binary.BigEndian.Uint16(reply[2:]))
				if reply[0] == 2 {
					got = fmt.Sprintf("P%d", reply[3])
				}
			}
			if got != x.want {
				t.Errorf("answered %s, want %s", got, x.want)
			}
			r.unchanged(t, before)
		})
	}
	if reply := ask(t, a, lab.GatewayLAN, mapPCP(a, 17, 6000, 0, 3600)); len(reply) != 60 || reply[3] != 0 {
		t.Errorf("the unspoilt request got % x: the cases above prove nothing", reply)
	}
}

func contextOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestSilentOnPort5351: A3, A4, A6, N22, P46. Nobody but a host of the LAN that
// asks the LAN address gets an answer, and nothing opens.
func TestSilentOnPort5351(t *testing.T) {
	t.Parallel()
	n := network(t, "a", "b")
	routed := netip.MustParseAddr("10.9.9.9")
	route(t, n, routed)
	r := startOn(t, n, noRates)
	before := r.world(t)
	a := r.Host("a")
	off := *a
	off.Addr = routed
	payloads := [][]byte{natpmpAddress, pcpAnnounce, mapNATPMP(1, 6000, 6000, 3600), mapPCP(a, 17, 6000, 0, 3600), mapPCP(&off, 17, 6000, 0, 3600)}
	for _, payload := range payloads {
		spoof(t, r.Internet, netip.AddrPortFrom(a.Addr, 40000), netip.AddrPortFrom(lab.GatewayLAN, 5351), payload)
	}
	for _, x := range []struct {
		id   string
		host *lab.Host
		from netip.Addr
		to   string
	}{
		{"P46/from the WAN, to the external address", r.Internet, lab.InternetOne, "203.0.113.5"},
		{"A2/from the WAN, to the LAN address", r.Internet, lab.InternetOne, "192.168.77.1"},
		{"N22/A4/to the external address", a, a.Addr, "203.0.113.5"},
		{"A4/to the broadcast address", a, a.Addr, "192.168.77.255"},
		{"A4/to a group", a, a.Addr, "224.0.0.1"},
		{"A6/off link", a, routed, "192.168.77.1"},
	} {
		t.Run(x.id, func(t *testing.T) {
			conn, err := x.host.ListenPacket(hostPort(x.from, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, payload := range payloads {
				// An ICMP error for the one before is no answer of ours.
				_, _ = conn.WriteToUDPAddrPort(payload, netip.AddrPortFrom(netip.MustParseAddr(x.to), 5351))
			}
			_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			buf := make([]byte, 2048)
			if n, from, err := conn.ReadFromUDPAddrPort(buf); err == nil {
				t.Errorf("%v answers % x", from, buf[:n])
			}
		})
	}
	r.unchanged(t, before)
	if reply := ask(t, a, lab.GatewayLAN, payloads[2]); len(reply) != 16 || reply[3] != 0 {
		t.Errorf("the same from where it may come: % x", reply)
	}
}

// TestOneTable: C44, N7, N8, digest 6A. A port that one language holds is a
// conflict in the others, and one host that asks in all of them has one mapping.
func TestOneTable(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.Host("a"), r.Host("b")
	ctx := contextOf(t)
	if port, err := a.MapNATPMP(ctx, "UDP", 6000, 6000, time.Hour); err != nil || port != 6000 {
		t.Fatalf("%d, %v", port, err)
	}
	if external, err := a.MapPCP(ctx, "UDP", 6000, 1234, time.Hour); err != nil || external.Port() != 6000 {
		t.Errorf("the same by PCP: %v, %v", external, err)
	}
	ca := r.v1(t, "a")
	if err := ca.Add(ctx, udp(6000, 6000)); err != nil {
		t.Errorf("the same by UPnP: %v", err)
	}
	if list := r.list(t); len(list) != 1 {
		t.Errorf("one thing asked for three times is %v", list)
	}

	r.refused(t, r.v1(t, "b"), udp(6000, 6000), 718)
	r.refused(t, r.v2(t, "b"), udp(6000, 6000), 718)
	before := r.world(t)
	if reply := ask(t, b, lab.GatewayLAN, mapPCP(b, 17, 6000, 6000, 3600, 2, 0, 0, 0)); len(reply) < 4 || reply[3] != 11 {
		t.Errorf("PREFER_FAILURE for a port that is taken: % x", reply)
	}
	r.unchanged(t, before)
	for name, port := range map[string]func() (uint16, error){
		"NAT-PMP":           func() (uint16, error) { return b.MapNATPMP(ctx, "UDP", 6000, 6000, time.Hour) },
		"N7/the other half": func() (uint16, error) { return b.MapNATPMP(ctx, "TCP", 6000, 6000, time.Hour) },
		"PCP": func() (uint16, error) {
			external, err := b.MapPCP(ctx, "UDP", 6001, 6000, time.Hour)
			return external.Port(), err
		},
	} {
		if got, err := port(); err != nil || got == 6000 || got == 0 {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if port, err := a.MapNATPMP(ctx, "TCP", 6000, 6000, time.Hour); err != nil || port != 6000 {
		t.Errorf("N8: %d, %v", port, err)
	}

	// Each language lets go of its own claim only.
	for _, request := range [][]byte{mapNATPMP(1, 0, 0, 0), mapNATPMP(2, 0, 0, 0), mapPCP(a, 17, 6000, 0, 0)} {
		if !r.passes(t, "UDP", 6000, a, 6000) {
			t.Error("what another language asked for is closed")
		}
		ask(t, a, lab.GatewayLAN, request)
	}
	if !r.passes(t, "UDP", 6000, a, 6000) {
		t.Error("what UPnP asked for is closed")
	}
	if err := ca.Delete(ctx, 6000, "UDP"); err != nil || !r.blocked(t, "UDP", 6000, a, 6000) {
		t.Errorf("the last language let go, and it is open still (%v)", err)
	}
}

// TestNonces: I9, P4, and that a nonce is shown to nobody.
func TestNonces(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		policy string
		want   byte // to a renewal with another nonce
	}{{"same-client", 0}, {"strict", 2}} {
		t.Run(x.policy, func(t *testing.T) {
			t.Parallel()
			n := network(t, "a")
			r := startOn(t, n, noRates+"[pcp]\nnonce = \""+x.policy+"\"\n[log]\nlevel = \"debug\"\n")
			a := r.Host("a")
			request := mapPCP(a, 17, 6000, 6000, 3600)
			if reply := ask(t, a, lab.GatewayLAN, request); len(reply) != 60 || reply[3] != 0 {
				t.Fatalf("% x", reply)
			}
			before := r.world(t)
			for _, lifetime := range []uint32{3600, 0} {
				other := mapPCP(a, 17, 6000, 6000, lifetime)
				other[24] ^= 1
				reply := ask(t, a, lab.GatewayLAN, other)
				if len(reply) != 60 || reply[3] != x.want {
					t.Errorf("another nonce, for %d s: % x", lifetime, reply)
				}
				if left := binary.BigEndian.Uint32(reply[4:]); x.want != 0 && (left < 3590 || left > 3600) {
					t.Errorf("the mapping is said to last %d s", left)
				}
			}
			if x.want != 0 {
				r.unchanged(t, before)
			} else if len(r.list(t)) != 0 {
				t.Error("the same client cannot delete")
			}
			for where, text := range map[string]string{
				"the log": r.daemon.Log(), "the ruleset": r.ruleset(t), "the list": fmt.Sprintf("%+v", r.list(t)),
			} {
				for _, form := range []string{string(secret), hex.EncodeToString(secret), fmt.Sprint(secret), fmt.Sprintf("%q", secret), fmt.Sprintf("% x", secret)} {
					if strings.Contains(text, strings.Trim(form, "[]\"")) {
						t.Errorf("the nonce is in %s", where)
					}
				}
			}
		})
	}
}

// TestSwitchedOff: N23, H3. A language that is switched off says so in the
// other's words; with both off the port is closed.
func TestSwitchedOff(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ off, request, want string }{
		{"natpmp = false", "0000", "0280000100000708"},
		{"pcp = false", "02010000", "00810001"},
		{"pcp = false\nnatpmp = false", "0000", "connection refused"},
	} {
		t.Run(x.off, func(t *testing.T) {
			t.Parallel()
			n := network(t, "a")
			r := startOn(t, n, "[pcp]\n"+x.off+"\n")
			request, err := hex.DecodeString(x.request)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := r.Host("a").Dial(contextOf(t), "udp4", hostPort(lab.GatewayLAN, 5351))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(request); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			buf := make([]byte, 100)
			size, err := conn.Read(buf)
			got := hex.EncodeToString(buf[:size])
			if errors.Is(err, syscall.ECONNREFUSED) {
				got = "connection refused"
			}
			if !strings.HasPrefix(got, x.want) {
				t.Errorf("answered %s (%v), want %s", got, err, x.want)
			}
		})
	}
}

// TestFiltersHold: P23, P54, B10. A FILTER is enforced with real packets.
func TestFiltersHold(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.Host("a")
	reaches := func(from netip.Addr) bool { return probeFrom(t, r, from, 6000, 6000) }
	for _, x := range []struct {
		name     string
		options  []byte
		one, two bool
	}{
		{"one host", filter("203.0.113.67/32", 0), false, true},
		{"and a network around both", filter("203.0.113.64/26", 0), true, true},
		{"forgotten, and another network", append(append([]byte{3, 0, 0, 20}, make([]byte, 20)...), filter("203.0.113.66/32", 0)...), true, false},
		{"forgotten, and a source port", append(append([]byte{3, 0, 0, 20}, make([]byte, 20)...), filter("203.0.113.64/26", 1)...), false, false},
		{"forgotten", append([]byte{3, 0, 0, 20}, make([]byte, 20)...), true, true},
	} {
		reply := ask(t, a, lab.GatewayLAN, mapPCP(a, 17, 6000, 6000, 3600, x.options...))
		if len(reply) != 60+len(x.options) || reply[3] != 0 || binary.BigEndian.Uint16(reply[42:]) != 6000 {
			t.Fatalf("%s: % x", x.name, reply)
		}
		if one, two := reaches(lab.InternetOne), reaches(lab.InternetTwo); one != x.one || two != x.two {
			t.Errorf("%s: %v from one host and %v from the other, want %v and %v", x.name, one, two, x.one, x.two)
		}
	}
}

// TestUnknownNeighbour: a host that the kernel has forgotten is answered, and
// known by its MAC.
func TestUnknownNeighbour(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	a := r.Host("a")
	ask(t, a, lab.GatewayLAN, natpmpAddress) // so that a knows the gateway
	on(t, r.Gateway, "ip", "neigh", "flush", "all")
	conn, err := a.ListenPacket(hostPort(a.Addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort(mapPCP(a, 17, 6000, 6000, 3600), netip.AddrPortFrom(lab.GatewayLAN, 5351)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, _, err := conn.ReadFromUDPAddrPort(make([]byte, 100)); err != nil || n != 60 {
		t.Fatalf("%d octets, %v", n, err)
	}
	if list := r.list(t); len(list) != 1 || list[0].ClientMAC != a.MAC.String() {
		t.Errorf("listed %+v", list)
	}
}

// TestAnnouncements: N26, P32, P53, H11. At the start, and when the external
// address changes, the LAN is told in both languages, the WAN never.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	n := network(t, "a")
	lan, wan := hear(t, n.Host("a")), hear(t, n.Internet)
	r := startOn(t, n, "")
	a := r.Host("a")
	told := func(address string) {
		t.Helper()
		var natpmp, pcp bool
		for !natpmp || !pcp {
			select {
			case s := <-lan:
				epoch := 4
				switch {
				case strings.HasPrefix(s, "00800000") && strings.HasSuffix(s, address) && len(s) == 24:
					natpmp = true
				case strings.HasPrefix(s, "0280000000000000") && len(s) == 48:
					pcp, epoch = true, 8
				default:
					continue // of the series before
				}
				if text := s[2*epoch : 2*epoch+6]; text != "000000" { // within four minutes of its beginning
					t.Errorf("the epoch is not new: %s", s)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("not announced: NAT-PMP %v, PCP %v", natpmp, pcp)
			}
		}
	}
	told("cb007105")
	if _, err := a.MapNATPMP(contextOf(t), "UDP", 6000, 6000, time.Hour); err != nil {
		t.Fatal(err)
	}
	on(t, n.Gateway, "ip", "addr", "del", "203.0.113.5/24", "dev", "wan0")
	eventually(t, 10*time.Second, "N2/there is no address", func() bool {
		reply, err := a.Exchange(contextOf(t), lab.GatewayLAN, natpmpAddress)
		return err == nil && hex.EncodeToString(reply[2:4])+hex.EncodeToString(reply[8:]) == "000300000000"
	})
	var refusal *lab.Refusal
	if _, err := a.MapPCP(contextOf(t), "UDP", 6001, 6001, time.Hour); !errors.As(err, &refusal) || refusal.Code != 7 {
		t.Errorf("P45: %v", err)
	}
	if _, err := a.MapNATPMP(contextOf(t), "UDP", 6001, 6001, time.Hour); !errors.As(err, &refusal) || refusal.Code != 3 {
		t.Errorf("I17: %v", err)
	}
	on(t, n.Gateway, "ip", "addr", "add", "203.0.113.9/24", "dev", "wan0")
	on(t, n.Gateway, "ip", "route", "add", "default", "via", "203.0.113.66")
	told("cb007109")
	if external, err := a.MapPCP(contextOf(t), "UDP", 6000, 6000, time.Hour); err != nil || external.String() != "203.0.113.9:6000" {
		t.Errorf("P53: %v, %v", external, err)
	}
	select {
	case s := <-wan:
		t.Errorf("H11: the WAN heard %s", s)
	default:
	}
}

// hear gives what comes to port 5350 of a host, in hex.
func hear(t *testing.T, h *lab.Host) <-chan string {
	t.Helper()
	conn, err := h.ListenPacket("0.0.0.0:5350")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 256)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && from == netip.AddrPortFrom(lab.GatewayLAN, 5351) || from.Addr() == lab.GatewayWAN {
				heard <- hex.EncodeToString(buf[:n])
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return heard
}
