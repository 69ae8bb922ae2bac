package homenet

import (
	"net"
	"testing"

	"portcullis/firewall"
	"portcullis/portmap"
)

// Counters: both directions are counted, each mapping for itself, over renewals
// and whatever becomes of the rules.
func Counters(t *testing.T, fw Firewall) {
	run(t, fw, test{"Mappings", countersOfMappings}, test{"Pinholes", countersOfPinholes})
}

// text is what is sent where bytes are counted.
const text = "0123456789"

// Lengths of a datagram with the text.
const (
	size4 = 20 + 8 + len(text)
	size6 = 40 + 8 + len(text)
)

// talk exchanges datagrams and answers.
func talk(t *testing.T, outside, inside *net.UDPConn, to string, rounds int) {
	t.Helper()
	for range rounds {
		Answer(t, outside, inside, to, text)
	}
}

// counted compares what is counted of mappings, in datagrams of one size.
func (h *Home) counted(what string, size int, ms []portmap.Mapping, want ...uint64) {
	h.t.Helper()
	all, err := h.Backend.Counters(Context(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	ids := make([]uint64, len(ms))
	for i := range ms {
		ids[i] = ms[i].ID
	}
	some, err := h.Backend.CountersOf(Context(h.t), ids)
	if err != nil || len(some) != len(ms) {
		h.t.Fatal(some, err)
	}
	for i, m := range ms {
		want := firewall.Counter{Packets: want[i], Bytes: want[i] * uint64(size)}
		alone, err := h.Backend.Counter(Context(h.t), m.ID)
		if err != nil || alone != want || all[m.ID] != want || some[m.ID] != want {
			h.t.Errorf("%s: %s counted %+v, %+v, %+v, %v; want %+v", what, &m, alone, all[m.ID], some[m.ID], err, want)
		}
	}
}

func countersOfMappings(t *testing.T, h *Home) {
	game, voice := h.Alice.UDP(Alice+":6000"), h.Alice.UDP(Alice+":6001")
	x, y := h.World.UDP(PeerX+":7000"), h.World.UDP(PeerY+":7000")
	ms := []portmap.Mapping{h.Open("udp 5000", Alice+":6000"), h.Open("udp 5001", Alice+":6001", From(PeerY))}
	h.counted("at first", size4, ms, 0, 0)
	talk(t, x, game, WAN+":5000", 3)
	talk(t, y, voice, WAN+":5001", 2)
	h.counted("both directions", size4, ms, 6, 4)

	for i := range 2 {
		talk(t, x, game, WAN+":5000", 1)
		ms[0] = h.Renew(ms[0])
		h.counted("a renewal carries over", size4, ms, uint64(8+2*i), 4)
	}
	if err := h.Backend.Replace(Context(t), ms); err != nil {
		t.Fatal(err)
	}
	h.counted("a replacement carries over", size4, ms, 10, 4)
	talk(t, x, game, WAN+":5000", 1)
	h.counted("and goes on", size4, ms, 12, 4)
	h.Do(h.fw.Scripts.Reload)
	h.Open("udp 5002", Alice+":6002")
	h.counted("what was last seen survives a flush", size4, ms, 12, 4)
	h.Do(h.fw.Scripts.Reload)
	if drift, err := h.Backend.Audit(Context(t), true); drift == "" || err != nil {
		t.Errorf("Audit: %q, %v", drift, err)
	}
	h.counted("and one that an audit finds", size4, ms, 12, 4)
}

// GetPinholePackets.
func countersOfPinholes(t *testing.T, h *Home) {
	game := h.Alice.UDP(Alice6 + ":6000")
	x, y, y1 := h.World.UDP(PeerX6+":7000"), h.World.UDP(PeerY6+":7000"), h.World.UDP(PeerY6+":7001")
	to := Alice6 + ":6000"
	ms := []portmap.Mapping{
		h.Pin("udp", to), h.Pin("udp", to, From(PeerY6)), h.Pin("udp", to, From("2001:db8:5::66/127 7000")),
	}
	h.counted("at first", size6, ms, 0, 0, 0)
	talk(t, y, game, to, 1)
	talk(t, y1, game, to, 2)
	talk(t, x, game, to, 3)
	talk(t, h.World.UDP(PeerX6+":7001"), game, to, 4)
	h.counted("each to the narrowest", size6, ms, 8, 6, 6)
	// An answer to what the host began did not come by the pinhole.
	own := h.Alice.UDP(Alice6 + ":5999")
	Answer(t, own, x, PeerX6+":7000", "question")
	h.counted("a flow of the host's own", size6, ms, 8, 6, 6)

	x2 := h.World.UDP(PeerX6 + ":7002")
	total := uint64(8)
	for range 2 {
		ms[0] = h.Renew(ms[0])
		talk(t, x2, game, to, 1)
		total += 2
		h.counted("a renewal carries over", size6, ms, total, 6, 6)
	}
	if err := h.Backend.Replace(Context(t), ms); err != nil {
		t.Fatal(err)
	}
	h.counted("a replacement carries over", size6, ms, total, 6, 6)
	h.Do(h.fw.Scripts.FlushPins)
	h.counted("what was last seen survives a loss", size6, ms, total, 6, 6)
	if c, err := h.Backend.Counter(Context(t), 999); err != nil || c != (firewall.Counter{}) {
		t.Errorf("no such mapping: %+v, %v", c, err)
	}
}
