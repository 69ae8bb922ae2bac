package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/policy"
	"portcullis/portmap"
)

// TestUniqueLocal: nobody on the Internet can reach a unique local address (RFC 4193
// section 4.3), so a pinhole for one is the owner's to allow; what he does not allow is
// refused as such, whatever the WAN is at the moment.
func TestUniqueLocal(t *testing.T) {
	t.Parallel()
	private := self(pinhole(tcp, 6000), "fd00:1::9", "br-lan")
	quiet, down := facts(), facts()
	down.View.WAN6Up = false
	renewal := quiet
	renewal.Renewal = true
	std, allowed := shipped(t), build(t, policy.Config{Default: portmap.Allow, UniqueLocal: true})
	for _, f := range []portmap.Facts{quiet, down, renewal} {
		check(t, std.Decide(private, f), portmap.UniqueLocal)
	}
	check(t, allowed.Decide(private, quiet), portmap.NoReason)
	check(t, allowed.Decide(private, down), portmap.NoAddress)
	no := shipped(t, policy.Rule{Name: "no", Action: portmap.Deny})
	check(t, no.Decide(private, quiet), portmap.RuleDenied)
	check(t, std.Decide(pinhole(tcp, 6000), quiet), portmap.NoReason)
	check(t, std.Decide(nat(tcp, 6000, 6000), quiet), portmap.NoReason) // 192.168.1.10 is private as well, and translated
}

func TestWAN(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	for _, tt := range []struct {
		name   string
		change func(*portmap.View)
		want   portmap.Reason
	}{
		{"I17/link down", func(v *portmap.View) { v.WANs[0].Up = false }, portmap.NoAddress},
		{"I17/no address", func(v *portmap.View) { v.WANs[0].External = netip.Addr{} }, portmap.NoAddress},
		{"I17/0.0.0.0", func(v *portmap.View) { v.WANs[0].External = netip.IPv4Unspecified() }, portmap.NoAddress},
		{"I17/IPv6 only", func(v *portmap.View) { v.WANs[0].External = netip.MustParseAddr("2001:db8:ffff::5") }, portmap.NoAddress},
		{"K10/private", func(v *portmap.View) { v.WANs[0].External, v.WANs[0].Private = netip.MustParseAddr("100.64.1.2"), true }, portmap.PrivateAddress},
		{"K10/private but allowed", func(v *portmap.View) { v.WANs[0].External = netip.MustParseAddr("100.64.1.2") }, portmap.NoReason},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := facts()
			tt.change(f.View)
			check(t, p.Decide(nat(tcp, 6000, 6000), f), tt.want)
			check(t, p.Decide(nat(tcp, 0, 6000), f), tt.want)
			check(t, p.Decide(pinhole(tcp, 6000), f), portmap.NoReason)
			f.View.WAN6Up = false
			check(t, p.Decide(pinhole(tcp, 6000), f), portmap.NoAddress)
			f.Renewal = true
			check(t, p.Decide(nat(tcp, 6000, 6000), f), tt.want)
		})
	}
}

// The reason that is told is the one that lasts longest.
func TestOrderOfReasons(t *testing.T) {
	t.Parallel()
	f := facts()
	f.View.WANs[0].Up = false
	f.Mappings, f.ClientMappings = 5000, 5000
	f.GrantReadyAt = now.Add(time.Hour)
	p := shipped(t, policy.Rule{Name: "no", Action: portmap.Deny, Internal: ports(one(6001), one(445))})
	check(t, p.Decide(nat(tcp, 6000, 445), f), portmap.ForbiddenPort)
	check(t, p.Decide(nat(tcp, 6000, 6001), f), portmap.RuleDenied)
	check(t, p.Decide(nat(tcp, 6000, 8080), f), portmap.PrivilegedPort)
	check(t, p.Decide(nat(tcp, 6000, 6000), f), portmap.NoAddress)
	f.View.WANs[0].Up = true
	check(t, p.Decide(nat(tcp, 6000, 6000), f), portmap.ClientQuota)
	f.ClientMappings = 0
	check(t, p.Decide(nat(tcp, 6000, 6000), f), portmap.TotalQuota)
	f.Mappings = 0
	check(t, p.Decide(nat(tcp, 6000, 6000), f), portmap.GrantRate)
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	type counts struct{ all, client, rule int }
	rule := policy.Rule{Name: "few", Action: portmap.Allow, Internal: ports(one(6000)), MaxMappings: 4}
	for _, tt := range []struct {
		name string
		in   uint16
		have counts
		want portmap.Reason
	}{
		{"K1/nothing yet", 7000, counts{}, portmap.NoReason},
		{"K1/the last of a client", 7000, counts{31, 31, 0}, portmap.NoReason},
		{"K1/one more of a client", 7000, counts{32, 32, 0}, portmap.ClientQuota},
		{"K1/another client is served", 7000, counts{1000, 0, 0}, portmap.NoReason},
		{"K1/the last of all", 7000, counts{1023, 0, 0}, portmap.NoReason},
		{"K1/one more of all", 7000, counts{1024, 0, 0}, portmap.TotalQuota},
		{"K1/the last of a rule", 6000, counts{3, 3, 3}, portmap.NoReason},
		{"K1/one more of a rule", 6000, counts{4, 4, 4}, portmap.ClientQuota},
		{"K1/what the rule does not allow", 7000, counts{4, 4, 4}, portmap.NoReason},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := facts()
			f.Mappings, f.ClientMappings = tt.have.all, tt.have.client
			f.RuleMappings = func(name string) int {
				if name != "few" {
					t.Errorf("asked for rule %q", name)
				}
				return tt.have.rule
			}
			p := shipped(t, rule)
			check(t, p.Decide(nat(tcp, 6000, tt.in), f), tt.want)
			check(t, p.Decide(nat(tcp, 0, tt.in), f), tt.want)
			f.Renewal = true
			check(t, p.Decide(nat(tcp, 6000, tt.in), f), portmap.NoReason)
		})
	}
	t.Run("K1/no counts given", func(t *testing.T) {
		check(t, shipped(t, rule).Decide(nat(tcp, 6000, 6000), facts()), portmap.NoReason)
	})
	t.Run("K1/no limits", func(t *testing.T) {
		f := facts()
		f.Mappings, f.ClientMappings = 60000, 60000
		check(t, build(t, policy.Config{Default: portmap.Allow}).Decide(nat(tcp, 6000, 6000), f), portmap.NoReason)
	})
}

// TestQuotaOfLAN: one LAN cannot take what others need, whatever the protocol; where there
// is one, it has all.
func TestQuotaOfLAN(t *testing.T) {
	t.Parallel()
	one := network()
	one.LAN = map[string]portmap.LAN{"br-lan": one.LAN["br-lan"]}
	for _, tt := range []struct {
		name     string
		set      int
		view     *portmap.View
		lan, all int
		want     portmap.Reason
	}{
		{"K1/the last of a LAN", 100, network(), 99, 99, portmap.NoReason},
		{"K1/one more of a LAN", 100, network(), 100, 100, portmap.TotalQuota},
		{"K1/another LAN is full", 100, network(), 0, 100, portmap.NoReason},
		{"K1/by default, the last", 0, network(), 767, 767, portmap.NoReason},
		{"K1/by default, one more", 0, network(), 768, 768, portmap.TotalQuota},
		{"K1/by default, another LAN is full", 0, network(), 0, 768, portmap.NoReason},
		{"K1/the only LAN", 0, one, 900, 900, portmap.NoReason},
		{"K1/the only LAN, with a limit", 900, one, 900, 900, portmap.TotalQuota},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := build(t, policy.Config{Default: portmap.Allow, MappingsPerLAN: tt.set, Mappings: 1024})
			for _, via := range []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP} {
				for _, r := range []portmap.Request{nat(udp, 6000, 6000), nat(tcp, 0, 6000), pinhole(udp, 6000)} {
					f := facts()
					f.View, f.LANMappings, f.Mappings = tt.view, tt.lan, tt.all
					r.Client.Via = via
					check(t, p.Decide(r, f), tt.want)
					f.Renewal = true
					check(t, p.Decide(r, f), portmap.NoReason)
				}
			}
		})
	}
}

// TestQuotaOfRule: max_mappings_total counts all devices.
func TestQuotaOfRule(t *testing.T) {
	t.Parallel()
	p := shipped(t, policy.Rule{Name: "few", Action: portmap.Allow, Internal: ports(one(6000)), MaxMappings: 4, MaxMappingsTotal: 8})
	for _, tt := range []struct {
		name       string
		in         uint16
		own, total int
		want       portmap.Reason
	}{
		{"K1/the last of all", 6000, 0, 7, portmap.NoReason},
		{"K1/one more of all", 6000, 0, 8, portmap.TotalQuota},
		{"K1/the device's own comes first", 6000, 4, 8, portmap.ClientQuota},
		{"K1/what the rule does not allow", 7000, 0, 8, portmap.NoReason},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := facts()
			f.RuleMappings = func(string) int { return tt.own }
			f.RuleTotal = func(name string) int {
				if name != "few" {
					t.Errorf("asked for rule %q", name)
				}
				return tt.total
			}
			for _, r := range []portmap.Request{nat(tcp, 6000, tt.in), nat(udp, 0, tt.in), pinhole(tcp, tt.in)} {
				check(t, p.Decide(r, f), tt.want)
			}
			f.Renewal = true
			check(t, p.Decide(nat(tcp, 6000, tt.in), f), portmap.NoReason)
		})
	}
}

// K1: a burst of 16, then one a second, by the clock of the facts alone.
func TestGrantRate(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	f := facts()
	grant := func(want portmap.Reason) {
		t.Helper()
		d := p.Decide(nat(tcp, 6000, 6000), f)
		check(t, d, want)
		if d.Action == portmap.Allow {
			f.GrantReadyAt = d.GrantReadyAt
		} else if !d.GrantReadyAt.IsZero() {
			t.Errorf("a refusal moves the limiter to %v", d.GrantReadyAt)
		}
	}
	for range policy.Burst {
		grant(portmap.NoReason)
	}
	grant(portmap.GrantRate)
	if d := p.Decide(nat(tcp, 6000, 6000), f); !strings.Contains(d.Detail, "try again in 1s") {
		t.Errorf("sentence %q", d.Detail)
	}

	f.Now = f.Now.Add(time.Second - 1)
	grant(portmap.GrantRate)
	f.Now = f.Now.Add(1)
	grant(portmap.NoReason)
	grant(portmap.GrantRate)

	f.Now = f.Now.Add(3 * time.Second)
	for range 3 {
		grant(portmap.NoReason)
	}
	grant(portmap.GrantRate)

	f.Now = f.Now.Add(24 * time.Hour) // the burst is not saved up beyond its size
	for range policy.Burst {
		grant(portmap.NoReason)
	}
	grant(portmap.GrantRate)

	f.Now = f.Now.Add(-24 * time.Hour) // a clock set back locks nobody out for longer than a second
	grant(portmap.GrantRate)
	if d := p.Decide(nat(tcp, 6000, 6000), f); !strings.Contains(d.Detail, "try again in 1s") {
		t.Errorf("sentence %q", d.Detail)
	}
}

// A renewal neither pays nor resets the limiter, a change of a mapping pays; without
// a limit it has no state.
func TestGrantRateOfRenewals(t *testing.T) {
	t.Parallel()
	f := facts()
	f.GrantReadyAt = now.Add(time.Hour)
	f.Renewal = true
	if d := shipped(t).Decide(nat(tcp, 6000, 6000), f); d.Action != portmap.Allow || !d.GrantReadyAt.Equal(f.GrantReadyAt) {
		t.Errorf("renewal: %+v", d)
	}
	f.Change = true
	check(t, shipped(t).Decide(nat(tcp, 6000, 6000), f), portmap.GrantRate)
	f.GrantReadyAt, f.ClientMappings, f.Mappings = now, 1<<20, 1<<20
	if d := shipped(t).Decide(nat(tcp, 6000, 6000), f); d.Action != portmap.Allow || !d.GrantReadyAt.After(now) {
		t.Errorf("a change pays, and needs no room: %+v", d)
	}
	f = facts()
	if d := build(t, policy.Config{Default: portmap.Allow}).Decide(nat(tcp, 6000, 6000), f); d.Action != portmap.Allow || !d.GrantReadyAt.IsZero() {
		t.Errorf("no limit: %+v", d)
	}
}

// TestRoomIsKept: abuse case K1. One machine that makes up 70 others does not empty the
// common quota: a new device still gets a dozen mappings, and while room is scarce who
// has never answered the gateway gets none. Far from the limit, and where it is small,
// all are treated as ever.
func TestRoomIsKept(t *testing.T) {
	t.Parallel()
	p := build(t, policy.Config{Default: portmap.Allow, MappingsPerClient: 32, Mappings: 1024})
	total := 0
	allowed := func(held int, unheard bool) bool {
		r, f := nat(tcp, 6000, 6000), facts()
		r.Client.Unheard = unheard
		f.Mappings, f.ClientMappings = total, held
		d := p.Decide(r, f)
		if d.Action != portmap.Allow && d.Reason != portmap.TotalQuota && d.Reason != portmap.ClientQuota {
			t.Fatalf("%+v", d)
		}
		return d.Action == portmap.Allow
	}
	take := func(held *int) bool {
		ok := allowed(*held, false)
		if ok {
			*held++
			total++
		}
		return ok
	}
	forged := make([]int, 70)
	for more := true; more; {
		more = false
		for i := range forged {
			more = take(&forged[i]) || more
		}
	}
	if allowed(0, true) {
		t.Error("who has never answered has room")
	}
	honest := 0
	for take(&honest) {
	}
	if honest < 8 || honest > 16 {
		t.Errorf("a new device gets %d mappings beside 70 with %d", honest, forged[0])
	}
	newest := 0
	if take(&newest); newest != 1 {
		t.Error("and the next one nothing")
	}

	total = 700
	if !allowed(31, false) || !allowed(0, true) {
		t.Error("there is room enough")
	}
	p, total = build(t, policy.Config{Default: portmap.Allow, Mappings: 40}), 39
	if !allowed(39, false) {
		t.Error("of a small quota somebody is refused the last mapping")
	}
}
