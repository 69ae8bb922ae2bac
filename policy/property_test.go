package policy_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"portcullis/policy"
	"portcullis/portmap"
)

// The generators keep the world small, so that targets meet sources and rules
// meet ports often enough.
var (
	genAddr = rapid.SampledFrom(addrs(
		"192.168.1.10", "192.168.1.20", "172.16.9.9", "192.168.50.9", "192.168.60.9", "2001:db8:1::10", "fd00:1::9", "fe80::9",
		"192.168.1.1", "192.168.1.0", "192.168.1.255", "192.168.50.1", "192.168.50.255", "127.0.0.1", "0.0.0.0", "255.255.255.255",
		"224.0.0.1", "169.254.9.9", "240.0.0.1", "100.64.0.9", "203.0.113.5", "203.0.113.66", "10.99.0.1", "8.8.8.8",
		"::", "::1", "ff02::1", "2001:db8:1::", "2001:db8:1::1", "2002:c0a8:114::", "64:ff9b::c0a8:114", "::192.168.1.20",
		"::ffff:192.168.1.10", "2001:db8:ffff::5", "2001:db8:1::10%br-lan"))
	genIface = rapid.SampledFrom([]string{"br-lan", "br-lan", "br-lan", "br-iot", "ppp-in", "wan0", ""})
	genPort  = rapid.OneOf(
		rapid.SampledFrom([]uint16{0, 1, 22, 80, 135, 443, 445, 1023, 1024, 1900, 2323, 5000, 6000, 8080, 11211, 65535}),
		rapid.SampledFrom([]uint16{1024, 3074, 6000, 6001, 9308, 27015, 50000}),
		rapid.SampledFrom([]uint16{1024, 3074, 6000, 6001, 9308, 27015, 50000}),
		rapid.Uint16())
	genTransport = rapid.SampledFrom([]portmap.Transport{tcp, tcp, tcp, tcp, tcp, tcp, udp, udp, udp, udp, udp, udp, 0, 1, 132})
	genAction    = rapid.SampledFrom([]portmap.Action{portmap.Deny, portmap.Allow, portmap.Ask})
	genRemote    = rapid.SampledFrom(prefixes("198.51.100.7/32", "198.51.100.0/24", "0.0.0.0/0", "224.0.0.1/32", "2001:db8::7/128", "::/0"))
	genRange     = rapid.Custom(func(t *rapid.T) portmap.PortRange {
		a := max(1, genPort.Draw(t, "a"))
		if rapid.Bool().Draw(t, "alone") {
			return one(a)
		}
		b := max(1, genPort.Draw(t, "b"))
		return span(min(a, b), max(a, b))
	})
	genRanges = rapid.Custom(func(t *rapid.T) []portmap.PortRange {
		if rapid.IntRange(0, 2).Draw(t, "any port") > 0 {
			return nil
		}
		return rapid.SliceOfN(genRange, 1, 3).Draw(t, "ranges")
	})
	genRequest = rapid.Custom(func(t *rapid.T) portmap.Request {
		var source netip.Addr
		var iface string
		if one4(t, "odd client") {
			source, iface = genAddr.Draw(t, "source"), genIface.Draw(t, "interface")
		} else {
			source, iface = rapid.SampledFrom(addrs("192.168.1.10", "192.168.1.20", "172.16.9.9", "2001:db8:1::10", "fd00:1::9")).Draw(t, "host"), "br-lan"
		}
		target := source
		if one4(t, "third party") {
			target = genAddr.Draw(t, "target")
		}
		r := portmap.Request{
			Client: portmap.Client{Addr: source, MAC: macA, Interface: iface, Name: "console",
				Via: portmap.Via(rapid.IntRange(1, 4).Draw(t, "via"))},
			Transport:    genTransport.Draw(t, "transport"),
			Internal:     netip.AddrPortFrom(target, genPort.Draw(t, "internal")),
			ExternalPort: genPort.Draw(t, "external"),
			Exact:        rapid.Bool().Draw(t, "exact"),
		}
		if one4(t, "by hand") {
			r.Client = portmap.Owner(source)
		}
		if target.Is6() && !(one4(t, "odd kind") && one4(t, "wrong kind")) {
			r.Kind = portmap.Pinhole6
		}
		if one4(t, "restricted") {
			r.Remotes = []portmap.Remote{{Prefix: genRemote.Draw(t, "remote")}}
		}
		return r
	})
	genRule = rapid.Custom(func(t *rapid.T) policy.Rule {
		r := policy.Rule{
			Action:      genAction.Draw(t, "action"),
			Internal:    genRanges.Draw(t, "internal"),
			External:    genRanges.Draw(t, "external"),
			MaxMappings: rapid.IntRange(0, 3).Draw(t, "max mappings"),
			MaxLifetime: time.Duration(rapid.IntRange(0, 2).Draw(t, "hours")) * time.Hour,
		}
		if one4(t, "one transport") {
			r.Transports = []portmap.Transport{rapid.SampledFrom(both()).Draw(t, "transport")}
		}
		if one4(t, "some clients") {
			r.Clients = []policy.ClientMatch{{Prefix: netip.MustParsePrefix("192.168.1.0/24")}}
		}
		return r
	})
)

// one4 is true in one case of four. IntRange would not do: it prefers the ends
// of its range.
func one4(t *rapid.T, label string) bool {
	return rapid.SampledFrom([]bool{false, true, false, false}).Draw(t, label)
}

// genConfig returns what a policy is made of; rules that New would refuse are left out.
func genConfig(t *rapid.T) policy.Config {
	c := policy.Config{
		Default:           genAction.Draw(t, "default"),
		MappingsPerClient: 32, Mappings: 64, GrantsPerSecond: 1,
	}
	for i, rl := range rapid.SliceOfN(genRule, 0, 5).Draw(t, "rules") {
		if rl.Check() != nil {
			continue
		}
		rl.Name = string(rune('a' + i))
		c.Rules = append(c.Rules, rl)
	}
	return c
}

func genPolicy(t *rapid.T) *policy.Policy {
	return made(t, genConfig(t))
}

// genFacts gives facts under which quotas and the WAN are sometimes in the way.
func genFacts(t *rapid.T) portmap.Facts {
	f := facts()
	rare := func(label string) bool { return one4(t, label) && one4(t, "very "+label) }
	f.View.WANs[0].Up = !rare("WAN down")
	f.View.WAN6Up = !rare("IPv6 WAN down")
	f.View.WANs[0].Private = rare("private")
	f.Renewal = rare("renewal")
	if rare("busy client") {
		f.ClientMappings = 32
	}
	if rare("full") {
		f.Mappings = 64
	}
	if rare("quick client") {
		f.GrantReadyAt = now.Add(time.Minute)
	}
	have := rapid.IntRange(0, 3).Draw(t, "of the rule")
	f.RuleMappings = func(string) int { return have }
	return f
}

// invariants is what holds for every decision of every policy.
func invariants(t *rapid.T) {
	p, f := genPolicy(t), genFacts(t)
	for range 10 {
		invariant(t, p, f, genRequest.Draw(t, "request"))
	}
}

func invariant(t *rapid.T, p *policy.Policy, f portmap.Facts, r portmap.Request) {
	untouched := *network()
	untouched.WANs[0].Up, untouched.WAN6Up, untouched.WANs[0].Private = f.View.WANs[0].Up, f.View.WAN6Up, f.View.WANs[0].Private
	d := p.Decide(r, f)
	if diff := cmp.Diff(d, p.Decide(r, f)); diff != "" {
		t.Fatalf("the same request, twice:\n%s", diff)
	}
	if diff := cmp.Diff(untouched, *f.View, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Fatalf("the view was changed:\n%s", diff)
	}
	if w, hit := policy.Walls(r, f.View); hit != d.Wall || hit && w.Reason != d.Reason {
		t.Fatalf("Walls %v %+v, Decide %+v", hit, w, d)
	}
	allowed := d.Action == portmap.Allow
	if allowed != (d.Reason == portmap.NoReason) || allowed != (d.Detail == "") {
		t.Fatalf("%+v", d)
	}
	if allowed && d.OverExternalPort || len(d.Elsewhere) > 0 && !allowed && !d.OverExternalPort && r.ExternalPort != 0 {
		t.Fatalf("%+v", d)
	}
	if d.Wall && (d.Rule != "" || d.Action != portmap.Deny) {
		t.Fatalf("a wall with a rule: %+v", d)
	}
	if !allowed {
		return
	}
	source, target := r.Client.Addr, r.Internal.Addr()
	byHand := r.Client.Owner()
	lan, served := f.View.LAN[r.Client.Interface]
	for _, l := range f.View.LAN {
		if byHand && l.OnLink(target) {
			lan, served = l, true
		}
	}
	_, local := f.View.Local[target]
	switch {
	case target != source:
		t.Fatalf("allowed %s for %s", target, source)
	case !served || !lan.OnLink(source):
		t.Fatalf("allowed an off-link client: %s on %q", source, r.Client.Interface)
	case local, !target.IsGlobalUnicast(), target.Is4In6():
		t.Fatalf("allowed to point at %s", target)
	case (r.Kind == portmap.NAT4) != target.Is4():
		t.Fatalf("allowed %s for kind %d", target, r.Kind)
	case r.Kind == portmap.NAT4 && (!f.View.WANs[0].Up || f.View.WANs[0].Private), r.Kind == portmap.Pinhole6 && !f.View.WAN6Up:
		t.Fatal("allowed without a public address")
	}
	if tier, _ := policy.TierOf(policy.Internal, r.Transport, r.Internal.Port()); tier == policy.Forbidden {
		t.Fatalf("allowed internal %s %d", r.Transport, r.Internal.Port())
	} else if tier == policy.Privileged && d.Rule == "" && !byHand {
		t.Fatalf("allowed internal %s %d without a rule", r.Transport, r.Internal.Port())
	}
	tier, _ := policy.TierOf(policy.External, r.Transport, r.ExternalPort)
	if r.Kind == portmap.NAT4 && (tier == policy.Forbidden || tier == policy.Privileged && d.Rule == "" && !byHand) {
		t.Fatalf("allowed external %s %d by rule %q", r.Transport, r.ExternalPort, d.Rule)
	}
}

func TestInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, invariants)
}

func FuzzInvariants(f *testing.F) { f.Fuzz(rapid.MakeFuzz(invariants)) }

// Port 0 is answered as the most welcome port from 1024 up would be, and
// OverExternalPort and Elsewhere are exact: all against asking for many ports.
func TestAnyPortIsTheBestPort(t *testing.T) {
	t.Parallel()
	rank := func(d portmap.Decision) int {
		return slices.Index([]portmap.Action{portmap.Deny, portmap.Ask, portmap.Allow}, d.Action)
	}
	rapid.Check(t, func(t *rapid.T) {
		p, f := genPolicy(t), facts()
		have := rapid.IntRange(0, 3).Draw(t, "of the rule")
		f.RuleMappings = func(string) int { return have }
		r := nat(rapid.SampledFrom(both()).Draw(t, "transport"), 0, genPort.Draw(t, "internal"))
		asked := genPort.Draw(t, "asked for")
		with := func(port int) portmap.Decision {
			r.ExternalPort = uint16(port)
			return p.Decide(r, f)
		}
		best := 0
		var welcome []int
		for port := 1024 + rapid.IntRange(0, 200).Draw(t, "offset"); port <= 65535; port += 199 {
			switch got := rank(with(port)); {
			case got > best:
				best, welcome = got, []int{port}
			case got == best:
				welcome = append(welcome, port)
			}
		}
		anyPort := with(0)
		if rank(anyPort) < best {
			t.Fatalf("port 0: %+v, but port %d: %+v", anyPort, welcome[0], with(welcome[0]))
		}
		if rank(anyPort) > 0 {
			inside := func(port int) bool {
				return len(anyPort.Elsewhere) == 0 || slices.ContainsFunc(anyPort.Elsewhere, func(w portmap.PortRange) bool { return w.Contains(uint16(port)) })
			}
			for _, port := range welcome {
				if rank(anyPort) == best && !inside(port) {
					t.Fatalf("port %d is welcome but not in %v", port, anyPort.Elsewhere)
				}
			}
			for _, w := range anyPort.Elsewhere {
				first := int(w.First)
				for tier := policy.Forbidden; tier == policy.Forbidden; first++ {
					tier, _ = policy.TierOf(policy.External, r.Transport, uint16(first))
				}
				if got := with(first - 1); rank(got) != rank(anyPort) {
					t.Fatalf("port 0: %+v, its hint %v: %+v", anyPort, w, got)
				}
			}
		}
		if asked == 0 {
			return
		}
		d := with(int(asked))
		if d.OverExternalPort != (rank(d) < rank(anyPort)) {
			t.Fatalf("port %d: %+v, any port: %+v", asked, d, anyPort)
		}
		if d.OverExternalPort && cmp.Diff(d.Elsewhere, anyPort.Elsewhere) != "" {
			t.Fatalf("port %d: elsewhere %v, any port: %v", asked, d.Elsewhere, anyPort.Elsewhere)
		}
	})
}

// In no window of time does a device get more than the burst and the rate.
func TestGrantRateBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]float64{0.1, 1, 7, 100}).Draw(t, "rate")
		p, err := policy.New(policy.Config{Default: portmap.Allow, GrantsPerSecond: rate})
		if err != nil {
			t.Fatal(err)
		}
		f := facts()
		var grants []time.Time
		for range 200 {
			f.Now = f.Now.Add(time.Duration(rapid.IntRange(0, int(float64(2*time.Second)/rate)).Draw(t, "pause") / rapid.IntRange(1, 100).Draw(t, "hurry")))
			if d := p.Decide(nat(tcp, 6000, 6000), f); d.Action == portmap.Allow {
				f.GrantReadyAt = d.GrantReadyAt
				grants = append(grants, f.Now)
			}
		}
		for i, first := range grants {
			for j, last := range grants[i:] {
				if bound := policy.Burst + last.Sub(first).Seconds()*rate; float64(j+1) > bound+1e-3 {
					t.Fatalf("%d grants in %v at %g a second", j+1, last.Sub(first), rate)
				}
			}
		}
		if len(grants) < policy.Burst {
			t.Fatalf("only %d grants", len(grants))
		}
	})
}
