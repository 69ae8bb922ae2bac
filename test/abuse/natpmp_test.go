package abuse

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestNATPMPRefusals: section H. What is refused, or meets silence, changes
// nothing in the kernel or the table.
func TestNATPMPRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.talker(t, "a"), r.talker(t, "b")
	grant(t, a, 1, 6000)
	grant(t, a, 2, 6001)
	grant(t, b, 1, 7000)
	r.inhabit(t)
	before := r.World(t)
	for _, x := range []struct {
		id      string
		from    *talker
		request string
		want    string // "": silence
	}{
		{"H1/empty", a, "", ""},
		{"H1/one octet", a, "00", ""},
		{"H1/two octets of a mapping", a, "0001", ""},
		{"H1/eleven octets", a, "00010000 17711771 00000e", ""},
		{"H1/a kilobyte behind", a, "00010000 17711771 00000e10" + strings.Repeat("00", 1024), ""},
		{"D2/a web page's STUN request", a, "00010000 2112a442 00000e10 00000e10 00000e10", ""},
		{"H2/reply to an address request", a, "0080 0000 00000000 cb007105", ""},
		{"H2/reply to a mapping", a, "00810000 00000000 17711771 00000e10", ""},
		{"H2/opcode 255", a, "00ff", ""},
		{"H3/version 1", a, "0101", "02810001 00000708 ........ 00000000 00000000 00000000"},
		{"H3/version 3", a, "0300", "02800001 00000708 ........ 00000000 00000000 00000000"},
		{"H3/version 255, a mapping", a, "ff010000 17711771 00000e10", "02810001 00000708 ........ ........ ........ ........"},
		{"H4/opcode 3", a, "0003", "00830005 ........"},
		{"H4/opcode 127", a, "007f0000 17711771 00000e10", "00ff0005 ........"},
		{"H5/internal port 0", a, "00010000 00001771 00000e10", "00810002 ........ 00000000 00000000"},
		{"H6/SMB", a, "00020000 01bd1771 00000e10", "00820002 ........ 01bd0000 00000000"},
		{"H6/NetBIOS", a, "00010000 00891771 00000e10", "00810002 ........ 00890000 00000000"},
		{"H6/SSH", a, "00020000 00161771 00000e10", "00820002 ........ 00160000 00000000"},
		{"H6/remote desktop", a, "00020000 0d3d1771 00000e10", "00820002 ........ 0d3d0000 00000000"},
		{"H7/everything, but a port is named", a, "00010000 00001770 00000000", "00810002 ........ 00000000 00000000"},
		{"H8/nothing to delete", a, "00010000 17750000 00000000", "00810000 ........ 17750000 00000000"},
		{"H8/nothing to delete, again", a, "00010000 17750000 00000000", "00810000 ........ 17750000 00000000"},
		{"H8/of the other protocol", a, "00020000 17700000 00000000", "00820000 ........ 17700000 00000000"},
		{"C3/another host's", b, "00010000 17701770 00000000", "00810000 ........ 17700000 00000000"},
		{"C3/all of another host's", b, "00020000 00000000 00000000", "00820000 ........ 00000000 00000000"},
	} {
		t.Run(x.id, func(t *testing.T) {
			if request := octets(t, x.request); x.want == "" {
				x.from.silent(t, request)
			} else if reply := x.from.ask(t, request); !like(reply, x.want) {
				t.Errorf("answered % x, want %s", reply, x.want)
			}
			r.Unchanged(t, before)
		})
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a's mapping no longer works")
	}
}

// grant asks by NAT-PMP for a port, the same inside and outside, and must get it.
func grant(t *testing.T, c *talker, op byte, port uint16) {
	t.Helper()
	if result, got := c.mapping(t, op, port, port, 3600); result != 0 || got != port {
		t.Fatalf("port %d: result %d, port %d", port, result, got)
	}
}

// ports returns what the owner sees, a line each.
func (r *rig) ports(t *testing.T) (lines []string) {
	t.Helper()
	for _, m := range r.List(t) {
		lines = append(lines, fmt.Sprintf("%s %d -> %s:%d", m.Protocol, m.ExternalPort, m.InternalIP, m.InternalPort))
	}
	slices.Sort(lines)
	return lines
}

// elements counts the elements by which the gateway's kernel leads an external
// port to a host, whoever sends.
func (r *rig) elements(t *testing.T, protocol string, port uint16) int {
	t.Helper()
	held := testrig.On(t, r.Gateway, "nft", "list", "map", "inet", "portcullis", "mapped")
	return strings.Count(held, fmt.Sprintf(" %s . %d ", protocol, port))
}

// TestNATPMPGrants: what is granted works, as often as it is asked for.
func TestNATPMPGrants(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.talker(t, "a")
	t.Run("H6/denied external port", func(t *testing.T) {
		result, port := a.mapping(t, 2, 6445, 445, 3600)
		if result != 0 || port < 1024 || !r.Passes(t, "TCP", port, r.Host("a"), 6445) {
			t.Errorf("result %d, port %d", result, port)
		}
	})
	grant(t, a, 1, 6000)
	before := r.World(t)
	// The lifetime that is left when it is answered, which takes a slow machine a moment.
	for id, request := range map[string]string{
		"PMP-5/repeated":           "00010000 17701770 00000e10",
		"PMP-5/another suggestion": "00010000 1770270f 00000e10",
		"PMP-19/reserved octets":   "0001ffff 17701770 00000e10",
	} {
		t.Run(id, func(t *testing.T) {
			if reply := a.ask(t, octets(t, request)); !like(reply, "00810000 ........ 17701770 00000e..") {
				t.Errorf("answered % x", reply)
			}
			r.Renewed(t, before)
		})
	}
	t.Run("PCP-40/two at once", func(t *testing.T) {
		for range 2 {
			a.send(t, server, pmp(1, 6002, 6000, 3600))
		}
		first, second := a.receive(t, soon), a.receive(t, soon)
		if first == nil || second == nil || string(first[8:14]) != string(second[8:14]) {
			t.Errorf("% x and % x", first, second)
		}
		if list := r.ports(t); len(list) != 3 {
			t.Errorf("mapped: %q", list)
		}
	})
	t.Run("PMP-20/longest lease", func(t *testing.T) {
		if result, port := a.mapping(t, 1, 6003, 6003, 1<<32-1); result != 0 || port != 6003 {
			t.Fatalf("result %d, port %d", result, port)
		}
		i := slices.IndexFunc(r.List(t), func(m control.Mapping) bool { return m.ExternalPort == 6003 })
		if i < 0 || r.List(t)[i].ExpiresIn > 604800 {
			t.Errorf("listed: %+v", r.List(t))
		}
	})
	t.Run("PMP-25/lease ends", func(t *testing.T) {
		if result, port := a.mapping(t, 1, 6004, 6004, 5); result != 0 || port != 6004 {
			t.Fatalf("result %d, port %d", result, port)
		}
		if n := r.elements(t, "udp", 6004); n != 1 {
			t.Errorf("%d elements in the kernel", n)
		}
		testrig.Eventually(t, soon, "the lease ends", func() bool { return r.elements(t, "udp", 6004) == 0 })
		if result, port := r.talker(t, "b").mapping(t, 1, 6004, 6004, 3600); result != 0 || port == 6004 {
			t.Errorf("another host at once: result %d, port %d", result, port)
		}
		grant(t, a, 1, 6004)
	})
}

// TestNATPMPDeletesAll: H7. A delete-all ends the caller's own mappings of one
// transport in this protocol, and nothing else; C8, with their connections.
func TestNATPMPDeletesAll(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.talker(t, "a"), r.talker(t, "b")
	for op := byte(1); op <= 2; op++ {
		grant(t, a, op, 6000)
		grant(t, b, op, 7000)
	}
	for _, m := range []lab.Mapping{udp(6100, 6100), tcp(6100, 6100, "")} {
		if err := r.v1(t, "a").Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if m := a.mapPCP(t, pcpMap{internal: 6200, suggested: 6200}); m.code != 0 || m.external.Port() != 6200 {
		t.Fatalf("PCP: %+v", m)
	}
	through := r.flow(t, "a", 6000)
	others := []string{
		"tcp 6100 -> 192.168.77.10:6100", "tcp 7000 -> 192.168.77.20:7000",
		"udp 6100 -> 192.168.77.10:6100", "udp 6200 -> 192.168.77.10:6200", "udp 7000 -> 192.168.77.20:7000",
	}
	for i, want := range [][]string{append([]string{"tcp 6000 -> 192.168.77.10:6000"}, others...), others} {
		if i == 1 && !through.alive() {
			t.Error("the end of UDP mappings ended a TCP connection")
		}
		reply := a.ask(t, pmp(byte(i+1), 0, 0, 0))
		if pattern := fmt.Sprintf("008%d0000 ........ 00000000 00000000", i+1); !like(reply, pattern) {
			t.Errorf("opcode %d was answered % x", i+1, reply)
		}
		if got := r.ports(t); !slices.Equal(got, want) {
			t.Errorf("after opcode %d: %q, want %q", i+1, got, want)
		}
	}
	testrig.Eventually(t, soon, "the connection ends", through.dead)
	if n := r.elements(t, "udp", 6000) + r.elements(t, "tcp", 6000); n != 0 {
		t.Errorf("%d elements left in the kernel", n)
	}
	for port, host := range map[uint16]string{6100: "a", 6200: "a", 7000: "b"} {
		if !r.Passes(t, "UDP", port, r.Host(host), port) {
			t.Errorf("port %d no longer works", port)
		}
	}
	grant(t, a, 2, 6005)
	through = r.flow(t, "a", 6005)
	for range 2 { // H8
		if result, _ := a.mapping(t, 2, 6005, 0, 0); result != 0 {
			t.Errorf("delete: result %d", result)
		}
	}
	testrig.Eventually(t, soon, "the connection of a deleted mapping ends", through.dead)
}

// TestSpoofedOnLAN: H9, C11. Who uses another's address on the LAN, from its own
// machine, opens and ends nothing, and nobody gets an answer (more in TestForgedSource);
// a machine that has taken an address over has no way to what its predecessor mapped.
func TestSpoofedOnLAN(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.talker(t, "a"), r.talker(t, "b")
	grant(t, a, 1, 6000)
	grant(t, b, 1, 7000)
	victim := netip.MustParseAddrPort(a.conn.LocalAddr().String())
	untouched := r.World(t)
	forge(t, r.Host("b"), victim, server, pmp(1, 6001, 6001, 3600))
	forge(t, r.Host("b"), victim, server, pmp(1, 6000, 0, 0))
	b.nothing(t)
	a.nothing(t)
	r.Unchanged(t, untouched, "C11", "H9")
	for _, m := range r.List(t)[:1] {
		if m.ClientMAC != r.Host("a").MAC.String() {
			t.Errorf("recorded: %+v", m)
		}
	}

	r.changeMAC(t, "a")
	if result, _ := a.mapping(t, 1, 4000, 0, 0); result != 0 { // the newcomer is heard of
		t.Errorf("delete nothing: result %d", result)
	}
	testrig.Eventually(t, soon, "C6: what the predecessor mapped is closed", func() bool { return r.List(t)[0].Suspended })
	before := r.World(t)
	if result, _ := a.mapping(t, 1, 6000, 0, 0); result != 0 {
		t.Errorf("delete: result %d", result)
	}
	if result, _ := a.mapping(t, 1, 0, 0, 0); result != 0 {
		t.Errorf("delete all: result %d", result)
	}
	if m := a.mapPCP(t, pcpMap{suggested: 6000, options: preferFailure}); m.code != 11 {
		t.Errorf("PCP, this port or nothing: %+v", m)
	}
	if m := a.mapPCP(t, pcpMap{delete: true}); m.code != 0 {
		t.Errorf("PCP delete: %+v", m)
	}
	r.Unchanged(t, before)
	if result, port := a.mapping(t, 1, 6000, 6000, 3600); result != 0 || port == 6000 {
		t.Errorf("the predecessor's port: result %d, port %d", result, port)
	}
}

// changeMAC puts another machine at the address of a host.
func (r *rig) changeMAC(t *testing.T, host string) {
	t.Helper()
	h := r.Host(host)
	eth, err := h.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Netlink().LinkSetHardwareAddr(eth, []byte{2, 0, 0, 77, 9, 9}); err != nil {
		t.Fatal(err)
	}
	r.forget(t, h.Addr)
}
