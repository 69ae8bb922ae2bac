package portmap_test

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// asked asks the owner about everything.
var asked = policyFunc(func(_ portmap.Request, f portmap.Facts) portmap.Decision {
	d := portmap.Decision{Action: portmap.Allow, Answer: f.Answer}
	switch {
	case f.Answer == nil:
		return portmap.Decision{Action: portmap.Ask, Reason: portmap.NeedsApproval, Detail: "ask"}
	case !f.Answer.Allow:
		return portmap.Decision{Action: portmap.Deny, Reason: portmap.OwnerDenied, Detail: "no"}
	case !f.Answer.Until.IsZero():
		d.MaxLifetime = f.Answer.Until.Sub(f.Now)
	}
	return d
})

// yes is an answer about the port of a client's service.
func yes(id uint64, c portmap.Client) portmap.Answer {
	return portmap.Answer{ID: id, Allow: true, Device: c.ID().Device(), Transport: portmap.UDP, Port: 5000}
}

// says has these answers hold, and returns how many mappings that closed.
func (r rig) says(t *testing.T, list ...portmap.Answer) int {
	t.Helper()
	closed, err := r.Answer(t.Context(), portmap.NewAnswers(list))
	if err != nil {
		t.Fatal(err)
	}
	return len(closed)
}

// TestAnswer: an answer is about one port of one device, or about the whole device; what is
// said about a port comes first; without an answer the owner is asked, and when one is taken
// back, what was open by it is closed.
func TestAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Policy: asked})
		watch := r.Watch(64)
		r.refuses(t, ask(hostA, portmap.UDP, 6000), portmap.NeedsApproval)
		if all := drain(watch); len(all) != 1 || all[0].Type != portmap.Pending {
			t.Errorf("told: %+v", all)
		}
		r.says(t, yes(1, hostA))
		m := r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, ask(hostA, portmap.UDP, 6001)) // the same service
		other := ask(hostA, portmap.UDP, 6002)
		other.Internal = netip.AddrPortFrom(hostA.Addr, 5001)
		for _, q := range []portmap.Request{ask(hostA, portmap.TCP, 6003), ask(hostB, portmap.UDP, 6003), other} {
			r.refuses(t, q, portmap.NeedsApproval)
		}
		elsewhere := hostA
		elsewhere.Interface = "guests"
		r.refuses(t, ask(elsewhere, portmap.UDP, 6003), portmap.NeedsApproval)

		all := portmap.Answer{ID: 2, Allow: true, Device: hostA.ID().Device()}
		no := yes(3, hostA)
		no.Allow = false
		if n := r.says(t, all, no); n != 2 {
			t.Errorf("%d were closed", n)
		}
		r.kernelHas(t)
		r.refuses(t, ask(hostA, portmap.UDP, 6000), portmap.OwnerDenied)
		again := r.mustMap(t, other)
		if again.ID <= m.ID {
			t.Errorf("%d is the old mapping", again.ID)
		}
		drain(watch)
		if n := r.says(t); n != 1 {
			t.Errorf("%d were closed", n)
		}
		if told := drain(watch); len(told) != 1 || told[0].Type != portmap.RevokedEvent || told[0].Reason != portmap.NeedsApproval {
			t.Errorf("told: %+v", told)
		}
	})
}

// TestAnswerOnce: it is for one mapping, of whatever is asked for at the same time, for as long
// as that is open, in the next run too.
func TestAnswerOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Policy: asked, Store: s})
		once := yes(1, hostA)
		once.Once = true
		r.says(t, once)
		var granted []portmap.Mapping
		var mu sync.Mutex
		var all sync.WaitGroup
		for port := uint16(6000); port < 6010; port++ {
			all.Go(func() {
				if m, err := r.Map(t.Context(), ask(hostA, portmap.UDP, port)); err == nil {
					mu.Lock()
					defer mu.Unlock()
					granted = append(granted, m)
				} else if portmap.ReasonOf(err) != portmap.NeedsApproval {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(granted) != 1 || r.Snapshot().UsedBy(&once) != granted[0].ID {
			t.Fatalf("%d were granted", len(granted))
		}
		r.mustMap(t, ask(hostA, portmap.UDP, granted[0].ExternalPort)) // again
		if n := r.says(t, once, yes(2, hostB)); n != 0 {
			t.Errorf("another answer closed %d", n)
		}
		second := once
		second.ID = 3
		r.says(t, once, second)
		r.mustMap(t, ask(hostA, portmap.UDP, 6020))
		r.refuses(t, ask(hostA, portmap.UDP, 6021), portmap.NeedsApproval)

		// The next run knows which mapping was meant.
		once.Mapping = granted[0].ID
		k := &kernel{}
		next, err := portmap.NewEngine(portmap.EngineConfig{
			Policy: asked, Firewall: k, Gateway: gateway{}, LeaseMax: time.Hour, Answers: portmap.NewAnswers([]portmap.Answer{once}),
		})
		if err != nil {
			t.Fatal(err)
		}
		dropped, err := next.Restore(t.Context(), s.all())
		if err != nil || len(dropped) != 1 || portmap.ReasonOf(dropped[0].Err) != portmap.NeedsApproval || next.Snapshot().Len() != 1 {
			t.Fatalf("dropped %v, %v", dropped, err)
		}
		for m := range next.Snapshot().All() {
			if m.ID != granted[0].ID {
				t.Errorf("open is %v", m.String())
			}
		}

		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: hostA}); err != nil {
			t.Fatal(err)
		}
		r.refuses(t, ask(hostA, portmap.UDP, 6000), portmap.NeedsApproval)
	})
}

// TestAnswerUntil: what is open by an answer that ends, ends with it.
func TestAnswerUntil(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Policy: asked})
		short := yes(1, hostA)
		short.Until = time.Now().Add(10 * time.Minute)
		r.says(t, short)
		endless := ask(hostA, portmap.UDP, 6000)
		endless.Lifetime, endless.ZeroIsEndless = 0, true
		if m := r.mustMap(t, endless); m.Left(time.Now()) != 10*time.Minute || m.Endless {
			t.Errorf("it lasts %v", m.Left(time.Now()))
		}
		time.Sleep(5 * time.Minute)
		if m := r.mustMap(t, ask(hostA, portmap.UDP, 6000)); m.Left(time.Now()) != 5*time.Minute {
			t.Errorf("renewed, it lasts %v", m.Left(time.Now()))
		}
		time.Sleep(5*time.Minute + time.Second)
		r.kernelHas(t)
		r.refuses(t, ask(hostA, portmap.UDP, 6000), portmap.NeedsApproval)
	})
}
