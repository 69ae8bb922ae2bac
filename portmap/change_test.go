package portmap_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// TestChangesAreMetered: K1. A renewal that makes something else of a mapping than a
// longer lease counts as a grant does, and a mere renewal does not.
func TestChangesAreMetered(t *testing.T) {
	t.Parallel()
	base := ask(hostA, portmap.UDP, 6000)
	base.Description = "a game"
	byPCP := base
	byPCP.Client = by(hostA, portmap.ViaPCP)
	byNATPMP := base
	byNATPMP.Client = by(hostA, portmap.ViaNATPMP)
	for name, c := range map[string]struct {
		first  portmap.Request
		change func(*portmap.Request)
		paid   bool
	}{
		"the same again":         {base, func(*portmap.Request) {}, false},
		"a longer lease":         {base, func(r *portmap.Request) { r.Lifetime *= 2 }, false},
		"the longest lease":      {base, func(r *portmap.Request) { r.Lifetime = 0 }, false},
		"a shorter lease":        {base, func(r *portmap.Request) { r.Lifetime /= 2 }, true},
		"another internal port":  {base, func(r *portmap.Request) { r.Internal = netip.AddrPortFrom(hostA.Addr, 7000) }, true},
		"another description":    {base, func(r *portmap.Request) { r.Description = "another" }, true},
		"switched off":           {base, func(r *portmap.Request) { r.Disabled = true }, true},
		"by NAT-PMP as well":     {base, func(r *portmap.Request) { r.Client = by(hostA, portmap.ViaNATPMP) }, true},
		"by NAT-PMP, no text":    {byNATPMP, func(r *portmap.Request) { r.Description = "" }, false},
		"by PCP, no text option": {byPCP, func(r *portmap.Request) { r.Description, r.KeepDescription = "", true }, false},
		"by PCP, another nonce":  {byPCP, func(r *portmap.Request) { r.Nonce = &portmap.Nonce{1} }, true},
		"by PCP, a restriction": {byPCP, func(r *portmap.Request) {
			r.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("203.0.113.9/32")}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var facts portmap.Facts
				full := time.Time{}
				r := start(t, portmap.EngineConfig{Policy: policyFunc(func(_ portmap.Request, f portmap.Facts) portmap.Decision {
					facts, full = f, time.Now().Add(time.Hour)
					return portmap.Decision{Action: portmap.Allow, GrantReadyAt: full}
				})})
				r.mustMap(t, c.first)
				granted := full
				time.Sleep(10 * time.Second)
				again := c.first
				c.change(&again)
				r.mustMap(t, again)
				if facts.Change != c.paid || !facts.Renewal || !facts.GrantReadyAt.Equal(granted) {
					t.Errorf("facts %+v", facts)
				}
				want := granted
				if c.paid {
					want = full
				}
				r.mustMap(t, again)
				if !facts.GrantReadyAt.Equal(want) || facts.Change {
					t.Errorf("the limiter is full at %v, want %v; the same once more: %+v", facts.GrantReadyAt, want, facts)
				}
			})
		})
	}
}
