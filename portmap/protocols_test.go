package portmap_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// by returns the client as it asks in another protocol.
func by(c portmap.Client, via portmap.Via) portmap.Client {
	c.Via = via
	return c
}

// spoken fills in what the packages of the protocols say of their requests.
func spoken(r portmap.Request) portmap.Request {
	switch r.Client.Via {
	case portmap.ViaUPnP:
		r.ZeroIsEndless = true
	case portmap.ViaNATPMP:
		r.Named, r.RemotesAre, r.KeepDescription = portmap.ByInternal, portmap.RemotesUnsaid, true
	case portmap.ViaPCP:
		r.Named, r.Floored = portmap.ByInternal, true
		if r.RemotesAre == portmap.RemotesName {
			r.RemotesAre = portmap.RemotesAdd
		}
		if r.Nonce == nil {
			r.Nonce = &portmap.Nonce{}
		}
	}
	return r
}

// Map asks as the packages of the protocols do.
func (r rig) Map(ctx context.Context, req portmap.Request) (portmap.Mapping, error) {
	return r.Engine.Map(ctx, spoken(req))
}

// MapSet asks as that of PCP does.
func (r rig) MapSet(ctx context.Context, req portmap.Request, n int) ([]portmap.Mapping, error) {
	return r.Engine.MapSet(ctx, spoken(req), n)
}

// inward asks for an internal port, in NAT-PMP or PCP, with a suggestion.
func inward(c portmap.Client, internal, suggested uint16) portmap.Request {
	return portmap.Request{
		Client: c, Transport: portmap.UDP, Lifetime: time.Hour,
		Internal: netip.AddrPortFrom(c.Addr, internal), ExternalPort: suggested,
	}
}

var (
	natA, pcpA = by(hostA, portmap.ViaNATPMP), by(hostA, portmap.ViaPCP)
	remote     = portmap.Remote{Prefix: netip.MustParsePrefix("198.51.100.9/32")}
	network    = portmap.Remote{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Port: 53}
)

// TestSameThingInThreeProtocols: one mapping serves all three, and each has the lease
// that it asked for.
func TestSameThingInThreeProtocols(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		upnp := ask(hostA, portmap.UDP, 6000)
		upnp.Internal = netip.AddrPortFrom(hostA.Addr, 6000)
		first := r.mustMap(t, upnp)
		for _, c := range []portmap.Client{natA, pcpA} {
			req := inward(c, 6000, 7777)
			req.Lifetime = time.Minute
			m := r.mustMap(t, req)
			if m.ID != first.ID || m.ExternalPort != 6000 || m.Left(time.Now()) != time.Hour || m.LeaseLeft(c.Via, time.Now()) != time.Minute {
				t.Errorf("%v: %v for %v, of it %v, want the first mapping with its hour", c.Via, &m, m.Left(time.Now()), m.LeaseLeft(c.Via, time.Now()))
			}
		}
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:6000")
		r.is(t, 6000, "upnp and natpmp and pcp", time.Hour)
		time.Sleep(time.Minute)
		r.is(t, 6000, "upnp", time.Hour-time.Minute)
		r.kernelHas(t, "udp 6000 -> 192.168.1.10:6000")
	})
}

// is checks which protocols have a mapping of A's UDP port, and how long it lasts.
func (r rig) is(t *testing.T, port uint16, protocols string, left time.Duration) {
	t.Helper()
	synctest.Wait()
	m, _ := r.Snapshot().Find(portmap.UDP, port, nil)
	if m.Claims.String() != protocols || m.Left(time.Now()) != left {
		t.Errorf("port %d is mapped by %q for %v, want %q for %v", port, m.Claims, m.Left(time.Now()), protocols, left)
	}
}

// wishes ask for A's UDP port 6000, and to close it, in each protocol.
var wishes = []struct {
	open  portmap.Request
	close portmap.Selector
}{
	{
		portmap.Request{Client: hostA, Exact: true},
		portmap.Selector{Client: hostA, Transport: portmap.UDP, FirstPort: 6000, LastPort: 6000, ExactRemotes: true},
	},
	{portmap.Request{Client: natA}, portmap.Selector{Client: natA, Transport: portmap.UDP, Internal: 6000, Only: portmap.ViaNATPMP}},
	{portmap.Request{Client: pcpA}, portmap.Selector{Client: pcpA, Transport: portmap.UDP, Internal: 6000, Only: portmap.ViaPCP}},
}

// TestCloseCloses: in every pair of protocols, who opened a port and is told that it is
// closed finds it closed; who did not is told that it is open.
func TestCloseCloses(t *testing.T) {
	t.Parallel()
	for i, first := range wishes {
		for j, second := range wishes {
			t.Run(first.open.Client.Via.String()+","+second.open.Client.Via.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := start(t, portmap.EngineConfig{})
					open := func(w portmap.Request) {
						w.Transport, w.Lifetime = portmap.UDP, time.Hour
						w.Internal, w.ExternalPort = netip.AddrPortFrom(hostA.Addr, 6000), 6000
						r.mustMap(t, w)
					}
					for _, closing := range []portmap.Selector{first.close, second.close} {
						open(first.open)
						open(second.open)
						if gone, err := r.Unmap(t.Context(), closing); err != nil || len(gone) != 1 {
							t.Errorf("%v closes: %v, %v", closing.Client.Via, gone, err)
						}
						r.kernelHas(t)
					}
					open(first.open)
					_, err := r.Unmap(t.Context(), second.close)
					if i == j || second.close.Only == 0 { // UPnP shows it to its client as its own
						if err != nil {
							t.Error(err)
						}
						r.kernelHas(t)
						return
					}
					if portmap.ReasonOf(err) != portmap.AskedElsewhere {
						t.Errorf("%v closes what it did not open: %v", second.open.Client.Via, err)
					}
					r.kernelHas(t, "udp 6000 -> 192.168.1.10:6000")
				})
			})
		}
	}
}

// TestLeasesOfProtocols: a second protocol makes the first one's lease no longer, and
// no shorter, whichever comes first.
func TestLeasesOfProtocols(t *testing.T) {
	t.Parallel()
	week := 7 * 24 * time.Hour
	for name, order := range map[string][2]int{"NAT-PMP first": {0, 1}, "UPnP first": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{LeaseMax: week})
				both := []portmap.Request{inward(natA, 5000, 6000), ask(hostA, portmap.UDP, 6000)}
				both[1].Lifetime = 0
				for _, i := range order {
					r.mustMap(t, both[i])
				}
				r.is(t, 6000, "upnp and natpmp", week)
				companion := ask(hostB, portmap.TCP, 6000)
				r.refuses(t, companion, portmap.PortReserved) // RFC 6886 section 3.3
				time.Sleep(time.Hour - time.Second)
				m := r.mustMap(t, both[0]) // a renewal
				if m.LeaseLeft(portmap.ViaNATPMP, time.Now()) != time.Hour {
					t.Errorf("NAT-PMP has %v", m.LeaseLeft(portmap.ViaNATPMP, time.Now()))
				}
				time.Sleep(time.Hour)
				r.is(t, 6000, "upnp", week-2*time.Hour+time.Second)
				r.mustMap(t, companion)
				time.Sleep(week)
				synctest.Wait()
				r.kernelHas(t)
			})
		})
	}
}

// TestInward: RFC 6886 section 3.3. The internal port decides which mapping is
// meant, whatever is suggested.
func TestInward(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		first := r.mustMap(t, inward(natA, 6000, 6000))
		again := r.mustMap(t, inward(natA, 6000, 9999)) // PMP-5, PCP-39
		if again.ID != first.ID || again.ExternalPort != 6000 {
			t.Errorf("the renewal is %v", &again)
		}
		other := r.mustMap(t, inward(natA, 6001, 6000)) // its own port, for something else
		if other.ExternalPort == 6000 || other.ID == first.ID {
			t.Errorf("two internal ports on one external: %v", &other)
		}
		prefer := inward(pcpA, 6000, 9999)
		prefer.Exact = true
		r.refuses(t, prefer, portmap.PortTaken)
		b := r.mustMap(t, inward(by(hostB, portmap.ViaNATPMP), 6000, 6000))
		if b.ExternalPort == 6000 {
			t.Error("B got A's port")
		}
	})
}

func TestNonce(t *testing.T) {
	t.Parallel()
	for name, strict := range map[string]bool{"same-client": false, "strict": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, portmap.EngineConfig{Strict: strict})
				mine := inward(pcpA, 6000, 6000)
				mine.Nonce = &portmap.Nonce{1}
				r.mustMap(t, mine)
				time.Sleep(600 * time.Second)
				other := mine
				other.Nonce = &portmap.Nonce{2}
				_, err := r.Map(t.Context(), other)
				_, delErr := r.Unmap(t.Context(), portmap.Selector{Client: pcpA, Internal: 6000, Only: portmap.ViaPCP, Nonce: &portmap.Nonce{3}})
				if !strict {
					if err != nil || delErr != nil {
						t.Errorf("a new nonce: %v, %v", err, delErr)
					}
					return
				}
				for _, err := range []error{err, delErr} { // PCP-4
					e, ok := err.(*portmap.Error)
					if !ok || e.Reason != portmap.WrongNonce || e.Left != 3000*time.Second {
						t.Errorf("another nonce: %#v", err)
					}
				}
				if _, err := r.Unmap(t.Context(), portmap.Selector{Client: pcpA, Internal: 6000, Only: portmap.ViaPCP, Nonce: mine.Nonce}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestFilters: RFC 6887 section 13.3. Filters add up, can be reset, are bounded.
func TestFilters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		req := inward(pcpA, 6000, 6000)
		req.Remotes = []portmap.Remote{remote}
		r.mustMap(t, req)
		req.Remotes = []portmap.Remote{network, remote}
		if m := r.mustMap(t, req); !slices.Equal(m.Remotes, []portmap.Remote{remote, network}) {
			t.Errorf("filters do not add up: %v", m.Remotes)
		}
		req.Remotes = nil
		if m := r.mustMap(t, req); len(m.Remotes) != 2 {
			t.Errorf("a renewal without filters lost some: %v", m.Remotes)
		}
		if m := r.mustMap(t, inward(natA, 6000, 6001)); len(m.Remotes) != 0 {
			t.Errorf("NAT-PMP was given a restricted mapping: %v", &m)
		}
		req.Remotes = make([]portmap.Remote, portmap.MaxRemotes)
		for i := range req.Remotes {
			req.Remotes[i] = portmap.Remote{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}
		}
		r.refuses(t, req, portmap.TooManyRemotes) // PCP-54
		req.RemotesAre = portmap.RemotesReplace
		if m := r.mustMap(t, req); len(m.Remotes) != portmap.MaxRemotes { // PCP-55
			t.Errorf("after a reset: %v", m.Remotes)
		}
		req.Remotes = nil
		if m := r.mustMap(t, req); len(m.Remotes) != 0 {
			t.Errorf("after a reset without new ones: %v", m.Remotes)
		}
	})
}

// TestPortSets: RFC 7753.
func TestPortSets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Gateway: gateway{6002: "the gateway listens there"}})
		ports := func(ms []portmap.Mapping) (all []uint16) {
			for _, m := range ms {
				all = append(all, m.ExternalPort)
			}
			return all
		}
		some, err := r.MapSet(t.Context(), inward(pcpA, 6000, 6000), 4)
		if diff := cmp.Diff([]uint16{6000, 6001}, ports(some)); err != nil || diff != "" {
			t.Errorf("up to a port in use (%v):\n%s", err, diff)
		}
		again, err := r.MapSet(t.Context(), inward(pcpA, 6000, 6000), 2)
		if err != nil || len(again) != 2 || again[0].ID != some[0].ID || again[1].ID != some[1].ID {
			t.Errorf("renewed: %v, %v", ports(again), err)
		}
		odd := inward(by(hostB, portmap.ViaPCP), 7001, 6000)
		odd.Parity = true
		set, err := r.MapSet(t.Context(), odd, 8)
		if err != nil || len(set) != 8 || set[0].ExternalPort%2 != 1 {
			t.Fatalf("another host's set: %v, %v", ports(set), err)
		}
		for i, m := range set {
			if m.ExternalPort != set[0].ExternalPort+uint16(i) || m.Internal.Port() != 7001+uint16(i) {
				t.Errorf("the set is not a row: %v", &m)
			}
		}
	})
}

// TestDescriptionIsKept: RFC 7220 section 3, who says nothing of it changes
// nothing, and an empty one erases it.
func TestDescriptionIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		req := inward(pcpA, 6000, 6000)
		req.Description = "game"
		r.mustMap(t, req)
		req.Description, req.KeepDescription = "", true
		if m := r.mustMap(t, req); m.Description != "game" {
			t.Errorf("a renewal without a description left %q", m.Description)
		}
		req.KeepDescription = false
		if m := r.mustMap(t, req); m.Description != "" {
			t.Errorf("an empty description left %q", m.Description)
		}
	})
}

// TestRestrictedElsewhere: what UPnP limited to one host is not what a PCP
// request without a filter means.
func TestRestrictedElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{})
		upnp := ask(hostA, portmap.UDP, 6000)
		upnp.Remotes = []portmap.Remote{remote}
		old := r.mustMap(t, upnp)
		if m := r.mustMap(t, inward(pcpA, old.Internal.Port(), 0)); m.ID == old.ID || len(m.Remotes) != 0 {
			t.Errorf("PCP was given %v, limited to %v", &m, m.Remotes)
		}
	})
}

// TestUnmapSet: a set is deleted as a unit (RFC 7753 section 4.3), by who knows
// the nonce of each.
func TestUnmapSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, portmap.EngineConfig{Strict: true})
		if _, err := r.MapSet(t.Context(), inward(pcpA, 6000, 6000), 4); err != nil {
			t.Fatal(err)
		}
		other := inward(pcpA, 6004, 6004)
		other.Nonce = &portmap.Nonce{9}
		r.mustMap(t, other)
		nonce := portmap.Nonce{}
		set := portmap.Selector{Client: pcpA, Transport: portmap.UDP, Internal: 6000, LastInternal: 6004, Only: portmap.ViaPCP, Nonce: &nonce}
		if _, err := r.Unmap(t.Context(), set); portmap.ReasonOf(err) != portmap.WrongNonce || r.Snapshot().Len() != 5 {
			t.Errorf("with a stranger's in the range: %v, %d left", err, r.Snapshot().Len())
		}
		set.LastInternal = 6003
		if gone, err := r.Unmap(t.Context(), set); err != nil || len(gone) != 4 || r.Snapshot().Len() != 1 {
			t.Errorf("%v, %d gone, %d left", err, len(gone), r.Snapshot().Len())
		}
	})
}
