package pcp_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/slog"
	"portcullis/pcp"
	"portcullis/portmap"
)

// giver is a gate that grants everything and remembers nothing.
type giver struct{ now time.Time }

func (g giver) MapSet(_ context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	all := make([]portmap.Mapping, n)
	for i := range all {
		all[i] = portmap.Mapping{
			Client: r.Client, Transport: r.Transport, Internal: r.Internal, Remotes: r.Remotes,
			ExternalPort: 6000, Expires: g.now.Add(max(r.Lifetime, time.Second)),
		}
	}
	return all, nil
}

func (giver) Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error) {
	return nil, &portmap.Error{Reason: portmap.NoSuchMapping}
}

func giving(natpmp, speaksPCP bool) *pcp.Config {
	w, now := newWorld(), time.Now()
	return &pcp.Config{
		Logger: slog.New(slog.DiscardHandler), Ifname: "lan0", Ifindex: lanIndex, NATPMP: natpmp, PCP: speaksPCP,
		Mapper: giver{now}, External: w.External, Identify: w.Identify, Seek: w.Seek, Epoch: pcp.NewEpoch(now.Add(-time.Hour)),
	}
}

func seeds() [][]byte {
	all := [][]byte{nil, {0}, {0, 0}, {2, 0}, {0, 0x81, 0, 0}}
	for _, s := range []string{
		mapUDP6000, mapTCP8080, mapRequest(edits{}), mapRequest(edits{lifetime: -1}), mapRequest(edits{internal: "0000"}),
		mapRequest(edits{options: onlyNine + noFilters + onlyTen}), mapRequest(edits{options: "80000005 54657374 31000000"}),
		mapRequest(edits{options: "82000005 00041770 01000000"}), mapRequest(edits{external: "1770", options: preferFailure}),
		mapRequest(edits{options: "03000190"}), mapRequest(edits{options: "80000002 fffe0000"}),
		"02000000 00000000 00000000 00000000 0000ffff c0a80132", "02020000 00000258 00000000 00000000 0000ffff c0a80132",
	} {
		all = append(all, octets(s))
	}
	return all
}

// proper says what is wrong with a reply to a datagram, "" for nothing (PCP-60).
func proper(request, reply []byte) string {
	if reply == nil {
		return ""
	}
	limit := min(1100, max(24, (len(request)+3)/4*4))
	switch {
	case len(request) < 2 || request[1]&0x80 != 0:
		return "a reply to no request"
	case len(reply) < 8 || reply[1] != request[1]|0x80:
		return "the opcode is not the request's"
	case reply[0] == 0:
		if len(reply) != 8 && len(reply) != 12 && len(reply) != 16 {
			return "not a size of NAT-PMP"
		}
		if len(reply) == 16 && len(request) < 12 {
			return "longer than the request allows"
		}
	case reply[0] != 2 || len(reply)%4 != 0 || len(reply) < 24:
		return "not a PCP message"
	case len(reply) > limit:
		return "longer than the request"
	case reply[3] > 13:
		return "an unknown result code"
	case reply[3] == 0 && len(reply) == 60 && binary.BigEndian.Uint32(reply[4:]) != 0 && string(reply[44:60]) != string(octets(v4(externalIP))):
		return "another external address"
	}
	return ""
}

// FuzzAnswer: PCP-60, in every combination of the protocols.
func FuzzAnswer(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, true, true)
		f.Add(s, true, false)
		f.Add(s, false, true)
	}
	f.Fuzz(func(t *testing.T, request []byte, natpmp, speaksPCP bool) {
		if !natpmp && !speaksPCP {
			return
		}
		given := slices.Clone(request)
		reply, err := pcp.Answer(giving(natpmp, speaksPCP), time.Now(), hostA, request)
		if err != nil {
			t.Fatal(err)
		}
		if what := proper(request, reply); what != "" {
			t.Errorf("%s: %s to %s", what, words(reply), words(request))
		}
		if !slices.Equal(given, request) {
			t.Error("the request was written to")
		}
	})
}

// TestAnyDatagram: PCP-60, a hundred thousand datagrams of which most begin well.
func TestAnyDatagram(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	cfg, from := giving(true, true), seeds()
	answered := map[byte]int{}
	for range 100_000 {
		b := slices.Clone(from[random.IntN(len(from))])
		for range random.IntN(4) {
			switch {
			case len(b) > 0 && random.IntN(2) == 0:
				b[random.IntN(len(b))] = byte(random.Uint32())
			case random.IntN(2) == 0:
				b = b[:random.IntN(len(b)+1)]
			default:
				more := make([]byte, random.IntN(1500-min(len(b), 1400)))
				for i := range more {
					more[i] = byte(random.Uint32())
				}
				b = append(b, more...)
			}
		}
		b = b[:min(len(b), 1101)] // what the reader gives at most
		reply, err := pcp.Answer(cfg, time.Now(), hostA, b)
		if what := proper(b, reply); err != nil || what != "" {
			t.Fatalf("%v, %s: %s to %s", err, what, words(reply), words(b))
		}
		if reply != nil {
			answered[reply[0]]++
		}
	}
	if answered[0] == 0 || answered[2] == 0 {
		t.Errorf("answers by version: %v; a protocol was never tried", answered)
	}
}

// write writes a request anew from what was understood of it, in the plainest
// form.
func write(m pcp.Message) []byte {
	b := []byte{2, m.Op, 0, 0}
	b = binary.BigEndian.AppendUint32(b, m.Lifetime)
	client := m.Client.As16()
	b = append(b, client[:]...)
	if m.Op != 1 {
		return b
	}
	b = append(b, m.Nonce[:]...)
	b = append(b, m.Protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.Internal)
	b = binary.BigEndian.AppendUint16(b, m.External)
	address := m.Address.As16()
	b = append(b, address[:]...)
	option := func(code byte, data []byte) {
		b = append(b, code, 0, byte(len(data)>>8), byte(len(data)))
		b = append(b, data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	if m.PreferFailure {
		option(2, nil)
	}
	if m.Reset {
		option(3, make([]byte, 20))
	}
	for _, f := range m.Filters {
		bits := f.Prefix.Bits()
		if f.Prefix.Addr().Is4() {
			bits += 96
		}
		a := f.Prefix.Addr().As16()
		option(3, append([]byte{0, byte(bits), byte(f.Port >> 8), byte(f.Port)}, a[:]...))
	}
	if m.Described {
		option(128, []byte(m.Description))
	}
	if m.SetSize > 0 {
		parity := byte(0)
		if m.Parity {
			parity = 1
		}
		option(130, []byte{byte(m.SetSize >> 8), byte(m.SetSize), byte(m.Internal >> 8), byte(m.Internal), parity})
	}
	return b
}

// FuzzParse: what is understood of a request is understood of its plainest form
// as well, and no request makes the parser allocate more than a request has.
func FuzzParse(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 24 {
			return
		}
		source := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		first, code := pcp.Parse(b, source)
		if len(first.Filters) > 64 || len(first.Description) > portmap.MaxDescription {
			t.Errorf("%d filters, %d octets of description", len(first.Filters), len(first.Description))
		}
		if code != 0 {
			return
		}
		again, code := pcp.Parse(write(first), source)
		if diff := cmp.Diff(first, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); code != 0 || diff != "" {
			t.Errorf("code %d, (-first +again):\n%s", code, diff)
		}
	})
}

// TestAllocations: what a datagram claims of itself costs nothing.
func TestAllocations(t *testing.T) {
	long := octets(mapRequest(edits{options: "ff00ffff"}))
	full := octets(mapRequest(edits{options: filters(43)}))
	for name, x := range map[string]struct {
		request []byte
		most    float64
	}{"a huge length": {long, 4}, "a full message": {full, 24}} {
		if n := testing.AllocsPerRun(100, func() { _, _ = pcp.Parse(x.request, hostA.Addr()) }); n > x.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, x.most)
		}
	}
}
