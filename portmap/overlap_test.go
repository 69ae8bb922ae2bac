package portmap_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall/fwtest"
	"portcullis/portmap"
)

// limited restricts a request: "198.51.100.0/24", or with a source port
// "198.51.100.0/24 53".
func limited(r portmap.Request, remotes ...string) portmap.Request {
	r.Remotes = nil
	for _, text := range remotes {
		var prefix string
		var port uint16
		_, _ = fmt.Sscan(text, &prefix, &port) // without a port there is an error, and 0
		r.Remotes = append(r.Remotes, portmap.Remote{Prefix: netip.MustParsePrefix(prefix), Port: port})
	}
	return r
}

// TestOverlaps: which mappings of one port, and which pinholes of one endpoint, may
// stand side by side (abuse case B10). The firewall is not asked about the others.
func TestOverlaps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		held, asked []string
		want        portmap.Reason
	}{
		"networks that overlap":             {[]string{"198.51.0.0/16"}, []string{"198.51.100.0/24"}, portmap.PortTaken},
		"a port of the network":             {[]string{"198.51.100.0/24"}, []string{"198.51.0.0/16 53"}, portmap.PortTaken},
		"one host's port":                   {[]string{"198.51.100.0/24"}, []string{"198.51.100.7/32 53"}, portmap.PortTaken},
		"one of several":                    {[]string{"192.0.2.0/24", "198.51.100.7/32"}, []string{"203.0.113.0/24", "198.51.100.7/32"}, portmap.PortTaken},
		"the same in another order":         {[]string{"192.0.2.0/24", "198.51.100.0/24"}, []string{"198.51.100.0/24", "192.0.2.0/24"}, portmap.PortTaken},
		"what comes to the same":            {[]string{"198.51.100.0/24"}, []string{"198.51.100.0/24", "198.51.100.7/32 53"}, portmap.PortTaken},
		"anyone, in other words":            {nil, []string{"0.0.0.0/0"}, portmap.PortTaken},
		"anyone, the other way round":       {[]string{"0.0.0.0/0"}, nil, portmap.PortTaken},
		"other networks":                    {[]string{"198.51.100.0/24"}, []string{"198.51.101.0/24"}, 0},
		"other ports of a network":          {[]string{"198.51.100.0/24 53"}, []string{"198.51.100.0/24 54"}, 0},
		"a host of the network":             {[]string{"198.51.100.0/24"}, []string{"198.51.100.7/32"}, 0},
		"anyone else":                       {[]string{"198.51.100.0/24"}, nil, 0},
		"what a wide one leaves to another": {[]string{"198.51.0.0/16 53"}, []string{"198.51.100.0/24", "198.51.0.0/16 54"}, portmap.PortTaken},
		"a network that is no network":      {nil, []string{"198.51.100.7/24"}, portmap.BadRemote},
		"the other family":                  {nil, []string{"2001:db8::/64"}, portmap.BadRemote},
	} {
		t.Run("B10/"+name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{})
				r.mustMap(t, limited(ask(hostA, portmap.UDP, 6000), c.held...))
				asked := limited(ask(hostA, portmap.UDP, 6000), c.asked...)
				asked.Internal = netip.AddrPortFrom(hostA.Addr, 5001)
				before := r.kernel.count()
				if c.want == 0 {
					r.mustMap(t, asked)
					return
				}
				r.refuses(t, asked, c.want)
				if n := r.kernel.count() - before; n != 0 {
					t.Errorf("the firewall was asked %d times", n)
				}
				other := asked
				other.Transport = portmap.TCP
				if c.want == portmap.PortTaken {
					r.mustMap(t, other)
				}
			})
		})
	}
}

// TestRenewalTakesNoOtherPlace: a client has one port mapped for everybody and for one
// host, and by PCP asks for a filter that would make the first the second one.
func TestRenewalTakesNoOtherPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		everybody := r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, limited(ask(hostA, portmap.UDP, 6000), "198.51.100.7/32"))
		byPCP := limited(ask(hostA, portmap.UDP, 6000), "198.51.100.7/32")
		byPCP.Client.Via, byPCP.Internal, byPCP.Exact = portmap.ViaPCP, everybody.Internal, true
		r.refuses(t, byPCP, portmap.PortTaken)
		if own := r.Snapshot().Of(hostA.ID()); own.Len() != 2 || r.Snapshot().Len() != 2 {
			t.Errorf("%d mappings, %d of the client; want 2", r.Snapshot().Len(), own.Len())
		}
	})
}

// busy is a policy that keeps the engine busy with the request for port 7000: it takes
// two from the gate.
func busy(gate chan struct{}) portmap.Policy {
	return policyFunc(func(r portmap.Request, _ portmap.Facts) portmap.Decision {
		if r.ExternalPort == 7000 {
			<-gate
			<-gate
		}
		return portmap.Decision{Action: portmap.Allow}
	})
}

// batch makes good requests, and one that overlaps a mapping, wait for an engine that
// is busy, and returns how many transactions of the firewall all of them came to.
func batch(t testing.TB, good int) int {
	firewall, gate := &fwtest.Fake{}, make(chan struct{})
	e, err := portmap.NewEngine(portmap.EngineConfig{Firewall: firewall, Gateway: gateway{}, LeaseMax: time.Hour, Policy: busy(gate)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var asks, engine sync.WaitGroup
	engine.Go(func() { _ = e.Run(ctx) })
	defer engine.Wait()
	defer stop()
	if _, err := e.Map(ctx, limited(ask(hostA, portmap.UDP, 6000), "198.51.0.0/16 53")); err != nil {
		t.Fatal(err)
	}
	before := firewall.Calls()
	mustMap := func(port int) {
		if _, err := e.Map(ctx, ask(hostB, portmap.TCP, uint16(port))); err != nil {
			t.Error(err)
		}
	}
	asks.Go(func() { mustMap(7000) })
	gate <- struct{}{}
	for i := range good {
		asks.Go(func() { mustMap(7001 + i) })
	}
	asks.Go(func() {
		if _, err := e.Map(ctx, limited(ask(hostA, portmap.UDP, 6000), "198.51.100.0/24")); portmap.ReasonOf(err) != portmap.PortTaken {
			t.Errorf("the one that overlaps: %v", err)
		}
	})
	for e.Queued() < good+1 {
		runtime.Gosched()
	}
	gate <- struct{}{}
	asks.Wait()
	return firewall.Calls() - before
}

// TestOneBadRequestAmongMany: it undoes the batching for nobody.
func TestOneBadRequestAmongMany(t *testing.T) {
	t.Parallel()
	if n := batch(t, 60); n > 2 {
		t.Errorf("60 good requests and a bad one made %d transactions of the firewall", n)
	}
}

func BenchmarkOneBadRequestAmong60(b *testing.B) {
	transactions := 0
	for b.Loop() {
		transactions += batch(b, 60)
	}
	b.ReportMetric(float64(transactions)/float64(b.N), "transactions/op")
}
