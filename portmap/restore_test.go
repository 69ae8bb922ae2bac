package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/portmap"
)

// memory is a Store that remembers. The engine that wrote to it may still run beside the one
// that takes over.
type memory struct {
	mu      sync.Mutex
	held    map[uint64]portmap.Mapping
	records int
	err     error // what Record returns
}

func (s *memory) Record(_ context.Context, changes []portmap.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = make(map[uint64]portmap.Mapping)
	}
	for _, c := range changes {
		if c.New != nil {
			s.held[c.New.ID] = *c.New
		} else {
			delete(s.held, c.Old.ID)
		}
	}
	s.records++
	return s.err
}

func (s *memory) all() []portmap.Mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.held))
}

func table(e *portmap.Engine) []portmap.Mapping { return slices.Collect(e.Snapshot().All()) }

// restored returns a second engine that takes over what a first one left.
func restored(t *testing.T, s *memory, cfg portmap.EngineConfig) (rig, []string) {
	t.Helper()
	k := &kernel{bad: map[uint16]bool{}}
	cfg.Firewall, cfg.Store, cfg.LeaseMax = k, s, 168*time.Hour
	if cfg.Policy == nil {
		cfg.Policy = policyFunc(allowAll)
	}
	if cfg.Gateway == nil {
		cfg.Gateway = gateway{}
	}
	e, err := portmap.NewEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := e.Restore(t.Context(), s.all())
	if err != nil {
		t.Fatal(err)
	}
	var why []string
	for _, d := range dropped {
		why = append(why, fmt.Sprintf("%s: %s", d.Mapping.String(), portmap.ReasonOf(d.Err)))
	}
	slices.Sort(why)
	return rig{e, k}, why
}

// TestStore: what is granted, renewed, deleted and expired is recorded, and what
// an engine recorded another one takes over, to the last field.
func TestStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Store: s})
		renewed := r.mustMap(t, ask(hostA, portmap.UDP, 5000))
		again := ask(hostA, portmap.UDP, 5000)
		again.Lifetime, again.Description = 2*time.Hour, "a game"
		r.mustMap(t, again)
		deleted := r.mustMap(t, ask(hostA, portmap.UDP, 5001))
		if _, err := r.Unmap(t.Context(), portmap.Selector{ID: deleted.ID, Client: hostA}); err != nil {
			t.Fatal(err)
		}
		brief := ask(hostB, portmap.TCP, 5002)
		brief.Lifetime = time.Minute
		r.mustMap(t, brief)
		off := ask(hostB, portmap.TCP, 5003)
		off.Disabled = true
		r.mustMap(t, off)
		pin := r.mustMap(t, open(by(sixA, portmap.ViaPCP), 9000))
		time.Sleep(2 * time.Minute)
		before := table(r.Engine)
		if len(before) != 3 || before[0].ID != renewed.ID {
			t.Fatalf("held %v", before)
		}

		next, dropped := restored(t, s, portmap.EngineConfig{})
		if len(dropped) != 0 {
			t.Errorf("dropped %v", dropped)
		}
		if diff := cmp.Diff(before, table(next.Engine), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
			t.Errorf("taken over (-want +got):\n%s", diff)
		}
		if m, ok := next.Snapshot().Pinhole(pin.Number); !ok || m.ID != pin.ID {
			t.Errorf("pinhole %d is %+v", pin.Number, m)
		}
		next.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp [2001:db8::a]:9000")
		if next.kernel.transactions != 1 {
			t.Errorf("%d transactions", next.kernel.transactions)
		}
		run(t, next.Engine)
		if m := next.mustMap(t, ask(hostA, portmap.UDP, 5005)); m.ID <= pin.ID {
			t.Errorf("ID %d is used again", m.ID)
		}
		if m := next.mustMap(t, ask(hostA, portmap.UDP, 5000)); m.ID != renewed.ID {
			t.Errorf("its owner could not renew it: %+v", m)
		}
	})
}

// run runs an engine until the test ends.
func run(t *testing.T, e *portmap.Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// TestReadmission: what an earlier run held passes today's policy again, and what
// it or the machine does not allow any more ends, in the store too.
func TestReadmission(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Store: s})
		for port := uint16(5000); port < 5006; port++ {
			r.mustMap(t, ask(hostA, portmap.UDP, port))
		}
		r.mustMap(t, open(sixA, 9000))
		twin := s.held[1]
		twin.ID = 99
		s.held[99] = twin
		over := s.held[1]
		over.ID, over.Expires, over.ExternalPort = 98, time.Now(), 5020
		s.held[98] = over

		today := policyFunc(func(r portmap.Request, f portmap.Facts) portmap.Decision {
			if f.Renewal || !f.GrantReadyAt.IsZero() {
				t.Errorf("facts %+v", f)
			}
			switch r.ExternalPort {
			case 5001:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.RuleDenied, Detail: "a new rule"}
			case 5002:
				return portmap.Decision{Action: portmap.Allow, Rule: "short", MaxLifetime: time.Minute}
			case 5003:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.NoAddress, Detail: "the WAN is down"}
			case 5005:
				return portmap.Decision{Action: portmap.Ask, Reason: portmap.NeedsApproval, Detail: "ask"}
			}
			return portmap.Decision{Action: portmap.Allow}
		})
		next, dropped := restored(t, s, portmap.EngineConfig{Policy: today, Gateway: gateway{5004: "sshd"}})
		want := []string{
			"udp 5000 -> 192.168.1.10:5000: port-taken",
			"udp 5001 -> 192.168.1.10:5000: rule-denied",
			"udp 5004 -> 192.168.1.10:5000: port-in-use",
			"udp 5005 -> 192.168.1.10:5000: needs-approval",
			"udp 5020 -> 192.168.1.10:5000: ended",
		}
		if diff := cmp.Diff(want, dropped); diff != "" {
			t.Errorf("dropped (-want +got):\n%s", diff)
		}
		next.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp 5002 -> 192.168.1.10:5000", "udp 5003 -> 192.168.1.10:5000", "udp [2001:db8::a]:9000")
		if short := s.held[3]; len(s.held) != 4 || short.Rule != "short" || short.Left(time.Now()) != time.Minute {
			t.Errorf("the store holds %v", s.held)
		}
	})
}

// TestRestoreFailures: a mapping that no firewall could enforce takes no other with it,
// and never reaches the firewall; one that takes nothing is an error.
func TestRestoreFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Store: s})
		for port := uint16(5000); port < 5003; port++ {
			r.mustMap(t, ask(hostA, portmap.UDP, port))
		}
		s.held[2] = unenforceable(s.held[2])
		k := &kernel{}
		cfg := portmap.EngineConfig{Firewall: k, Policy: policyFunc(allowAll), Gateway: gateway{}, Store: s, LeaseMax: time.Hour}
		e, err := portmap.NewEngine(cfg)
		if err != nil {
			t.Fatal(err)
		}
		dropped, err := e.Restore(t.Context(), s.all())
		if err != nil || len(dropped) != 1 || portmap.ReasonOf(dropped[0].Err) != portmap.BadRemote {
			t.Errorf("dropped %v, %v", dropped, err)
		}
		if k.transactions != 1 {
			t.Errorf("%d transactions", k.transactions)
		}
		if got := strings.Join(k.list(), " "); got != "udp 5000 -> 192.168.1.10:5000 udp 5002 -> 192.168.1.10:5000" || len(table(e)) != 2 || len(s.held) != 2 {
			t.Errorf("the kernel has %s, the table %v, the store %v", got, table(e), s.held)
		}
		k.setDead(true)
		if _, err := e.Restore(t.Context(), s.all()); !errors.Is(err, errKernel) {
			t.Errorf("a dead kernel: %v", err)
		}
	})
}

// unenforceable returns a mapping with a restriction that is none.
func unenforceable(m portmap.Mapping) portmap.Mapping {
	m.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.1/24")}}
	return m
}

// TestStoreFails: what the store cannot keep is granted all the same, and the owner's
// side hears of it each time.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("the disk is full")
		s := &memory{err: full}
		var heard []error
		r := start(t, portmap.EngineConfig{Store: s, Recorded: func(err error) { heard = append(heard, err) }})
		m := r.mustMap(t, ask(hostA, portmap.UDP, 5000))
		s.err = nil
		if _, err := r.Unmap(t.Context(), portmap.Selector{ID: m.ID, Client: hostA}); err != nil {
			t.Fatal(err)
		}
		r.kernelHas(t)
		if !slices.Equal(heard, []error{full, nil}) {
			t.Errorf("heard %v", heard)
		}
	})
}

// TestRecordOrder: ends come first, so that no part of a record shows two mappings in
// one place; what was made and removed within one transaction is not in it; and the
// client's patience is no limit for it.
func TestRecordOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &sequence{}
		r := start(t, portmap.EngineConfig{Store: s})
		old := r.mustMap(t, ask(hostA, portmap.UDP, 5000))
		if err := r.Revoke(t.Context(), old, portmap.Ended); err != nil {
			t.Fatal(err)
		}
		r.mustMap(t, ask(hostB, portmap.UDP, 5000))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := r.Map(ctx, ask(hostA, portmap.UDP, 5001)); err != nil {
			t.Fatal(err)
		}
		if want := []string{"+1", "-1", "+2", "+3"}; !slices.Equal(s.said, want) || s.short != 0 {
			t.Errorf("recorded %v, want %v; %d with a client's deadline", s.said, want, s.short)
		}
	})
}

// sequence is a Store that remembers what it was told, word by word.
type sequence struct {
	said  []string
	short int // records that a client's patience would have ended
}

func (s *sequence) Record(ctx context.Context, changes []portmap.Change) error {
	for _, c := range changes {
		if c.New != nil {
			s.said = append(s.said, fmt.Sprint("+", c.New.ID))
		} else {
			s.said = append(s.said, fmt.Sprint("-", c.Old.ID))
		}
	}
	if at, limited := ctx.Deadline(); !limited || time.Until(at) < 4*time.Second {
		s.short++
	}
	return nil
}

// uplink is a gateway on a WAN that has been renamed.
type uplink struct {
	gateway
	name string
}

func (u uplink) View() *portmap.View {
	return &portmap.View{WANs: []portmap.WAN{{Name: u.name}}, WAN6: u.name}
}

// TestNamesItsWAN: a mapping says which WAN it is on, after a restart that of today, or
// that of before while there is none. An ID that another gateway gave is no count of
// ours.
func TestNamesItsWAN(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Store: s, Gateway: uplink{name: "wan0"}})
		r.mustMap(t, ask(hostA, portmap.UDP, 5000))
		r.mustMap(t, open(sixA, 9000))
		peer := s.held[1]
		peer.ID, peer.ExternalPort = 1<<48+77, 5007
		s.held[peer.ID] = peer
		for _, c := range []struct{ now, want string }{{"", "wan0"}, {"ppp0", "ppp0"}} {
			next, dropped := restored(t, s, portmap.EngineConfig{Gateway: uplink{name: c.now}})
			if len(dropped) > 0 {
				t.Fatal(dropped)
			}
			for id, m := range s.held {
				if m.WAN != c.want {
					t.Errorf("on %q the store has %d on %q", c.now, id, m.WAN)
				}
			}
			run(t, next.Engine)
			if m := next.mustMap(t, ask(hostB, portmap.UDP, 5100)); m.ID != 3 {
				t.Errorf("the next ID is %d", m.ID)
			}
			delete(s.held, 3)
		}
	})
}

// nowhere is a kernel that keeps nothing.
type nowhere struct{}

func (nowhere) Apply(context.Context, []portmap.Mapping, []portmap.Mapping) error { return nil }
func (nowhere) Replace(context.Context, []portmap.Mapping) error                  { return nil }

// TestRestoreInPlace: the table of a start is made in place. A tree whose nodes are copied for
// each mapping takes some 80 allocations for one of so many, and leaves the pages of the nodes
// that stay half empty (docs/performance.md); mappings that are made to look for others are 7.
// Neither a start nor a reload has a copy of every mapping beside the table. It is not parallel
// to others, because all of the process is counted.
func TestRestoreInPlace(t *testing.T) {
	const mappings, mostAllocations, mostOctets, mostOfReload = 4_000, 18, 1130, 700
	held := make([]portmap.Mapping, mappings)
	for i := range held {
		c := portmap.Client{Addr: netip.AddrFrom4([4]byte{192, 168, 1, byte(i % 200)}), Interface: "br-lan", Via: portmap.ViaPCP}
		held[i] = portmap.Mapping{
			ID: uint64(i + 1), Client: c, Transport: portmap.UDP, Internal: netip.AddrPortFrom(c.Addr, uint16(10_000+i)),
			ExternalPort: uint16(10_000 + i), Claims: portmap.Vias(0).With(c.Via), Created: time.Now(), Expires: time.Now().Add(time.Hour),
		}
	}
	counted := func(do func() error) (allocations, octets uint64) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := do()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		return (after.Mallocs - before.Mallocs) / mappings, (after.TotalAlloc - before.TotalAlloc) / mappings
	}
	e, err := portmap.NewEngine(portmap.EngineConfig{Policy: policyFunc(allowAll), Gateway: gateway{}, Firewall: nowhere{}, LeaseMax: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	allocations, octets := counted(func() error {
		dropped, err := e.Restore(t.Context(), held)
		if n := e.Snapshot().Len(); err == nil && (n != mappings || len(dropped) > 0) {
			return fmt.Errorf("%d mappings are restored, and %v dropped", n, dropped)
		}
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	_, reload := counted(func() error {
		_, err := e.Adopt(t.Context(), portmap.Terms{Policy: policyFunc(allowAll), LeaseMax: time.Hour})
		return err
	})
	cancel()
	<-ended
	t.Logf("%d allocations of %d octets a mapping, and %d octets for one at a reload", allocations, octets, reload)
	if allocations > mostAllocations || octets > mostOctets || reload > mostOfReload {
		t.Errorf("%d allocations of %d octets for a mapping, and %d octets for one at a reload; not %d, %d and %d at most",
			allocations, octets, reload, mostAllocations, mostOctets, mostOfReload)
	}
}
