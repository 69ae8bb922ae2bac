package restore_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall/fwtest"
	"portcullis/internal/journal"
	"portcullis/internal/netif"
	"portcullis/internal/restore"
	"portcullis/internal/slog"
	"portcullis/policy"
	"portcullis/portmap"
)

// lookEvery is how long it may take until a Keeper has looked, for as long as there may be
// something.
const lookEvery = 5 * time.Second

// gateway is a machine whose LANs come and go.
type gateway struct {
	mu   sync.Mutex
	lans map[string]netif.LAN // guarded by mu
}

func (g *gateway) View() *portmap.View {
	v := &portmap.View{LAN: map[string]portmap.LAN{}}
	for name, l := range g.LANs() {
		v.LAN[name] = portmap.LAN{Prefixes: l.Prefixes, Addrs: l.Addrs}
	}
	return v
}

func (g *gateway) Look(context.Context) {}

func (g *gateway) LANs() map[string]netif.LAN {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lans
}

// has has the machine have these LANs; the n-th has 192.168.n.1.
func (g *gateway) has(lans ...int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lans = map[string]netif.LAN{}
	for _, n := range lans {
		prefix := netip.MustParsePrefix(fmt.Sprintf("192.168.%d.0/24", n))
		l := netif.LAN{Name: "lan" + strconv.Itoa(n), Index: n, Addr: prefix.Addr().Next(), Prefixes: []netip.Prefix{prefix}}
		l.Addrs = []netip.Addr{l.Addr}
		g.lans[l.Name] = l
	}
}

// mapping returns one that the last run held, of a host of the n-th LAN.
func mapping(id uint64, n int, port uint16, left time.Duration) portmap.Mapping {
	now := time.Now()
	host := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("192.168.%d.10", n)), port)
	return portmap.Mapping{
		ID: id, Transport: portmap.TCP, Internal: host, ExternalPort: port,
		Client:  portmap.Client{Addr: host.Addr(), MAC: portmap.MAC{2, byte(n)}, Interface: "lan" + strconv.Itoa(n), Name: "old", Via: portmap.ViaUPnP},
		Claims:  portmap.Vias(0).With(portmap.ViaUPnP),
		Created: now, Expires: now.Add(left),
	}
}

// rig is a Keeper over an engine, within a bubble of time.
type rig struct {
	engine *portmap.Engine
	*restore.Keeper
	*gateway
	journal  *disk
	firewall *fwtest.Fake
	log      *lines
	looked   int // times that hosts were asked to be looked at
	epochs   journal.Epochs
}

// start restores the mappings and runs the engine and the Keeper.
func start(t *testing.T, whole bool, lans []int, last ...portmap.Mapping) *rig {
	t.Helper()
	r := &rig{gateway: new(gateway), journal: new(disk), firewall: new(fwtest.Fake), log: new(lines)}
	r.has(lans...)
	decide, err := policy.New(policy.Config{Default: portmap.Allow, Rules: []policy.Rule{{Name: "cameras", Action: portmap.Deny, Clients: []policy.ClientMatch{{Host: "camera"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	store := restore.NewStore(log, r.journal)
	r.engine, err = portmap.NewEngine(portmap.EngineConfig{
		Policy: decide, Firewall: r.firewall, Gateway: r.gateway, LeaseMax: 24 * time.Hour, Store: store, Recorded: store.Recorded,
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Hour)
	r.Keeper = restore.New(restore.Config{
		Log: log, Journal: r.journal, Engine: r.engine, LANs: r.LANs,
		Last:     journal.Restored{Mappings: last, Whole: whole, Epochs: journal.Epochs{V4: began, V6: began}},
		Identity: restore.NewIdentity(log, r.journal, after),
		Revoke: func(ctx context.Context, m portmap.Mapping, reason portmap.Reason, why string) {
			fmt.Fprintf(r.log, "revoked %d: %s, %s\n", m.ID, reason, why)
			if err := r.engine.Revoke(ctx, m, reason); err != nil {
				t.Error(err)
			}
		},
		Name: func(c *portmap.Client) string {
			if c.Interface == "lan3" {
				return "camera"
			}
			return ""
		},
		Look: func() { r.looked++ },
	})
	if r.epochs, err = r.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.engine.Run(ctx) })
	running.Go(func() { _ = r.Keeper.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	time.Sleep(lookEvery / 2) // the test's steps are between looks
	return r
}

// want compares the mappings that there are, and those that ended in the journal.
func (r *rig) want(t *testing.T, ids, ended string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for m := range r.engine.Snapshot().All() {
		got = append(got, strconv.FormatUint(m.ID, 10))
	}
	slices.Sort(got)
	if is := strings.Join(got, " "); is != ids {
		t.Errorf("the mappings are %q, want %q\n%s", is, ids, r.log)
	}
	if is := r.journal.endings(); is != ended {
		t.Errorf("in the journal ended %q, want %q\n%s", is, ended, r.log)
	}
	if open := len(r.firewall.Mappings()); open != len(got) {
		t.Errorf("%d mappings are open, want %d", open, len(got))
	}
}

// told compares how often a line was logged.
func (l *lines) told(t *testing.T, line string, times int) {
	t.Helper()
	if n := strings.Count(l.String(), line); n != times {
		t.Errorf("%q was told %d times, want %d\n%s", line, n, times, l)
	}
}

// TestRestore: what today's policy allows goes on, what it does not ends, what has no LAN
// waits; and the epochs go on when nothing is lost but what waits.
func TestRestore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		whole bool
		lans  []int
		last  []int // the LAN of each mapping
		ids   string
		ended string
		goOn  bool
	}{
		"nothing there was":          {true, []int{1}, nil, "", "", true},
		"everything":                 {true, []int{1, 2}, []int{1, 2}, "1 2", "", true},
		"not known to be everything": {false, []int{1, 2}, []int{1, 2}, "1 2", "", false},
		"one waits":                  {true, []int{1}, []int{1, 2}, "1", "", true},
		"one is not allowed by the name of today": {true, []int{1, 3}, []int{1, 3}, "1", "2", false},
		"what waits is not asked about yet":       {true, []int{1}, []int{1, 3}, "1", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var last []portmap.Mapping
				for i, n := range c.last {
					last = append(last, mapping(uint64(i+1), n, 42000+uint16(i), time.Hour))
				}
				r := start(t, c.whole, c.lans, last...)
				r.want(t, c.ids, c.ended)
				if goOn := r.epochs != (journal.Epochs{}); goOn != c.goOn {
					t.Errorf("the epochs that go on are %v", r.epochs)
				}
				lost := 0
				if c.ended != "" {
					lost = 1
				}
				r.log.told(t, "mapping not restored", lost)
			})
		})
	}
}

// TestRestoreFails: a kernel that takes nothing is an error, and nothing ends for it.
func TestRestoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, []int{1})
		broken := errors.New("broken")
		r.firewall.Fail(broken)
		k := restore.New(restore.Config{
			Log: slog.New(slog.DiscardHandler), Engine: r.engine, LANs: r.LANs,
			Last: journal.Restored{Whole: true, Mappings: []portmap.Mapping{mapping(1, 1, 42000, time.Hour)}, Epochs: journal.Epochs{V4: time.Now(), V6: time.Now()}},
			Name: func(*portmap.Client) string { return "" },
		})
		if e, err := k.Restore(t.Context()); !errors.Is(err, broken) || e != (journal.Epochs{}) {
			t.Errorf("epochs %v, error %v", e, err)
		}
		r.want(t, "", "")
	})
}

// TestReadmit: what waits for its LAN is taken over when that comes, one LAN at a time,
// if it is allowed then; and the hosts are looked at.
func TestReadmit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, []int{1}, mapping(1, 1, 42000, time.Hour), mapping(2, 2, 42001, time.Hour), mapping(3, 3, 42002, time.Hour))
		r.want(t, "1", "")
		r.Readmit(t.Context())
		r.want(t, "1", "")
		r.has(1, 2)
		r.Readmit(t.Context())
		r.want(t, "1 2", "")
		if r.looked != 1 {
			t.Errorf("hosts were looked at %d times", r.looked)
		}
		r.has(1, 2, 3)
		r.Readmit(t.Context())
		r.want(t, "1 2", "3")
		r.log.told(t, "restored mappings after their LAN came up", 1)
		r.log.told(t, "mapping not restored", 1)
		r.Readmit(t.Context())
		r.want(t, "1 2", "3")
	})
}

// TestReadmitAgain: what the kernel does not take yet waits on.
func TestReadmitAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, nil, mapping(1, 1, 42000, time.Hour))
		r.has(1)
		r.firewall.Fail(&portmap.Error{Reason: portmap.FirewallFailed})
		r.Readmit(t.Context())
		r.want(t, "", "")
		r.log.told(t, "cannot restore mappings yet", 1)
		r.Readmit(t.Context())
		r.want(t, "1", "")
	})
}

// TestWaitsTooLong: a lease that ends while its mapping waits is over, and the mapping
// is not taken over when its LAN comes.
func TestWaitsTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, nil, mapping(1, 1, 42000, time.Minute), mapping(2, 1, 42001, time.Hour))
		time.Sleep(time.Minute)
		r.want(t, "", "1")
		r.has(1)
		r.Readmit(t.Context())
		r.want(t, "2", "1")
	})
}

// TestEnd: what the owner ends while it waits ends in the journal, so that no later run has it,
// and does not come with its LAN; unless the engine cannot be asked, and then it waits on.
func TestEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, []int{1}, mapping(1, 1, 42000, time.Hour), mapping(2, 2, 42001, time.Hour), mapping(3, 2, 42002, time.Hour))
		ctx, gone := context.WithCancel(t.Context())
		gone()
		if err := r.End(ctx, 2); err == nil || len(r.Waiting()) != 2 {
			t.Errorf("it ends without the engine: %v; %d wait", err, len(r.Waiting()))
		}
		for _, id := range []uint64{2, 2, 1, 9} {
			if err := r.End(t.Context(), id); err != nil {
				t.Errorf("%d: %v", id, err)
			}
		}
		if w := r.Waiting(); len(w) != 1 || w[0].ID != 3 {
			t.Errorf("there wait %v", w)
		}
		r.want(t, "1", "2")
		r.has(1, 2)
		r.Readmit(t.Context())
		r.want(t, "1 3", "2")
	})
}

// TestOverdue: when the kernel learns the time of day, mappings turn out to have run out
// while the machine was off: those that are open end, and those that wait.
func TestOverdue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, []int{1}, mapping(1, 1, 42000, time.Hour), mapping(2, 1, 42001, time.Hour),
			mapping(3, 2, 42002, time.Hour), mapping(4, 2, 42003, time.Hour))
		r.want(t, "1 2", "")
		r.journal.runsOut(1, 3)
		time.Sleep(lookEvery)
		r.want(t, "2", "3 1")
		r.log.told(t, "revoked 1: ended, its lease ended while the machine was off", 1)
		r.has(1, 2)
		time.Sleep(lookEvery) // the LAN is found without being told of
		r.want(t, "2 4", "3 1")
	})
}

// TestOverdueOnce: the journal says only once that a mapping has run out. One that
// waits has, also when the engine cannot be asked at that moment.
func TestOverdueOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, nil, mapping(1, 1, 42000, time.Hour), mapping(2, 1, 42001, time.Hour))
		r.has(1)
		r.firewall.Fail(&portmap.Error{Reason: portmap.FirewallFailed})
		r.journal.runsOut(1)
		time.Sleep(lookEvery)
		r.log.told(t, "cannot restore mappings yet", 1)
		time.Sleep(lookEvery)
		r.want(t, "2", "1 1") // an end that was written is written again, which is no other
	})
}

// TestNothingRunsOut: Where nothing waits, and no lease can turn out to have ended, nobody
// wakes to look for such. While something waits somebody does.
func TestNothingRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, []int{1}, mapping(1, 1, 42000, 2*time.Hour))
		r.journal.settles()
		time.Sleep(time.Minute)
		asked := r.journal.askedFor()
		time.Sleep(time.Hour)
		if n := r.journal.askedFor() - asked; n != 0 {
			t.Errorf("asked %d times in an hour", n)
		}
		r.want(t, "1", "")
		r = start(t, true, nil, mapping(1, 1, 42000, 3*time.Minute))
		r.journal.settles()
		time.Sleep(3*time.Minute + lookEvery)
		r.want(t, "", "1")
	})
}

// TestKeepsRunning: a Keeper ends with its context, or with the journal.
func TestKeepsRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- restore.New(restore.Config{}).Run(ctx) }()
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			t.Fatalf("without a journal it ended: %v", err)
		default:
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		broken := errors.New("broken")
		if err := restore.New(restore.Config{Journal: &disk{broken: broken}}).Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestDamagedJournal: what can no longer be read is told, restores nothing, and begins
// new epochs, so that clients ask again.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // #nosec G302 -- a directory
		t.Fatal(err)
	}
	open := func(log *lines) (restore.Journal, *restore.Keeper) {
		t.Helper()
		logger := slog.New(slog.NewTextHandler(log, nil))
		j, last, err := restore.Open(journal.Config{Dir: dir, Log: logger})
		if err != nil || j == nil {
			t.Fatalf("journal %v, error %v", j, err)
		}
		g := new(gateway)
		g.has(1)
		decide, err := policy.New(policy.Config{Default: portmap.Allow})
		if err != nil {
			t.Fatal(err)
		}
		engine, err := portmap.NewEngine(portmap.EngineConfig{Policy: decide, Firewall: new(fwtest.Fake), Gateway: g, LeaseMax: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return j, restore.New(restore.Config{
			Log: logger, Journal: j, Last: last, Engine: engine, LANs: g.LANs, Name: func(*portmap.Client) string { return "" },
		})
	}
	const mappings = 3
	first, _ := open(new(lines))
	for id := range uint64(mappings) {
		m := mapping(id+1, 1, 42000+uint16(id), time.Hour)
		if err := first.Record(t.Context(), []portmap.Change{{New: &m}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.KeepEpochs(journal.Epochs{V4: time.Now(), V6: time.Now()}), first.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		when  string
		spoil func(text []byte)
		goOn  bool
	}{
		{"as it was", func([]byte) {}, true},
		{"with a bad line in the middle", func(text []byte) { text[len(text)/2] ^= 1 }, false},
	} {
		file := filepath.Join(dir, "leases.journal")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(text)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		log := new(lines)
		j, k := open(log)
		e, err := k.Restore(t.Context())
		if goOn := e != (journal.Epochs{}); err != nil || goOn != c.goOn {
			t.Errorf("%s: epochs %v, error %v", c.when, e, err)
		}
		told := map[bool]int{false: 1}[c.goOn]
		log.told(t, "no mapping is restored", told)
		log.told(t, `msg="restored mappings" mappings=3`, 1-told)
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
