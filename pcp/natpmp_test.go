package pcp_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"portcullis/portmap"
)

const (
	mapUDP6000 = "00010000 17701770 00001c20"
	mapTCP8080 = "00020000 1f901f90 00001c20"
)

// TestNATPMP: the vectors of docs/protocol-notes.md and abuse cases H, one datagram to
// a gate that holds a mapping of host B.
func TestNATPMP(t *testing.T) {
	t.Parallel()
	long := "00010000 17701770 00001c20"
	for range 256 {
		long += " 01020304"
	}
	for _, x := range []struct{ id, request, want string }{
		{"PMP-1/external address", "0000", "00800000 00000e10 cb007107"},
		{"PMP-1/with a tail", "000001020304", "00800000 00000e10 cb007107"},
		{"PMP-3/UDP 6000", mapUDP6000, "00810000 00000e10 17701770 00001c20"},
		{"PMP-4/TCP 8080, any port", "00020000 1f900000 00000e10", "00820000 00000e10 1f90.... 00000e10"},
		{"PMP-6/held by another", "00010000 17709999 00001c20", "00810000 00000e10 1770.... 00001c20"},
		{"PMP-10/nothing to delete", "00010000 17700000 00000000", "00810000 00000e10 17700000 00000000"},
		{"PMP-11/nothing to delete at all", "00020000 00000000 00000000", "00820000 00000e10 00000000 00000000"},
		{"PMP-13/H4/opcode 3", "0003", "00830005 00000e10"},
		{"H4/opcode 127", "007f0000 00000000", "00ff0005 00000e10"},
		{"PMP-14/H2/opcode 128", "0080", ""},
		{"PMP-14/H2/opcode 129", "00810000 00000e10 17701770 00001c20", ""},
		{"PMP-16/H1/empty", "", ""},
		{"PMP-16/H1/one octet", "00", ""},
		{"H1/two octets of a mapping", "0001", ""},
		{"H1/CHOICE-10/eleven octets", "00010000 17701770 00001c", ""},
		{"H1/a kilobyte behind", long, ""},
		{"D2/a web page's STUN request", "00010000 2112a442 000102030405060708090a0b", ""},
		{"D2/a web page's STUN request with an attribute", "00010008 2112a442 00000e10 00000e10 00000e10 80220004 74657374", ""},
		{"PMP-19/reserved octets", "0001ffff 17701770 00001c20", "00810000 00000e10 17701770 00001c20"},
		{"PMP-20/lifetime 2^32-1", "00010000 17701770 ffffffff", "00810000 00000e10 17701770 00093a80"},
		{"H5/CHOICE-9/internal port 0", "00010000 00001770 00001c20", "00810002 00000e10 00000000 00000000"},
		{"H6/internal port 445", "00020000 01bd1770 00001c20", "00820002 00000e10 01bd0000 00000000"},
		{"H6/external port 445", "00020000 177001bd 00001c20", "00820000 00000e10 1770.... 00001c20"},
		{"delete all with an external port", "00010000 00001770 00000000", "00810002 00000e10 00000000 00000000"},
		{"H3/version 1", "0101", "02810001 00000708 00000e10 00000000 00000000 00000000"},
		{"H3/version 255", "ff00", "02800001 00000708 00000e10 00000000 00000000 00000000"},
	} {
		t.Run(x.id, func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(r *rig) {
				r.asks(hostB, "00010000 99999999 00001c20", "00810000 00000e10 99999999 00001c20")
				r.asks(hostA, x.request, x.want)
			})
		})
	}
}

// TestNATPMPStory: PMP-3, PMP-5, PMP-9 to PMP-12, H7, H8, one client from its first mapping
// to its last.
func TestNATPMPStory(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		const udp, tcp = "udp 6000 -> 192.168.1.50:6000", "tcp 8080 -> 192.168.1.50:8080"
		r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20")
		r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20") // PMP-5
		r.asks(hostA, "00010000 17707777 00000e10", "00810000 00000e10 17701770 00000e10")
		r.asks(hostA, mapTCP8080, "00820000 00000e10 1f901f90 00001c20")
		r.holds(tcp, udp)
		r.asks(hostB, "00010000 00000000 00000000", "00810000 00000e10 00000000 00000000")
		r.holds(tcp, udp) // PMP-12
		r.asks(hostA, "00020000 00000000 00000000", "00820000 00000e10 00000000 00000000")
		r.holds(udp)                                                                       // PMP-11
		r.asks(hostA, "00010000 17701770 00000000", "00810000 00000e10 17700000 00000000") // PMP-9
		r.holds()
		r.asks(hostA, "00010000 17701770 00000000", "00810000 00000e10 17700000 00000000") // PMP-10, H8
		r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20")
		time.Sleep(2*time.Hour + time.Second) // PMP-25
		r.holds()
	})
}

// TestCompanion: PMP-7, PMP-8. The other transport of a port is the same client's.
func TestCompanion(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, "00020000 1ae11ae1 00001c20", "00820000 00000e10 1ae11ae1 00001c20")
		reply := r.ask(hostB, octets("00010000 1ae11ae1 00001c20"))
		if !like(reply, "00810000 00000e10 1ae1.... 00001c20") || binary.BigEndian.Uint16(reply[10:]) == 6881 {
			t.Errorf("PMP-7: %s", words(reply))
		}
		r.asks(hostA, "00010000 1ae11ae1 00001c20", "00810000 00000e10 1ae11ae1 00001c20")
	})
}

// TestNoAddress: PMP-2, PCP-45, I17. Nothing is recorded while the WAN has no address.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20")
		r.world.setExternal(netip.Addr{})
		r.asks(hostA, "0000", "00800003 00000e10 00000000")
		r.asks(hostA, mapTCP8080, "00820003 00000e10 1f900000 00000000")
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{code: 7, lifetime: 30}))
		r.asks(hostA, mapRequest(edits{options: preferFailure, external: "1770", address: v4(externalIP)}),
			mapReply(edits{code: 7, lifetime: 30, external: "1770", address: v4(externalIP), options: preferFailure}))
		r.asks(hostA, "00010000 17700000 00000000", "00810000 00000e10 17700000 00000000") // deletion needs none
		r.holds()
	})
}

// TestNoPorts: PMP-17, H10.
func TestNoPorts(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.world.view.InUse = []portmap.PortsInUse{{Ports: portmap.PortRange{Last: 65535}, By: "a test"}}
		r.asks(hostA, mapUDP6000, "00810004 00000e10 17700000 00000000")
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{code: 8, lifetime: 30}))
		r.holds()
	})
}

// TestOnlyOneProtocol: H3, CHOICE-2, CHOICE-3 and section 9 of RFC 6887. What a gate
// that speaks one protocol says to the other.
func TestOnlyOneProtocol(t *testing.T) {
	t.Parallel()
	t.Run("NAT-PMP", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(o *options) { o.server.PCP = false }, func(r *rig) {
			r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20")
			r.asks(hostA, mapRequest(edits{}), "00810001 00000e10")
			r.asks(hostA, "0200", "00800001 00000e10")
			r.asks(hostA, "0105", "00850001 00000e10")
			r.asks(hostA, "0280", "")
			for _, s := range announcements(r) {
				if s.bytes[0] != 0 {
					t.Errorf("announced %s", words(s.bytes))
				}
			}
		})
	})
	t.Run("PCP", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(o *options) { o.server.NATPMP = false }, func(r *rig) {
			r.asks(hostA, mapUDP6000, "02810001 00000708 00000e10 00000000 00000000 00000000")
			r.asks(hostA, "0000", "02800001 00000708 00000e10 00000000 00000000 00000000")
			r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
			for _, s := range announcements(r) {
				if s.bytes[0] != 2 {
					t.Errorf("announced %s", words(s.bytes))
				}
			}
		})
	})
}

// TestPromisedMore: NAT-PMP never grants more than was asked for, though another
// protocol was promised more of the same mapping (RFC 6886 section 3.3).
func TestPromisedMore(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		r.asks(hostA, "00010000 17701770 0000003c", "00810000 00000e10 17701770 0000003c")
		for m := range r.engine.Snapshot().All() {
			if m.Left(time.Now()) != time.Hour || !m.Claims.Has(portmap.ViaNATPMP) {
				t.Errorf("%v has %v left, claimed by %b", &m, m.Left(time.Now()), m.Claims)
			}
		}
	})
}
