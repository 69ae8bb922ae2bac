package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// kernel is the smallest Firewall: it remembers what it was told, and refuses a
// transaction that touches a port in bad.
type kernel struct {
	mu           sync.Mutex
	open         map[string]int
	bad          map[uint16]bool
	dead         bool
	transactions int
}

var errKernel = errors.New("kernel says no")

func (k *kernel) Apply(_ context.Context, add, del []portmap.Mapping) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return errKernel
	}
	next := maps.Clone(k.open)
	if next == nil {
		next = map[string]int{}
	}
	for _, m := range del {
		if next[m.String()]--; next[m.String()] == 0 {
			delete(next, m.String())
		}
	}
	for _, m := range add {
		if k.bad[m.ExternalPort] {
			return errKernel
		}
		next[m.String()]++
	}
	k.open = next
	k.transactions++
	return nil
}

func (k *kernel) Replace(ctx context.Context, want []portmap.Mapping) error {
	k.mu.Lock()
	k.open = nil
	k.mu.Unlock()
	return k.Apply(ctx, want, nil)
}

func (k *kernel) setDead(dead bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = dead
}

// count returns how many transactions it has made.
func (k *kernel) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.transactions
}

func (k *kernel) list() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.open))
}

type policyFunc func(portmap.Request, portmap.Facts) portmap.Decision

func (f policyFunc) Decide(r portmap.Request, x portmap.Facts) portmap.Decision { return f(r, x) }

func allowAll(portmap.Request, portmap.Facts) portmap.Decision {
	return portmap.Decision{Action: portmap.Allow}
}

type gateway map[uint16]string

func (g gateway) View() *portmap.View {
	v := &portmap.View{}
	for port, by := range g {
		v.InUse = append(v.InUse, portmap.PortsInUse{Ports: portmap.PortRange{First: port, Last: port}, By: by})
	}
	return v
}

func (gateway) Look(context.Context) {}

var (
	hostA = portmap.Client{Addr: netip.MustParseAddr("192.168.1.10"), MAC: portmap.MAC{1}, Interface: "lan", Via: portmap.ViaUPnP}
	hostB = portmap.Client{Addr: netip.MustParseAddr("192.168.1.20"), MAC: portmap.MAC{2}, Interface: "lan", Via: portmap.ViaUPnP}
)

func ask(c portmap.Client, tr portmap.Transport, port uint16) portmap.Request {
	return portmap.Request{
		Client: c, Transport: tr, Exact: true, Lifetime: time.Hour,
		Internal: netip.AddrPortFrom(c.Addr, 5000), ExternalPort: port,
	}
}

type rig struct {
	*portmap.Engine
	kernel *kernel
}

// start runs an engine inside the test's bubble and stops it at the end.
func start(t *testing.T, cfg portmap.EngineConfig) rig {
	t.Helper()
	k := &kernel{bad: map[uint16]bool{}}
	cfg.Firewall = k
	if cfg.Policy == nil {
		cfg.Policy = policyFunc(allowAll)
	}
	if cfg.Gateway == nil {
		cfg.Gateway = gateway{}
	}
	if cfg.LeaseMax == 0 {
		cfg.LeaseMax = 168 * time.Hour
	}
	e, err := portmap.NewEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	return rig{e, k}
}

func (r rig) mustMap(t *testing.T, req portmap.Request) portmap.Mapping {
	t.Helper()
	m, err := r.Map(t.Context(), req)
	if err != nil {
		t.Fatalf("map %s %d: %v", req.Transport, req.ExternalPort, err)
	}
	return m
}

func (r rig) refuses(t *testing.T, req portmap.Request, want portmap.Reason) {
	t.Helper()
	before, open := r.Snapshot(), r.kernel.list()
	if m, err := r.Map(t.Context(), req); portmap.ReasonOf(err) != want || err == nil {
		t.Errorf("map %s %d = %v, %v; want %v", req.Transport, req.ExternalPort, &m, err, want)
	}
	if r.Snapshot().Revision() != before.Revision() {
		t.Error("a refusal changed the table")
	}
	if diff := cmp.Diff(open, r.kernel.list()); diff != "" {
		t.Errorf("a refusal changed the kernel:\n%s", diff)
	}
}

func (r rig) kernelHas(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, r.kernel.list()); diff != "" {
		t.Errorf("kernel (-want +got):\n%s", diff)
	}
}

func TestGrantRenewDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		first := r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000")
		time.Sleep(time.Minute)
		again := ask(hostA, portmap.UDP, 6000)
		again.Internal = netip.AddrPortFrom(hostA.Addr, 6001)
		second := r.mustMap(t, again)
		if second.ID != first.ID || !second.Created.Equal(first.Created) || second.Left(time.Now()) != time.Hour {
			t.Errorf("the renewal is %+v of %+v", second, first)
		}
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:6001")
		if n := r.Snapshot().Of(hostA.ID()).Len(); n != 1 {
			t.Errorf("%d mappings", n)
		}
		gone, err := r.Unmap(t.Context(), portmap.Selector{Client: hostA, Transport: portmap.UDP, FirstPort: 6000, LastPort: 6000})
		if err != nil || len(gone) != 1 {
			t.Errorf("unmap: %v, %v", gone, err)
		}
		r.kernelHas(t)
		r.mustMap(t, ask(hostB, portmap.UDP, 6000)) // a deleted port is free at once
	})
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	moved := hostA
	moved.MAC = portmap.MAC{9}
	byNATPMP := hostA
	byNATPMP.Via = portmap.ViaNATPMP
	for _, c := range []struct {
		name   string
		held   portmap.Request
		wanted portmap.Request
		want   portmap.Reason
	}{
		{"C1/take-over", ask(hostA, portmap.UDP, 6000), ask(hostB, portmap.UDP, 6000), portmap.PortTaken},
		{"C11/other MAC", ask(hostA, portmap.UDP, 6000), ask(moved, portmap.UDP, 6000), portmap.IdentityChanged},
		{"C2/NAT-PMP companion", ask(byNATPMP, portmap.TCP, 6000), ask(hostB, portmap.UDP, 6000), portmap.PortReserved},
		{"SOAP-7/other transport", ask(hostA, portmap.UDP, 6000), ask(hostB, portmap.TCP, 6000), portmap.NoReason},
		{"own companion", ask(byNATPMP, portmap.TCP, 6000), ask(hostA, portmap.UDP, 6000), portmap.NoReason},
		{"B8/gateway listens", ask(hostA, portmap.UDP, 6000), ask(hostB, portmap.TCP, 22022), portmap.PortInUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{Gateway: gateway{22022: "the gateway listens there"}})
				r.mustMap(t, c.held)
				if c.want == portmap.NoReason {
					r.mustMap(t, c.wanted)
					return
				}
				r.refuses(t, c.wanted, c.want)
				c.wanted.Exact = false
				m := r.mustMap(t, c.wanted)
				if p := m.ExternalPort; p == c.wanted.ExternalPort || p < 1024 || p == 6000 {
					t.Errorf("another port is %d", p)
				}
			})
		})
	}
}

func TestLeaseEndsAndPortIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		w := r.Watch(10)
		req := ask(hostA, portmap.UDP, 6000)
		req.Lifetime = 600 * time.Second
		r.mustMap(t, req)
		time.Sleep(600*time.Second - time.Nanosecond)
		synctest.Wait()
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		r.kernelHas(t)
		r.refuses(t, ask(hostB, portmap.UDP, 6000), portmap.PortReserved)
		r.mustMap(t, req) // go-ethereum renews exactly at expiry
		time.Sleep(600 * time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		r.mustMap(t, ask(hostB, portmap.UDP, 6000))
		var got []string
		for range 6 {
			ev := <-w.C
			got = append(got, fmt.Sprint(ev.Type, " ", ev.Reason, " ", ev.Client.Addr))
		}
		want := []string{
			"granted  192.168.1.10", "expired ended 192.168.1.10", "denied port-reserved 192.168.1.20",
			"granted  192.168.1.10", "expired ended 192.168.1.10", "granted  192.168.1.20",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestLifetimes(t *testing.T) {
	t.Parallel()
	byPCP := hostA
	byPCP.Via = portmap.ViaPCP
	for _, c := range []struct {
		name   string
		client portmap.Client
		ask    time.Duration
		rule   time.Duration
		want   time.Duration
	}{
		{"C10/0 is the longest", hostA, 0, 0, 168 * time.Hour},
		{"C10/too long is shortened", hostA, 604801 * time.Second, 0, 168 * time.Hour},
		{"one second", hostA, time.Second, 0, time.Second},
		{"rule shortens", hostA, time.Hour, time.Minute, time.Minute},
		{"PCP-35/PCP floor", byPCP, 10 * time.Second, 0, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{LeaseMin: 2 * time.Minute, Policy: policyFunc(
					func(portmap.Request, portmap.Facts) portmap.Decision {
						return portmap.Decision{Action: portmap.Allow, MaxLifetime: c.rule}
					})})
				req := ask(c.client, portmap.TCP, 7000)
				req.Lifetime = c.ask
				if m := r.mustMap(t, req); m.Left(time.Now()) != c.want {
					t.Errorf("granted %v, want %v", m.Left(time.Now()), c.want)
				}
			})
		})
	}
}

func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		r.kernel.bad[6001] = true
		w := r.Watch(10)
		r.refuses(t, ask(hostA, portmap.UDP, 6001), portmap.FirewallFailed)
		if ev := <-w.C; ev.Type != portmap.Denied || ev.Reason != portmap.FirewallFailed {
			t.Errorf("event %v %v", ev.Type, ev.Reason)
		}
	})
}

// TestBatchSharesTransactionsNotFates lets many clients ask at once: they share
// kernel transactions, and the one the kernel refuses takes nobody with it.
func TestBatchSharesTransactionsNotFates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := start(t, portmap.EngineConfig{
			Policy: policyFunc(func(r portmap.Request, _ portmap.Facts) portmap.Decision {
				if r.ExternalPort == 7000 {
					<-gate // keeps the engine busy until the others wait
				}
				return portmap.Decision{Action: portmap.Allow}
			}),
		})
		run := func(from, to uint16) (failed []uint16) {
			var asks sync.WaitGroup
			var mu sync.Mutex
			for port := from; port < to; port++ {
				asks.Go(func() {
					if _, err := r.Map(t.Context(), ask(hostA, portmap.UDP, port)); err != nil {
						mu.Lock()
						failed = append(failed, port)
						mu.Unlock()
					}
				})
				synctest.Wait()
			}
			if from == 7000 {
				close(gate)
			}
			asks.Wait()
			return failed
		}
		r.kernel.bad[7013] = true
		if diff := cmp.Diff([]uint16{7013}, run(7000, 7040)); diff != "" {
			t.Errorf("failed (-want +got):\n%s", diff)
		}
		if n := len(r.kernel.list()); r.Snapshot().Len() != 39 || n != 39 {
			t.Errorf("table %d, kernel %d, want 39", r.Snapshot().Len(), n)
		}
	})
}

// TestBatchIsOneTransaction: what waits while the engine is busy shares one
// kernel transaction, and a mapping made and removed within it never shows.
func TestBatchIsOneTransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := start(t, portmap.EngineConfig{
			Policy: policyFunc(func(r portmap.Request, _ portmap.Facts) portmap.Decision {
				if r.ExternalPort == 7000 {
					<-gate
				}
				return portmap.Decision{Action: portmap.Allow}
			}),
		})
		var asks sync.WaitGroup
		for port := uint16(7000); port < 7020; port++ {
			asks.Go(func() { _, _ = r.Map(t.Context(), ask(hostA, portmap.UDP, port)) })
			synctest.Wait()
		}
		asks.Go(func() {
			_, _ = r.Unmap(t.Context(), portmap.Selector{Client: hostA, FirstPort: 7019, LastPort: 7019})
		})
		synctest.Wait()
		close(gate)
		asks.Wait()
		if n := len(r.kernel.list()); n != 19 || r.Snapshot().Len() != 19 || r.kernel.transactions != 2 {
			t.Errorf("%d open, %d listed, %d transactions; want 19, 19, 2", n, r.Snapshot().Len(), r.kernel.transactions)
		}
	})
}

func TestDisabledIsListedButClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		req := ask(hostA, portmap.TCP, 6000)
		req.Disabled = true
		r.mustMap(t, req)
		r.kernelHas(t)
		if r.Snapshot().Len() != 1 {
			t.Error("B11: a disabled mapping is not listed")
		}
		req.Disabled = false
		r.mustMap(t, req)
		r.kernelHas(t, "tcp 6000 -> 192.168.1.10:5000")
		req.Disabled = true
		r.mustMap(t, req)
		r.kernelHas(t)
	})
}

func TestPortChoiceObeysPolicyHint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		few := []portmap.PortRange{{First: 40000, Last: 40003}}
		r := start(t, portmap.EngineConfig{
			Gateway: gateway{40001: "the gateway listens there"},
			Policy: policyFunc(func(r portmap.Request, _ portmap.Facts) portmap.Decision {
				if p := r.ExternalPort; p == 0 || few[0].Contains(p) {
					return portmap.Decision{Action: portmap.Allow, Elsewhere: few}
				}
				return portmap.Decision{Reason: portmap.RuleDenied, OverExternalPort: true, Elsewhere: few}
			}),
		})
		var got []uint16
		for _, want := range []uint16{0, 50000, 40001} {
			req := ask(hostA, portmap.UDP, want)
			req.Exact = false
			got = append(got, r.mustMap(t, req).ExternalPort)
		}
		slices.Sort(got)
		if diff := cmp.Diff([]uint16{40000, 40002, 40003}, got); diff != "" {
			t.Errorf("ports (-want +got):\n%s", diff)
		}
		req := ask(hostB, portmap.UDP, 0)
		req.Exact = false
		r.refuses(t, req, portmap.NoPorts)
		// The other half of a pair is the last resort, for its own client only.
		req = ask(hostB, portmap.TCP, 0)
		req.Exact = false
		r.refuses(t, req, portmap.NoPorts)
		req = ask(hostA, portmap.TCP, 0)
		req.Exact = false
		r.mustMap(t, req)
	})
}

func TestUnmapOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, ask(hostB, portmap.UDP, 6001))
		all := portmap.Selector{Client: hostB, FirstPort: 6000, LastPort: 6000}
		if _, err := r.Unmap(t.Context(), all); portmap.ReasonOf(err) != portmap.NotOwner {
			t.Errorf("C3: %v", err)
		}
		all.LastPort = 65535
		if gone, err := r.Unmap(t.Context(), all); err != nil || len(gone) != 1 {
			t.Errorf("C3/range: %v, %v", gone, err)
		}
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000")
		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: hostB}); portmap.ReasonOf(err) != portmap.NoSuchMapping {
			t.Errorf("C3/everything: %v", err)
		}
		owner := portmap.Client{Via: portmap.ViaOwner}
		w := r.Watch(1)
		if gone, err := r.Unmap(t.Context(), portmap.Selector{Client: owner, Anybody: true}); err != nil || len(gone) != 1 {
			t.Errorf("owner: %v, %v", gone, err)
		}
		if ev := <-w.C; ev.Type != portmap.RevokedEvent || ev.Reason != portmap.Revoked {
			t.Errorf("event %v %v", ev.Type, ev.Reason)
		}
		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: owner, Anybody: true}); portmap.ReasonOf(err) != portmap.NoSuchMapping {
			t.Errorf("nothing left: %v", err)
		}
	})
}

func TestSlowWatcherIsToldToResync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		w := r.Watch(2)
		for port := uint16(6000); port < 6010; port++ {
			r.mustMap(t, ask(hostA, portmap.UDP, port))
		}
		var got []portmap.EventType
		for range 3 {
			got = append(got, (<-w.C).Type)
		}
		r.mustMap(t, ask(hostA, portmap.UDP, 7000))
		got = append(got, (<-w.C).Type)
		want := []portmap.EventType{portmap.Granted, portmap.Granted, portmap.Resync, portmap.Granted}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		w.Close()
		w.Close()
		if _, open := <-w.C; open {
			t.Error("the stream is still open")
		}
	})
}

func TestStopAndCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{}
		e, err := portmap.NewEngine(portmap.EngineConfig{
			Firewall: k, Gateway: gateway{}, Policy: policyFunc(allowAll), LeaseMax: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		w := e.Watch(1)
		gone, hurry := context.WithCancel(t.Context())
		hurry()
		if _, err := e.Map(gone, ask(hostA, portmap.UDP, 6000)); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has gone: %v", err)
		}
		cancel()
		<-ended
		if _, err := e.Map(t.Context(), ask(hostA, portmap.UDP, 6000)); portmap.ReasonOf(err) != portmap.Busy {
			t.Errorf("after the end: %v", err)
		}
		if _, open := <-w.C; open {
			t.Error("the watcher's stream is still open")
		}
		if e.Snapshot().Len() != 0 || len(k.list()) != 0 {
			t.Error("something was mapped")
		}
		late := e.Watch(1)
		if _, open := <-late.C; open {
			t.Error("a stream opened after the end")
		}
	})
}

func TestExpiryIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		w := r.Watch(10)
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		<-w.C
		r.kernel.setDead(true)
		time.Sleep(time.Hour)
		synctest.Wait()
		if ev := <-w.C; ev.Type != portmap.Drift || r.Snapshot().Len() != 1 {
			t.Errorf("event %v with %d listed, want the failure told and the mapping kept", ev.Type, r.Snapshot().Len())
		}
		r.kernel.setDead(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if ev := <-w.C; ev.Type != portmap.Expired || r.Snapshot().Len() != 0 {
			t.Errorf("event %v with %d listed", ev.Type, r.Snapshot().Len())
		}
		r.kernelHas(t)
	})
}

func TestReasonsHaveWords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range portmap.Reasons() {
		if s := r.String(); s == "" || s == "unknown" || seen[s] {
			t.Errorf("reason %d is called %q", r, s)
		} else {
			seen[s] = true
		}
	}
}

// Who leaves the choice of a port gets one that no other host's flows leave from, if
// there is one soon; who does not gets what it asks for.
func TestHeldPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := func(tr portmap.Transport, port uint16, host netip.Addr) bool {
			return tr == portmap.UDP && host == hostA.Addr && port != 40007
		}
		r := start(t, portmap.EngineConfig{Held: held, Policy: policyFunc(func(portmap.Request, portmap.Facts) portmap.Decision {
			return portmap.Decision{Action: portmap.Allow, Elsewhere: []portmap.PortRange{{First: 40000, Last: 40007}}}
		})})
		exact := r.mustMap(t, ask(hostA, portmap.UDP, 40001))
		if got := exact.ExternalPort; got != 40001 {
			t.Errorf("asked for 40001 and got %d", got)
		}
		if renewed := r.mustMap(t, ask(hostA, portmap.UDP, 40001)); renewed.ID != exact.ID {
			t.Errorf("renewed as another mapping")
		}
		got := map[uint16]int{}
		for i := range 7 { // seven of eight ports are left
			req := ask(hostA, portmap.UDP, 0)
			req.Exact, req.Internal = false, netip.AddrPortFrom(hostA.Addr, uint16(6000+i))
			got[r.mustMap(t, req).ExternalPort]++
		}
		if len(got) != 7 || got[40001] != 0 {
			t.Errorf("seven mappings have %v", got)
		}
		req := ask(hostB, portmap.UDP, 40001)
		req.Exact = false
		r.refuses(t, req, portmap.NoPorts)
		req = ask(hostA, portmap.TCP, 40001)
		req.Exact, req.Internal = false, netip.AddrPortFrom(hostA.Addr, 7000)
		if got := r.mustMap(t, req).ExternalPort; got != 40001 && got < 40000 {
			t.Errorf("of TCP nothing is held, and it got %d", got)
		}
	})
}

// A preferred port that is held gives way to another.
func TestHeldPortIsAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := func(_ portmap.Transport, port uint16, host netip.Addr) bool {
			return port == 40001 && host == hostA.Addr
		}
		r := start(t, portmap.EngineConfig{Held: held})
		for client, avoided := range map[portmap.Client]bool{hostA: true, hostB: false} {
			req := ask(client, portmap.UDP, 40001)
			req.Exact = false
			if got := r.mustMap(t, req).ExternalPort; (got != 40001) != avoided {
				t.Errorf("%s got %d", client.Addr, got)
			}
		}
	})
}
