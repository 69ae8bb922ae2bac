package policy_test

import (
	"testing"
	"time"

	"portcullis/policy"
	"portcullis/portmap"
)

// TestAnswered: what the owner has said decides where he is asked, and nowhere else: not over a
// wall, not over a rule that denies, not over Tier 1 that no rule names, nor over a quota or a
// rate.
func TestAnswered(t *testing.T) {
	t.Parallel()
	asks := build(t, policy.Config{Default: portmap.Ask, MappingsPerClient: 4, Mappings: 10, GrantsPerSecond: 1, Rules: []policy.Rule{
		{Name: "never", Action: portmap.Deny, External: ports(one(7000))},
		{Name: "web", Action: portmap.Ask, Internal: ports(one(8080)), Transports: []portmap.Transport{tcp}, MaxMappings: 1, MaxLifetime: time.Hour},
		{Name: "wide", Action: portmap.Ask, Internal: ports(span(1, 65535)), External: ports(span(9000, 9999))},
	}})
	all := &portmap.Answer{ID: 7, Allow: true}
	no := &portmap.Answer{ID: 8}
	for name, c := range map[string]struct {
		answer *portmap.Answer
		of     portmap.Request
		facts  func(*portmap.Facts)
		want   portmap.Reason
		rule   string
	}{
		"nothing said":             {nil, nat(udp, 6000, 6000), nil, portmap.NeedsApproval, ""},
		"approved":                 {all, nat(udp, 6000, 6000), nil, portmap.NoReason, ""},
		"approved, any port":       {all, nat(udp, 0, 6000), nil, portmap.NoReason, ""},
		"approved, a pinhole":      {all, pinhole(udp, 6000), nil, portmap.NoReason, ""},
		"denied":                   {no, nat(udp, 6000, 6000), nil, portmap.OwnerDenied, ""},
		"a rule asks":              {nil, nat(tcp, 8080, 8080), nil, portmap.NeedsApproval, "web"},
		"a rule that names Tier 1": {all, nat(tcp, 8080, 8080), nil, portmap.NoReason, "web"},
		"a rule that does not":     {all, nat(tcp, 9000, 22), nil, portmap.PrivilegedPort, "wide"},
		"the default does not":     {all, nat(tcp, 6000, 22), nil, portmap.PrivilegedPort, ""},
		"a rule that denies":       {all, nat(udp, 7000, 6000), nil, portmap.RuleDenied, "never"},
		"Tier 0":                   {all, nat(tcp, 445, 445), nil, portmap.ForbiddenPort, ""},
		"another host":             {all, to(nat(udp, 6000, 6000), "192.168.1.20"), nil, portmap.NotRequester, ""},
		"the gateway":              {all, to(nat(udp, 6000, 6000), "192.168.1.1"), nil, portmap.GatewayTarget, ""},
		"too many of the device":   {all, nat(udp, 6000, 6000), func(f *portmap.Facts) { f.ClientMappings = 4 }, portmap.ClientQuota, ""},
		"too many of all":          {all, nat(udp, 6000, 6000), func(f *portmap.Facts) { f.Mappings = 10 }, portmap.TotalQuota, ""},
		"too many by the rule": {all, nat(tcp, 8080, 8080), func(f *portmap.Facts) { f.RuleMappings = func(string) int { return 1 } },
			portmap.ClientQuota, "web"},
		"too fast": {all, nat(udp, 6000, 6000), func(f *portmap.Facts) { f.GrantReadyAt = now.Add(time.Hour) }, portmap.GrantRate, ""},
	} {
		f := facts()
		if f.Answer = c.answer; c.facts != nil {
			c.facts(&f)
		}
		d := asks.Decide(c.of, f)
		t.Run(name, func(t *testing.T) { check(t, d, c.want) })
		if d.Rule != c.rule {
			t.Errorf("%s: the rule is %q", name, d.Rule)
		}
		if d.Action == portmap.Allow && d.Answer != all {
			t.Errorf("%s: it stands by %v", name, d.Answer)
		}
		if (d.Action == portmap.Ask) != (c.want == portmap.NeedsApproval) {
			t.Errorf("%s: the action is %v", name, d.Action)
		}
	}

	// Where nobody asks him, an answer is of no account, whatever it is.
	for _, said := range []*portmap.Answer{all, no} {
		f := facts()
		f.Answer = said
		if d := shipped(t).Decide(nat(udp, 6000, 6000), f); d.Action != portmap.Allow || d.Answer != nil {
			t.Errorf("allowed by default: %+v", d)
		}
		if d := build(t, policy.Config{}).Decide(nat(udp, 6000, 6000), f); d.Reason != portmap.DefaultDenied {
			t.Errorf("denied by default: %+v", d)
		}
	}

	// The shorter of two terms holds.
	f := facts()
	for left, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 2 * time.Hour: time.Hour} {
		f.Answer = &portmap.Answer{ID: 9, Allow: true, Until: now.Add(left)}
		if d := asks.Decide(nat(tcp, 8080, 8080), f); d.MaxLifetime != want {
			t.Errorf("%v left: it lasts %v", left, d.MaxLifetime)
		}
	}
}

// TestService: a person is told what a port is usually for, in the words of the tiers where it
// is in one.
func TestService(t *testing.T) {
	t.Parallel()
	for port, want := range map[uint16]string{
		22: "remote login (SSH)", 445: "Windows file sharing (SMB)", 3074: "an Xbox, or Call of Duty", 27030: "Steam, or a game on it", 6000: "",
	} {
		if got := policy.Service(tcp, port); got != want {
			t.Errorf("%d is %q, want %q", port, got, want)
		}
	}
	if got := policy.Service(udp, 25565); got != "" {
		t.Errorf("udp 25565 is %q", got)
	}
}
