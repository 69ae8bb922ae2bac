package policy_test

import (
	"math"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/policy"
	"portcullis/portmap"
)

// Each condition, by a rule that denies, under a default that allows.
func TestConditions(t *testing.T) {
	t.Parallel()
	v6 := pinhole(tcp, 6000)
	named := func(name string) portmap.Request { r := nat(tcp, 6000, 6000); r.Client.Name = name; return r }
	says := func(text string) portmap.Request { r := nat(tcp, 6000, 6000); r.Description = text; return r }
	by := func(v portmap.Via) portmap.Request { r := nat(tcp, 6000, 6000); r.Client.Via = v; return r }
	noMAC := nat(tcp, 6000, 6000)
	noMAC.Client.MAC = portmap.MAC{}
	client := func(m ...policy.ClientMatch) policy.Rule { return policy.Rule{Clients: m} }
	mac := policy.ClientMatch{MAC: macA}
	net := policy.ClientMatch{Prefix: netip.MustParsePrefix("192.168.1.0/28")}
	host := policy.ClientMatch{Host: "Cam-*"}
	iface := policy.ClientMatch{Interface: "br-lan"}
	tests := []struct {
		name string
		rule policy.Rule
		req  portmap.Request
		want bool
	}{
		{"no condition", policy.Rule{}, nat(tcp, 6000, 6000), true},
		{"MAC", client(mac), nat(tcp, 6000, 6000), true},
		{"MAC over IPv6", client(mac), v6, true},
		{"other MAC", client(policy.ClientMatch{MAC: portmap.MAC{2, 0, 0, 0, 0, 9}}), nat(tcp, 6000, 6000), false},
		{"MAC of a client that has none", client(mac), noMAC, false},
		{"prefix", client(net), nat(tcp, 6000, 6000), true},
		{"prefix of others", client(net), self(nat(tcp, 6000, 6000), "192.168.1.16", "br-lan"), false},
		{"prefix of the other family", client(net), v6, false},
		{"IPv6 prefix", client(policy.ClientMatch{Prefix: netip.MustParsePrefix("2001:db8:1::/64")}), v6, true},
		{"host", client(host), named("cam-porch"), true},
		{"host in capitals", client(host), named("CAM-PORCH"), true},
		{"host that only contains it", client(host), named("webcam-1"), false},
		{"host without a name", client(policy.ClientMatch{Host: "*"}), named(""), false},
		{"host with a name too long", client(policy.ClientMatch{Host: "*"}), named(strings.Repeat("a", 256)), false},
		{"interface", client(iface), nat(tcp, 6000, 6000), true},
		{"other interface", client(iface), self(nat(tcp, 6000, 6000), "192.168.50.9", "br-iot"), false},
		{"one of several clients", client(host, iface), nat(tcp, 6000, 6000), true},
		{"none of several clients", client(host, policy.ClientMatch{Interface: "br-iot"}), nat(tcp, 6000, 6000), false},

		{"transport", policy.Rule{Transports: []portmap.Transport{tcp}}, nat(tcp, 6000, 6000), true},
		{"other transport", policy.Rule{Transports: []portmap.Transport{tcp}}, nat(udp, 6000, 6000), false},
		{"via", policy.Rule{Via: []portmap.Via{portmap.ViaNATPMP, portmap.ViaPCP}}, by(portmap.ViaPCP), true},
		{"other via", policy.Rule{Via: []portmap.Via{portmap.ViaNATPMP, portmap.ViaPCP}}, by(portmap.ViaUPnP), false},

		{"internal, first of a range", policy.Rule{Internal: ports(span(6000, 6009))}, nat(tcp, 7000, 6000), true},
		{"internal, last of a range", policy.Rule{Internal: ports(one(1), span(6000, 6009))}, nat(tcp, 7000, 6009), true},
		{"internal, after a range", policy.Rule{Internal: ports(span(6000, 6009))}, nat(tcp, 7000, 6010), false},
		{"internal is not external", policy.Rule{Internal: ports(one(7000))}, nat(tcp, 7000, 6000), false},
		{"external", policy.Rule{External: ports(one(7000))}, nat(tcp, 7000, 6000), true},
		{"external, before a range", policy.Rule{External: ports(span(7001, 7009))}, nat(tcp, 7000, 6000), false},
		{"external of a pinhole", policy.Rule{External: ports(one(6000))}, v6, true},

		{"description", policy.Rule{Description: regexp.MustCompile("^Plex")}, says("Plex Media Server"), true},
		{"other description", policy.Rule{Description: regexp.MustCompile("^Plex")}, says("not Plex"), false},
		{"description beyond the cap", policy.Rule{Description: regexp.MustCompile("x$")},
			says(strings.Repeat("y", portmap.MaxDescription) + "x"), false},

		{"all conditions", policy.Rule{
			Clients: []policy.ClientMatch{mac}, Transports: []portmap.Transport{tcp}, Via: []portmap.Via{portmap.ViaUPnP},
			Internal: ports(one(6000)), External: ports(one(6000)), Description: regexp.MustCompile("^$"),
		}, nat(tcp, 6000, 6000), true},
		{"all conditions but one", policy.Rule{
			Clients: []policy.ClientMatch{mac}, Transports: []portmap.Transport{tcp}, Via: []portmap.Via{portmap.ViaUPnP},
			Internal: ports(one(6000)), External: ports(one(6000)), Description: regexp.MustCompile("."),
		}, nat(tcp, 6000, 6000), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Name, tt.rule.Action = "no", portmap.Deny
			d := shipped(t, tt.rule).Decide(tt.req, facts())
			if !tt.want {
				check(t, d, portmap.NoReason)
				return
			}
			check(t, d, portmap.RuleDenied)
			if d.Rule != "no" || d.Wall {
				t.Errorf("decision %+v", d)
			}
		})
	}
}

func TestFirstMatchWins(t *testing.T) {
	t.Parallel()
	rules := []policy.Rule{
		{Name: "cameras never", Action: portmap.Deny, Clients: []policy.ClientMatch{{Host: "cam-*"}}},
		{Name: "udp", Action: portmap.Allow, Transports: []portmap.Transport{udp}, MaxLifetime: time.Hour},
		{Name: "ask about A", Action: portmap.Ask, Clients: []policy.ClientMatch{{MAC: macA}}},
		{Name: "never reached", Action: portmap.Allow, Clients: []policy.ClientMatch{{MAC: macA}}},
	}
	p := build(t, policy.Config{Default: portmap.Deny, Rules: rules})
	camera := nat(udp, 6000, 6000)
	camera.Client.Name = "cam-porch"
	other := self(nat(tcp, 6000, 6000), "192.168.1.20", "br-lan")
	other.Client.MAC = portmap.MAC{}
	for _, tt := range []struct {
		name     string
		req      portmap.Request
		want     portmap.Reason
		rule     string
		lifetime time.Duration
	}{
		{"first", camera, portmap.RuleDenied, "cameras never", 0},
		{"second", nat(udp, 6000, 6000), portmap.NoReason, "udp", time.Hour},
		{"third", nat(tcp, 6000, 6000), portmap.NeedsApproval, "ask about A", 0},
		{"none", other, portmap.DefaultDenied, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := p.Decide(tt.req, facts())
			check(t, d, tt.want)
			if d.Rule != tt.rule || d.MaxLifetime != tt.lifetime {
				t.Errorf("rule %q, lifetime %v; want %q, %v", d.Rule, d.MaxLifetime, tt.rule, tt.lifetime)
			}
			if (d.Action == portmap.Ask) != (tt.want == portmap.NeedsApproval) {
				t.Errorf("action %s", d.Action)
			}
		})
	}
}

// What it takes to name a Tier 1 port.
func TestNaming(t *testing.T) {
	t.Parallel()
	allow := func(in, ext []portmap.PortRange) policy.Rule {
		return policy.Rule{Name: "r", Action: portmap.Allow, Internal: in, External: ext}
	}
	asks := allow(ports(one(8080)), nil)
	asks.Action = portmap.Ask
	asksWide := allow(ports(span(8000, 9000)), nil)
	asksWide.Action = portmap.Ask
	tests := []struct {
		name string
		rule policy.Rule
		req  portmap.Request
		want portmap.Reason
	}{
		{"no port condition", allow(nil, nil), nat(tcp, 6000, 8080), portmap.PrivilegedPort},
		{"alone", allow(ports(one(8080)), nil), nat(tcp, 6000, 8080), portmap.NoReason},
		{"in a range of 100", allow(ports(span(8000, 8099)), nil), nat(tcp, 6000, 8080), portmap.NoReason},
		{"in a range of 101", allow(ports(span(8000, 8100)), nil), nat(tcp, 6000, 8080), portmap.PrivilegedPort},
		{"in a wide range and alone", allow(ports(span(1024, 65535), one(8080)), nil), nat(tcp, 6000, 8080), portmap.NoReason},
		{"beside a narrow range", allow(ports(span(1024, 65535), one(8443)), nil), nat(tcp, 6000, 8080), portmap.PrivilegedPort},
		{"everything", allow(ports(span(1, 65535)), ports(span(1, 65535))), nat(tcp, 6000, 8080), portmap.PrivilegedPort},
		{"on the other side", allow(nil, ports(one(8080))), nat(tcp, 8080, 8080), portmap.PrivilegedPort},
		{"inside only, outside needed too", allow(ports(one(443)), nil), nat(tcp, 443, 443), portmap.PrivilegedPort},
		{"outside only, inside needed too", allow(nil, ports(one(443))), nat(tcp, 443, 443), portmap.PrivilegedPort},
		{"both sides", allow(ports(one(443)), ports(one(443))), nat(tcp, 443, 443), portmap.NoReason},
		{"outside in a wide range", allow(nil, ports(span(1, 65535))), nat(tcp, 443, 6000), portmap.PrivilegedPort},
		{"a pinhole, inside", allow(ports(one(443)), nil), pinhole(tcp, 443), portmap.NoReason},
		{"a pinhole, outside", allow(nil, ports(one(443))), pinhole(tcp, 443), portmap.PrivilegedPort},
		{"ask, alone", asks, nat(tcp, 6000, 8080), portmap.NeedsApproval},
		{"ask, wide", asksWide, nat(tcp, 6000, 8080), portmap.PrivilegedPort},
		{"an ordinary port needs no naming", allow(ports(span(1, 65535)), nil), nat(tcp, 6000, 6000), portmap.NoReason},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, build(t, policy.Config{Rules: []policy.Rule{tt.rule}}).Decide(tt.req, facts()), tt.want)
		})
	}
	for _, def := range []portmap.Action{portmap.Deny, portmap.Allow, portmap.Ask} {
		t.Run("default "+def.String(), func(t *testing.T) {
			check(t, build(t, policy.Config{Default: def}).Decide(nat(tcp, 6000, 8080), facts()), portmap.PrivilegedPort)
		})
	}
}

// C13: what is not understood is refused at the start, and what is not written
// is not allowed.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	with := func(rl policy.Rule) policy.Config {
		rl.Name = "r"
		return policy.Config{Rules: []policy.Rule{rl}}
	}
	allow := func(in, ext []portmap.PortRange, on ...portmap.Transport) policy.Config {
		return with(policy.Rule{Action: portmap.Allow, Internal: in, External: ext, Transports: on})
	}
	client := func(m policy.ClientMatch) policy.Config { return with(policy.Rule{Clients: []policy.ClientMatch{m}}) }
	tests := []struct {
		name, want string // want "": accepted
		config     policy.Config
	}{
		{"C13/default", "policy.default", policy.Config{Default: 7}},
		{"C13/action", "action", with(policy.Rule{Action: 7})},
		{"C13/no name", "rule 2 has no name", policy.Config{Rules: []policy.Rule{{Name: "a"}, {}}}},
		{"C13/same name", `two rules have the name "a"`, policy.Config{Rules: []policy.Rule{{Name: "a"}, {Name: "a"}}}},
		{"C13/transport", "neither tcp nor udp", with(policy.Rule{Transports: []portmap.Transport{1}})},
		{"C13/port 0", "1 to 65535", with(policy.Rule{Internal: ports(span(0, 65535))})},
		{"C13/backwards", "1 to 65535", with(policy.Rule{External: ports(span(9, 8))})},
		{"C13/empty client", "a client is one of", client(policy.ClientMatch{})},
		{"C13/two in one client", "a client is one of", client(policy.ClientMatch{MAC: macA, Host: "a"})},
		{"C13/bad CIDR", "not a network", client(policy.ClientMatch{Prefix: netip.PrefixFrom(hostA, 33)})},
		{"C13/v4-mapped CIDR", "not a network", client(policy.ClientMatch{Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")})},
		{"C13/bad glob", "syntax error in pattern", client(policy.ClientMatch{Host: "cam-["})},
		{"C13/long glob", "255", client(policy.ClientMatch{Host: strings.Repeat("a", 256)})},
		{"C13/long pattern", "1024", with(policy.Rule{Description: regexp.MustCompile(strings.Repeat("a", 1025))})},
		{"C13/max_lifetime", "negative", with(policy.Rule{MaxLifetime: -1})},
		{"C13/max_mappings", "negative", with(policy.Rule{MaxMappings: -1})},
		{"C13/mappings", "negative", policy.Config{Mappings: -1}},
		{"C13/mappings_per_client", "negative", policy.Config{MappingsPerClient: -1}},
		{"C13/rate", "grants_per_second", policy.Config{GrantsPerSecond: -1}},
		{"C13/rate too small", "grants_per_second", policy.Config{GrantsPerSecond: 1e-9}},
		{"C13/rate not a number", "grants_per_second", policy.Config{GrantsPerSecond: math.NaN()}},
		{"C13/rate infinite", "grants_per_second", policy.Config{GrantsPerSecond: math.Inf(1)}},
		{"C13/everything is fine", "", allow(ports(one(80), span(1, 65535)), ports(one(443)))},

		{"2.1/allow 445", `rule "r": tcp port 445 can never be opened: it is Windows file sharing (SMB)`,
			allow(ports(one(445)), nil)},
		{"2.1/allow 445 outside", "port 445 can never be opened", allow(nil, ports(one(445)))},
		{"2.1/allow tcp 593", "port 593 can never be opened", allow(ports(one(593)), nil, tcp)},
		{"2.1/allow udp 593", "", allow(ports(one(593)), nil, udp)},
		{"2.1/allow udp 445", "port 445 can never be opened", allow(ports(one(445)), nil, udp)},
		{"2.1/allow tcp 11211", "", allow(ports(one(11211)), nil, tcp)},
		{"2.1/allow 11211", "port 11211 can never be opened", allow(ports(one(11211)), nil)},
		{"2.1/ask about 445", "port 445 can never be opened", with(policy.Rule{Action: portmap.Ask, Internal: ports(one(445))})},
		{"2.1/deny 445", "", with(policy.Rule{Action: portmap.Deny, Internal: ports(one(445))})},
		{"2.1/allow a range over 445", "", allow(ports(span(440, 450)), nil)},
		{"2.1/allow a range from 445", "", allow(ports(span(445, 450)), nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := policy.New(tt.config)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || p != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			for _, rl := range tt.config.Rules {
				wrong := rl.Check()
				if len(tt.config.Rules) == 1 && (wrong == nil || !strings.Contains(err.Error(), wrong.Error())) {
					t.Errorf("Check says %v, New %v", wrong, err)
				}
			}
		})
	}
	t.Run("C13/empty policy", func(t *testing.T) {
		check(t, build(t, policy.Config{}).Decide(nat(tcp, 6000, 6000), facts()), portmap.DefaultDenied)
	})
}

// A policy does not change when its Config does.
func TestNewCopies(t *testing.T) {
	t.Parallel()
	c := policy.Config{Rules: []policy.Rule{{
		Name: "r", Action: portmap.Allow, Internal: ports(one(6000)), External: ports(one(6000)),
		Transports: []portmap.Transport{tcp}, Via: []portmap.Via{portmap.ViaUPnP}, Clients: []policy.ClientMatch{{Host: "CONSOLE"}},
	}}}
	p := build(t, c)
	if c.Rules[0].Clients[0].Host != "CONSOLE" {
		t.Error("New changed its Config")
	}
	r := &c.Rules[0]
	r.Internal[0], r.External[0], r.Transports[0], r.Via[0], r.Clients[0] = one(1), one(1), udp, portmap.ViaPCP, policy.ClientMatch{Host: "x"}
	check(t, p.Decide(nat(tcp, 6000, 6000), facts()), portmap.NoReason)
}

// The external port as a condition: who asks for any gets what the rules leave,
// and a refusal says whether, and where, another port would do.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	deny := func(in, ext []portmap.PortRange) policy.Rule {
		return policy.Rule{Name: "deny", Action: portmap.Deny, Internal: in, External: ext}
	}
	allow := func(in, ext []portmap.PortRange) policy.Rule {
		return policy.Rule{Name: "allow", Action: portmap.Allow, Internal: in, External: ext}
	}
	asking := func(ext []portmap.PortRange) policy.Rule {
		return policy.Rule{Name: "ask", Action: portmap.Ask, External: ext}
	}
	few := allow(nil, ports(one(7000), span(6000, 6009), span(6005, 6020)))
	full := allow(nil, ports(span(6000, 6009)))
	full.MaxMappings = 2
	but2323 := deny(nil, ports(span(1024, 2322), span(2324, 65535)))
	fewRanges := ports(span(6000, 6020), one(7000))
	type want struct {
		reason portmap.Reason
		over   bool
		where  []portmap.PortRange
	}
	tests := []struct {
		name  string
		def   portmap.Action
		rules []policy.Rule
		req   portmap.Request
		want  want
	}{
		{"any, no condition", portmap.Allow, nil, nat(tcp, 0, 6000), want{}},
		{"any, denied whatever the port", portmap.Deny, nil, nat(tcp, 0, 6000), want{reason: portmap.DefaultDenied}},
		{"any, all of a range denied", portmap.Allow, []policy.Rule{deny(nil, ports(span(1024, 65535)))}, nat(tcp, 0, 6000), want{reason: portmap.RuleDenied}},
		{"any, low ports are left, which nobody gets", portmap.Deny, []policy.Rule{allow(ports(one(443)), ports(one(443)))},
			nat(tcp, 0, 443), want{reason: portmap.PrivilegedPort}},
		{"any, some denied", portmap.Allow, []policy.Rule{deny(nil, ports(span(1024, 49999), one(60000)))},
			nat(udp, 0, 6000), want{where: ports(span(50000, 59999), span(60001, 65535))}},
		{"any, some allowed", portmap.Deny, []policy.Rule{few}, nat(tcp, 0, 6000), want{where: fewRanges}},
		{"any, some allowed and the rest asked", portmap.Ask, []policy.Rule{few}, nat(tcp, 0, 6000), want{where: fewRanges}},
		{"any, some asked and the rest denied", portmap.Deny, []policy.Rule{asking(ports(span(6000, 6009)))},
			nat(tcp, 0, 6000), want{reason: portmap.NeedsApproval, where: ports(span(6000, 6009))}},
		{"any, internal port behind the wall", portmap.Allow, []policy.Rule{few}, nat(tcp, 0, 445), want{reason: portmap.ForbiddenPort}},
		{"any, the condition is another client's", portmap.Allow, []policy.Rule{{Name: "x", Action: portmap.Deny,
			Clients: []policy.ClientMatch{{Host: "cam-*"}}, External: ports(span(1, 65535))}}, nat(tcp, 0, 6000), want{}},
		{"any, the rule's quota is used up elsewhere only", portmap.Allow, []policy.Rule{full},
			nat(tcp, 0, 6000), want{where: ports(span(1024, 5999), span(6010, 65535))}},
		{"any, a condition on a Tier 0 port alone", portmap.Allow, []policy.Rule{deny(nil, ports(one(2323)))}, nat(tcp, 0, 6000),
			want{where: ports(span(1024, 2322), span(2324, 65535))}},

		{"any, all denied but a port that is Tier 0 over TCP, over UDP", portmap.Allow, []policy.Rule{but2323},
			nat(udp, 0, 6000), want{where: ports(one(2323))}},
		{"any, the same over TCP", portmap.Allow, []policy.Rule{but2323}, nat(tcp, 0, 6000), want{reason: portmap.RuleDenied}},

		{"denied here, allowed elsewhere", portmap.Allow, []policy.Rule{deny(nil, ports(span(1024, 49999)))},
			nat(tcp, 6000, 6000), want{portmap.RuleDenied, true, ports(span(50000, 65535))}},
		{"denied here and elsewhere", portmap.Deny, []policy.Rule{deny(nil, ports(span(1024, 49999)))},
			nat(tcp, 6000, 6000), want{reason: portmap.RuleDenied}},
		{"denied by another rule than the ports'", portmap.Allow, []policy.Rule{deny(ports(one(6000)), nil), few},
			nat(tcp, 6000, 6000), want{reason: portmap.RuleDenied}},
		{"allowed elsewhere only", portmap.Deny, []policy.Rule{few}, nat(tcp, 5000, 6000), want{portmap.DefaultDenied, true, fewRanges}},
		{"asked here, allowed elsewhere", portmap.Ask, []policy.Rule{few}, nat(tcp, 5000, 6000), want{portmap.NeedsApproval, true, fewRanges}},
		{"denied here, asked elsewhere", portmap.Ask, []policy.Rule{deny(nil, ports(one(5000)))}, nat(tcp, 5000, 6000),
			want{portmap.RuleDenied, true, ports(span(1024, 4999), span(5001, 65535))}},
		{"Tier 1 inside, named for some ports", portmap.Allow, []policy.Rule{allow(ports(one(8080)), ports(span(9000, 9009)))},
			nat(tcp, 5000, 8080), want{portmap.PrivilegedPort, true, ports(span(9000, 9009))}},
		{"Tier 1 outside", portmap.Allow, nil, nat(tcp, 443, 6000), want{portmap.PrivilegedPort, true, nil}},
		{"Tier 1 outside, denied anyway", portmap.Deny, nil, nat(tcp, 443, 6000), want{reason: portmap.PrivilegedPort}},
		{"Tier 0 outside", portmap.Allow, nil, nat(tcp, 445, 6000), want{portmap.ForbiddenPort, true, nil}},
		{"Tier 0 outside, some allowed", portmap.Deny, []policy.Rule{few}, nat(tcp, 445, 6000), want{portmap.ForbiddenPort, true, fewRanges}},
		{"Tier 0 outside, denied anyway", portmap.Deny, nil, nat(tcp, 445, 6000), want{reason: portmap.ForbiddenPort}},
		{"the rule's quota is used up here", portmap.Allow, []policy.Rule{full},
			nat(tcp, 6000, 6000), want{portmap.ClientQuota, true, ports(span(1024, 5999), span(6010, 65535))}},

		{"allowed, and where else", portmap.Deny, []policy.Rule{few}, nat(tcp, 6001, 6000), want{where: fewRanges}},
		{"allowed below 1024, and nowhere else", portmap.Deny, []policy.Rule{allow(ports(one(443)), ports(one(443)))},
			nat(tcp, 443, 443), want{where: ports(one(443))}},
		{"a pinhole has no elsewhere", portmap.Deny, []policy.Rule{few}, pinhole(tcp, 5002), want{reason: portmap.DefaultDenied}},
		{"a pinhole allowed by its port", portmap.Deny, []policy.Rule{few}, pinhole(tcp, 7000), want{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := facts()
			f.RuleMappings = func(string) int { return 2 }
			d := build(t, policy.Config{Default: tt.def, Rules: tt.rules}).Decide(tt.req, f)
			check(t, d, tt.want.reason)
			got := want{d.Reason, d.OverExternalPort, d.Elsewhere}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
