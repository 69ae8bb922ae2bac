package portmap_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// TestAdopt: of what is open new terms revoke what they do not allow, with the reason, and
// keep the rest as it is; they cut a lease that is too long for them; and they hold for
// what is asked for next. Adopting them again changes nothing.
func TestAdopt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &memory{}
		r := start(t, portmap.EngineConfig{Store: s})
		watch := r.Watch(64)
		for port := uint16(5000); port < 5005; port++ {
			r.mustMap(t, ask(hostA, portmap.UDP, port))
		}
		r.mustMap(t, open(sixA, 9000))
		drain(watch)
		before := r.Snapshot()
		back := false
		today := portmap.Terms{LeaseMax: 30 * time.Minute, Policy: policyFunc(func(r portmap.Request, f portmap.Facts) portmap.Decision {
			switch {
			case r.Kind == portmap.Pinhole6:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.DefaultDenied, Detail: "no pinholes"}
			case r.ExternalPort == 5001:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.RuleDenied, Detail: "a new rule"}
			case r.ExternalPort == 5002:
				return portmap.Decision{Action: portmap.Allow, Rule: "short", MaxLifetime: time.Minute}
			case r.ExternalPort == 5003:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.NoAddress, Detail: "the WAN is down"}
			case r.ExternalPort == 5004 && !back:
				return portmap.Decision{Action: portmap.Deny, Reason: portmap.OffLink, Detail: "its LAN is away"}
			}
			return portmap.Decision{Action: portmap.Allow}
		})}
		revoked, err := r.Adopt(t.Context(), today)
		if err != nil {
			t.Fatal(err)
		}
		var why []string
		for _, d := range revoked {
			why = append(why, fmt.Sprintf("%s: %v", d.Mapping.String(), d.Err))
		}
		slices.Sort(why)
		if diff := cmp.Diff([]string{"udp 5001 -> 192.168.1.10:5000: a new rule", "udp [2001:db8::a]:9000: no pinholes"}, why); diff != "" {
			t.Errorf("revoked (-want +got):\n%s", diff)
		}
		r.kernelHas(t, "udp 5000 -> 192.168.1.10:5000", "udp 5002 -> 192.168.1.10:5000", "udp 5003 -> 192.168.1.10:5000", "udp 5004 -> 192.168.1.10:5000")
		var told []string
		for _, e := range drain(watch) {
			told = append(told, fmt.Sprint(e.Type, " ", e.Mapping.ExternalPort, " ", e.Reason))
		}
		slices.Sort(told)
		want := []string{"renewed 5000 ", "renewed 5002 ", "renewed 5003 ", "revoked 5001 rule-denied", "revoked 9000 default-denied"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		for m := range r.Snapshot().All() {
			want := 30 * time.Minute
			switch m.ExternalPort {
			case 5002:
				want = time.Minute
			case 5004: // of which nothing is known
				want = time.Hour
			}
			kept := s.held[m.ID]
			if got, stored := m.Left(time.Now()), kept.Left(time.Now()); got != want || stored != want {
				t.Errorf("%v ends in %v, in the store in %v; want %v", m.String(), got, stored, want)
			}
		}
		r.refuses(t, ask(hostA, portmap.UDP, 5001), portmap.RuleDenied)
		if r.Snapshot().Revision() == before.Revision() {
			t.Error("nothing changed")
		}
		again := r.Snapshot().Revision()
		if revoked, err := r.Adopt(t.Context(), today); len(revoked) != 0 || err != nil || r.Snapshot().Revision() != again {
			t.Errorf("again: %v, %v", revoked, err)
		}

		// The LAN that was away is back, and so are the terms.
		back = true
		for _, want := range []time.Duration{30 * time.Minute, 20 * time.Minute} {
			if revoked, err := r.Review(t.Context()); len(revoked) != 0 || err != nil {
				t.Errorf("when its LAN is back: %v, %v", revoked, err)
			}
			if m := r.at(t, 5004); m.Left(time.Now()) != want {
				t.Errorf("when its LAN is back, %v ends in %v", m.String(), m.Left(time.Now()))
			}
			time.Sleep(10 * time.Minute)
		}
	})
}

// TestAdoptFails: terms that cannot hold change nothing; where the kernel refuses to revoke
// what they do not allow, they hold for what is asked for, and adopting them again revokes it.
func TestAdoptFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		r.mustMap(t, ask(hostA, portmap.UDP, 5000))
		none := policyFunc(func(portmap.Request, portmap.Facts) portmap.Decision {
			return portmap.Decision{Action: portmap.Deny, Reason: portmap.DefaultDenied, Detail: "nothing"}
		})
		for _, bad := range []portmap.Terms{{LeaseMax: time.Hour}, {Policy: none}, {Policy: none, LeaseMax: 1, LeaseMin: 2}} {
			if _, err := r.Adopt(t.Context(), bad); err == nil {
				t.Errorf("%+v is adopted", bad)
			}
		}
		r.mustMap(t, ask(hostA, portmap.UDP, 5001))
		r.kernel.fails(true)
		terms := portmap.Terms{Policy: none, LeaseMax: time.Hour}
		if _, err := r.Adopt(t.Context(), terms); portmap.ReasonOf(err) != portmap.FirewallFailed {
			t.Errorf("the kernel refuses, and the error is %v", err)
		}
		r.kernel.fails(false)
		r.refuses(t, ask(hostA, portmap.UDP, 5002), portmap.DefaultDenied)
		if revoked, err := r.Adopt(t.Context(), terms); len(revoked) != 2 || err != nil {
			t.Errorf("again: %v, %v", revoked, err)
		}
		r.kernelHas(t)
	})
}

// at returns the mapping of an external port.
func (r rig) at(t *testing.T, port uint16) portmap.Mapping {
	t.Helper()
	for m := range r.Snapshot().All() {
		if m.ExternalPort == port {
			return m
		}
	}
	t.Fatalf("no mapping has port %d", port)
	panic("not reached")
}

// drain returns the events that are there.
func drain(w *portmap.Watcher) (all []portmap.Event) {
	for {
		select {
		case e := <-w.C:
			all = append(all, e)
		default:
			return all
		}
	}
}

// fails has the kernel refuse every transaction.
func (k *kernel) fails(all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = all
}
