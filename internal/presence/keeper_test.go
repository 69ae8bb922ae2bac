package presence_test

import (
	"bytes"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall/fwtest"
	"portcullis/internal/netif"
	"portcullis/internal/presence"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

const (
	lan      = "lan0"
	lanIndex = 3
)

var (
	addrA = netip.MustParseAddr("192.168.1.10")
	addrB = netip.MustParseAddr("192.168.1.20")
	macA  = portmap.MAC{2, 0, 0, 0, 0, 1}
	macB  = portmap.MAC{2, 0, 0, 0, 0, 2}
)

// kernel is a neighbour table of one link.
type kernel struct {
	lists    int // of neighbours; guarded by mu
	mu       sync.Mutex
	entries  map[netip.Addr]netif.Sighting // guarded by mu; without one nobody answers
	present  map[portmap.MAC]bool          // guarded by mu; answers under some address
	resolved map[netip.Addr]int            // guarded by mu
	tell     func(int, netip.Addr, netif.Sighting)
}

func (k *kernel) Sight(_ int, addr netip.Addr) (netif.Sighting, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, known := k.entries[addr]
	return s, known, nil
}

func (k *kernel) Resolve(_ int, addr netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resolved[addr]++
	return nil
}

func (k *kernel) Present(_ int, mac [6]byte, _ uint8, _ time.Duration) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.present[mac], nil
}

func (k *kernel) Neighbours(_ int, f func(netip.Addr, netif.Sighting)) error {
	k.mu.Lock()
	k.lists++
	entries := maps.Clone(k.entries)
	k.mu.Unlock()
	for addr, s := range entries {
		f(addr, s)
	}
	return nil
}

func (k *kernel) WatchNeighbours(ctx context.Context, tell func(int, netip.Addr, netif.Sighting), lost func()) error {
	k.mu.Lock()
	k.tell = tell
	k.mu.Unlock()
	lost()
	<-ctx.Done()
	return ctx.Err()
}

// is has an address belong to a device that answers, and tells it.
func (k *kernel) is(addr netip.Addr, mac portmap.MAC) {
	s := netif.Sighting{MAC: mac, Answered: true, Seen: true}
	k.mu.Lock()
	k.entries[addr] = s
	k.mu.Unlock()
	k.tell(lanIndex, addr, s)
	synctest.Wait()
}

// claims has a device say to have an address, without an answer to the kernel.
func (k *kernel) claims(addr netip.Addr, mac portmap.MAC) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries[addr] = netif.Sighting{MAC: mac}
}

// silent has nobody answer for an address.
func (k *kernel) silent(addr netip.Addr) {
	k.mu.Lock()
	delete(k.entries, addr)
	k.mu.Unlock()
	k.tell(lanIndex, addr, netif.Sighting{})
	synctest.Wait()
}

type gateway struct{}

func (gateway) View() *portmap.View { return &portmap.View{} }

func (gateway) Look(context.Context) {}

type everything struct{}

func (everything) Decide(portmap.Request, portmap.Facts) portmap.Decision {
	return portmap.Decision{Action: portmap.Allow}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// rig is a Keeper at work, within a bubble of time.
type rig struct {
	*portmap.Engine
	*presence.Keeper
	kernel *kernel
	log    *lines

	mu    sync.Mutex
	known [][6]byte // guarded by mu; what Know was told last
}

func start(t *testing.T, limit int) *rig {
	t.Helper()
	r := &rig{log: new(lines), kernel: &kernel{
		entries: map[netip.Addr]netif.Sighting{}, present: map[portmap.MAC]bool{}, resolved: map[netip.Addr]int{},
	}}
	var err error
	r.Engine, err = portmap.NewEngine(portmap.EngineConfig{
		Policy: everything{}, Firewall: new(fwtest.Fake), Gateway: gateway{}, LeaseMax: 4 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Keeper = presence.New(presence.Config{
		Log: slog.New(slog.NewTextHandler(r.log, nil)), Engine: r.Engine, Kernel: r.kernel,
		LANs: func() map[string]netif.LAN {
			return map[string]netif.LAN{lan: {
				Name: lan, Index: lanIndex, MAC: [6]byte{2}, Addr: netip.MustParseAddr("192.168.1.1"),
				Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
				Direct:   []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
			}}
		},
		LeaseMax: func() time.Duration { return 4 * time.Hour }, Limit: func() int { return limit },
		Know: func(_ context.Context, macs [][6]byte) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.known = macs
			return nil
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Engine.Run(ctx) })
	running.Go(func() { _ = r.Keeper.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	synctest.Wait()
	return r
}

// maps has a device map a port.
func (r *rig) maps(t *testing.T, mac portmap.MAC, addr netip.Addr, port uint16, change ...func(*portmap.Request)) {
	t.Helper()
	req := portmap.Request{
		Client:    portmap.Client{Addr: addr, MAC: mac, Interface: lan, Via: portmap.ViaUPnP},
		Transport: portmap.UDP, Internal: netip.AddrPortFrom(addr, port), ExternalPort: port,
		Lifetime: 3 * time.Hour,
	}
	for _, f := range change {
		f(&req)
	}
	if _, err := r.Map(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	r.Mapped()
}

func unheard(r *portmap.Request) { r.Client.Unheard = true }
func endless(r *portmap.Request) { r.Lifetime, r.ZeroIsEndless = 0, true }

// want compares the ports that there are, suspended ones in brackets.
func (r *rig) want(t *testing.T, when, want string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for m := range r.Snapshot().All() {
		text := strconv.Itoa(int(m.ExternalPort))
		if !m.Suspended.IsZero() {
			text = "(" + text + ")"
		}
		got = append(got, text)
	}
	if slices.Sort(got); strings.Join(got, " ") != want {
		t.Errorf("%s: ports %s, want %s\n%s", when, strings.Join(got, " "), want, r.log)
	}
}

// after lets time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// TestAnotherDevice: what leads to an address that another device has is suspended at
// once; it is back at once after the first time, a minute after a later one, and ends
// when the other device stays. Other hosts notice nothing.
func TestAnotherDevice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.is(addrA, macA)
		r.kernel.is(addrB, macB)
		r.maps(t, macA, addrA, 6000)
		r.maps(t, macB, addrB, 7000)
		r.kernel.is(addrA, macB)
		r.want(t, "another device has it", "(6000) 7000")
		r.kernel.is(addrA, macA)
		r.want(t, "it is back", "6000 7000")
		r.kernel.is(addrA, macB)
		r.kernel.is(addrA, macA)
		after(58 * time.Second)
		r.want(t, "it is back again, not for long", "(6000) 7000")
		after(5 * time.Second)
		r.want(t, "it is back again, for a minute", "6000 7000")
		r.kernel.is(addrA, macB)
		after(25 * time.Minute)
		r.want(t, "another device has it for long", "(6000) 7000")
		after(6 * time.Minute)
		r.want(t, "another device has kept it", "7000")
	})
}

// TestFlappingIsForgotten: an address that changed hands long ago is back at once.
func TestFlappingIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.is(addrA, macA)
		r.maps(t, macA, addrA, 6000)
		for range 2 {
			r.kernel.is(addrA, macB)
			r.want(t, "away", "(6000)")
			r.kernel.is(addrA, macA)
			r.want(t, "back", "6000")
			after(11 * time.Minute)
		}
	})
}

// TestSleeps: a device that does not answer keeps what it has for half an hour, unless
// it is seen at another address.
func TestSleeps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.is(addrA, macA)
		r.kernel.is(addrB, macB)
		r.maps(t, macA, addrA, 6000)
		r.maps(t, macB, addrB, 7000)
		after(time.Minute)
		r.kernel.silent(addrA)
		after(29 * time.Minute)
		r.want(t, "asleep", "6000 7000")
		after(2 * time.Minute)
		r.want(t, "gone for long", "7000")
		r.kernel.silent(addrB)
		r.kernel.mu.Lock()
		r.kernel.present[macB] = true
		r.kernel.mu.Unlock()
		after(10 * time.Second)
		r.want(t, "seen at another address", "")
	})
}

// TestInvented: who has never answered has nothing left within seconds when nobody
// answers, and within two minutes when another device does. Who has answered once is
// not such a host.
func TestInvented(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.claims(addrA, macA)
		r.kernel.claims(addrB, macB)
		r.maps(t, macA, addrA, 6000, unheard)
		r.maps(t, macB, addrB, 7000, unheard)
		r.kernel.is(addrB, macB)
		after(30 * time.Second) // it is looked at, and has answered
		r.kernel.silent(addrA)
		r.kernel.silent(addrB)
		after(15 * time.Second)
		r.want(t, "nobody answers", "7000")
		r.maps(t, macA, addrA, 6000, unheard)
		r.kernel.is(addrA, macB)
		r.want(t, "another device has it", "(6000) 7000")
		after(2 * time.Minute)
		r.want(t, "another device has kept it", "7000")
	})
}

// TestEndlessLease: a lease without an end goes on while its device is seen, and ends
// when it is not.
func TestEndlessLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.is(addrA, macA)
		r.maps(t, macA, addrA, 6000, endless)
		after(24 * time.Hour)
		r.want(t, "after a day", "6000")
		r.kernel.claims(addrA, macA)
		after(4*time.Hour + time.Minute)
		r.want(t, "not seen for the longest lease", "")
	})
}

// TestKnown: at the start everybody on the link is asked; who has answered is told
// to the firewall and remembered when the kernel has forgotten it.
func TestKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		if r.Heard(macA) {
			t.Error("nobody has answered yet")
		}
		r.kernel.claims(addrB, macB)
		r.kernel.is(addrA, macA)
		after(2 * time.Second)
		r.kernel.silent(addrA)
		after(time.Hour)
		if !r.Heard(macA) || r.Heard(macB) {
			t.Errorf("heard: %v, %v", r.Heard(macA), r.Heard(macB))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.known) != 1 || r.known[0] != macA {
			t.Errorf("the firewall was told %x", r.known)
		}
	})
}

// TestRunsOut: the owner is told once when three quarters of the room are taken, and
// again after half of it was free.
func TestRunsOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 8)
		r.kernel.is(addrA, macA)
		for range 2 {
			for port := uint16(6000); port < 6006; port++ {
				r.maps(t, macA, addrA, port)
			}
			after(time.Minute)
			if _, err := r.Unmap(t.Context(), portmap.Selector{
				Client:    portmap.Client{Addr: addrA, MAC: macA, Interface: lan, Via: portmap.ViaUPnP},
				Transport: portmap.UDP, FirstPort: 6000, LastPort: 6005,
			}); err != nil {
				t.Fatal(err)
			}
			after(time.Minute)
		}
		if n := strings.Count(r.log.String(), "mappings are running out"); n != 2 {
			t.Errorf("told %d times\n%s", n, r.log)
		}
	})
}

// TestNobodyMaps: without a mapping the neighbours are looked at each minute and nobody wakes
// in between; a device that maps after that is looked after as ever.
func TestNobodyMaps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, 100)
		r.kernel.is(addrA, macA)
		after(time.Minute)
		r.kernel.mu.Lock()
		before := r.kernel.lists
		r.kernel.mu.Unlock()
		after(time.Hour)
		r.kernel.mu.Lock()
		if n := r.kernel.lists - before; n != 60 {
			t.Errorf("the neighbours were listed %d times in an hour", n)
		}
		r.kernel.mu.Unlock()
		r.maps(t, macA, addrA, 42000)
		r.kernel.claims(addrA, macB) // nobody tells
		after(25 * time.Second)
		r.want(t, "another device has the address", "(42000)")
	})
}
