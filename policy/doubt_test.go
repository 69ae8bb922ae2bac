package policy_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"portcullis/policy"
	"portcullis/portmap"
)

// doubts returns the sentences about rules that are called a, b, c ...
func doubts(rules ...policy.Rule) []string {
	for i := range rules {
		rules[i].Name = string(rune('a' + i))
	}
	var all []string
	for _, d := range policy.Doubts(rules) {
		all = append(all, fmt.Sprintf("%d %s %d: %s; %s", d.Rule, d.Key, d.Index, d.What, d.Remedy))
	}
	return all
}

func TestDoubts(t *testing.T) {
	t.Parallel()
	allow, deny := policy.Rule{Action: portmap.Allow}, policy.Rule{Action: portmap.Deny}
	with := func(r policy.Rule, change func(*policy.Rule)) policy.Rule {
		change(&r)
		return r
	}
	internal := func(r policy.Rule, list ...portmap.PortRange) policy.Rule {
		r.Internal = list
		return r
	}
	external := func(r policy.Rule, list ...portmap.PortRange) policy.Rule {
		r.External = list
		return r
	}
	clients := func(r policy.Rule, texts ...string) policy.Rule {
		r.Clients = nil
		for _, s := range texts {
			var m policy.ClientMatch
			if err := m.UnmarshalText([]byte(s)); err != nil {
				t.Fatal(err)
			}
			r.Clients = append(r.Clients, m)
		}
		return r
	}
	unreached := []string{`1  0: the rule "b" decides nothing: "a" above it matches everything that it matches; move it above "a", or remove it`}
	for name, c := range map[string]struct {
		rules []policy.Rule
		want  []string
	}{
		"none":               {nil, nil},
		"below everything":   {[]policy.Rule{deny, internal(allow, one(6000))}, unreached},
		"the same":           {[]policy.Rule{internal(allow, one(6000)), internal(deny, one(6000))}, unreached},
		"ranges that touch":  {[]policy.Rule{internal(deny, span(7000, 8000), span(6000, 6999)), internal(allow, span(6500, 7500))}, unreached},
		"a gap":              {[]policy.Rule{internal(deny, span(7001, 8000), span(6000, 6999)), internal(allow, span(6500, 7500))}, nil},
		"every port":         {[]policy.Rule{external(deny, span(1, 65535)), allow}, unreached},
		"all but one":        {[]policy.Rule{external(deny, span(1, 65534)), allow}, nil},
		"a network":          {[]policy.Rule{clients(deny, "192.168.1.0/24"), clients(allow, "192.168.1.7", "192.168.1.64/26")}, unreached},
		"another network":    {[]policy.Rule{clients(deny, "192.168.1.0/24"), clients(allow, "192.168.1.7", "192.168.2.7")}, nil},
		"a wider network":    {[]policy.Rule{clients(deny, "192.168.1.0/28"), clients(allow, "192.168.1.0/24")}, nil},
		"a MAC in a network": {[]policy.Rule{clients(deny, "192.168.1.0/24"), clients(allow, "aa:bb:cc:00:00:01")}, nil},
		"the same name":      {[]policy.Rule{clients(deny, "host:cam-*", "iface:br-iot"), clients(allow, "host:cam-*")}, unreached},
		"anybody":            {[]policy.Rule{clients(deny, "192.168.1.0/24"), allow}, nil},
		"both transports":    {[]policy.Rule{with(deny, func(r *policy.Rule) { r.Transports = both() }), allow}, unreached},
		"one transport":      {[]policy.Rule{with(deny, func(r *policy.Rule) { r.Transports = both()[:1] }), allow}, nil},
		"not the owner": {[]policy.Rule{with(deny, func(r *policy.Rule) {
			r.Via = []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP}
		}), allow}, nil},
		"a description": {[]policy.Rule{with(deny, func(r *policy.Rule) { r.Description = regexp.MustCompile("x") }), allow}, nil},
		"system ports": {[]policy.Rule{internal(allow, span(1, 1023))}, []string{
			`0 internal_ports 0: the rule "a" opens none of the internal ports 1-1023: a port like these is opened only where it is written alone, or in a range of at most 100; write the ports that are meant, one by one`}},
		"system ports, one of which is named": {[]policy.Rule{internal(allow, span(1, 1023), one(443))}, nil},
		"system ports and more":               {[]policy.Rule{internal(allow, span(1, 65535))}, nil},
		"a deny of system ports":              {[]policy.Rule{internal(deny, span(1, 1023))}, nil},
		"outside only": {[]policy.Rule{external(allow, one(443))}, []string{
			`0 external_ports 0: the rule "a" names 443 outside only: inside, where the service is, that stays closed; add internal_ports = ["443"]`}},
		"outside, many": {[]policy.Rule{external(allow, one(6000), span(8000, 8099))}, []string{
			`0 external_ports 1: the rule "a" names 8000, 8006, 8009, 8080, 8081 and 1 more outside only: inside, where the service is, that stays closed; add internal_ports = ["8000-8099"]`}},
		"outside and another inside": {[]policy.Rule{internal(external(allow, one(443)), one(8443))}, nil},
		"an ordinary port outside":   {[]policy.Rule{external(allow, one(6000))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, doubts(c.rules...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// genRichRule has conditions of every kind, from so few that rules often cover others.
var genRichRule = rapid.Custom(func(t *rapid.T) policy.Rule {
	r := genRule.Draw(t, "rule")
	subset := func(label string) bool { return one4(t, label) }
	if subset("via") {
		r.Via = rapid.SampledFrom([][]portmap.Via{{portmap.ViaUPnP}, {portmap.ViaUPnP, portmap.ViaPCP},
			{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP}}).Draw(t, "protocols")
	}
	if subset("clients") {
		r.Clients = rapid.SliceOfN(rapid.SampledFrom([]policy.ClientMatch{
			{MAC: macA}, {Host: "cons*"}, {Host: "console"}, {Interface: "br-lan"},
			{Prefix: netip.MustParsePrefix("192.168.1.0/24")}, {Prefix: netip.MustParsePrefix("192.168.1.10/32")},
			{Prefix: netip.MustParsePrefix("192.168.1.0/28")}, {Prefix: netip.MustParsePrefix("0.0.0.0/0")},
		}), 1, 3).Draw(t, "clients")
	}
	if subset("system ports") {
		r.Internal = append(r.Internal, span(1, 1023))
	}
	if subset("system ports outside") {
		r.External = append(r.External, span(100, 900))
	}
	if subset("description") {
		r.Description = rapid.SampledFrom([]*regexp.Regexp{regexp.MustCompile("a"), regexp.MustCompile("b")}).Draw(t, "pattern")
	}
	return r
})

// TestDoubtsAreTrue: no request is decided by a rule that is said to decide nothing, and
// none opens a port that is said to stay closed.
func TestDoubtsAreTrue(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		var rules []policy.Rule
		for _, rl := range rapid.SliceOfN(genRichRule, 1, 4).Draw(t, "rules") {
			if rl.Check() == nil {
				rl.Name = fmt.Sprint(len(rules))
				rules = append(rules, rl)
			}
		}
		p, err := policy.New(policy.Config{Rules: rules, Default: portmap.Allow})
		if err != nil {
			t.Fatal(err)
		}
		all := policy.Doubts(rules)
		for range 30 {
			r := genRequest.Draw(t, "request")
			r.Description = rapid.SampledFrom([]string{"", "a", "b", "ab"}).Draw(t, "description")
			for _, d := range all {
				if rl := rules[d.Rule]; d.Key != "" { // a request that would be the rule's
					if d.Key == "internal_ports" {
						r.Internal = netip.AddrPortFrom(r.Internal.Addr(), portIn(t, rl.Internal[d.Index]))
					} else {
						r.ExternalPort = portIn(t, rl.External[d.Index])
					}
				}
				seen[d.Key]++
				v := p.Decide(r, facts())
				if d.Key == "" && v.Rule == rules[d.Rule].Name {
					t.Fatalf("%s, but it decides about %+v: %+v", d.What, r, v)
				}
				if d.Key != "" && v.Rule == rules[d.Rule].Name && v.Action == portmap.Allow && opens(d, rules[d.Rule], r) {
					t.Fatalf("%s, but it opens %+v: %+v", d.What, r, v)
				}
			}
		}
	})
	if seen[""] == 0 || seen["internal_ports"] == 0 || seen["external_ports"] == 0 {
		t.Errorf("doubts that were tried: %v", seen)
	}
}

func portIn(t *rapid.T, p portmap.PortRange) uint16 {
	return uint16(rapid.IntRange(int(p.First), int(p.Last)).Draw(t, "port of the element"))
}

// opens reports whether an allowed request is what the doubt says cannot be.
func opens(d policy.Doubt, rl policy.Rule, r portmap.Request) bool {
	in := r.Internal.Port()
	if d.Key == "internal_ports" {
		return rl.Internal[d.Index].Contains(in)
	}
	p := rl.External[d.Index]
	tier, _ := policy.TierOf(policy.Internal, r.Transport, in)
	if r.Kind == portmap.Pinhole6 { // its one port
		return p.Contains(in) && tier == policy.Privileged
	}
	outside, _ := policy.TierOf(policy.External, r.Transport, r.ExternalPort)
	wide := int(p.Last)-int(p.First) >= policy.NamingWidth
	return p.Contains(r.ExternalPort) && (wide && outside == policy.Privileged || r.ExternalPort == in && tier == policy.Privileged)
}

// TestDoubtsKnowConditions: a new condition of a rule has its part in covers, or a rule
// would be said to match what it does not.
func TestDoubtsKnowConditions(t *testing.T) {
	t.Parallel()
	known := []string{
		"Clients", "External", "Internal", "Transports", "Via", "Description", // in covers
		"Name", "Action", "MaxLifetime", "MaxMappings", "MaxMappingsTotal", // no conditions
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[policy.Rule]()) {
		if !slices.Contains(known, f.Name) {
			t.Errorf("does Rule.covers compare %s?", f.Name)
		}
	}
}
