package portmap_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/policy"
	"portcullis/portmap"
)

// TestExplain: what is explained is what then happens, by the terms of that moment; and it
// leaves no trace: no event, no change of the table, no transaction, nothing of the grants
// that a device may have in a second.
func TestExplain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		terms := func(c policy.Config) portmap.Policy {
			p, err := policy.New(c)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		r := start(t, portmap.EngineConfig{
			Gateway: house{}, LeaseMax: time.Hour,
			Policy: terms(policy.Config{Default: portmap.Allow, GrantsPerSecond: 1, MappingsPerClient: policy.Burst + 2}),
		})
		watch := r.Watch(1024)
		explain := func(req portmap.Request, want portmap.Reason) portmap.Verdict {
			t.Helper()
			before, transactions := r.Snapshot(), r.kernel.count()
			v, err := r.Explain(t.Context(), req)
			if err != nil || portmap.ReasonOf(v.Err) != want || (v.Err == nil) != (want == portmap.NoReason) {
				t.Fatalf("%+v, %v; want %v", v, err, want)
			}
			if r.Snapshot().Revision() != before.Revision() || r.Snapshot().Len() != before.Len() || r.kernel.count() != transactions {
				t.Error("it left a trace")
			}
			return v
		}
		for range 10 * policy.Burst {
			if v := explain(ask(hostA, portmap.UDP, 5000), portmap.NoReason); v.Mapping.ExternalPort != 5000 || v.Renewal || v.Mapping.Left(time.Now()) != time.Hour {
				t.Fatalf("%+v", v)
			}
		}
		if v := explain(to22(hostA), portmap.PrivilegedPort); !v.NeedsRule || v.Wall {
			t.Errorf("%+v", v)
		}
		if len(drain(watch)) != 0 || r.Denied() != 0 {
			t.Error("somebody heard of it")
		}
		for port := range uint16(policy.Burst) {
			r.mustMap(t, ask(hostA, portmap.UDP, 5000+port)) // none of the rate was used
		}
		explain(ask(hostA, portmap.UDP, 6000), portmap.GrantRate)
		if v := explain(ask(hostA, portmap.UDP, 5000), portmap.NoReason); !v.Renewal {
			t.Error("its own mapping would not be renewed")
		}
		explain(ask(hostB, portmap.UDP, 5000), portmap.PortTaken)
		anything := ask(hostB, portmap.UDP, 5000)
		anything.Exact = false
		if v := explain(anything, portmap.NoReason); v.Mapping.ExternalPort == 5000 {
			t.Errorf("%+v", v)
		}
		explain(ask(hostB, portmap.UDP, 7777), portmap.PortInUse)
		time.Sleep(time.Minute)
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, ask(hostA, portmap.UDP, 6001))
		explain(ask(hostA, portmap.UDP, 6002), portmap.ClientQuota)

		if _, err := r.Adopt(t.Context(), portmap.Terms{LeaseMax: time.Minute, Policy: terms(policy.Config{Default: portmap.Deny})}); err != nil {
			t.Fatal(err)
		}
		if v := explain(ask(hostB, portmap.UDP, 6002), portmap.DefaultDenied); !v.NeedsRule {
			t.Errorf("%+v", v)
		}
	})
}

// house is a gateway whose LAN is hostA's and hostB's, and which listens at 7777.
type house struct{ gateway }

func (house) View() *portmap.View {
	return &portmap.View{
		WANs:  []portmap.WAN{{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.5")}},
		LAN:   map[string]portmap.LAN{"lan": {Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}}},
		InUse: []portmap.PortsInUse{{Transport: portmap.UDP, Ports: portmap.PortRange{First: 7777, Last: 7777}, By: "a test"}},
	}
}

func to22(c portmap.Client) portmap.Request {
	r := ask(c, portmap.TCP, 2222)
	r.Internal = netip.AddrPortFrom(c.Addr, 22)
	return r
}
