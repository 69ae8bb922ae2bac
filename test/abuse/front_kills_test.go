package abuse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// A thousand fronts are killed in all, or as many as a slow machine has time for.
const (
	houses      = 8   // networks
	fronts      = 125 // killed on each
	leastFronts = 15  // of each, however long they take
	killing     = 180 * time.Second
)

// TestThousandFronts (M5): clients of each protocol ask, renew and delete while the front is
// killed under them, and ask again as clients do. What they were answered is so, in
// the owner's list, the kernel and the journal; nothing else is there, and a flow through a
// mapping goes on.
func TestThousandFronts(t *testing.T) {
	t.Parallel()
	for n := range houses {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := startOn(t, testrig.Network(t, "a", "b", "c", "d"), noRates+"mappings_per_client = 1000\n")
			flow := openFlow(t, r, "d", r.v1(t, "d"), 46001)
			crowd := []*asker{r.byUPnP(t), r.byNATPMP(), r.byPCP()}
			ctx, stop := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			defer asking.Wait()
			defer stop()
			for _, a := range crowd {
				asking.Go(func() { a.run(ctx, t) })
			}
			began, killed, last := time.Now(), 0, 0
			for killed < leastFronts || killed < fronts && time.Since(began) < killing {
				pid := last
				testrig.Eventually(t, 2*soon, "there is a front", func() bool { pid = frontOf(t, r.Rig); return pid != last && pid != 0 })
				served := answers(crowd)
				testrig.Eventually(t, 2*soon, "it serves", func() bool { return answers(crowd) > served })
				<-time.After(rand.N(30 * time.Millisecond)) // any moment of a request
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if killed, last = killed+1, pid; !flow.alive() || t.Failed() {
					t.Fatalf("after %d: the flow, or a client", killed)
				}
			}
			stop()
			asking.Wait()
			r.holds(t, crowd)
			if s, err := r.Owner.Status(t.Context()); err != nil || s.Sandbox.Front.Ended != killed {
				t.Errorf("the status says %+v, %v; %d were killed", s.Sandbox.Front, err, killed)
			}
			if err := r.Daemon.Kill(); err != nil {
				t.Fatal(err)
			}
			r.Restart(t)
			r.holds(t, crowd)
			t.Logf("%d fronts were killed, %d requests answered", killed, answers(crowd))
		})
	}
}

func answers(crowd []*asker) (n int64) {
	for _, a := range crowd {
		n += a.answered.Load()
	}
	return n
}

// asker is a client that asks until it is answered.
type asker struct {
	addr, protocol string
	first          uint16 // of its twenty ports
	add, remove    func(context.Context, uint16) error
	held           map[uint16]bool
	answered       atomic.Int64
}

// run asks for one thing after the other, and does not end before the last is answered.
func (a *asker) run(ctx context.Context, t *testing.T) {
	a.held = make(map[uint16]bool)
	for ctx.Err() == nil {
		port := a.first + rand.N[uint16](20)
		do, holds := a.add, true
		if a.held[port] && rand.IntN(2) == 0 {
			do, holds = a.remove, false
		}
		err := once(t, do, port)
		for began := time.Now(); err != nil && !saysNo(err) && time.Since(began) < 4*soon; err = once(t, do, port) {
			<-time.After(20 * time.Millisecond) // and asks again
		}
		if err != nil {
			t.Errorf("%s %s port %d: %v", a.addr, a.protocol, port, err)
			return
		}
		a.held[port] = holds
		a.answered.Add(1)
	}
}

// once asks as often as a client does within a second.
func once(t *testing.T, do func(context.Context, uint16) error, port uint16) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return do(ctx, port)
}

// saysNo reports whether the gateway said no, rather than nothing.
func saysNo(err error) bool { return code(err) > 0 || errors.As(err, new(*lab.Refusal)) }

func (r *rig) byUPnP(t *testing.T) *asker {
	c := r.v1(t, "a")
	return &asker{addr: "192.168.77.10", protocol: "tcp", first: 24000,
		add: func(ctx context.Context, port uint16) error { return c.Add(ctx, tcp(port, port, "")) },
		remove: func(ctx context.Context, port uint16) error {
			err := c.Delete(ctx, port, "TCP")
			if code(err) == 714 { // it was removed, and the answer lost
				return nil
			}
			return err
		},
	}
}

// exact is an error where another port was given than the one asked for.
func exact(got, want uint16, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("asked for %d, was given %d", want, got)
	}
	return err
}

func (r *rig) byNATPMP() *asker {
	b := r.Host("b")
	return &asker{addr: "192.168.77.20", protocol: "udp", first: 21000,
		add: func(ctx context.Context, port uint16) error {
			got, err := b.MapNATPMP(ctx, "UDP", port, port, time.Hour)
			return exact(got, port, err)
		},
		remove: func(ctx context.Context, port uint16) error {
			_, err := b.MapNATPMP(ctx, "UDP", port, 0, 0)
			return err
		},
	}
}

func (r *rig) byPCP() *asker {
	c := r.Host("c")
	ask := func(ctx context.Context, port uint16, lease time.Duration) error {
		got, err := c.Map(ctx, lab.MapRequest{Protocol: "TCP", Internal: port, Suggested: port, Nonce: [12]byte{1}, Lease: lease})
		if lease == 0 {
			return err
		}
		return exact(got.External.Port(), port, err)
	}
	return &asker{addr: "192.168.77.30", protocol: "tcp", first: 22000,
		add:    func(ctx context.Context, port uint16) error { return ask(ctx, port, time.Hour) },
		remove: func(ctx context.Context, port uint16) error { return ask(ctx, port, 0) },
	}
}

// holds fails the test where not exactly what the clients were answered is in force.
func (r *rig) holds(t *testing.T, crowd []*asker) {
	t.Helper()
	want := map[string]bool{"tcp 46001 192.168.77.40:46001": true}
	for _, a := range crowd {
		for port, held := range a.held {
			if held {
				want[fmt.Sprintf("%s %d %s:%d", a.protocol, port, a.addr, port)] = true
			}
		}
	}
	w := r.World(t)
	for _, m := range w.Mappings {
		name := fmt.Sprintf("%s %d %s:%d", m.Protocol, m.ExternalPort, m.InternalIP, m.InternalPort)
		if !want[name] {
			t.Errorf("%s is there, which nobody asked for", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s was granted, and is not there", name)
	}
	kernel := testrig.On(t, r.Gateway, "nft", "list", "map", "inet", "portcullis", "mapped")
	if n := strings.Count(kernel, "tcp . ") + strings.Count(kernel, "udp . "); n != len(w.Mappings) || len(w.Journal) != n {
		t.Errorf("of %d mappings the kernel holds %d, the journal %d", len(w.Mappings), n, len(w.Journal))
	}
}
