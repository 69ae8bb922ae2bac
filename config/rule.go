package config

import (
	"net/netip"
	"regexp"
	"strings"

	"portcullis/portmap"
)

// What stands before the name in a rule's clients.
const (
	hostTag      = "host:"
	interfaceTag = "iface:"
)

var (
	protocolWords = []string{"tcp", "udp"}
	viaWords      = []string{"upnp", "natpmp", "pcp"}
)

var (
	protocols = map[string]portmap.Transport{"tcp": portmap.TCP, "udp": portmap.UDP}
	vias      = map[string]portmap.Via{"upnp": portmap.ViaUPnP, "natpmp": portmap.ViaNATPMP, "pcp": portmap.ViaPCP}
)

// ruleList converts the rules; the result has as many as raw, or is nil.
func (r *reader) ruleList(raw []rawRule) []Rule {
	if len(raw) == 0 {
		return nil
	}
	all := make([]Rule, len(raw))
	names := make(map[string]int, len(raw))
	for i := range raw {
		path := rulePath(i)
		all[i] = r.rule(path, &raw[i])
		name := all[i].Name
		if name == "" {
			continue
		}
		if first, ok := names[name]; ok {
			r.fail(path+".name", "%s is the name of the rule on line %d too; allowed: a name of its own", quote(name), r.at.line(rulePath(first)))
			continue
		}
		names[name] = i
	}
	return all
}

func (r *reader) rule(path string, raw *rawRule) Rule {
	rule := Rule{
		Name:          r.ruleName(path, raw),
		Action:        r.ruleAction(path, raw),
		ExternalPorts: r.ports(path+".external_ports", raw.ExternalPorts),
		InternalPorts: r.ports(path+".internal_ports", raw.InternalPorts),
		Description:   r.description(path+".description", raw.Description),
	}
	for i, s := range r.condition(path+".clients", raw.Clients) {
		rule.Clients = append(rule.Clients, r.client(elementPath(path+".clients", i), s))
	}
	for i, s := range r.condition(path+".protocols", raw.Protocols) {
		rule.Protocols = append(rule.Protocols, protocols[r.word(elementPath(path+".protocols", i), s, protocolWords)])
	}
	for i, s := range r.condition(path+".via", raw.Via) {
		rule.Via = append(rule.Via, vias[r.word(elementPath(path+".via", i), s, viaWords)])
	}
	if raw.MaxLifetime != nil {
		rule.MaxLifetime = r.lifetime(path+".max_lifetime", *raw.MaxLifetime)
	}
	if raw.MaxMappings != nil {
		rule.MaxMappings = r.number(path+".max_mappings", *raw.MaxMappings, 1, 65535)
	}
	return rule
}

func (r *reader) ruleName(path string, raw *rawRule) string {
	const form = "1 to 64 printable characters"
	switch {
	case r.bad[path+".name"]:
		return ""
	case raw.Name == nil:
		r.fail(path, "the rule has no name; allowed: name = \"...\" with %s", form)
		return ""
	case !isText(*raw.Name, 64):
		r.fail(path+".name", "%s is not a name; allowed: %s", quote(*raw.Name), form)
		return ""
	}
	return *raw.Name
}

func (r *reader) ruleAction(path string, raw *rawRule) portmap.Action {
	switch {
	case r.bad[path+".action"]:
		return portmap.Deny
	case raw.Action == nil:
		r.fail(path, "the rule has no action; allowed: action = one of %s", oneOf(actionWords))
		return portmap.Deny
	}
	return actions[r.word(path+".action", *raw.Action, actionWords)]
}

// condition refuses the empty list. It could mean "nobody" as well as
// "anybody", and one of the two would open a door (abuse case C13).
func (r *reader) condition(path string, all []string) []string {
	if all != nil && len(all) == 0 {
		r.fail(path, "the list is empty; allowed: at least one element, or no such key to match everything")
	}
	return r.list(path, all)
}

func (r *reader) ports(path string, all []string) []portmap.PortRange {
	var ranges []portmap.PortRange
	for i, s := range r.condition(path, all) {
		p, ok := parsePorts(s)
		if !ok {
			r.fail(elementPath(path, i), "%s is not a port or a range; allowed: 1 to 65535, like \"80\" or \"8000-8999\"", quote(s))
		}
		ranges = append(ranges, p)
	}
	return ranges
}

// maxPattern bounds the description's regular expression, in bytes.
const maxPattern = 1024

func (r *reader) description(path string, raw *string) *regexp.Regexp {
	if raw == nil {
		return nil
	}
	if *raw == "" || len(*raw) > maxPattern {
		r.fail(path, "%s has %d bytes; allowed: a regular expression of 1 to %d bytes", quote(*raw), len(*raw), maxPattern)
		return nil
	}
	re, err := regexp.Compile(*raw)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		r.fail(path, "%s is not a regular expression (%s); allowed: RE2 syntax, like \"^Plex\"", quote(*raw), plain(why))
		return nil
	}
	return re
}

const clientForm = `a MAC like "aa:bb:cc:dd:ee:ff", a network like "192.168.1.64/26", an address, "host:cam-*" or "iface:br-iot"`

// client reads one element of a rule's clients.
func (r *reader) client(path, s string) ClientMatch {
	if name, ok := strings.CutPrefix(s, interfaceTag); ok {
		return ClientMatch{Kind: ByInterface, Interface: r.ifname(path, name)}
	}
	if glob, ok := strings.CutPrefix(s, hostTag); ok {
		if !isHostGlob(glob) {
			r.fail(path, "%s is not a host name; allowed: letters, digits, \"-\", \".\", \"_\", and * and ? as wildcards", quote(s))
		}
		return ClientMatch{Kind: ByHost, Host: strings.ToLower(glob)}
	}
	if m, err := portmap.ParseMAC(s); err == nil {
		// The first bit marks a group: no device has such an address of its own.
		if m == (portmap.MAC{}) || m[0]&1 != 0 {
			r.fail(path, "%s is not the MAC of a device; allowed: %s", quote(s), clientForm)
		}
		return ClientMatch{Kind: ByMAC, MAC: m}
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return ClientMatch{Kind: ByPrefix, Prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	p, why := parsePrefix(s)
	if why != "" {
		if !strings.Contains(s, "/") {
			why = "is not a client"
		}
		r.fail(path, "%s %s; allowed: %s", quote(s), why, clientForm)
	}
	return ClientMatch{Kind: ByPrefix, Prefix: p}
}

// isHostGlob says whether s is a host name with * and ? in it (RFC 1123
// section 2.1 for the length).
func isHostGlob(s string) bool {
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && !(c >= '0' && c <= '9') && !strings.ContainsRune("-._*?", rune(c)) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 255
}
