package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"portcullis/internal/journal"
	"portcullis/portmap"
)

// TestNonsense: what portmap cannot have made is neither written nor read.
func TestNonsense(t *testing.T) {
	t.Parallel()
	v6 := netip.MustParseAddr("2001:db8::1")
	cases := map[string]func(m *portmap.Mapping){
		"no ID":                    func(m *portmap.Mapping) { m.ID = 0 },
		"an ID that JSON rounds":   func(m *portmap.Mapping) { m.ID = portmap.MaxID + 1 },
		"long WAN":                 func(m *portmap.Mapping) { m.WAN = strings.Repeat("x", 16) },
		"WAN with line feed":       func(m *portmap.Mapping) { m.WAN = "a\nb" },
		"kind":                     func(m *portmap.Mapping) { m.Kind = 2 },
		"transport":                func(m *portmap.Mapping) { m.Transport = 1 },
		"no internal address":      func(m *portmap.Mapping) { m.Internal = netip.AddrPort{} },
		"internal port 0":          func(m *portmap.Mapping) { m.Internal = netip.AddrPortFrom(m.Internal.Addr(), 0) },
		"internal address of IPv6": func(m *portmap.Mapping) { m.Internal = netip.AddrPortFrom(v6, 1) },
		"internal loopback":        func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("127.0.0.1:80") },
		"internal unspecified":     func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("0.0.0.0:80") },
		"internal multicast":       func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("224.0.0.1:80") },
		"internal mapped":          func(m *portmap.Mapping) { m.Internal = netip.MustParseAddrPort("[::ffff:10.0.0.1]:80") },
		"external port 0":          func(m *portmap.Mapping) { m.ExternalPort = 0 },
		"number of a NAT mapping":  func(m *portmap.Mapping) { m.Number = 1 },
		"pinhole of IPv4":          func(m *portmap.Mapping) { m.Kind, m.ExternalPort = portmap.Pinhole6, m.Internal.Port() },
		"pinhole that translates": func(m *portmap.Mapping) {
			*m = pinhole(*m)
			m.ExternalPort = 1
		},
		"pinhole with a zone": func(m *portmap.Mapping) {
			*m = pinhole(*m)
			m.Internal = netip.MustParseAddrPort("[fe80::1%eth0]:80")
			m.ExternalPort = m.Internal.Port()
		},
		"nine remotes":        func(m *portmap.Mapping) { m.Remotes = make([]portmap.Remote, 9) },
		"remote that is none": func(m *portmap.Mapping) { m.Remotes = make([]portmap.Remote, 1) },
		"remote of IPv6":      func(m *portmap.Mapping) { m.Remotes = []portmap.Remote{{Prefix: netip.PrefixFrom(v6, 64).Masked()}} },
		"remote not masked": func(m *portmap.Mapping) {
			m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}}
		},
		"no client":            func(m *portmap.Mapping) { m.Client.Addr = netip.Addr{} },
		"no protocol":          func(m *portmap.Mapping) { m.Client.Via = 0 },
		"unknown protocol":     func(m *portmap.Mapping) { m.Client.Via = 5 },
		"unknown claim":        func(m *portmap.Mapping) { m.Claims = 1 },
		"long interface":       func(m *portmap.Mapping) { m.Client.Interface = strings.Repeat("x", 16) },
		"long name":            func(m *portmap.Mapping) { m.Client.Name = strings.Repeat("x", 256) },
		"name with line feed":  func(m *portmap.Mapping) { m.Client.Name = "a\nb" },
		"long rule":            func(m *portmap.Mapping) { m.Rule = strings.Repeat("x", 257) },
		"long description":     func(m *portmap.Mapping) { m.Description = strings.Repeat("x", portmap.MaxDescription+1) },
		"endless without UPnP": func(m *portmap.Mapping) { m.Endless = true },
		"lease of nobody":      func(m *portmap.Mapping) { m.Leases.Set(portmap.ViaUPnP, portmap.Lease{Ends: m.Expires}) },
		"rule that is no text": func(m *portmap.Mapping) { m.Rule = "\xff" },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			good, bad := w.mapping(1), w.mapping(2)
			spoil(&bad)
			if err := write(w.j, []portmap.Mapping{bad, good}, nil); err == nil || errors.Is(err, journal.ErrBehind) {
				t.Errorf("recorded: %v", err)
			}
			w.start()
			w.expect(table{1: good}, 0)
		})
	}
}

// TestChangedToNonsense: a mapping that cannot be kept as it is now is not kept
// as it was.
func TestChangedToNonsense(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.mapping(1)
	w.record([]portmap.Mapping{m})
	m.Rule = "\xff"
	if err := write(w.j, []portmap.Mapping{m}, nil); err == nil {
		t.Error("recorded")
	}
	w.start()
	w.expect(table{}, 0)
}

// TestTooMany: there are no more mappings than the configuration has room for,
// on either way.
func TestTooMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for id := uint64(1); id <= 100; id++ {
		w.record([]portmap.Mapping{w.mapping(id)})
	}
	if err := write(w.j, []portmap.Mapping{w.mapping(101)}, nil); err == nil {
		t.Error("one too many was recorded")
	}
	w.record([]portmap.Mapping{w.mapping(102)}, 50)
	cfg := w.config()
	cfg.MaxMappings = 7
	_, got, err := journal.OpenOn(cfg, w.disk)
	if err != nil || len(got.Mappings) != 7 || got.Whole {
		t.Errorf("%d restored, whole %v, %v", len(got.Mappings), got.Whole, err)
	}
}

// TestOrder: of a mapping the last change counts.
func TestOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.mapping(1), w.mapping(2)
	if err := w.j.Record(t.Context(), []portmap.Change{{New: &a}, {New: &b}, {Old: &a}, {Old: &b}, {New: &a}}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.expect(table{1: a}, 0)
}

// TestForeignFiles: files that are no journal of ours restore nothing and do not
// stop the daemon.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	head := journal.Line(0, 1, 1000, "journal version=1 boot=-")
	put := func(seq uint64, oldnew ...string) string {
		const text = `put id=1 made=1.000 end=never tr=udp in=192.168.1.2:5000 out=:5001 client=192.168.1.2 via=upnp if="lan"`
		return journal.Line(seq, 1, 1000, strings.NewReplacer(oldnew...).Replace(text))
	}
	cases := map[string]string{
		"empty":                     "",
		"a line feed":               "\n",
		"no beginning":              put(0),
		"number 0 twice":            put(0) + head + put(0),
		"another version":           journal.Line(0, 1, 1000, "journal version=4 boot=-") + put(1),
		"no line feed":              strings.Repeat("x", 100_000),
		"too large":                 strings.Repeat(strings.Repeat("x", 99)+"\n", 200_000),
		"a checksum that is wrong":  head + "00000000" + put(1)[8:],
		"a checksum in capitals":    head + strings.ToUpper(put(1)[:8]) + put(1)[8:],
		"a line that is too long":   head + strings.TrimSuffix(put(1), "\n") + strings.Repeat(" ", 9000) + "\n",
		"carriage returns":          head + strings.ReplaceAll(put(1), "\n", "\r\n"),
		"an end of a run to come":   head + journal.Line(1, 1, 1000, "lease id=1 end=99999999999999999999.000"),
		"an unknown verb":           head + journal.Line(1, 1, 1000, "open id=1"),
		"an address outside":        head + put(1, "out=", "out=203.0.113.7"),
		"an address of IPv6 there":  head + put(1, "out=", "out=[2001:db8::1]"),
		"an unknown field":          head + journal.Line(1, 1, 1000, "end id=1 why=x"),
		"a time with few decimals":  head + journal.Line(1, 1, 1000, "lease id=1 end=1.0"),
		"a mapping made afterwards": head + put(1, "made=1.000", "made=1.001"),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put([]byte(text))
			w.start()
			if len(w.got.Mappings) != 0 || w.got.Whole {
				t.Errorf("restored %+v", w.got)
			}
			w.record([]portmap.Mapping{w.mapping(1)})
			w.start()
			w.expect(table{1: w.mapping(1)}, 0)
		})
	}
	w := newWorld(t)
	for _, v := range []string{"1", "2", "3"} {
		w.put([]byte(journal.Line(0, 1, 1000, "journal version="+v+" boot=-") + put(1)))
		if w.start(); len(w.got.Mappings) != 1 {
			t.Error("the good one was not restored: the test shows nothing")
		}
	}
}

// TestLongestLine: the longest mapping that passes has room on a line.
func TestLongestLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := pinhole(w.mapping(portmap.MaxID))
	m.Description = strings.Repeat("\x00", portmap.MaxDescription)
	m.Rule = strings.Repeat("\"", 256)
	m.Client.Name = strings.Repeat("\u202e", 85)
	m.Client.Interface, m.WAN = strings.Repeat("\"", 15), strings.Repeat("\"", 15)
	m.Claims, m.Nonce, m.Disabled = 30, portmap.Nonce{1}, true
	m.Remotes = nil
	for i := range portmap.MaxRemotes {
		ip := netip.AddrFrom16([16]byte{0x20, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, byte(0xf0 + i)})
		m.Remotes = append(m.Remotes, portmap.Remote{Prefix: netip.PrefixFrom(ip, 128), Port: 65535})
	}
	before := w.j.Size()
	w.record([]portmap.Mapping{m})
	size := w.j.Size() - before
	t.Logf("%d bytes", size)
	if size > 4000 {
		t.Errorf("%d bytes", size)
	}
	w.start()
	w.expect(table{m.ID: m}, 0)
}

// TestMemory: reading takes memory in proportion to the file.
func TestMemory(t *testing.T) {
	w := newWorld(t)
	for i := range 2000 {
		m := w.mapping(1)
		m.Description = fmt.Sprint(i)
		w.record([]portmap.Mapping{m})
	}
	data := bytes.Repeat([]byte("\n"), len(w.file()))
	for _, data := range [][]byte{w.file(), data} {
		w.put(data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w.start()
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 20*uint64(len(data)) {
			t.Errorf("%d bytes for a file of %d", used, len(data))
		}
	}
}

// FuzzLine: a line that is accepted is written again as it was.
func FuzzLine(f *testing.F) {
	w := newWorld(f)
	history(w, 30)
	for line := range bytes.Lines(w.file()) {
		f.Add(bytes.TrimSuffix(line, []byte("\n")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// With a right checksum, too, or the fuzzer never gets past it.
		fixed := []byte{}
		if len(b) > 9 && bytes.Count(b[9:], []byte(" ")) > 1 {
			fields := bytes.SplitN(b[9:], []byte(" "), 3)
			fixed = []byte(strings.TrimSuffix(journal.Line(7, 3, 5000_000, string(fields[2])), "\n"))
		}
		for _, b := range [][]byte{b, fixed} {
			if again, err := journal.Recode(b); err == nil && again != string(b) {
				t.Errorf("%q became %q", b, again)
			}
		}
	})
}

// FuzzReplay: no file makes the journal fail, and what it restores is sound, no
// more than there is room for, and the same when it is read again.
func FuzzReplay(f *testing.F) {
	w := newWorld(f)
	history(w, 6)
	f.Add(w.file(), false)
	f.Add(w.file()[:900], true)
	f.Add(damageOnce(w.file()), true)
	f.Fuzz(func(t *testing.T, data []byte, restarted bool) {
		w := newWorld(t)
		lines := bytes.SplitAfter(data, []byte("\n"))
		fixed := []byte{}
		for i, l := range lines { // the same with right heads
			if fields := bytes.SplitN(bytes.TrimSuffix(l, []byte("\n")), []byte(" "), 4); len(fields) == 4 {
				fixed = append(fixed, journal.Line(uint64(i), 2, int64(i)*1000, string(fields[3]))...)
			}
		}
		for _, data := range [][]byte{data, fixed} {
			w.put(data)
			if restarted {
				w.clock.restart(time.Minute)
			}
			w.start()
			first := w.got.Mappings
			if len(first) > 100 || len(first) > len(data)/100 {
				t.Fatalf("%d mappings of %d bytes", len(first), len(data))
			}
			want := table{}
			for _, m := range first {
				if err := journal.Check(&m); err != nil || m.ID == 0 || m.Created.After(w.clock.now()) {
					t.Fatalf("%+v: %v", m, err)
				}
				want[m.ID] = m
			}
			w.start()
			w.expect(want, 0)
		}
	})
}

func damageOnce(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 4
	return data
}
