package pcp_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/portmap"
)

// Pieces of messages, in hex.
const (
	zero4         = "00000000 00000000 0000ffff 00000000"
	zero6         = "00000000 00000000 00000000 00000000"
	nonceA        = "00010203 04050607 08090a0b"
	nonceB        = "10111213 14151617 18191a1b"
	preferFailure = "02000000"
	onlyNine      = "03000014 00800000 00000000 00000000 0000ffff c6336409" // FILTER 198.51.100.9/32
	onlyTen       = "03000014 00800000 00000000 00000000 0000ffff c633640a"
	noFilters     = "03000014 00000000 00000000 00000000 00000000 00000000"
)

func v4(a netip.Addr) string {
	b := a.As16()
	return hex.EncodeToString(b[:])
}

// edits are what a MAP message differs in from that of host A, which asks for UDP
// 6000, outside as inside, for an hour.
type edits struct {
	client                      string // the address field; default host A
	code                        int
	lifetime                    int64 // seconds; -1: 0
	nonce, protocol             string
	internal, external, address string
	options                     string
}

func (e edits) body() string {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	return or(e.nonce, nonceA) + or(e.protocol, "11") + "000000" + or(e.internal, "1770") + or(e.external, "1770") + or(e.address, zero4) + e.options
}

func (e edits) seconds() int64 {
	switch e.lifetime {
	case 0:
		return 3600
	case -1:
		return 0
	}
	return e.lifetime
}

func mapRequest(e edits) string {
	client := e.client
	if client == "" {
		client = v4(hostA.Addr())
	}
	return fmt.Sprintf("02010000 %08x %s %s", e.seconds(), client, e.body())
}

// mapReply is the answer; without an error it assigns what was asked for inside.
// Errors 1, 3 and 6 have the client's address in their reserved field.
func mapReply(e edits) string {
	reserved := "00000000 00000000 00000000"
	if e.code == 1 || e.code == 3 || e.code == 6 {
		reserved = "00000000 0000ffff c0a80132"
	}
	if e.code == 0 && e.seconds() > 0 && e.address == "" {
		e.address = v4(externalIP)
	}
	life := fmt.Sprintf("%08x", e.seconds())
	if e.code != 0 && e.lifetime == 0 {
		life = "00000708"
	}
	return fmt.Sprintf("028100%02x %s 00000e10 %s %s", e.code, life, reserved, e.body())
}

// TestPCP: the vectors of docs/protocol-notes.md and abuse cases I, one datagram to a
// gate on which host B holds UDP 7000 and TCP 80.
func TestPCP(t *testing.T) {
	t.Parallel()
	refused := func(code int, e edits) [2]string {
		r := e
		r.code, r.lifetime = code, 0
		return [2]string{mapRequest(e), mapReply(r)}
	}
	granted := func(e, reply edits) [2]string {
		reply.nonce, reply.protocol, reply.internal = e.nonce, e.protocol, e.internal
		return [2]string{mapRequest(e), mapReply(reply)}
	}
	thirdParty := "01000010 " + v4(hostB.Addr())
	plain := func(options string) [2]string { return granted(edits{options: options}, edits{options: options}) }
	ignored := func(options string) [2]string { return granted(edits{options: options}, edits{}) }
	elsewhere := func(e edits) [2]string {
		return granted(e, edits{external: "...."})
	}
	for id, x := range map[string][2]string{
		"PCP-1/announce":                             {"02000000 00000000 00000000 00000000 0000ffff c0a80132", "02800000 00000000 00000e10 00000000 00000000 00000000"},
		"PCP-1/announce with a lifetime":             {"02000000 00000e10 00000000 00000000 0000ffff c0a80132", "02800000 00000000 00000e10 00000000 00000000 00000000"},
		"PCP-2/map":                                  plain(""),
		"PCP-2/I16/all-zero IPv6 suggestion":         granted(edits{address: zero6}, edits{}),
		"PCP-5/nothing to delete":                    granted(edits{lifetime: -1, external: "1234", address: v4(externalIP)}, edits{lifetime: -1, external: "1234", address: v4(externalIP)}),
		"PCP-7/prefer failure, denied port":          refused(11, edits{protocol: "06", internal: "1f90", external: "0050", address: v4(externalIP), options: preferFailure}),
		"PCP-7/I8/prefer failure, taken port":        refused(11, edits{external: "1b58", address: v4(externalIP), options: preferFailure}),
		"I8/prefer failure, forbidden port":          refused(11, edits{protocol: "06", external: "01bd", options: preferFailure}),
		"I8/prefer failure, forbidden host":          refused(2, edits{protocol: "06", internal: "01bd", external: "1770", options: preferFailure}),
		"prefer failure, granted":                    granted(edits{external: "1234", options: preferFailure}, edits{external: "1234", address: v4(externalIP), options: preferFailure}),
		"PCP-8/I8/prefer failure, port 0":            refused(6, edits{protocol: "06", internal: "1f90", external: "0000", options: preferFailure}),
		"PCP-10/I15/CHOICE-4/opcode 5":               {"02050000 00000000 00000000 00000000 0000ffff c0a80132 deadbeef", "02850004 00000708 00000e10 00000000 00000000 00000000 deadbeef"},
		"PCP-26/CHOICE-19/I15/PEER":                  {"02020000 00000258 00000000 00000000 0000ffff c0a80132 " + nonceA + " 06000000 c3500000 " + zero4 + " 01bb0000 00000000 00000000 0000ffff c6336409", "02820004 00000708 00000e10 00000000 00000000 00000000 " + nonceA + " 06000000 c3500000 " + zero4 + " 01bb0000 00000000 00000000 0000ffff c6336409"},
		"PCP-51/I15/AUTHENTICATION":                  {"02030000 00000000 00000000 00000000 0000ffff c0a80132", "02830004 00000708 00000e10 00000000 00000000 00000000"},
		"I15/opcode 127":                             {"027f0000 00000000 00000000 00000000 0000ffff c0a80132", "02ff0004 00000708 00000e10 00000000 00000000 00000000"},
		"PCP-11/I3/version 3":                        {"03" + mapRequest(edits{})[2:], mapReply(edits{code: 1})},
		"I3/version 1":                               {"01" + mapRequest(edits{})[2:], mapReply(edits{code: 1})},
		"I3/version 255, short":                      {"ff01", "02810001 00000708 00000e10 00000000 00000000 00000000"},
		"PCP-12/I2/a reply":                          {"0281" + mapRequest(edits{})[4:], ""},
		"PCP-13/I1/2 octets":                         {"0201", ""},
		"PCP-13/I1/23 octets":                        {"02010000 00000e10 00000000 00000000 0000ffff c0a801", ""},
		"PCP-14/CHOICE-4/62 octets":                  {mapRequest(edits{}) + "0102", mapReply(edits{code: 3}) + "01020000"},
		"I1/25 octets":                               {"02010000 00000e10 00000000 00000000 0000ffff c0a80132 01", "02810003 00000708 00000e10 00000000 0000ffff c0a80132 01000000"},
		"I1/a header without a body":                 {"02010000 00000e10 00000000 00000000 0000ffff c0a80132", "02810003 00000708 00000e10 00000000 0000ffff c0a80132"},
		"PCP-17/I6/unknown mandatory option":         refused(5, edits{options: "50000004 00000001"}),
		"I6/reserved option 0":                       refused(5, edits{options: "00000000"}),
		"I6/reserved option 127":                     refused(5, edits{options: "7f000000"}),
		"I6/authentication option":                   refused(5, edits{options: "04000004 00000001"}),
		"I6/THIRD_PARTY_ID":                          refused(5, edits{options: "0d000004 00000001"}),
		"I6/unknown optional option":                 ignored("ff000003 01020300"),
		"I6/PREFIX64":                                ignored("81000000"),
		"I6/unknown optional option, twice":          ignored("c8000000 c8000000"),
		"PCP-19/I6/past the end":                     refused(6, edits{options: "03000190"}),
		"I6/padding past the end":                    {mapRequest(edits{options: "c8000005 01020304"}), mapReply(edits{code: 6, options: "c8000005 01020304"})},
		"I6/optional, past the end":                  refused(6, edits{options: "ff00ffff"}),
		"I6/65 options":                              refused(6, edits{options: strings.Repeat("c8000000", 65)}),
		"I6/64 options":                              ignored(strings.Repeat("c8000000", 64)),
		"PCP-20/I11/CHOICE-1/protocol 0 with a port": refused(3, edits{protocol: "00"}),
		"I11/its deletion":                           refused(3, edits{protocol: "00", lifetime: -1}),
		"PCP-49/I12/all ports":                       refused(9, edits{internal: "0000"}),
		"I12/all protocols":                          refused(9, edits{protocol: "00", internal: "0000"}),
		"I10/delete all protocols":                   granted(edits{protocol: "00", internal: "0000", lifetime: -1}, edits{lifetime: -1}),
		"I13/ICMP":                                   refused(9, edits{protocol: "01"}),
		"I13/IPv6 in IPv4":                           refused(9, edits{protocol: "29"}),
		"I13/GRE":                                    refused(9, edits{protocol: "2f"}),
		"I13/SCTP":                                   refused(9, edits{protocol: "84"}),
		"I13/255":                                    refused(9, edits{protocol: "ff"}),
		"PCP-22/I5/third party":                      refused(5, edits{options: thirdParty}),
		"I5/third party, length 4":                   refused(6, edits{options: "01000004 c0a8013c"}),
		"I5/third party, length 15":                  refused(6, edits{options: "0100000f " + v4(hostB.Addr())}),
		"I5/third party, length 20":                  refused(6, edits{options: "01000014 " + v4(hostB.Addr()) + "00000000"}),
		"PCP-41/I5/third party, twice":               refused(6, edits{options: thirdParty + thirdParty}),
		"I5/third party, itself":                     refused(3, edits{options: "01000010 " + v4(hostA.Addr())}),
		"CHOICE-11/third party in an announce":       {"02000000 00000000 00000000 00000000 0000ffff c0a80132" + thirdParty, "02800006 00000708 00000e10 00000000 0000ffff c0a80132" + thirdParty},
		"description in an announce":                 {"02000000 00000000 00000000 00000000 0000ffff c0a80132 80000000", "02800000 00000000 00000e10 00000000 00000000 00000000"},
		"PCP-23/I7/filter":                           plain(onlyNine),
		"I7/filter, length 16":                       refused(6, edits{options: "03000010 00800000 00000000 00000000 0000ffff"}),
		"I7/filter, length 95":                       refused(6, edits{options: "03000014 005f0000 00000000 00000000 0000ffff c6336409"}),
		"I7/filter, length 129":                      refused(6, edits{options: "03000014 00810000 00000000 00000000 0000ffff c6336409"}),
		"I7/filter of IPv6":                          refused(6, edits{options: "03000014 00800000 20010db8 00000000 00000000 00000001"}),
		"I7/filter of IPv6, length 0":                plain("03000014 00000000 20010db8 00000000 00000000 00000001"),
		"eight filters":                              plain(filters(8)),
		"filters of networks and ports":              plain("03000014 00780035 00000000 00000000 0000ffff c6336400 03000014 00600035 00000000 00000000 0000ffff 00000000"),
		"PCP-54/nine filters":                        refused(13, edits{options: filters(9)}),
		"PCP-54/I6/forty-three filters":              refused(13, edits{options: filters(43)}),
		"PCP-55/CHOICE-12/nine filters, then none":   plain(filters(9) + noFilters),
		"PCP-25/filter in a deletion":                refused(6, edits{lifetime: -1, options: onlyNine}),
		"PCP-25/prefer failure in a deletion":        refused(6, edits{lifetime: -1, external: "1770", options: preferFailure}),
		"PCP-41/prefer failure, twice":               refused(6, edits{external: "1770", options: preferFailure + preferFailure}),
		"PCP-42/prefer failure, length 4":            refused(6, edits{external: "1770", options: "02000004 00000000"}),
		"PCP-43/two good options, one unknown":       refused(5, edits{options: onlyNine + "80000000" + "50000000"}),
		"PCP-28/description":                         plain("80000005 54657374 31000000"),
		"PCP-28/empty description":                   plain("80000000"),
		"PCP-28/description, twice":                  refused(6, edits{options: "80000000 80000000"}),
		"PCP-28/long description":                    granted(edits{options: "80000104" + strings.Repeat("61", 260)}, edits{options: "80000100" + strings.Repeat("61", 256)}),
		"PCP-28/cut at a character":                  granted(edits{options: "80000104 61" + strings.Repeat("c3a9", 129) + "61"}, edits{options: "800000ff 61" + strings.Repeat("c3a9", 127) + "00"}),
		"PCP-29/description not UTF-8":               ignored("80000002 fffe0000"),
		"PCP-31/port set":                            plain("82000005 00041770 01000000"),
		"PCP-31/port set of 1":                       ignored("82000005 00011770 01000000"),
		"port set of 0":                              refused(6, edits{options: "82000005 00001770 01000000"}),
		"port set, length 4":                         refused(6, edits{options: "82000004 00041770"}),
		"port set from another port":                 refused(6, edits{options: "82000005 00041771 01000000"}),
		"port set with prefer failure":               refused(6, edits{external: "1770", options: preferFailure + "82000005 00041770 01000000"}),
		"port set, twice":                            refused(6, edits{options: "82000005 00041770 01000000 82000005 00041770 01000000"}),
		"PCP-35/CHOICE-18/lifetime 10":               granted(edits{lifetime: 10}, edits{lifetime: 120}),
		"PCP-36/lifetime 2^32-1":                     granted(edits{lifetime: 1<<32 - 1}, edits{lifetime: 86400}),
		"PCP-37/suggestion 5351":                     elsewhere(edits{external: "14e7", address: v4(externalIP)}),
		"PCP-37/5350 with prefer failure":            refused(11, edits{external: "14e6", address: v4(externalIP), options: preferFailure}),
		"PCP-37/5351 with prefer failure":            refused(11, edits{external: "14e7", address: v4(externalIP), options: preferFailure}),
		"PCP-38/I14/another address":                 granted(edits{external: "1770", address: v4(netip.MustParseAddr("198.51.100.1"))}, edits{}),
		"PCP-38/I14/it with prefer failure":          refused(11, edits{external: "1770", address: v4(netip.MustParseAddr("198.51.100.1")), options: preferFailure}),
		"I14/multicast with prefer failure":          refused(11, edits{external: "1770", address: v4(netip.MustParseAddr("224.0.0.1")), options: preferFailure}),
		"I14/IPv6 with prefer failure":               refused(11, edits{external: "1770", address: v4(netip.MustParseAddr("2001:db8::1")), options: preferFailure}),
		"PCP-52/I18/reserved octets":                 {"0201ffff 00000e10" + v4(hostA.Addr()) + nonceA + "11ffffff 17701770" + zero4, mapReply(edits{})},
		"PCP-52/I18/reserved octet of an option":     granted(edits{options: "03ff0014" + onlyNine[8:]}, edits{options: onlyNine}),
		"PCP-56/I4/not quite mapped":                 {mapRequest(edits{client: "00000000 00000000 ffffffff c0a80132"}), mapReply(edits{code: 12})},
		"I4/another host":                            {mapRequest(edits{client: v4(hostB.Addr())}), mapReply(edits{code: 12})},
		"I4/zero":                                    {mapRequest(edits{client: zero6}), mapReply(edits{code: 12})},
		"I4/zero, IPv4":                              {mapRequest(edits{client: zero4}), mapReply(edits{code: 12})},
		"I4/announce":                                {"02000000 00000000" + v4(hostB.Addr()), "0280000c 00000708 00000e10 00000000 00000000 00000000"},
		"order/address before options":               {mapRequest(edits{client: zero6, options: "03000190"}), mapReply(edits{code: 12, options: "03000190"})},
		"B12/internal port 445":                      refused(2, edits{protocol: "06", internal: "01bd"}),
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(r *rig) {
				r.asks(hostB, "00010000 1b581b58 00001c20", "00810000 00000e10 1b581b58 00001c20")
				r.asks(hostB, "00020000 00500050 00001c20", "00820000 00000e10 00500050 00001c20")
				before := r.engine.Snapshot().Len()
				r.asks(hostA, x[0], x[1])
				made := r.engine.Snapshot().Len() - before
				if ok := len(x[1]) > 8 && x[1][6:8] == "00" && x[1][2:4] == "81" && !strings.Contains(id, "delete"); ok != (made > 0) {
					t.Errorf("%d mappings were made", made)
				}
			})
		})
	}
}

// filters are n FILTER options for different hosts.
func filters(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "03000014 00800000 00000000 00000000 0000ffff c63364%02x", i)
	}
	return b.String()
}

// TestLongest: PCP-16. A message that is too long is answered with as much of it as
// a message may have.
func TestLongest(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		for _, size := range []int{1101, 1104, 1400} {
			request := octets(mapRequest(edits{}) + strings.Repeat("c8", size-60))
			reply := r.ask(hostA, request)
			if len(reply) != 1100 || reply[3] != 3 || string(reply[24:]) != string(request[24:1100]) {
				t.Errorf("%d octets: %s", size, words(reply))
			}
		}
		r.holds()
	})
}

// TestRenew: PCP-39, PCP-40. A renewal keeps the port, whatever is suggested.
func TestRenew(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		for range 2 {
			r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		}
		r.asks(hostA, mapRequest(edits{external: "9999", lifetime: 7200}), mapReply(edits{lifetime: 7200}))
		r.asks(hostA, mapRequest(edits{external: "9999", options: preferFailure}), strings.Replace(
			mapReply(edits{code: 11, external: "9999", address: zero4, options: preferFailure}), "00000708", "........", 1))
		r.holds("udp 6000 -> 192.168.1.50:6000")
		r.asks(hostA, mapRequest(edits{lifetime: -1}), mapReply(edits{lifetime: -1}))
		r.asks(hostA, mapRequest(edits{lifetime: -1}), mapReply(edits{lifetime: -1})) // PCP-6
		r.holds()
	})
}

// TestNonces: PCP-4, I9. Strictly only the nonce that made a mapping counts; by
// default the same host may come with a new one.
func TestNonces(t *testing.T) {
	t.Parallel()
	t.Run("strict", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(o *options) { o.engine.Strict = true; o.age = 50 * time.Minute }, func(r *rig) {
			r.asks(hostA, mapRequest(edits{}), strings.Replace(mapReply(edits{}), "00000e10 00000000", "00000bb8 00000000", 1))
			time.Sleep(10 * time.Minute)
			for _, lifetime := range []int64{0, -1} {
				want := edits{code: 2, lifetime: 3000, nonce: nonceB}
				r.asks(hostA, mapRequest(edits{nonce: nonceB, lifetime: lifetime}), mapReply(want))
			}
			r.holds("udp 6000 -> 192.168.1.50:6000")
			r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
			r.asks(hostA, mapRequest(edits{lifetime: -1}), mapReply(edits{lifetime: -1}))
			r.holds()
		})
	})
	t.Run("same client", func(t *testing.T) {
		t.Parallel()
		inBubble(t, nil, func(r *rig) {
			r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
			r.asks(hostA, mapRequest(edits{nonce: nonceB}), mapReply(edits{nonce: nonceB}))
			r.asks(hostA, mapRequest(edits{lifetime: -1}), mapReply(edits{lifetime: -1}))
			r.holds()
		})
	})
}

// TestFilters: PCP-54, PCP-55. Filters add up, and can be forgotten; more than there is
// room for changes nothing.
func TestFilters(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, mapRequest(edits{options: onlyNine}), mapReply(edits{options: onlyNine}))
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		r.holds("udp 6000 from 198.51.100.9 -> 192.168.1.50:6000")
		r.asks(hostA, mapRequest(edits{options: filters(8)}), mapReply(edits{code: 13, options: filters(8)}))
		r.holds("udp 6000 from 198.51.100.9 -> 192.168.1.50:6000")
		r.asks(hostA, mapRequest(edits{options: noFilters + onlyTen}), mapReply(edits{options: noFilters + onlyTen}))
		r.holds("udp 6000 from 198.51.100.10 -> 192.168.1.50:6000")
		r.asks(hostA, mapRequest(edits{options: noFilters}), mapReply(edits{options: noFilters}))
		r.holds("udp 6000 -> 192.168.1.50:6000")
	})
}

// TestDescription: RFC 7220. It is stored, kept by who says nothing, and erased.
func TestDescription(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		stored := func() string {
			m, _ := r.engine.Snapshot().Find(portmap.UDP, 6000, nil)
			return m.Description
		}
		for _, x := range []struct{ options, want string }{
			{"80000005 54657374 31000000", "Test1"}, {"", "Test1"}, {"80000000", ""},
		} {
			r.asks(hostA, mapRequest(edits{options: x.options}), mapReply(edits{options: x.options}))
			if got := stored(); got != x.want {
				t.Errorf("after %q it is %q, want %q", x.options, got, x.want)
			}
		}
	})
}

// TestPortSet: RFC 7753. A set is renewed and deleted as one, is cut where not
// all can be had, and at the end of the ports.
func TestPortSet(t *testing.T) {
	t.Parallel()
	set := func(size int, first string) string { return fmt.Sprintf("82000005 %04x%s 00000000", size, first) }
	inBubble(t, nil, func(r *rig) {
		row := []string{
			"udp 6000 -> 192.168.1.50:6000", "udp 6001 -> 192.168.1.50:6001",
			"udp 6002 -> 192.168.1.50:6002", "udp 6003 -> 192.168.1.50:6003",
		}
		for range 2 {
			r.asks(hostA, mapRequest(edits{options: set(4, "1770")}), mapReply(edits{options: set(4, "1770")}))
			r.holds(row...)
		}
		gone := edits{lifetime: -1, options: set(4, "1770")}
		r.asks(hostA, mapRequest(gone), mapReply(gone))
		r.holds()

		r.asks(hostB, "00010000 17721772 00001c20", "00810000 00000e10 17721772 00001c20") // port 6002
		r.asks(hostA, mapRequest(edits{external: "1770", options: set(4, "1770")}), mapReply(edits{options: set(2, "1770")}))
		r.asks(hostA, mapRequest(gone), mapReply(gone))

		last := edits{internal: "fffe", external: "fffe", options: set(9, "fffe")}
		r.asks(hostA, mapRequest(last), mapReply(edits{internal: "fffe", external: "fffe", address: v4(externalIP), options: set(2, "fffe")}))
		gone = edits{lifetime: -1, internal: "fffe", options: set(9, "fffe")}
		r.asks(hostA, mapRequest(gone), strings.Replace(mapReply(gone), set(9, "fffe"), set(2, "fffe"), 1))
		r.holds("udp 6002 -> 192.168.1.60:6002")
	})
	inBubble(t, nil, func(r *rig) { // a whole table's worth
		reply := r.ask(hostA, octets(mapRequest(edits{options: set(65535, "1770")})))
		if len(reply) != 72 || binary.BigEndian.Uint16(reply[64:]) != 64 || r.engine.Snapshot().Len() != 64 {
			t.Errorf("%s and %d mappings", words(reply), r.engine.Snapshot().Len())
		}
	})
}

// TestQuota: PCP-44.
func TestQuota(t *testing.T) {
	t.Parallel()
	inBubble(t, func(o *options) { o.policy.MappingsPerClient = 1 }, func(r *rig) {
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		r.asks(hostA, mapRequest(edits{internal: "1771"}), mapReply(edits{code: 10, lifetime: 30, internal: "1771"}))
		r.asks(hostA, "00010000 17721772 00001c20", "00810004 00000e10 17720000 00000000")
	})
}

// TestDeleteAllPorts: PCP-50, I10. It names what was never granted.
func TestDeleteAllPorts(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		for _, protocol := range []string{"11", "00"} {
			e := edits{protocol: protocol, internal: "0000", lifetime: -1}
			r.asks(hostA, mapRequest(e), mapReply(e))
		}
		r.holds("udp 6000 -> 192.168.1.50:6000")
	})
}

// TestOneTable: both protocols mean the same mapping, each has the lease that it asked
// for, and what is answered with success closes it.
func TestOneTable(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		const (
			open      = "udp 6000 -> 192.168.1.50:6000"
			natpmp    = "00810000 00000e10 17701770 00001c20"
			unmap     = "00010000 17700000 00000000"
			unmapAll  = "00010000 00000000 00000000"
			unmapped  = "00810000 00000e10 17700000 00000000"
			stillOpen = "00810002 00000e10 17700000 00000000"
		)
		gone := edits{lifetime: -1}
		both := func() {
			r.asks(hostA, mapUDP6000, natpmp)
			r.asks(hostA, mapRequest(edits{external: "1234"}), mapReply(edits{}))
			r.holds(open)
		}
		both()
		r.asks(hostA, unmapAll, "00810000 00000e10 00000000 00000000")
		r.holds()
		both()
		r.asks(hostA, mapRequest(gone), mapReply(gone))
		r.holds()
		both()
		r.asks(hostA, unmap, unmapped)
		r.holds()

		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		r.asks(hostA, unmap, stillOpen) // RFC 6886 section 3.4: as for what is configured
		r.asks(hostA, unmapAll, "00810000 00000e10 00000000 00000000")
		r.holds(open)
		r.asks(hostA, mapRequest(gone), mapReply(gone))
		r.asks(hostA, mapUDP6000, natpmp)
		r.asks(hostA, mapRequest(gone), mapReply(edits{lifetime: 7200, code: 2}))
		r.holds(open)
	})
}
