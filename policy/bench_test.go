package policy_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"

	"portcullis/policy"
	"portcullis/portmap"
)

// house is a policy of twenty rules that all miss but the last.
func house(t testing.TB) *policy.Policy {
	var rules []policy.Rule
	for i := range 20 {
		rl := policy.Rule{Name: fmt.Sprintf("device %d", i), Action: portmap.Deny, External: ports(span(1, 65535))}
		switch i % 4 {
		case 0:
			rl.Clients = []policy.ClientMatch{{MAC: portmap.MAC{2, 0, 0, 0, 1, byte(i)}}, {Host: "cam-*"}}
		case 1:
			rl.Clients = []policy.ClientMatch{{Prefix: netip.MustParsePrefix("192.168.1.64/26")}, {Interface: "br-iot"}}
		case 2:
			rl.Internal = ports(span(8000, 8999), one(9443))
		case 3:
			rl.Description = regexp.MustCompile("^Plex")
		}
		rules = append(rules, rl)
	}
	rules = append(rules, policy.Rule{Name: "mine", Action: portmap.Allow, Clients: []policy.ClientMatch{{MAC: macA}}, MaxMappings: 8})
	return shipped(t, rules...)
}

// The allow path makes no garbage: an engine decides for each port it tries.
func TestAllowDoesNotAllocate(t *testing.T) {
	for name, p := range map[string]*policy.Policy{"shipped": shipped(t), "twenty rules": house(t)} {
		for _, r := range []portmap.Request{nat(tcp, 6000, 6000), nat(udp, 0, 6000), pinhole(tcp, 6000)} {
			f := facts()
			f.RuleMappings = func(string) int { return 0 }
			if n := testing.AllocsPerRun(100, func() {
				if d := p.Decide(r, f); d.Action != portmap.Allow {
					t.Fatalf("%+v", d)
				}
			}); n != 0 {
				t.Errorf("%s, external port %d: %v allocations", name, r.ExternalPort, n)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	some := shipped(b, policy.Rule{Name: "some", Action: portmap.Allow, External: ports(span(6000, 6999))})
	for _, bm := range []struct {
		name string
		p    *policy.Policy
		r    portmap.Request
	}{
		{"shipped/allow", shipped(b), nat(tcp, 6000, 6000)},
		{"shipped/any port", shipped(b), nat(tcp, 0, 6000)},
		{"shipped/pinhole", shipped(b), pinhole(tcp, 6000)},
		{"shipped/not the requester", shipped(b), to(nat(tcp, 6000, 6000), "192.168.1.20")},
		{"shipped/Tier 1", shipped(b), nat(tcp, 6000, 8080)},
		{"twenty rules/allow", house(b), nat(tcp, 6000, 6000)},
		{"external condition/any port", some, nat(tcp, 0, 6000)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			f := facts()
			f.RuleMappings = func(string) int { return 0 }
			b.ReportAllocs()
			for b.Loop() {
				bm.p.Decide(bm.r, f)
			}
		})
	}
}
