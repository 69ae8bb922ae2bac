package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"portcullis/internal/slog"
	"portcullis/portmap"
)

// TestMappingJSON: a line of a list is what encoding/json writes, and is read back. The second
// of two that are alike allocates nothing; that is counted, so the test is not parallel to others.
func TestMappingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Mapping{
			ID: rapid.Uint64().Draw(t, "id"), Protocol: "udp", Family: rapid.SampledFrom([]int{4, 6}).Draw(t, "family"),
			ExternalPort: rapid.Uint16().Draw(t, "external"), InternalIP: "192.168.1.2", InternalPort: rapid.Uint16().Draw(t, "internal"),
			Remote: rapid.StringMatching(`[0-9./,]*`).Draw(t, "remote"), ClientHost: rapid.String().Draw(t, "host"), Via: "pcp",
			Description: rapid.String().Draw(t, "description"), Rule: rapid.StringMatching(`[a-z "<\\]*`).Draw(t, "rule"), WAN: "wan0",
			Enabled: rapid.Bool().Draw(t, "enabled"), Created: "2026-11-30T01:00:00Z", ExpiresIn: rapid.Int64Min(0).Draw(t, "expires"),
			Endless: rapid.Bool().Draw(t, "endless"), Packets: rapid.Uint64().Draw(t, "packets"), Uncounted: rapid.Bool().Draw(t, "uncounted"),
		}
		want, err := json.Marshal(m)
		if got := m.appendJSON(nil); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s (%v)", got, want, err)
		}
		var got []Mapping
		err = eachMapping(strings.NewReader("["+string(want)+"\n,"+string(want)+"\n]\n"), func(m *Mapping) { got = append(got, *m) })
		if json.Unmarshal(want, &m); err != nil || len(got) != 2 || got[0] != m || got[1] != m {
			t.Fatalf("%+v (%v), want %+v twice", got, err, m)
		}
	})
	m := Mapping{Protocol: "udp", Family: 4, InternalIP: "192.168.1.2", Via: "pcp"}
	line := m.appendJSON(nil)
	if got := testing.AllocsPerRun(10, func() { line = m.appendJSON(line[:0]) }); got != 0 {
		t.Errorf("%.0f allocations to write a line that is like the last", got)
	}
	if got := testing.AllocsPerRun(10, func() { m.parse(line) }); got != 0 {
		t.Errorf("%.0f allocations for a line that is like the last", got)
	}
}

// FuzzMappingLine: what a line of a list is read as without encoding/json, it is with it.
func FuzzMappingLine(f *testing.F) {
	m := Mapping{ID: 1, Protocol: "udp", Family: 4, ExternalPort: 5000, InternalIP: "192.168.1.2", Via: "pcp", Description: "a game"}
	f.Add(m.appendJSON(nil))
	f.Add(bytes.ReplaceAll(m.appendJSON(nil), []byte("5000"), []byte("65536")))
	f.Add(bytes.ReplaceAll(m.appendJSON(nil), []byte("a game"), []byte(`\u0041\n`)))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got, want Mapping
		if !got.parse(line) {
			return
		}
		if err := json.Unmarshal(line, &want); err != nil || got != want {
			t.Errorf("%q is read as %+v, want %+v (%v)", line, got, want, err)
		}
	})
}

// full is an engine with many mappings.
type full struct {
	Mapper
	table *portmap.Table
}

func (f full) Snapshot() *portmap.Table { return f.table }

func fullOf(mappings int) full {
	f := full{table: portmap.NewTable()}
	for i := range mappings {
		c := portmap.Client{Addr: netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}), Interface: "br-lan", Via: portmap.ViaPCP}
		f.table = f.table.Commit(portmap.Change{Event: portmap.Granted, New: &portmap.Mapping{
			ID: uint64(i + 1), Client: c, Transport: portmap.UDP, Internal: netip.AddrPortFrom(c.Addr, 5000), ExternalPort: uint16(5000 + i),
			Created: time.Now(),
		}})
	}
	return f
}

func nameless(*portmap.Client) string { return "" }

// TestLongList: the traffic of a long list is asked for while it is sent, some mappings at a
// time, and once in vain at most; so neither side holds the counters of all.
func TestLongList(t *testing.T) {
	t.Parallel()
	const mappings = 3*listedAtOnce + 5
	f := fullOf(mappings)
	for _, blind := range []bool{false, true} {
		var asked []int
		s := &Server{cfg: Config{
			Logger: slog.New(slog.DiscardHandler), Mapper: f, Host: nameless,
			Traffic: func(_ context.Context, ids []uint64) (map[uint64]Traffic, error) {
				if asked = append(asked, len(ids)); blind {
					return nil, errors.New("the kernel takes too long")
				}
				all := make(map[uint64]Traffic)
				for _, id := range ids {
					all[id] = Traffic{Packets: id}
				}
				return all, nil
			},
		}}
		var body bytes.Buffer
		if err := s.mappings(t.Context(), nil).Stream(&body); err != nil {
			t.Fatal(err)
		}
		n := 0
		err := eachMapping(&body, func(m *Mapping) {
			if n++; m.ID != uint64(n) || m.Uncounted != blind || !blind && m.Packets != m.ID {
				t.Errorf("the mapping at %d is %+v", n, m)
			}
		})
		want := "[128 128 128 5]"
		if blind {
			want = "[128]"
		}
		if err != nil || n != mappings || fmt.Sprint(asked) != want {
			t.Errorf("%d mappings, and %v asked for; %v", n, asked, err)
		}
	}
}

// slowly is a reader that takes its time for each part of an answer.
type slowly struct {
	bytes.Buffer
	takes time.Duration
}

func (s *slowly) Write(b []byte) (int, error) {
	time.Sleep(s.takes)
	return s.Buffer.Write(b)
}

// TestSlowList: how long a list takes to read has no part in how long its counters are waited for,
// which is bounded for all of it together.
func TestSlowList(t *testing.T) {
	t.Parallel()
	const mappings = 10 * listedAtOnce
	for name, c := range map[string]struct {
		reader, kernel time.Duration
		counted        int // chunks
	}{
		"reader": {reader: countTimeout, counted: 10},
		"kernel": {kernel: countTimeout/3 + time.Second, counted: 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{cfg: Config{
				Logger: slog.New(slog.DiscardHandler), Mapper: fullOf(mappings), Host: nameless,
				Traffic: func(ctx context.Context, _ []uint64) (map[uint64]Traffic, error) {
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(c.kernel):
						return nil, nil
					}
				},
			}}
			body := slowly{takes: c.reader}
			began := time.Now()
			if err := s.mappings(t.Context(), nil).Stream(&body); err != nil {
				t.Fatal(err)
			}
			if c.kernel > 0 && time.Since(began) != countTimeout {
				t.Errorf("%s: it was waited for %v", name, time.Since(began))
			}
			counted := 0
			err := eachMapping(&body.Buffer, func(m *Mapping) {
				if !m.Uncounted {
					counted++
				}
			})
			if err != nil || counted != c.counted*listedAtOnce {
				t.Errorf("%s: %d of %d are counted; %v", name, counted, mappings, err)
			}
		})
	}
}
