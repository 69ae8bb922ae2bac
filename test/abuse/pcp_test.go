package abuse

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

var (
	hostA = netip.MustParseAddr("192.168.77.10")
	hostB = netip.MustParseAddr("192.168.77.20")
	zero6 = netip.IPv6Unspecified()
)

// thirdParty is the option, and of a wrong size where that is not 16.
func thirdParty(a netip.Addr, size int) string {
	named := a.As16()
	return fmt.Sprintf("010000%02x%x", size, append(named[:], 0, 0, 0, 0)[:(size+3)&^3])
}

// startBeside is start on a gateway that has a service of its own on UDP.
func startBeside(t *testing.T, at string) *rig {
	t.Helper()
	n := testrig.Network(t, "a", "b")
	service, err := n.Gateway.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Close() })
	return startOn(t, n, noRates)
}

// TestPCPRefusals: section I. What is refused, or meets silence, changes nothing
// in the kernel or the table.
func TestPCPRefusals(t *testing.T) {
	t.Parallel()
	r := startBeside(t, "0.0.0.0:51820")
	a, b := r.talker(t, "a"), r.talker(t, "b")
	mine := pcpMap{suggested: 6000}
	for c, m := range map[*talker]pcpMap{a: mine, b: {internal: 7000, suggested: 7000, nonce: nonceTwo}} {
		if got := c.mapPCP(t, m); got.code != 0 || got.external.Port() != m.suggested {
			t.Fatalf("granted: %+v", got)
		}
	}
	r.inhabit(t)
	exactly := func(port uint16) pcpMap { return pcpMap{internal: 6001, suggested: port, options: preferFailure} }
	before := r.World(t)
	for _, x := range []struct {
		id   string
		from *talker
		m    pcpMap
		want byte
	}{
		{"I4/another host's address", a, pcpMap{client: hostB, internal: 6001}, 12},
		{"I4/another host's mapping", a, pcpMap{client: hostB, internal: 7000, nonce: nonceTwo, delete: true}, 12},
		{"I4/zero", a, pcpMap{client: zero6, internal: 6001}, 12},
		{"I4/zero, IPv4", a, pcpMap{client: netip.IPv4Unspecified(), internal: 6001}, 12},
		{"I4/external", a, pcpMap{client: lab.GatewayWAN, internal: 6001}, 12},
		{"I4/other family", a, pcpMap{client: netip.MustParseAddr("2001:db8::10"), internal: 6001}, 12},
		{"I5/neighbour", a, pcpMap{internal: 6001, options: thirdParty(hostB, 16)}, 5},
		{"I5/neighbour's mapping", a, pcpMap{internal: 7000, nonce: nonceTwo, delete: true, options: thirdParty(hostB, 16)}, 5},
		{"I5/gateway", a, pcpMap{internal: 6001, options: thirdParty(lab.GatewayLAN, 16)}, 5},
		{"I5/itself", a, pcpMap{internal: 6001, options: thirdParty(hostA, 16)}, 3},
		{"I5/length 4", a, pcpMap{internal: 6001, options: thirdParty(hostB, 4)}, 6},
		{"I5/length 15", a, pcpMap{internal: 6001, options: thirdParty(hostB, 15)}, 6},
		{"I5/length 20", a, pcpMap{internal: 6001, options: thirdParty(hostB, 20)}, 6},
		{"I5/twice", a, pcpMap{internal: 6001, options: thirdParty(hostB, 16) + thirdParty(hostB, 16)}, 6},
		{"I6/past the end", a, pcpMap{internal: 6001, options: "03000190"}, 6},
		{"I6/unknown mandatory", a, pcpMap{internal: 6001, options: "50000004 00000001"}, 5},
		{"PCP-43/I6/unknown after a good one", a, pcpMap{options: filterOption("203.0.113.66/32", 0) + "50000000"}, 5},
		{"I6/65 options", a, pcpMap{internal: 6001, options: strings.Repeat("c8000000", 65)}, 6},
		{"I7/filter of length 95", a, pcpMap{internal: 6001, options: "03000014 005f0000 00000000 00000000 0000ffff cb007142"}, 6},
		{"PCP-25/filter in a deletion", a, pcpMap{delete: true, options: filterOption("203.0.113.66/32", 0)}, 6},
		{"I8/taken", a, exactly(7000), 11},
		{"I8/its own, for something else", a, exactly(6000), 11},
		{"I8/denied", a, exactly(445), 11},
		{"I8/B8/the gateway listens", a, exactly(51820), 11},
		{"PCP-37/I8/5351", a, exactly(5351), 11},
		{"I8/has another", a, pcpMap{suggested: 6002, options: preferFailure}, 11},
		{"I8/port 0", a, exactly(0), 6},
		{"I8/length 4", a, pcpMap{internal: 6001, suggested: 6001, options: "02000004 00000000"}, 6},
		{"I10/all protocols", a, pcpMap{protocol: 255, internal: 1, delete: true}, 0}, // edited below
		{"I10/all ports", a, pcpMap{internal: 1, delete: true}, 0},
		{"I11/protocol 0", a, pcpMap{protocol: 255}, 3},
		{"I11/protocol 0, deletion", a, pcpMap{protocol: 255, delete: true}, 3},
		{"I12/all ports", a, pcpMap{internal: 1}, 9},
		{"I12/all protocols", a, pcpMap{protocol: 255, internal: 1}, 9},
		{"I13/ICMP", a, pcpMap{protocol: 1}, 9},
		{"I13/IPv6", a, pcpMap{protocol: 41}, 9},
		{"I13/GRE", a, pcpMap{protocol: 47}, 9},
		{"I13/SCTP", a, pcpMap{protocol: 132}, 9},
		{"I13/254", a, pcpMap{protocol: 254}, 9},
		{"I14/another address", a, pcpMap{internal: 6001, suggested: 6001, address: lab.InternetOne, options: preferFailure}, 11},
		{"I14/multicast", a, pcpMap{internal: 6001, suggested: 6001, address: netip.MustParseAddr("224.0.0.1"), options: preferFailure}, 11},
		{"I14/IPv6", a, pcpMap{internal: 6001, suggested: 6001, address: netip.MustParseAddr("2001:db8::1"), options: preferFailure}, 11},
		{"B2/SMB", a, pcpMap{protocol: 6, internal: 445, suggested: 44500}, 2},
		{"B2/SMB over UDP", a, pcpMap{internal: 445, suggested: 44500}, 2},
		{"B2/NetBIOS over UDP", a, pcpMap{internal: 139, suggested: 44500}, 2},
		{"B2/NetBIOS over TCP", a, pcpMap{protocol: 6, internal: 137, suggested: 44500}, 2},
		{"B2/SSH", a, pcpMap{protocol: 6, internal: 22, suggested: 44500}, 2},
		{"C3/another host's", b, pcpMap{delete: true}, 0},
	} {
		t.Run(x.id, func(t *testing.T) {
			if x.m.client == (netip.Addr{}) {
				x.m.client = x.from.host.Addr
			}
			request := x.m.octets(t)
			if x.m.protocol == 255 {
				request[36] = 0
			}
			if x.m.internal == 1 {
				request[40], request[41] = 0, 0
			}
			reply := x.from.ask(t, request)
			if reply[0] != 2 || reply[3] != x.want || len(reply) != len(request) {
				t.Errorf("answered % x, want code %d", reply, x.want)
			}
			r.Unchanged(t, before)
		})
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("a's mapping no longer works")
	}
}

// TestPCPMalformed: I1, I2, I3, I15, and a message cut off at every octet.
func TestPCPMalformed(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.talker(t, "a")
	r.inhabit(t)
	good := pcpMap{suggested: 6000, options: filterOption("203.0.113.66/32", 0)}.octets(t)
	first := func(octets ...byte) []byte { return append(octets, good[len(octets):]...) }
	before := r.World(t)
	for _, x := range []struct {
		id      string
		request []byte
		want    string // the first four octets of the reply; "": silence
		size    int
	}{
		{"I1/one octet", good[:1], "", 0},
		{"I1/1104 octets", append(good, make([]byte, 1104-len(good))...), "02810003", 1100},
		{"I1/1500 octets", append(good, make([]byte, 1500-len(good))...), "02810003", 1100},
		{"I2/announce", octets(t, "0280 0000 00000000 00000000 00000000 0000ffff c0a84d0a"), "", 0},
		{"I2/map", first(2, 0x81), "", 0},
		{"I3/version 1", first(1, 1), "02810001", len(good)},
		{"I3/version 3", first(3, 1), "02810001", len(good)},
		{"I3/version 255", first(255, 1), "02810001", len(good)},
		{"I15/PEER", first(2, 2), "02820004", len(good)},
		{"I15/AUTHENTICATION", first(2, 3), "02830004", len(good)},
		{"I15/opcode 4", first(2, 4), "02840004", len(good)},
		{"I15/opcode 127", first(2, 127), "02ff0004", len(good)},
	} {
		t.Run(x.id, func(t *testing.T) {
			if x.want == "" {
				a.silent(t, x.request)
			} else if reply := a.ask(t, x.request); len(reply) != x.size || !like(reply[:4], x.want) {
				t.Errorf("%d octets, % x", len(reply), reply[:4])
			}
			r.Unchanged(t, before)
		})
	}
	for n := range good {
		switch reply := []byte(nil); {
		case n < 24:
			a.silent(t, good[:n])
		case n == 60: // a whole one, without its option
		default:
			reply = a.ask(t, good[:n])
			if code := reply[3]; code != 3 && (code != 6 || n < 60) || len(reply) != (n+3)&^3 {
				t.Errorf("I1/%d octets: % x", n, reply[:4])
			}
		}
	}
	r.Unchanged(t, before)
}

// TestPCPGrants: what is odd but allowed works, with real packets.
func TestPCPGrants(t *testing.T) {
	t.Parallel()
	r := startBeside(t, "0.0.0.0:51820")
	a, b := r.talker(t, "a"), r.talker(t, "b")
	if m := b.mapPCP(t, pcpMap{internal: 7000, suggested: 7000}); m.code != 0 {
		t.Fatalf("b: %+v", m)
	}
	reserved := pcpMap{internal: 6108, suggested: 6108}.octets(t)
	reserved[2], reserved[3], reserved[37], reserved[38], reserved[39] = 255, 255, 255, 255, 255
	for i, x := range []struct {
		id   string
		m    pcpMap
		want uint16 // 0: another than the one suggested
	}{
		{"I6/unknown optional option", pcpMap{suggested: 6100, options: "ff000003 01020300 c8000000"}, 6100},
		{"I8/taken", pcpMap{suggested: 7000}, 0},
		{"I8/denied", pcpMap{suggested: 445}, 0},
		{"I8/B8/the gateway listens", pcpMap{suggested: 51820}, 0},
		{"PCP-37/5351", pcpMap{suggested: 5351}, 0},
		{"I14/another address", pcpMap{suggested: 6105, address: lab.InternetOne}, 6105},
		{"I14/multicast", pcpMap{suggested: 6106, address: netip.MustParseAddr("224.0.0.1")}, 6106},
		{"I16/all-zero IPv6", pcpMap{suggested: 6107, address: zero6}, 6107},
		{"I18/reserved octets", pcpMap{suggested: 6108}, 6108},
	} {
		t.Run(x.id, func(t *testing.T) {
			x.m.internal = uint16(6100 + i)
			m := a.mapPCP(t, x.m)
			if x.m.internal == 6108 {
				if reply := a.ask(t, reserved); reply[3] != 0 {
					t.Errorf("answered % x", reply)
				}
			}
			port := m.external.Port()
			if m.code != 0 || m.external.Addr() != lab.GatewayWAN || (port == x.m.suggested) != (x.want != 0) || port < 1024 {
				t.Fatalf("answered %+v", m)
			}
			if !r.Passes(t, "UDP", port, r.Host("a"), x.m.internal) {
				t.Error("no packet arrives")
			}
		})
	}
	t.Run("PCP-39/I14/renewal", func(t *testing.T) {
		before := r.World(t)
		if m := a.mapPCP(t, pcpMap{internal: 6100, suggested: 6999}); m.code != 0 || m.external.Port() != 6100 {
			t.Errorf("answered %+v", m)
		}
		r.Renewed(t, before)
	})
	for id, x := range map[string][2]uint32{ // asked for and granted, in seconds
		"PCP-35/C10/1 s":   {1, 120},
		"PCP-36/C10/2^31":  {1 << 31, 86400},
		"C10/2^32-1":       {1<<32 - 1, 86400},
		"PCP-36/C10/a day": {86400, 86400},
	} {
		t.Run(id, func(t *testing.T) {
			// What is left when it is answered, which takes a slow machine a moment.
			left := func(s int64) bool { return s <= int64(x[1]) && s >= int64(x[1])-20 }
			if m := a.mapPCP(t, pcpMap{internal: 6109, suggested: 6109, lifetime: x[0]}); m.code != 0 || !left(int64(m.lifetime)) {
				t.Errorf("answered %+v", m)
			}
			list := r.List(t)
			i := slices.IndexFunc(list, func(m control.Mapping) bool { return m.ExternalPort == 6109 })
			if i < 0 || !left(list[i].ExpiresIn) {
				t.Errorf("listed: %+v", list)
			}
		})
	}
	t.Run("I19/one epoch in both protocols", func(t *testing.T) {
		a.ask(t, []byte{0, 0})
		pmp := a.epoch
		a.ask(t, pcpMap{}.octets(t)) // receive compares
		if a.epoch > pmp+1 {
			t.Errorf("%d in NAT-PMP, %d in PCP", pmp, a.epoch)
		}
	})
}

// TestPCPFilters: I7, B10, PCP-23, PCP-54, PCP-55. Restrictions hold for real packets.
func TestPCPFilters(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	if err := r.internetHas("203.0.113.70/32"); err != nil {
		t.Fatal(err)
	}
	a := r.talker(t, "a")
	from := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	one, two, other := from("203.0.113.66:9000"), from("203.0.113.67:9000"), from("203.0.113.70:9000")
	ask := func(internal uint16, options string) {
		t.Helper()
		b := a.ask(t, pcpMap{internal: internal, suggested: internal, options: options}.octets(t))
		if b[3] != 0 || binary.BigEndian.Uint16(b[42:]) != internal || fmt.Sprintf("%x", b[60:]) != options {
			t.Fatalf("answered % x", b)
		}
	}
	t.Run("PCP-23/one host", func(t *testing.T) {
		ask(6000, filterOption("203.0.113.67/32", 0))
		r.filtered(t, 6000, "a", 6000, source{one, false}, source{other, false}, source{two, true})
	})
	t.Run("renewal without a filter", func(t *testing.T) {
		ask(6000, "")
		r.filtered(t, 6000, "a", 6000, source{from("203.0.113.66:9001"), false}, source{from("203.0.113.67:9001"), true})
	})
	t.Run("network", func(t *testing.T) {
		ask(6001, filterOption("203.0.113.66/31", 0))
		r.filtered(t, 6001, "a", 6001, source{other, false}, source{one, true}, source{two, true})
	})
	t.Run("source port", func(t *testing.T) {
		ask(6002, filterOption("203.0.113.66/32", 9000))
		r.filtered(t, 6002, "a", 6002, source{from("203.0.113.66:9001"), false}, source{two, false}, source{one, true})
	})
	t.Run("PCP-54/too many", func(t *testing.T) {
		before := r.World(t)
		options := ""
		for i := range 9 {
			options += filterOption(fmt.Sprintf("203.0.113.%d/32", 100+i), 0)
		}
		for _, internal := range []uint16{6002, 6003} {
			if m := a.mapPCP(t, pcpMap{internal: internal, suggested: internal, options: options}); m.code != 13 {
				t.Errorf("answered %+v", m)
			}
		}
		r.Unchanged(t, before, "B10", "I7")
	})
	t.Run("added and reset", func(t *testing.T) {
		ask(6001, filterOption("203.0.113.70/32", 0))
		r.filtered(t, 6001, "a", 6001, source{from("203.0.113.70:9001"), true}, source{from("203.0.113.66:9001"), true})
		ask(6001, "03000014"+strings.Repeat("00", 20)+filterOption("203.0.113.70/32", 0)) // PCP-55
		r.filtered(t, 6001, "a", 6001, source{from("203.0.113.66:9002"), false}, source{from("203.0.113.70:9002"), true})
		ask(6001, "03000014"+strings.Repeat("00", 20))
		r.filtered(t, 6001, "a", 6001, source{from("203.0.113.66:9003"), true}, source{from("203.0.113.67:9003"), true})
	})
}

// TestPortControlQuotas: K1, PMP-17, PCP-44, C10. Who has enough is refused in its own
// protocol, and others are still served.
func TestPortControlQuotas(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+"mappings_per_client = 5\nmappings = 7\n")
	a, b := r.talker(t, "a"), r.talker(t, "b")
	fill := func(c *talker, first, n uint16) {
		t.Helper()
		for port := first; port < first+n; port++ {
			if port%2 == 0 {
				grant(t, c, 1, port)
			} else if m := c.mapPCP(t, pcpMap{internal: port, suggested: port}); m.code != 0 {
				t.Fatalf("port %d: %+v", port, m)
			}
		}
	}
	full := func(c *talker, port uint16, code byte) {
		t.Helper()
		before := r.World(t)
		if result, got := c.mapping(t, 1, port, port, 3600); result != 4 || got != 0 {
			t.Errorf("NAT-PMP: result %d, port %d", result, got)
		}
		if m := c.mapPCP(t, pcpMap{internal: port, suggested: port}); m.code != code || m.lifetime != 30 {
			t.Errorf("PCP: %+v, want code %d", m, code)
		}
		r.Unchanged(t, before)
	}
	fill(a, 6000, 5)
	full(a, 6005, 10)
	grant(t, a, 1, 6000) // a renewal needs no quota
	fill(b, 7000, 2)
	full(b, 7002, 8)
}

// refusedWith is a result code as an error, nil for success.
func refusedWith(code uint16) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("result code %d", code)
}

// TestPortControlNoPorts: H10. Almost all ports are taken; the last is found, and
// when there is none that is said at once.
func TestPortControlNoPorts(t *testing.T) {
	t.Parallel()
	r := start(t, noRates+onlyPorts("40000-40009"))
	a := r.talker(t, "a")
	takeAll(t, 40000, 10, func(n uint16) (uint16, error) {
		if n%2 == 0 {
			code, port := a.mapping(t, 1, 30000+n, 50000, 3600)
			return port, refusedWith(code)
		}
		m := a.mapPCP(t, pcpMap{internal: 30000 + n, suggested: 50000})
		return m.external.Port(), refusedWith(uint16(m.code))
	})
	before := r.World(t)
	if result, port := a.mapping(t, 1, 31000, 50000, 3600); result != 4 || port != 0 {
		t.Errorf("NAT-PMP: result %d, port %d", result, port)
	}
	if m := a.mapPCP(t, pcpMap{internal: 31000, suggested: 50000}); m.code != 8 {
		t.Errorf("PCP: %+v", m)
	}
	if m := a.mapPCP(t, pcpMap{internal: 31000, suggested: 50000, options: preferFailure}); m.code != 11 {
		t.Errorf("PCP, this port or nothing: %+v", m)
	}
	r.Unchanged(t, before, "H10")
}
