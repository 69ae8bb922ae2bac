package portmap_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// slowKernel takes its time, and heeds no deadline.
type slowKernel struct {
	kernel
	takes time.Duration
}

func (k *slowKernel) Apply(ctx context.Context, add, del []portmap.Mapping) error {
	time.Sleep(k.takes)
	return k.kernel.Apply(ctx, add, del)
}

// slow runs an engine whose firewall takes so long.
func slow(t *testing.T, takes time.Duration) (*portmap.Engine, *slowKernel) {
	t.Helper()
	k := &slowKernel{takes: takes}
	e, err := portmap.NewEngine(portmap.EngineConfig{
		Firewall: k, Gateway: gateway{}, Policy: policyFunc(allowAll), LeaseMax: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	return e, k
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestSlowFirewallGrantIsTakenBack: a client hears an error when its patience ends, not
// when the firewall has done; and what the firewall did then is undone.
func TestSlowFirewallGrantIsTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, k := slow(t, 8*time.Second)
		w := e.Watch(10)
		asked := time.Now()
		_, err := e.Map(within(t, 4*time.Second), ask(hostA, portmap.UDP, 6000))
		if took := time.Since(asked); !errors.Is(err, context.DeadlineExceeded) || took != 4*time.Second {
			t.Errorf("answered %v after %v", err, took)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := e.Snapshot().Len(); n != 0 || len(k.list()) != 0 {
			t.Errorf("%d are listed and the kernel has %v: its client knows of none", n, k.list())
		}
		for _, want := range []portmap.EventType{portmap.Granted, portmap.RevokedEvent} {
			if ev := <-w.C; ev.Type != want {
				t.Errorf("event %v, want %v", ev.Type, want)
			}
		}
	})
}

// TestSlowFirewallQueue: who waits behind a slow change is answered in its own time,
// and nothing is tried for it any more.
func TestSlowFirewallQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, k := slow(t, 8*time.Second)
		go func() { _, _ = e.Map(within(t, time.Minute), ask(hostA, portmap.UDP, 6000)) }()
		synctest.Wait()
		asked := time.Now()
		if _, err := e.Map(within(t, 2*time.Second), ask(hostB, portmap.UDP, 6001)); err == nil || time.Since(asked) != 2*time.Second {
			t.Errorf("answered %v after %v", err, time.Since(asked))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := k.list(); len(got) != 1 || got[0] != "udp 6000 -> 192.168.1.10:5000" || k.transactions != 1 {
			t.Errorf("the kernel has %v after %d transactions", got, k.transactions)
		}
	})
}

// TestSlowFirewallRenewal: a renewal that comes too late takes nothing away, and a port
// whose grant cannot be taken back yet is tried until it can.
func TestSlowFirewallRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, k := slow(t, 0)
		if _, err := e.Map(t.Context(), ask(hostA, portmap.UDP, 6000)); err != nil {
			t.Fatal(err)
		}
		k.takes = 3 * time.Second
		if _, err := e.Map(within(t, time.Second), ask(hostA, portmap.UDP, 6000)); err == nil {
			t.Error("the renewal was answered")
		}
		if _, err := e.Map(within(t, 4*time.Second), ask(hostB, portmap.UDP, 6001)); err == nil {
			t.Error("the grant was answered")
		}
		time.Sleep(2 * time.Second) // the kernel has it now
		if n := len(k.list()); n != 2 {
			t.Fatalf("the kernel has %v", k.list())
		}
		k.setDead(true)
		time.Sleep(30 * time.Second)
		k.setDead(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := k.list(); len(got) != 1 || got[0] != "udp 6000 -> 192.168.1.10:5000" || e.Snapshot().Len() != 1 {
			t.Errorf("the kernel has %v, %d are listed", got, e.Snapshot().Len())
		}
	})
}
