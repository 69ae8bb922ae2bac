package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// late is a policy for which a LAN comes late.
type late struct{ there bool }

func (l *late) Decide(r portmap.Request, f portmap.Facts) portmap.Decision {
	switch {
	case !l.there && r.Client.Interface == "lan":
		return portmap.Decision{Action: portmap.Deny, Reason: portmap.OffLink, Detail: "no such LAN"}
	case r.ExternalPort == 5001:
		return portmap.Decision{Action: portmap.Deny, Reason: portmap.RuleDenied, Detail: "a new rule"}
	case !f.GrantReadyAt.IsZero():
		return portmap.Decision{Action: portmap.Deny, Reason: portmap.GrantRate, Detail: "too fast"}
	}
	return portmap.Decision{Action: portmap.Allow, GrantReadyAt: time.Now().Add(time.Hour)}
}

// waiting returns an engine whose LAN is not there, what the run before it left, and
// what of it waits.
func waiting(t *testing.T, ports ...uint16) (rig, *memory, *late, []portmap.Mapping) {
	t.Helper()
	first := &memory{}
	before := start(t, portmap.EngineConfig{Store: first})
	for _, port := range ports {
		before.mustMap(t, ask(hostA, portmap.UDP, port))
	}
	s := &memory{held: maps.Clone(first.held)} // the engine before goes on in this test
	l := &late{}
	k := &kernel{bad: map[uint16]bool{}}
	e, err := portmap.NewEngine(portmap.EngineConfig{Policy: l, Firewall: k, Gateway: gateway{}, Store: s, LeaseMax: 168 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := e.Restore(t.Context(), s.all())
	if err != nil {
		t.Fatal(err)
	}
	var wait []portmap.Mapping
	for _, d := range dropped {
		if !d.Waits() {
			t.Errorf("does not wait: %s: %v", d.Mapping.String(), d.Err)
		}
		wait = append(wait, d.Mapping)
	}
	run(t, e)
	r := rig{e, k}
	if r.kernelHas(t); len(wait) != len(ports) || len(s.held) != len(ports) {
		t.Fatalf("%d wait, the store holds %v", len(wait), s.held)
	}
	return r, s, l, wait
}

func readmit(t *testing.T, e *portmap.Engine, list []portmap.Mapping, want ...string) {
	t.Helper()
	dropped, err := e.Readmit(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range dropped {
		got = append(got, fmt.Sprintf("%d: %s", d.Mapping.ExternalPort, portmap.ReasonOf(d.Err)))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("dropped %q, want %q", got, want)
	}
}

// TestReadmit: what waits for its LAN is in no kernel and in the store. When the LAN
// is there it is what it was, under its old ID, and so is what was granted meanwhile;
// what cannot be any more ends in the store too.
func TestReadmit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, s, l, wait := waiting(t, 5000, 5001, 5002, 5003)
		other := hostB
		other.Interface = "guest"
		newer := r.mustMap(t, ask(other, portmap.UDP, 5002))
		if newer.ID <= 4 {
			t.Errorf("ID %d is of one that waits", newer.ID)
		}
		readmit(t, r.Engine, wait, "5000: off-link", "5001: off-link", "5002: port-taken", "5003: off-link")
		if len(s.held) != 4 {
			t.Errorf("the store holds %v", s.held)
		}
		wait = slices.DeleteFunc(wait, func(m portmap.Mapping) bool { return m.ExternalPort == 5002 })
		l.there = true
		readmit(t, r.Engine, wait, "5001: rule-denied")
		r.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp 5002 -> 192.168.1.20:5000", "udp 5003 -> 192.168.1.10:5000")
		if m := table(r.Engine)[0]; m.ID != 1 || m.Left(time.Now()) != time.Hour || len(s.held) != 3 {
			t.Errorf("taken over %+v, the store holds %v", m, s.held)
		}
		readmit(t, r.Engine, wait[:1]) // it is there already
		third := hostB
		third.Addr, third.MAC = hostB.Addr.Next(), portmap.MAC{3}
		if m := r.mustMap(t, ask(third, portmap.UDP, 5005)); m.ID <= newer.ID {
			t.Errorf("ID %d is used again", m.ID)
		}
		r.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp 5002 -> 192.168.1.20:5000", "udp 5003 -> 192.168.1.10:5000", "udp 5005 -> 192.168.1.21:5000")
	})
}

// TestReadmitLate: a lease runs out while it waits.
func TestReadmitLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, s, l, wait := waiting(t, 5000)
		time.Sleep(time.Hour)
		l.there = true
		readmit(t, r.Engine, wait, "5000: ended")
		if r.kernelHas(t); len(s.held) != 0 {
			t.Errorf("the store holds %v", s.held)
		}
	})
}

// TestReadmitFailures: one that no firewall could enforce takes no other with it; a
// firewall that fails loses nothing.
func TestReadmitFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, s, l, wait := waiting(t, 5000, 5004, 5005)
		l.there = true
		r.kernel.setDead(true)
		if d, err := r.Readmit(t.Context(), wait); portmap.ReasonOf(err) != portmap.FirewallFailed || len(d) != 0 || len(s.held) != 3 {
			t.Errorf("a dead kernel: %v, %v; the store holds %v", d, err, s.held)
		}
		r.kernel.setDead(false)
		before := r.kernel.count()
		i := slices.IndexFunc(wait, func(m portmap.Mapping) bool { return m.ExternalPort == 5004 })
		wait[i] = unenforceable(wait[i])
		readmit(t, r.Engine, wait, "5004: bad-remote")
		if r.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp 5005 -> 192.168.1.10:5000"); len(s.held) != 2 || r.kernel.count() != before+1 {
			t.Errorf("the store holds %v; %d transactions", s.held, r.kernel.count()-before)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Readmit(ctx, wait); !errors.Is(err, context.Canceled) {
			t.Errorf("nobody waits for it: %v", err)
		}
	})
}
