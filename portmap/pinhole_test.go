package portmap_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

var (
	sixA = portmap.Client{Addr: netip.MustParseAddr("2001:db8::a"), MAC: hostA.MAC, Interface: "lan", Via: portmap.ViaUPnP}
	sixB = portmap.Client{Addr: netip.MustParseAddr("2001:db8::b"), MAC: hostB.MAC, Interface: "lan", Via: portmap.ViaUPnP}
)

// open asks for a pinhole.
func open(c portmap.Client, port uint16) portmap.Request {
	return portmap.Request{
		Kind: portmap.Pinhole6, Client: c, Transport: portmap.UDP, Lifetime: time.Hour,
		Internal: netip.AddrPortFrom(c.Addr, port),
	}
}

// TestPinholes: SOAP-50. A pinhole is granted, renewed under its number in either
// protocol, and ends; ports in use on the gateway do not matter.
func TestPinholes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Gateway: gateway{8443: "the gateway listens there"}})
		first := r.mustMap(t, open(sixA, 8443))
		if first.ExternalPort != first.Internal.Port() || first.Left(time.Now()) != time.Hour {
			t.Errorf("granted %+v", first)
		}
		longer := open(sixA, 8443)
		longer.Lifetime = 2 * time.Hour
		byPCP := open(by(sixA, portmap.ViaPCP), 8443)
		for _, req := range []portmap.Request{longer, byPCP} {
			if m := r.mustMap(t, req); m.ID != first.ID || m.Number != first.Number || m.Left(time.Now()) != 2*time.Hour {
				t.Errorf("renewed %+v, want number %d", m, first.Number)
			}
		}
		if got, ok := r.Snapshot().Pinhole(first.Number); !ok || got.ID != first.ID {
			t.Errorf("pinhole %d is %+v, %v", first.Number, got, ok)
		}
		if _, ok := r.Snapshot().Pinhole(first.Number + 1); ok {
			t.Error("a number that nobody has")
		}
		restricted := open(sixA, 8443)
		restricted.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("2001:db8:9::/64")}}
		if m := r.mustMap(t, restricted); m.ID == first.ID {
			t.Errorf("a restricted one is the same: %+v", m)
		}
		r.mustMap(t, open(sixB, 8443)) // another host's, the same port
		r.kernelHas(t, "udp [2001:db8::a]:8443", "udp [2001:db8::a]:8443 from 2001:db8:9::/64", "udp [2001:db8::b]:8443")
		if n := len(slices.Collect(r.Snapshot().All())); n != 3 || r.Snapshot().Of(sixA.ID()).Len() != 2 {
			t.Errorf("%d in all", n)
		}
		time.Sleep(2*time.Hour + time.Second)
		r.kernelHas(t)
		if _, ok := r.Snapshot().Pinhole(first.Number); ok || r.Snapshot().Len() != 0 {
			t.Error("what has run out is still listed")
		}
	})
}

// TestPinholeOwners: J1, J4. Another device that has the address now gets nothing
// of its predecessor's, ranges of ports name no pinholes, and only its owner, or
// the gateway's, ends one.
func TestPinholeOwners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		m := r.mustMap(t, open(sixA, 8443))
		heir := sixA
		heir.MAC = hostB.MAC
		r.refuses(t, open(heir, 8443), portmap.IdentityChanged)
		for _, x := range []struct {
			s    portmap.Selector
			want portmap.Reason
		}{
			{portmap.Selector{Client: heir, ID: m.ID}, portmap.NoSuchMapping},
			{portmap.Selector{Client: sixB, ID: m.ID}, portmap.NoSuchMapping},
			{portmap.Selector{Client: sixA, FirstPort: 1, LastPort: 65535}, portmap.NoSuchMapping},
			{portmap.Selector{Client: sixA, Transport: portmap.TCP, ID: m.ID}, portmap.NoSuchMapping},
		} {
			if _, err := r.Unmap(t.Context(), x.s); portmap.ReasonOf(err) != x.want {
				t.Errorf("%+v: %v, want %v", x.s, err, x.want)
			}
		}
		r.kernelHas(t, "udp [2001:db8::a]:8443")
		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: portmap.Client{Via: portmap.ViaOwner}, Anybody: true, ID: m.ID}); err != nil {
			t.Error(err)
		}
		r.kernelHas(t)
		m = r.mustMap(t, open(sixA, 8443))
		if _, err := r.Unmap(t.Context(), portmap.Selector{Client: sixA, ID: m.ID}); err != nil {
			t.Error(err)
		}
		r.kernelHas(t)
	})
}

// TestOneDeviceTwoFamilies: a quota counts what a device, a LAN and a rule have in both
// families.
func TestOneDeviceTwoFamilies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		counts := make(chan int, 8)
		r := start(t, portmap.EngineConfig{Policy: policyFunc(func(_ portmap.Request, f portmap.Facts) portmap.Decision {
			counts <- f.ClientMappings
			if f.LANMappings != f.ClientMappings || f.RuleTotal("r") != f.ClientMappings {
				t.Errorf("the LAN has %d and the rule %d, want %d", f.LANMappings, f.RuleTotal("r"), f.ClientMappings)
			}
			return portmap.Decision{Action: portmap.Allow, Rule: "r"}
		})})
		r.mustMap(t, ask(hostA, portmap.UDP, 6000))
		r.mustMap(t, open(sixA, 8443))
		private := sixA
		private.Addr = netip.MustParseAddr("fd00::a")
		r.mustMap(t, open(private, 8443))
		for want := range 3 {
			if got := <-counts; got != want {
				t.Errorf("the device had %d, want %d", got, want)
			}
		}
	})
}

// TestPinholeSets: RFC 7753 in IPv6: as many in a row, renewed as such.
func TestPinholeSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		set := open(by(sixA, portmap.ViaPCP), 65534)
		for range 2 {
			got, err := r.MapSet(t.Context(), set, 4)
			if err != nil || len(got) != 2 || got[0].Number == got[1].Number {
				t.Fatalf("%v, %v", got, err)
			}
			r.kernelHas(t, "udp [2001:db8::a]:65534", "udp [2001:db8::a]:65535")
		}
	})
}
