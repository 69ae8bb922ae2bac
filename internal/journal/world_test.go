package journal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/internal/journal"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// world is a gateway that can be crashed and switched off: its clocks, its disk,
// and what its table should be.
type world struct {
	t     testing.TB
	clock *fakeClock
	disk  *fakeDisk
	j     *journal.Journal
	got   journal.Restored
	log   *slog.Logger
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, clock: newFakeClock(), disk: newFakeDisk(), log: slog.New(slog.DiscardHandler)}
	w.start()
	return w
}

func (w *world) config() journal.Config {
	return journal.Config{Log: w.log, MaxMappings: 100, Clock: w.clock}
}

// start opens the journal as a new process; the one before is dead.
func (w *world) start() {
	w.t.Helper()
	w.disk.set(0, nil, false)
	var err error
	if w.j, w.got, err = journal.OpenOn(w.config(), w.disk); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) record(put []portmap.Mapping, ended ...uint64) {
	w.t.Helper()
	if err := write(w.j, put, ended); err != nil {
		w.t.Fatal(err)
	}
}

// write records one step of the engine: what has ended, then what is new or another.
func write(j *journal.Journal, put []portmap.Mapping, ended []uint64) error {
	var changes []portmap.Change
	for _, id := range ended {
		changes = append(changes, portmap.Change{Old: &portmap.Mapping{ID: id}})
	}
	for i := range put {
		changes = append(changes, portmap.Change{New: &put[i]})
	}
	return j.Record(context.Background(), changes)
}

func (w *world) ids() []uint64 {
	ids := []uint64{}
	for _, m := range w.got.Mappings {
		ids = append(ids, m.ID)
	}
	return ids
}

// fakeClock has all its hands apart, so that taking one for another shows.
type fakeClock struct {
	mu sync.Mutex
	m  journal.Moment
	id int
}

func newFakeClock() *fakeClock {
	c := &fakeClock{}
	c.m.Now = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	c.m.Wall = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	c.m.Boot = 100*time.Hour + 123456*time.Microsecond
	c.m.Synced = true
	return c
}

func (c *fakeClock) Moment() journal.Moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m
}

func (c *fakeClock) BootID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", c.id)
}

func (c *fakeClock) now() time.Time { return c.Moment().Now }

func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Now, c.m.Wall, c.m.Boot = c.m.Now.Add(d), c.m.Wall.Add(d), c.m.Boot+d
}

// set changes the day's clock.
func (c *fakeClock) set(wall time.Time, inSync bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Wall, c.m.Synced = wall, inSync
}

// restart is the machine being off for a time and coming up again. It gives how
// far away on Now the same moment is afterwards.
func (c *fakeClock) restart(off time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	const elsewhere = 1000 * time.Hour
	c.id++
	c.m.Boot = 20 * time.Second
	c.m.Now, c.m.Wall = c.m.Now.Add(elsewhere), c.m.Wall.Add(off)
	return elsewhere - off
}

// mapping returns a plain one that lasts for an hour.
func (w *world) mapping(id uint64) portmap.Mapping {
	now := w.clock.now()
	addr := netip.AddrFrom4([4]byte{192, 168, 1, byte(1 + id%250)})
	return portmap.Mapping{
		ID: id, Transport: portmap.UDP, Internal: netip.AddrPortFrom(addr, 5000), ExternalPort: uint16(5000 + id),
		Client: portmap.Client{Addr: addr, MAC: portmap.MAC{2, 0, 0, 0, 0, byte(id)}, Interface: "br-lan", Via: portmap.ViaPCP},
		WAN:    "wan0", Claims: portmap.Vias(0).With(portmap.ViaPCP), Nonce: portmap.Nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, byte(id)},
		Created: now, Expires: now.Add(time.Hour),
	}
}

// anyMapping returns one of any kind, with text that would like to be a line.
func (w *world) anyMapping(r *rand.Rand, id uint64) portmap.Mapping {
	m := w.mapping(id)
	texts := []string{"", "Xbox", "a b\nend id=1\n", `"quoted" \ rule=`, "\xff\xfe\x00", "日本語\u202e", string(make([]byte, portmap.MaxDescription))}
	m.Description = texts[r.IntN(len(texts))]
	m.Rule = []string{"", "consoles", "Geräte von \"Anna\""}[r.IntN(3)]
	m.Client.Name = []string{"", "playstation"}[r.IntN(2)]
	m.Client.Via = portmap.Via(1 + r.IntN(4))
	m.Claims = portmap.Vias(r.IntN(16) << 1)
	m.Transport = []portmap.Transport{portmap.TCP, portmap.UDP}[r.IntN(2)]
	m.Disabled = r.IntN(4) == 0
	m.Expires = m.Created.Add(time.Duration(1+r.IntN(7200)) * time.Second)
	if r.IntN(10) == 0 {
		m.Expires = time.Time{}
	}
	if r.IntN(3) == 0 {
		m.Nonce, m.Client.MAC = portmap.Nonce{}, portmap.MAC{}
	}
	prefixes := []string{"198.51.100.0/24", "203.0.113.9/32", "0.0.0.0/0"}
	if r.IntN(3) == 0 {
		addr := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", id))
		m.Kind, m.Internal, m.Client.Addr, m.Number = portmap.Pinhole6, netip.AddrPortFrom(addr, 5000), addr, uint16(id)
		m.ExternalPort = m.Internal.Port()
		prefixes = []string{"2001:db8:1::/48", "2001:db8::1/128", "::/0"}
	}
	for range r.IntN(4) {
		m.Remotes = append(m.Remotes, portmap.Remote{Prefix: netip.MustParsePrefix(prefixes[r.IntN(3)]), Port: uint16(r.IntN(3))})
	}
	return m
}

var comparable = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

// expect compares what was restored with what should be, by ID, but for the
// times: those may be late by no more than the slack, and never early.
func (w *world) expect(want map[uint64]portmap.Mapping, slack time.Duration) {
	w.t.Helper()
	var list []portmap.Mapping
	for _, m := range want {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b portmap.Mapping) int { return int(a.ID) - int(b.ID) })
	got := slices.Clone(w.got.Mappings)
	for i := range min(len(got), len(list)) {
		late := got[i].Expires.Sub(list[i].Expires)
		if got[i].Expires.IsZero() != list[i].Expires.IsZero() || late < 0 || late > slack+2*time.Millisecond {
			w.t.Errorf("mapping %d ends %v, wanted %v: %v late", got[i].ID, got[i].Expires, list[i].Expires, late)
		}
		if off := got[i].Created.Sub(list[i].Created).Abs(); off > 2*time.Millisecond {
			w.t.Errorf("mapping %d: created %v, wanted %v", got[i].ID, got[i].Created, list[i].Created)
		}
		got[i].Created, got[i].Expires = list[i].Created, list[i].Expires
	}
	if diff := cmp.Diff(list, got, comparable, cmpopts.EquateEmpty()); diff != "" {
		w.t.Fatalf("restored (-want +got):\n%s", diff)
	}
}

// pinhole makes a pinhole of m, with restrictions.
func pinhole(m portmap.Mapping) portmap.Mapping {
	addr := netip.MustParseAddr("2001:db8::20")
	m.Kind, m.Transport, m.Number = portmap.Pinhole6, portmap.TCP, 4711
	m.Internal = netip.AddrPortFrom(addr, 443)
	m.ExternalPort, m.Client.Addr, m.Client.Via = 443, addr, portmap.ViaUPnP
	m.Claims, m.Nonce = portmap.Vias(0).With(portmap.ViaUPnP), portmap.Nonce{}
	m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("2001:db8:1::/48")}, {Prefix: netip.MustParsePrefix("2001:db8:2::1/128"), Port: 53}}
	return m
}
