package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"portcullis/portmap"
)

// The bounds of Config.GrantsPerSecond, unless it is 0.
const (
	minRate = 1e-6
	maxRate = 1e6
)

// Config is what the owner decided. The zero value denies everything.
type Config struct {
	Default           portmap.Action // for what the walls permit and no rule matches; never opens Tier 1
	Rules             []Rule         // the first match wins
	MappingsPerClient int            // the mappings of one device; 0: no limit
	MappingsPerLAN    int            // the mappings of all clients on one interface; 0: see PerLAN
	Mappings          int            // all mappings; 0: no limit
	GrantsPerSecond   float64        // new mappings a device, after a burst of Burst; 0: no limit
	UniqueLocal       bool           // a pinhole may be for a unique local address
}

// Policy is the portmap.Policy of the daemon. It is immutable, and so safe for
// concurrent use.
type Policy struct {
	fallback    portmap.Action
	rules       []Rule
	perClient   int
	perLAN      int
	total       int
	uniqueLocal bool
	interval    time.Duration // between two grants in the long run; 0: no limit
	tcp, udp    []stretch     // of the external ports that the engine chooses from
}

var _ portmap.Policy = (*Policy)(nil)

// New checks the configuration and returns the policy. The error names the rule.
func New(c Config) (*Policy, error) {
	if !validAction(c.Default) {
		return nil, fmt.Errorf("policy.default: unknown action %d", c.Default)
	}
	if c.MappingsPerClient < 0 || c.MappingsPerLAN < 0 || c.Mappings < 0 {
		return nil, errors.New("limits.mappings_per_client, limits.mappings_per_lan and limits.mappings must not be negative")
	}
	p := &Policy{fallback: c.Default, perClient: c.MappingsPerClient, perLAN: c.MappingsPerLAN, total: c.Mappings, uniqueLocal: c.UniqueLocal}
	if c.GrantsPerSecond != 0 {
		if !(c.GrantsPerSecond >= minRate && c.GrantsPerSecond <= maxRate) { // NaN as well
			return nil, fmt.Errorf("limits.grants_per_second must be 0, or between %g and %g", minRate, maxRate)
		}
		p.interval = time.Duration(float64(time.Second) / c.GrantsPerSecond)
	}
	for i, raw := range c.Rules {
		if raw.Name == "" {
			return nil, fmt.Errorf("rule %d has no name", i+1)
		}
		if slices.ContainsFunc(p.rules, func(r Rule) bool { return r.Name == raw.Name }) {
			return nil, fmt.Errorf("two rules have the name %q", raw.Name)
		}
		rl, err := compile(raw)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", raw.Name, err)
		}
		p.rules = append(p.rules, rl)
	}
	p.tcp = stretches(p.rules, portmap.TCP)
	p.udp = stretches(p.rules, portmap.UDP)
	return p, nil
}

// Decide returns the verdict on a request. The order of the checks, and the
// meaning of external port 0, are told in the package documentation.
func (p *Policy) Decide(r portmap.Request, f portmap.Facts) portmap.Decision {
	d, hit := Walls(r, f.View)
	switch {
	case hit && !d.OverExternalPort:
		return d
	case r.Client.Owner() && hit: // he has named the port, and gets no other
		d.OverExternalPort = false
		return d
	case r.Client.Owner():
		return p.byOwner(&r, &f)
	}
	switch ext := r.ExternalPort; {
	case hit:
		p.addElsewhere(&d, &r, &f)
	case r.Kind != portmap.NAT4:
		d, _ = p.verdict(&r, r.Internal.Port(), &f)
	case ext == 0:
		d = p.anywhere(&r, &f)
	default:
		var depends bool
		if d, depends = p.verdict(&r, ext, &f); depends {
			p.addElsewhere(&d, &r, &f)
		}
	}
	if d.Action != portmap.Allow {
		return d
	}
	if d = p.wan(d, &r, &f); d.Action != portmap.Allow {
		return d
	}
	return p.limits(d, &r, &f)
}

// verdict is what rules and tiers say to a request with this external
// port. The bool reports whether the port matters: if not, the verdict holds for
// all ports that the engine could choose.
func (p *Policy) verdict(r *portmap.Request, ext uint16, f *portmap.Facts) (portmap.Decision, bool) {
	rl, depends := p.ruling(r, ext)
	return p.judge(r, ext, rl, f), depends || ext < systemPorts
}

// judge turns the rule that matched, or nil, into a verdict.
func (p *Policy) judge(r *portmap.Request, ext uint16, rl *Rule, f *portmap.Facts) portmap.Decision {
	d := portmap.Decision{Action: p.fallback}
	if rl != nil {
		d.Action, d.Rule, d.MaxLifetime = rl.Action, rl.Name, rl.MaxLifetime
		if rl.Action == portmap.Deny {
			return byRule(d, portmap.RuleDenied, "the rule %q denies this; change it, or put a rule that allows it above", rl.Name)
		}
	}
	if d, hit := unnamed(d, r, ext, rl); hit {
		return d
	}
	switch d.Action {
	case portmap.Deny:
		return byRule(d, portmap.DefaultDenied, `no rule allows this and policy.default is "deny"; to allow it, add a rule with %s`,
			allowing(r, ext))
	case portmap.Ask:
		if d = answered(d, f); d.Action != portmap.Allow {
			return d
		}
	}
	if rl == nil || f.Renewal {
		return d
	}
	return rl.room(d, f)
}

// room is the quotas of a rule.
func (rl *Rule) room(d portmap.Decision, f *portmap.Facts) portmap.Decision {
	if f.RuleMappings != nil && rl.MaxMappings > 0 {
		if n := f.RuleMappings(rl.Name); n >= rl.MaxMappings {
			return byRule(d, portmap.ClientQuota, "the device has %d of %d mappings that the rule %q allows it (max_mappings)",
				n, rl.MaxMappings, rl.Name)
		}
	}
	if f.RuleTotal != nil && rl.MaxMappingsTotal > 0 {
		if n := f.RuleTotal(rl.Name); n >= rl.MaxMappingsTotal {
			return byRule(d, portmap.TotalQuota, "all devices have %d of %d mappings that the rule %q allows them (max_mappings_total)",
				n, rl.MaxMappingsTotal, rl.Name)
		}
	}
	return d
}

// ruling returns the first rule that matches, or nil, and whether it would
// perhaps be another one for another external port.
func (p *Policy) ruling(r *portmap.Request, ext uint16) (*Rule, bool) {
	depends := false
	for i := range p.rules {
		rl := &p.rules[i]
		if !rl.fits(r) {
			continue
		}
		if len(rl.External) == 0 {
			return rl, depends
		}
		depends = true
		if contains(rl.External, ext) {
			return rl, true
		}
	}
	return nil, depends
}

// unnamed refuses if a port is Tier 1 and the rule, if any, does not name it.
// A pinhole has one port, so its internal side speaks for both.
func unnamed(d portmap.Decision, r *portmap.Request, ext uint16, rl *Rule) (portmap.Decision, bool) {
	in := r.Internal.Port()
	inTier, why := TierOf(Internal, r.Transport, in)
	exTier, exWhy := Ordinary, ""
	if r.Kind == portmap.NAT4 {
		exTier, exWhy = TierOf(External, r.Transport, ext)
	}
	inOK := inTier == Ordinary || rl != nil && named(rl.Internal, in)
	exOK := exTier == Ordinary || rl != nil && named(rl.External, ext)
	if inOK && exOK {
		return d, false
	}
	side, port := Internal, in
	if inOK {
		side, port, why = External, ext, exWhy
	}
	where := ""
	if rl != nil {
		where = fmt.Sprintf(", above the rule %q, which matches but does not name it", rl.Name)
	}
	return byRule(d, portmap.PrivilegedPort, "%s %s port %d is %s, which is opened only by a rule that names it; add one with %s%s",
		side, r.Transport, port, why, allowing(r, ext), where), true
}

// allowing is what RuleFor would have for a request with this external port, in a line.
func allowing(r *portmap.Request, ext uint16) string {
	who := r.Client.MAC.String()
	if who == "" {
		who = r.Client.Addr.String()
	}
	text := fmt.Sprintf(`action = "allow", clients = [%q], internal_ports = ["%d"], protocols = [%q]`, who, r.Internal.Port(), r.Transport)
	if tier, _ := TierOf(External, r.Transport, ext); r.Kind == portmap.NAT4 && tier != Ordinary {
		text += fmt.Sprintf(`, external_ports = ["%d"]`, ext)
	}
	return text
}

// answered is the verdict where the owner is asked: what he has said, or that he has to say
// something first.
func answered(d portmap.Decision, f *portmap.Facts) portmap.Decision {
	a := f.Answer
	switch {
	case a == nil:
		return ask(d)
	case !a.Allow:
		d = refuse(d, portmap.OwnerDenied, "the owner has denied this when it was asked for (answer %d); `portcullis revoke %d` takes that back", a.ID, a.ID)
		d.Answer = a
		return d
	}
	d.Action, d.Answer = portmap.Allow, a
	if !a.Until.IsZero() {
		left := a.Until.Sub(f.Now)
		if d.MaxLifetime == 0 || left < d.MaxLifetime {
			d.MaxLifetime = left
		}
	}
	return d
}

// ask refuses until the owner has been asked.
func ask(d portmap.Decision) portmap.Decision {
	by := `policy.default is "ask"`
	if d.Rule != "" {
		by = fmt.Sprintf(`the rule %q says "ask"`, d.Rule)
	}
	d = byRule(d, portmap.NeedsApproval, "the owner has to approve this first, because %s; `portcullis pending` lists it", by)
	d.Action = portmap.Ask
	return d
}

// byRule is refuse, of what a rule above the others would allow.
func byRule(d portmap.Decision, reason portmap.Reason, format string, args ...any) portmap.Decision {
	d = refuse(d, reason, format, args...)
	d.NeedsRule = true
	return d
}

// refuse makes a refusal that keeps what d says of the rule, and grants nothing.
func refuse(d portmap.Decision, reason portmap.Reason, format string, args ...any) portmap.Decision {
	return portmap.Decision{
		Action: portmap.Deny, Reason: reason, Detail: fmt.Sprintf(format, args...),
		Rule: d.Rule,
	}
}
