package config

import (
	"fmt"
	"slices"
	"time"

	"portcullis/firewall"
	"portcullis/policy"
)

// together checks what the type of a key alone does not show, above all that no
// interface is on both sides of the wall (abuse case A9).
func (r *reader) together(c *Config) {
	if p := c.UPnP.HTTPPort; p == 1900 || p == 5351 {
		r.fail("upnp.http_port", "%d is used by discovery, or by NAT-PMP and PCP; allowed: 1 to 65535 without 1900 and 5351", p)
	}
	if n := c.UPnP.NotifyInterval; !r.bad["upnp.notify_interval"] && (n < minNotify || n > maxNotify) {
		r.fail("upnp.notify_interval", "%q is out of range; allowed: %q to %q", formatDuration(n), formatDuration(minNotify), formatDuration(maxNotify))
	}
	r.lease(&c.Lease)
	r.sides(c)
	r.chains(&c.Firewall)
	r.shown(c)
	r.hook(&c.Hook)
	names := make(map[string]int, len(c.Rules))
	for i := range c.Rules {
		r.rule(i, c, names)
	}
}

// Bounds of upnp.notify_interval. What is announced holds for twice as long; UDA 1.1 section
// 1.2.2 would have that be half an hour or more.
const (
	minNotify = time.Minute
	maxNotify = 12 * time.Hour
)

// lease compares both bounds. A file that only shortens max moves the default of
// min with it.
func (r *reader) lease(l *Lease) {
	switch {
	case r.bad["lease.max"] || r.bad["lease.min"] || l.Min <= l.Max:
	case r.at.has("lease.min"):
		r.fail("lease.min", "%q is longer than lease.max, which is %q; allowed: at most lease.max", formatDuration(l.Min), formatDuration(l.Max))
	default:
		l.Min = l.Max
	}
}

// hook refuses what is no program.
func (r *reader) hook(h *Hook) {
	if len(h.Command) == 0 || r.bad["hook.command"] {
		return
	}
	if err := checkPath(h.Command[0], maxPath); err != nil {
		r.fail(elementPath("hook.command", 0), "%s %v", quote(h.Command[0]), err)
	}
}

// sides compares the inside with the outside.
func (r *reader) sides(c *Config) {
	for _, wan := range []struct {
		key  string
		name Interface
	}{{"wan.interface", c.WAN.Interface}, {"wan.interface6", c.WAN.Interface6}} {
		if wan.name != "" && slices.Contains(c.LAN.Interfaces, wan.name) {
			r.fail(wan.key, "%s is also in lan.interfaces; allowed: an interface that is on one side only", quote(string(wan.name)))
		}
	}
	for i, p := range c.LAN.ExtraPrefixes {
		if p.Contains(c.WAN.ExternalIP.Addr) {
			r.fail(elementPath("lan.extra_prefixes", i), "%s contains wan.external_ip; allowed: networks of the LAN only", quote(p.String()))
		}
	}
}

// chains refuses a chain that does not see the packets it is named for.
func (r *reader) chains(f *Firewall) {
	for _, c := range []struct {
		key, family string
		name        firewall.Chain
	}{{"firewall.accept_chain", "ip", f.AcceptChain}, {"firewall.accept_chain6", "ip6", f.AcceptChain6}} {
		switch {
		case c.name == firewall.Chain{}:
		case f.Backend == BackendIPTables && c.name.OfIPTables():
			r.fail(c.key, "%s has no effect with backend %s, whose rule is first in FORWARD; allowed: %s",
				quote(c.name.String()), quote(string(BackendIPTables)), `""`)
		case c.name.Family != "inet" && c.name.Family != c.family:
			r.fail(c.key, "%s has a family whose forward chain does not see these packets; allowed: a chain of family inet or %s",
				quote(c.name.String()), c.family)
		}
	}
}

// rule checks one rule; names has the rules before it.
func (r *reader) rule(i int, c *Config, names map[string]int) {
	path, rule := rulePath(i), &c.Rules[i]
	const form = "1 to 64 printable characters"
	first, taken := names[rule.Name]
	switch {
	case r.bad[path+".name"]:
	case !r.at.has(path + ".name"):
		r.fail(path, "the rule has no name; allowed: name = \"...\" with %s", form)
	case !isText(rule.Name, 64):
		r.fail(path+".name", "%s is not a name; allowed: %s", quote(rule.Name), form)
	case taken:
		r.fail(path+".name", "%s is the name of the rule on line %d too; allowed: a name of its own", quote(rule.Name), r.at.line(rulePath(first)))
	default:
		names[rule.Name] = i
	}
	if !r.at.has(path + ".action") {
		r.fail(path, `the rule has no action; allowed: action = "allow", "ask" or "deny"`)
	}
	for j, m := range rule.Clients {
		if at := elementPath(path+".clients", j); m.Interface != "" {
			r.ruleInterface(at, m.Interface, c)
		}
	}
	if r.bad[path] {
		return
	}
	if err := rule.Check(); err != nil {
		at := path
		if e, ok := err.(*policy.PortError); ok {
			at = elementPath(path+"."+e.Side.String()+"_ports", e.Index)
		}
		r.failLine(r.at.line(at, path), fmt.Sprintf("rule %s: %v", quote(rule.Name), err))
	}
}

// ruleInterface refuses a condition that could never hold: in a deny rule it
// would leave open what the owner believes shut.
func (r *reader) ruleInterface(path, name string, c *Config) {
	served, shown := c.LAN.Interfaces, quote(policy.ClientMatch{Interface: name}.String())
	var i Interface
	if err := i.UnmarshalText([]byte(name)); err != nil {
		r.fail(path, "%s %v", quote(name), err)
	} else if r.bad["lan.interfaces"] {
		return
	} else if served == nil && i == c.WAN.Interface {
		r.fail(path, "%s is the WAN interface; allowed: a LAN interface", shown)
	} else if served != nil && !slices.Contains(served, i) {
		r.fail(path, "%s is not in lan.interfaces; allowed: %s", shown, oneOf(served))
	}
}
