package portmap_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"portcullis/firewall/fwtest"
	"portcullis/portmap"
)

// relay is a gateway with one turn, which each that looks hands to the next.
type relay struct {
	gateway
	turn    chan struct{}
	waiting *atomic.Int32
}

func (r relay) Look(context.Context) {
	r.waiting.Add(1)
	<-r.turn
	r.turn <- struct{}{}
}

// TestRelayShares: requests that come one after the other from the gateway's look share
// transactions on a single processor too, where each wakes the engine before the next one
// has had its turn.
func TestRelayShares(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const requests = 30
	firewall, r := &fwtest.Fake{}, relay{turn: make(chan struct{}, 1), waiting: new(atomic.Int32)}
	e, err := portmap.NewEngine(portmap.EngineConfig{Firewall: firewall, Gateway: r, LeaseMax: time.Hour, Policy: policyFunc(allowAll)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var asks, engine sync.WaitGroup
	engine.Go(func() { _ = e.Run(ctx) })
	defer engine.Wait()
	defer stop()
	for i := range requests {
		asks.Go(func() {
			if _, err := e.Map(ctx, ask(hostB, portmap.TCP, uint16(7001+i))); err != nil {
				t.Error(err)
			}
		})
	}
	for r.waiting.Load() < requests {
		runtime.Gosched()
	}
	before := firewall.Calls()
	r.turn <- struct{}{}
	asks.Wait()
	if n := firewall.Calls() - before; n > requests/10 {
		t.Errorf("%d requests made %d transactions of the firewall", requests, n)
	}
}
