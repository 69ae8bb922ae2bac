package portmap_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// heir is another device at A's address.
var heir = func() portmap.Client {
	c := hostA
	c.MAC = portmap.MAC{9}
	return c
}()

func (r rig) suspend(t *testing.T, o portmap.ClientID) {
	t.Helper()
	if err := r.Suspend(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

func (r rig) resume(t *testing.T, o portmap.ClientID) {
	t.Helper()
	if err := r.Resume(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// TestSuspend: while another device has a host's address, nothing is open that leads
// there, and nothing of it is the newcomer's; when the host is back, all is as it was.
// The host's other mappings and other hosts notice nothing.
func TestSuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		w := r.Watch(32)
		defer w.Close()
		off := ask(hostA, portmap.UDP, 6001)
		off.Disabled = true
		first := r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, off)
		r.mustMap(t, open(sixA, 9000))
		r.mustMap(t, ask(hostB, portmap.UDP, 7000))
		r.suspend(t, hostA.ID())
		r.suspend(t, hostA.ID()) // it is already
		r.kernelHas(t, "udp 7000 -> 192.168.1.20:5000", "udp [2001:db8::a]:9000")
		if n := r.Snapshot().Of(hostA.ID()).Len(); n != 2 {
			t.Errorf("%d mappings are kept", n)
		}
		r.refuses(t, ask(heir, portmap.UDP, 6000), portmap.IdentityChanged)
		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: heir, Transport: portmap.UDP, FirstPort: 6000, LastPort: 6000}); portmap.ReasonOf(err) != portmap.NotOwner {
			t.Errorf("the newcomer closes it: %v", err)
		}
		r.resume(t, hostA.ID())
		r.resume(t, hostA.ID())
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000", "udp 7000 -> 192.168.1.20:5000", "udp [2001:db8::a]:9000")
		if m, _ := r.Snapshot().Find(portmap.UDP, 6000, nil); m.ID != first.ID || m.Expires != first.Expires {
			t.Errorf("it is %+v now", m)
		}
		var told []portmap.EventType
		for range 9 { // four grants, a refusal, and two changes of two mappings
			told = append(told, (<-w.C).Type)
		}
		want := []portmap.EventType{portmap.Granted, portmap.Granted, portmap.Granted, portmap.Granted,
			portmap.Suspended, portmap.Suspended, portmap.Denied, portmap.Resumed, portmap.Resumed}
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}

		r.suspend(t, hostA.ID())
		again := r.mustMap(t, ask(hostA, portmap.UDP, 6000)) // only who has the address can ask
		if again.ID != first.ID || !again.Suspended.IsZero() {
			t.Errorf("its own renewal left %+v", again)
		}
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000", "udp 7000 -> 192.168.1.20:5000", "udp [2001:db8::a]:9000")
		r.suspend(t, hostA.ID())
		time.Sleep(time.Hour)
		synctest.Wait()
		r.kernelHas(t)
		if n := r.Snapshot().Len(); n != 0 {
			t.Errorf("%d mappings outlive their lease", n)
		}
	})
}

// TestSuspendedPortIsKept: C6. The port of a suspended mapping is its client's for as
// long as that of an expired one; then who asks for it has it, and the mapping ends.
func TestSuspendedPortIsKept(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]portmap.Client{"the newcomer": heir, "another host": hostB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{})
				r.mustMap(t, ask(hostA, portmap.UDP, 6000))
				r.mustMap(t, inward(natA, 4000, 6100)) // whose other half is kept for it, too
				r.mustMap(t, ask(hostA, portmap.TCP, 6000))
				r.suspend(t, hostA.ID())
				companion := ask(other, portmap.TCP, 6100)
				time.Sleep(time.Minute)
				for _, q := range []portmap.Request{ask(other, portmap.UDP, 6000), companion} {
					if _, err := r.Map(t.Context(), q); err == nil {
						t.Errorf("%v got %v within the minute", other.MAC, q.ExternalPort)
					}
				}
				time.Sleep(time.Nanosecond)
				if m := r.mustMap(t, inward(by(other, portmap.ViaPCP), 4001, 6000)); m.ExternalPort != 6000 {
					t.Errorf("suggested and free: %v", &m)
				}
				r.mustMap(t, companion)
				if n := r.Snapshot().Of(hostA.ID()).Len(); n != 1 {
					t.Errorf("%d of three mappings are left", n)
				}
				r.resume(t, hostA.ID())
				if _, ok := r.Snapshot().Find(portmap.TCP, 6000, nil); !ok {
					t.Error("what nobody asked for is not back")
				}
			})
		})
	}
}

// TestSuspendedPortOfWhoIsBack: whose device is back, though it is not believed to stay,
// loses no port to others meanwhile; and a stream of such news is no stream of changes.
func TestSuspendedPortOfWhoIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.suspend(t, hostA.ID())
		for range 4 {
			time.Sleep(40 * time.Second)
			before := r.Snapshot().Revision()
			for range 3 {
				if err := r.Keep(t.Context(), hostA.ID()); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.Snapshot().Revision() - before; n != 1 {
				t.Errorf("%d changes at once", n)
			}
		}
		time.Sleep(time.Minute)
		r.refuses(t, ask(hostB, portmap.UDP, 6000), portmap.PortTaken)
		time.Sleep(time.Nanosecond)
		r.mustMap(t, ask(hostB, portmap.UDP, 6000))
	})
}

// TestSuspendedYieldsNothingInVain: who asks for a suspended mapping's port and is
// refused, or gets another one, ends nothing.
func TestSuspendedYieldsNothingInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Policy: policyFunc(func(q portmap.Request, _ portmap.Facts) portmap.Decision {
			if q.Client.MAC == hostB.MAC && q.ExternalPort == 6000 {
				return portmap.Decision{Reason: portmap.RuleDenied, Detail: "no", OverExternalPort: true}
			}
			return portmap.Decision{Action: portmap.Allow}
		})})
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.suspend(t, hostA.ID())
		time.Sleep(time.Hour / 2)
		r.refuses(t, ask(hostB, portmap.UDP, 6000), portmap.RuleDenied)
		if m := r.mustMap(t, inward(by(hostB, portmap.ViaPCP), 4000, 6000)); m.ExternalPort == 6000 {
			t.Errorf("the policy forbids %v", &m)
		}
		r.resume(t, hostA.ID())
		if m, ok := r.Snapshot().Find(portmap.UDP, 6000, nil); !ok || m.Client.MAC != hostA.MAC {
			t.Errorf("it is gone: %v", &m)
		}
	})
}

// TestRevokeAll: C6. What ends with its host ends at once, and its ports are kept for
// it where another device has the address.
func TestRevokeAll(t *testing.T) {
	t.Parallel()
	for reason, want := range map[portmap.Reason]portmap.Reason{
		portmap.IdentityChanged: portmap.IdentityChanged, portmap.Revoked: portmap.NoReason,
	} {
		t.Run(reason.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{})
				for port := range uint16(3) {
					r.mustMap(t, ask(hostA, portmap.UDP, 6000+port))
				}
				r.mustMap(t, ask(hostB, portmap.UDP, 7000))
				before := r.kernel.transactions
				if err := r.RevokeAll(t.Context(), hostA.ID(), reason); err != nil {
					t.Fatal(err)
				}
				r.kernelHas(t, "udp 7000 -> 192.168.1.20:5000")
				if n := r.kernel.transactions - before; n != 1 {
					t.Errorf("%d transactions", n)
				}
				if _, err := r.Map(t.Context(), ask(heir, portmap.UDP, 6000)); portmap.ReasonOf(err) != want {
					t.Errorf("the newcomer asks for the port: %v", err)
				}
			})
		})
	}
}

// TestSuspendedPinhole: in IPv6 the place is the address itself, which is the
// newcomer's after a minute.
func TestSuspendedPinhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		r.mustMap(t, open(sixA, 9000))
		r.suspend(t, sixA.ID())
		r.kernelHas(t)
		next := sixA
		next.MAC = heir.MAC
		r.refuses(t, open(next, 9000), portmap.IdentityChanged)
		time.Sleep(time.Minute + time.Nanosecond)
		r.mustMap(t, open(next, 9000))
		if n := r.Snapshot().Of(sixA.ID()).Len(); n != 0 {
			t.Errorf("%d pinholes are left", n)
		}
		r.kernelHas(t, "udp [2001:db8::a]:9000")
	})
}

// TestEndless: who asks UPnP for a lease of 0 never renews; such a lease goes on while
// its device is seen, and ends when it has not been for LeaseMax.
func TestEndless(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{LeaseMax: time.Hour})
		endless := ask(hostA, portmap.UDP, 6000)
		endless.Lifetime = 0
		if m := r.mustMap(t, endless); !m.Endless || m.Left(time.Now()) != time.Hour {
			t.Errorf("granted %+v", m)
		}
		finite := ask(hostA, portmap.UDP, 6001)
		r.mustMap(t, finite)
		for range 20 {
			time.Sleep(50 * time.Minute)
			if err := r.Seen(t.Context(), hostA.ID()); err != nil {
				t.Fatal(err)
			}
			if err := r.Seen(t.Context(), hostB.ID()); err != nil { // who has none
				t.Fatal(err)
			}
		}
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000")
		time.Sleep(time.Hour - time.Second)
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:5000")
		time.Sleep(time.Second)
		synctest.Wait()
		r.kernelHas(t)
	})
}

// TestWhatIsNotEndless: a lease has an end where its client asked for one or its
// protocol has none without, where a rule sets a term, and where the device cannot be
// seen.
func TestWhatIsNotEndless(t *testing.T) {
	t.Parallel()
	unseen := hostA
	unseen.MAC = portmap.MAC{}
	for name, c := range map[string]struct {
		client portmap.Client
		asked  time.Duration
		rule   time.Duration
		want   bool
	}{
		"asked for":       {hostA, 0, 0, true},
		"an hour":         {hostA, time.Hour, 0, false},
		"under a rule":    {hostA, 0, time.Minute, false},
		"without a MAC":   {unseen, 0, 0, false},
		"the longest one": {hostA, 1<<32*time.Second - time.Second, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{LeaseMax: time.Hour, Policy: policyFunc(func(portmap.Request, portmap.Facts) portmap.Decision {
					return portmap.Decision{Action: portmap.Allow, MaxLifetime: c.rule}
				})})
				q := ask(c.client, portmap.UDP, 6000)
				q.Lifetime = c.asked
				m := r.mustMap(t, q)
				if m.Endless != c.want {
					t.Errorf("endless: %v", m.Endless)
				}
				time.Sleep(30 * time.Second)
				if err := r.Seen(t.Context(), c.client.ID()); err != nil {
					t.Fatal(err)
				}
				if now, _ := r.Snapshot().Find(portmap.UDP, 6000, nil); now.Expires.After(m.Expires) != c.want {
					t.Errorf("its end went from %v to %v", m.Expires, now.Expires)
				}
			})
		})
	}
}

// TestEndlessAndFinite: what a client asked for last in UPnP holds, and another
// protocol's lease beside it is not made longer by the device.
func TestEndlessAndFinite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{LeaseMax: 24 * time.Hour})
		q := ask(hostA, portmap.UDP, 6000)
		q.Lifetime = 0
		r.mustMap(t, q)
		pcp := inward(pcpA, 5000, 6000)
		r.mustMap(t, pcp)
		time.Sleep(30 * time.Minute)
		if err := r.Seen(t.Context(), hostA.ID()); err != nil {
			t.Fatal(err)
		}
		r.is(t, 6000, "upnp and pcp", 24*time.Hour)
		time.Sleep(30 * time.Minute)
		r.is(t, 6000, "upnp", 24*time.Hour-30*time.Minute)
		q.Lifetime = time.Hour
		if m := r.mustMap(t, q); m.Endless || m.Left(time.Now()) != time.Hour {
			t.Errorf("an hour, asked for later: %+v", m)
		}
	})
}

// TestTermsAreRestored: what was suspended comes back closed, and what was endless
// goes on.
func TestTermsAreRestored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		endless := ask(hostA, portmap.UDP, 6000)
		endless.Lifetime = 0
		r.mustMap(t, endless)
		r.suspend(t, hostA.ID())
		kept := slices.Collect(r.Snapshot().All())
		k := &kernel{}
		e, err := portmap.NewEngine(portmap.EngineConfig{
			Policy: policyFunc(allowAll), Gateway: gateway{}, Firewall: k, LeaseMax: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		if dropped, err := e.Restore(t.Context(), kept); err != nil || len(dropped) != 0 || len(k.list()) != 0 {
			t.Fatalf("restored: %v, %v, open %v", dropped, err, k.list())
		}
		m, _ := e.Snapshot().Find(portmap.UDP, 6000, nil)
		if !m.Endless || m.Suspended.IsZero() || m.Left(time.Now()) != time.Hour {
			t.Errorf("restored %+v", m)
		}
	})
}

// sleepy is a gateway that knows what is in use when somebody has looked.
type sleepy struct {
	gateway
	looked *atomic.Int32
}

func (s sleepy) View() *portmap.View {
	if s.looked.Load() == 0 {
		return &portmap.View{InUseErr: errors.New("nobody has looked")}
	}
	return s.gateway.View()
}

func (s sleepy) Look(context.Context) { s.looked.Add(1) }

// TestPortsInUseAreLookedAtFirst: B8. Who asks for a port has the gateway's own looked at
// before the engine plans; who asks for a pinhole, which is on the host's address, not.
func TestPortsInUseAreLookedAtFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looked := new(atomic.Int32)
		r := start(t, portmap.EngineConfig{Gateway: sleepy{gateway{6001: "something"}, looked}})
		r.mustMap(t, open(sixA, 6000))
		if n := looked.Load(); n != 0 {
			t.Errorf("looked %d times for a pinhole", n)
		}
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.refuses(t, ask(hostA, portmap.UDP, 6001), portmap.PortInUse)
	})
}

// TestRenewalOfAPortInUse: B8. A renewal asks about the gateway's own services as a
// grant does, and is refused in every protocol; it gets no second port beside the one
// that will end.
func TestRenewalOfAPortInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := gateway{}
		r := start(t, portmap.EngineConfig{Gateway: late})
		upnp := ask(hostA, portmap.UDP, 6000)
		anyPort := upnp
		anyPort.Exact = false
		six := open(sixA, 6000)
		for _, q := range []portmap.Request{upnp, inward(natA, 5000, 6000), inward(pcpA, 5000, 6000), six} {
			r.mustMap(t, q)
		}
		late[6000] = "the gateway itself listens on 0.0.0.0:6000"
		for _, q := range []portmap.Request{upnp, anyPort, inward(natA, 5000, 6000), inward(pcpA, 5000, 6000)} {
			r.refuses(t, q, portmap.PortInUse)
		}
		r.mustMap(t, six) // on the host's own address
		if n := r.Snapshot().Len(); n != 2 {
			t.Errorf("%d mappings", n)
		}
		m, _ := r.Snapshot().Find(portmap.UDP, 6000, nil)
		if err := r.Revoke(t.Context(), m, portmap.PortInUse); err != nil {
			t.Fatal(err)
		}
		if m := r.mustMap(t, inward(natA, 5000, 6000)); m.ExternalPort == 6000 {
			t.Errorf("a new one is %v", &m)
		}
	})
}
