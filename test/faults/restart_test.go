package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// flow is a connection from the Internet to a host, in use.
type flow struct {
	t      *testing.T
	out    net.Conn
	in     net.Conn
	number byte
}

// begin opens a TCP connection through a mapping of host a.
func begin(t *testing.T, r *testrig.Rig, at netip.AddrPort, port uint16) *flow {
	t.Helper()
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if at.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	l, err := r.Host("a").Listen(local.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f := &flow{t: t}
	if f.out, err = r.Internet.Dial(ctx, "tcp", at.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.out.Close() })
	if f.in, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.in.Close() })
	return f
}

// alive sends a byte each way and wants it to arrive.
func (f *flow) alive(when string) {
	f.t.Helper()
	for _, way := range [][2]net.Conn{{f.out, f.in}, {f.in, f.out}} {
		f.number++
		if _, err := way[0].Write([]byte{f.number}); err != nil {
			f.t.Errorf("%s: %v", when, err)
			return
		}
		got := make([]byte, 1)
		_ = way[1].SetReadDeadline(time.Now().Add(soon))
		if _, err := way[1].Read(got); err != nil || got[0] != f.number {
			f.t.Errorf("%s: the flow is broken: %v", when, err)
			return
		}
	}
}

// TestCrash: L16. After kill -9 and a start the owner's list, what the clients were promised
// and what packets do are the same; flows go on meanwhile.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		extra string
		stop  func(*lab.Daemon) error
	}{
		"kill -9":                  {"", (*lab.Daemon).Kill},
		"SIGTERM and keep_on_stop": {"keep", (*lab.Daemon).Halt},
		"SIGUSR2, a restart":       {"", (*lab.Daemon).HandOver},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := lab.Settings
			if end.extra != "" {
				settings = strings.Replace(settings, "[state]", "keep_on_stop = true\n[state]", 1)
			}
			r := testrig.StartWith(t, testrig.Network(t, "a"), settings)
			a := r.Host("a")
			c := opened(t, r, 6000)
			if err := c.Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 6001, Internal: 6001, Lease: time.Hour, Description: "a \"game\"\n"}); err != nil {
				t.Fatal(err)
			}
			pin, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			through := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6001), 6001)
			through6 := begin(t, r, netip.AddrPortFrom(a.Addr6, 9000), 9000)
			through.alive("before")
			through6.alive("before")
			testrig.Eventually(t, soon, "the epoch is two seconds old", func() bool { return epoch(t, a) >= 2 })
			before, identity := r.List(t), read(t, r, "identity.json")

			if err := end.stop(r.Daemon); err != nil {
				t.Fatal(err)
			}
			through.alive("while it is dead")
			through6.alive("while it is dead")
			if !r.Passes(t, "UDP", 6000, a, 6000) {
				t.Error("a dead daemon's mapping is closed")
			}
			r.Restart(t)
			through.alive("after")
			through6.alive("after")
			if after := r.List(t); !slices.EqualFunc(before, after, sameMapping) {
				t.Errorf("before %+v\nafter %+v", before, after)
			}
			if !r.Passes(t, "UDP", 6000, a, 6000) {
				t.Error("the mapping is closed")
			}
			// The epoch goes on, so that nobody asks again in vain, and the
			// renewal finds what there is.
			again, err := mapPCP(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour, Nonce: pin.Nonce})
			if err != nil || again.Epoch < 2 || len(r.List(t)) != 3 {
				t.Errorf("renewed: %+v after %+v, %v", again, pin, err)
			}
			if now := read(t, r, "identity.json"); uuid(now) != uuid(identity) || now == identity {
				t.Errorf("the identity was %s and is %s", identity, now)
			}
			// libp2p, litecoin, transmission and many more keep the URLs that they found.
			if now := r.Point(t, "a", lab.IGD1, lab.WANIP1); now.Control != c.Control {
				t.Errorf("the control URL was %s and is %s", c.Control, now.Control)
			}
			if err := c.Add(t.Context(), udp(6000)); err != nil {
				t.Errorf("its owner cannot renew it: %v", err)
			}
			if err := c.Delete(t.Context(), 6000, "UDP"); err != nil {
				t.Errorf("its owner cannot delete it: %v", err)
			}
			if !r.Blocked(t, "UDP", 6000, a, 6000) {
				t.Error("it is open after its end")
			}
		})
	}
}

// sameMapping compares what does not change with time.
func sameMapping(a, b control.Mapping) bool {
	a.ExpiresIn, b.ExpiresIn, a.Packets, b.Packets, a.Bytes, b.Bytes = 0, 0, 0, 0, 0, 0
	a.Created, b.Created = control.Mapping{}.Created, control.Mapping{}.Created
	return a == b
}

func mapPCP(t *testing.T, h *lab.Host, m lab.MapRequest) (lab.Granted, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return h.Map(ctx, m)
}

// epoch asks the gateway for the age of its epoch of IPv6.
func epoch(t *testing.T, h *lab.Host) uint32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	age, err := h.Epoch(ctx, h.Addr6, lab.GatewayLinkLocal)
	if err != nil {
		t.Fatal(err)
	}
	return age
}

// read returns a file of the state directory.
func read(t *testing.T, r *testrig.Rig, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Daemon.State(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func uuid(identity string) string {
	_, rest, _ := strings.Cut(identity, `"uuid":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// TestAfterCrash: L12. What is different at the next start: a rule that forbids one
// mapping now, a port that the gateway itself has taken, something in the kernel
// that nobody was promised, and a journal whose last line was torn.
func TestAfterCrash(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	c := opened(t, r, 6000)
	for _, port := range []uint16{6001, 6002} {
		if err := c.Add(t.Context(), udp(port)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	nft(t, r, "add element inet portcullis mapped { udp . 7000 : 192.168.77.10 . 7000 }\n"+
		"add element inet portcullis mapped_flows { udp . 7000 . 192.168.77.10 . 7000 }")
	config, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	rule := "\n[[rule]]\nname = \"not any more\"\naction = \"deny\"\nexternal_ports = [\"6001\"]\n"
	if err := os.WriteFile(r.Daemon.Config, append(config, rule...), 0o600); err != nil {
		t.Fatal(err)
	}
	service, err := r.Gateway.ListenPacket("0.0.0.0:6002")
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	torn, err := os.OpenFile(filepath.Join(r.Daemon.State(), "leases.journal"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString("put id=9 half a l"); err != nil {
		t.Fatal(err)
	}
	torn.Close()
	r.Restart(t)
	if list := r.List(t); len(list) != 1 || list[0].ExternalPort != 6000 {
		t.Errorf("taken over: %+v", list)
	}
	a := r.Host("a")
	if !r.Passes(t, "UDP", 6000, a, 6000) {
		t.Error("what is still allowed is closed")
	}
	for _, port := range []uint16{6001, 7000} {
		if !r.Blocked(t, "UDP", port, a, port) {
			t.Errorf("%d is open", port)
		}
	}
	for _, why := range []string{"reason=rule-denied", "reason=port-in-use"} {
		r.Logged(t, why)
	}
	// It is gone for good, not until the next start.
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.Daemon.Config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)
	if list := r.List(t); len(list) != 1 {
		t.Errorf("back again: %+v", list)
	}
}

// TestTwoGates: L13. A second daemon with the same state directory does not start.
func TestTwoGates(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	config, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	other, err := lab.New("b")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.HostFirewall(); err != nil {
		t.Fatal(err)
	}
	config = []byte(strings.Replace(string(config), "control.sock", "other.sock", 1))
	d, err := other.StartDaemonWith(t.Context(), testrig.Exe, string(config))
	if err == nil {
		_ = d.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "another portcullis") {
		t.Errorf("a second one: %v", err)
	}
}

// kills and crowd: a thousand in all, or as many as a slow machine has time for.
const (
	crowd      = 4   // networks
	kills      = 250 // of each one's daemon
	leastKills = 25  // of each, however long they take
	killing    = 90 * time.Second
)

// TestThousandKills: L19. Clients ask without a pause while the daemon is killed at a random
// instant, again and again. Every mapping that was acknowledged is there afterwards,
// and none that was not but for the one under way.
func TestThousandKills(t *testing.T) {
	t.Parallel()
	for n := range crowd {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := testrig.StartWith(t, testrig.Network(t, "a"), lab.Settings+"[limits]\ngrants_per_second = 0\nrequests_per_second = 0\nmappings_per_client = 60000\n")
			k := &killer{r: r, held: make(map[uint16]bool), within: leastWithin}
			began, round := time.Now(), 0
			for round < leastKills || round < kills && time.Since(began) < killing {
				k.round(t)
				if round++; t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
			if k.acknowledged < round {
				t.Errorf("%d requests were acknowledged in %d rounds: this proves little", k.acknowledged, round)
			}
		})
	}
}

// killer asks, kills, and compares.
type killer struct {
	r            *testrig.Rig
	held         map[uint16]bool // acknowledged and not deleted
	open         uint16          // the port of the request that was not answered; 0: none
	acknowledged int
	within       time.Duration // the daemon is killed at a random instant of it
}

// leastWithin is time for some requests; where a grant takes longer, it is made longer.
const leastWithin = 20 * time.Millisecond

func (k *killer) round(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	k.open = 0
	before := k.acknowledged
	asking.Go(func() { k.ask(ctx) })
	time.AfterFunc(rand.N(k.within), func() { _ = k.r.Daemon.Kill() })
	<-k.r.Daemon.Ended()
	cancel()
	asking.Wait()
	switch done := k.acknowledged - before; {
	case done == 0:
		k.within = min(2*k.within, 5*time.Second)
	case done > 4:
		k.within = max(k.within/2, leastWithin)
	}
	k.r.Restart(t)
	k.compare(t)
}

// ask maps and unmaps one port after the other, until nobody answers.
func (k *killer) ask(ctx context.Context) {
	a := k.r.Host("a")
	for ctx.Err() == nil {
		port := uint16(20000 + rand.N(200))
		k.open = port
		m := lab.MapRequest{Protocol: "UDP", Internal: port, Suggested: port, Nonce: [12]byte{1}}
		if !k.held[port] {
			m.Lease = time.Hour
		}
		if _, err := a.Map(ctx, m); err != nil {
			return
		}
		k.acknowledged++
		k.open = 0
		if m.Lease > 0 {
			k.held[port] = true
		} else {
			delete(k.held, port)
		}
	}
}

func (k *killer) compare(t *testing.T) {
	t.Helper()
	there := make(map[uint16]bool)
	for _, m := range k.r.List(t) {
		there[m.ExternalPort] = true
		if !k.held[m.ExternalPort] && m.ExternalPort != k.open {
			t.Errorf("%d was not acknowledged", m.ExternalPort)
		}
	}
	for port := range k.held {
		if !there[port] && port != k.open {
			t.Errorf("%d was acknowledged and is lost", port)
		}
	}
	kernel := testrig.On(t, k.r.Gateway, "nft", "list", "map", "inet", "portcullis", "mapped")
	if n := strings.Count(kernel, "udp . "); n != len(there) {
		t.Errorf("the kernel holds %d of %d mappings", n, len(there))
	}
	if k.open != 0 { // what became of it is known now
		delete(k.held, k.open)
		if there[k.open] {
			k.held[k.open] = true
		}
	}
}

// TestSecondGate: L13. One that is started beside another by mistake ends with a reason,
// and takes nothing of the other's away.
func TestSecondGate(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	opened(t, r, 6000)
	config, err := os.ReadFile(r.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := strings.Replace(string(config), "/state\"", "/another\"", 1)
	d, err := r.StartDaemonWith(t.Context(), testrig.Exe, elsewhere)
	if err == nil {
		_ = d.Stop()
	}
	if err == nil || !strings.Contains(err.Error(), "another portcullis is running") {
		t.Errorf("the second one: %v", err)
	}
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the first one's mapping is closed")
	}
}
