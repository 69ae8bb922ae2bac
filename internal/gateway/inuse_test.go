package gateway

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

// machine is one whose n-th reading finds a listener on port n and a forward of port
// 1000+n.
type machine struct {
	listeners, forwards atomic.Int32
	err                 error
	hangs               chan struct{} // a reading of rules waits for it, or for its context
}

func (m *machine) gateway() *Gateway {
	return New(Config{
		Listening: func(context.Context) (netif.Ports, error) {
			n := m.listeners.Add(1)
			return netif.NewPorts([]netif.Listener{{Transport: 6, Port: uint16(n), Addr: netip.IPv4Unspecified()}}), m.err
		},
		Forwarded: func(ctx context.Context) (*firewall.Forwards, error) {
			n := m.forwards.Add(1)
			if m.hangs != nil {
				select {
				case <-m.hangs:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			time.Sleep(100 * time.Millisecond)
			f := &firewall.Forwards{}
			f.Add(portmap.UDP, 1000+uint16(n), 1000+uint16(n), "a rule")
			return f, m.err
		},
	})
}

func vacant(t *testing.T, v *portmap.View, tr portmap.Transport, port uint16, want portmap.Reason) {
	t.Helper()
	if err := v.Vacant(tr, port); portmap.ReasonOf(err) != want {
		t.Errorf("%s port %d: %v, want %v", tr, port, err, want)
	}
}

// TestPortsInUse: B8. They are read at most once a second, and the owner's rules when
// they have changed; all who ask at once share one reading.
func TestPortsInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		g := m.gateway()
		vacant(t, g.View(), portmap.TCP, 9, portmap.FirewallFailed) // before anybody has looked
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				g.Look(t.Context())
				vacant(t, g.View(), portmap.TCP, 1, portmap.PortInUse)
				vacant(t, g.View(), portmap.UDP, 1001, portmap.PortInUse)
				vacant(t, g.View(), portmap.UDP, firewall.SpareFirst, portmap.PortInUse)
				vacant(t, g.View(), portmap.UDP, 1, portmap.NoReason)
			})
		}
		all.Wait()
		readings := func(listeners, forwards int32) {
			t.Helper()
			g.Look(t.Context())
			if m.listeners.Load() != listeners || m.forwards.Load() != forwards {
				t.Errorf("listeners were read %d times, forwards %d times; want %d, %d", m.listeners.Load(), m.forwards.Load(), listeners, forwards)
			}
		}
		readings(1, 1)
		time.Sleep(listenersAge)
		readings(2, 1)
		vacant(t, g.View(), portmap.TCP, 2, portmap.PortInUse)
		g.RulesChanged()
		readings(2, 2)
		vacant(t, g.View(), portmap.UDP, 1002, portmap.PortInUse)
		vacant(t, g.View(), portmap.UDP, 1001, portmap.NoReason)
		g.Set(netif.State{}, netif.Roles{}) // the network changes, the ports are still known
		vacant(t, g.View(), portmap.TCP, 2, portmap.PortInUse)
		time.Sleep(forwardsAge)
		readings(3, 3)
	})
}

// TestPortsInUseFailure: a kernel in trouble is not pressed, and nothing is granted.
func TestPortsInUseFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{err: errors.New("broken")}
		g := m.gateway()
		for range 10 {
			g.Look(t.Context())
			vacant(t, g.View(), portmap.TCP, 9, portmap.FirewallFailed)
			if err := g.View().InUseErr; !errors.Is(err, m.err) {
				t.Errorf("error %v", err)
			}
		}
		if n := m.listeners.Load(); n != 1 {
			t.Errorf("the failing kernel was asked %d times within a second", n)
		}
		m.err = nil
		time.Sleep(forwardsAge)
		g.Look(t.Context())
		vacant(t, g.View(), portmap.TCP, 9, portmap.NoReason)
	})
}

// TestPortsInUsePatience: who cannot wait goes; the reading goes on, and who comes next
// has it. One without an end is given up, and nothing is granted.
func TestPortsInUsePatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &machine{hangs: make(chan struct{})}
		g := m.gateway()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			g.Look(ctx)
			cancel()
			vacant(t, g.View(), portmap.TCP, 9, portmap.FirewallFailed)
		}
		m.hangs <- struct{}{}
		g.Look(t.Context())
		vacant(t, g.View(), portmap.TCP, 9, portmap.NoReason)
		if n := m.forwards.Load(); n != 1 {
			t.Errorf("read %d times", n)
		}
		time.Sleep(forwardsAge)
		began := time.Now()
		g.Look(t.Context())
		if d := time.Since(began); d != readTimeout {
			t.Errorf("gave up after %v", d)
		}
		if err := g.View().InUseErr; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
