package incumbent

import (
	"fmt"
	"math/bits"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"portcullis/policy"
	"portcullis/portmap"
)

// span is a range of ports that may begin with 0, as the widest one does.
type span struct{ first, last uint16 }

// ranges returns it as a condition of ours; nil is every port, and ok is false for none.
func (s span) ranges() (list []portmap.PortRange, ok bool) {
	first := max(s.first, 1)
	if s.last < first {
		return nil, false
	}
	if first == 1 && s.last == 65535 {
		return nil, true
	}
	return []portmap.PortRange{{First: first, Last: s.last}}, true
}

// hosts is whom a rule means: every host of IPv4 where the mask is 0.
type hosts struct{ address, mask uint32 }

// rule is a permission rule of miniupnpd's.
type rule struct {
	line               int
	allow              bool
	external, internal span
	address            hosts
	network            string // of OpenWrt, instead of an address; "": none
	text               string // a regular expression of POSIX; "": none
	name               string // what its owner calls it; "": nothing
}

// confRule reads "allow|deny PORTS ADDRESS[/MASK] PORTS ["REGEX"] [# NAME]".
func confRule(line string) (r rule, why string) {
	words := strings.Fields(line)
	if len(words) < 4 || words[0] != "allow" && words[0] != "deny" {
		return r, shown(line) + " is not a whole rule"
	}
	r.allow = words[0] == "allow"
	if strings.Contains(words[1]+words[3], ":") {
		return r, shown(line) + " has a colon, where a range has a hyphen"
	}
	if r.external, why = portsOf(words[1]); why != "" {
		return r, why
	}
	if r.address, why = addressOf(words[2]); why != "" {
		return r, why
	}
	inside, _, _ := strings.Cut(words[3], "#")
	if r.internal, why = portsOf(inside); why != "" {
		return r, why
	}
	rest := line
	for range 4 {
		rest = strings.TrimLeft(rest, " \t")
		rest = rest[min(len(rest), wordEnd(rest)):]
	}
	if _, comment, found := strings.Cut(words[3], "#"); found {
		r.name = comment + rest
		return r, ""
	}
	rest = strings.TrimLeft(rest, " \t")
	if rest != "" && rest[0] != '#' {
		r.text, rest = quoted(rest)
	}
	if _, comment, found := strings.Cut(rest, "#"); found {
		r.name = comment
	}
	return r, ""
}

func wordEnd(s string) int {
	if i := strings.IndexFunc(s, unicode.IsSpace); i >= 0 {
		return i
	}
	return len(s)
}

// quoted takes the next word, in quotation marks of two kinds or none. A backslash keeps its
// meaning for the regular expression, and keeps a mark from ending the word.
func quoted(s string) (word, rest string) {
	var mark byte
	if s[0] == '"' || s[0] == '\'' {
		mark, s = s[0], s[1:]
	}
	i := 0
	for ; i < len(s); i++ {
		if mark != 0 && s[i] == mark || mark == 0 && (s[i] == ' ' || s[i] == '\t') {
			break
		}
		if s[i] == '\\' {
			i++
		}
	}
	i = min(i, len(s))
	return s[:i], s[min(len(s), i+1):]
}

// addressOf reads an IPv4 address, with a mask of either form or without one.
func addressOf(word string) (h hosts, why string) {
	address, mask, masked := strings.Cut(word, "/")
	a, err := netip.ParseAddr(address)
	h.mask = 1<<32 - 1
	if err == nil && a.Is4() {
		h.address = number4(a)
		if !masked {
			return h, ""
		}
		if n, e := strconv.ParseUint(mask, 10, 8); e == nil && n <= 32 {
			h.mask = uint32(uint64(1<<32-1) << (32 - n)) // #nosec G115 -- the lower half is meant
			return h, ""
		}
		if m, e := netip.ParseAddr(mask); e == nil && m.Is4() {
			h.mask = number4(m)
			return h, ""
		}
	}
	return h, shown(word) + ` is not an IPv4 address or a network, like "192.168.1.0/24"`
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// prefix returns the smallest network that holds them, and whether it is exactly them.
func (h hosts) prefix() (p netip.Prefix, exact bool) {
	n := bits.LeadingZeros32(^h.mask)
	a := h.address & uint32(uint64(1<<32-1)<<(32-n)) // #nosec G115 -- the lower half is meant
	p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), n)
	return p, bits.OnesCount32(h.mask) == n
}

// namingFirst returns rules with those first, of each series that allows, which name a port that
// only a rule opens: here the first that matches decides, also where it does not name the port,
// and there it makes no difference which of a series does.
func namingFirst(rules []rule) []rule {
	all := slices.Clone(rules)
	for i := 0; i < len(all); {
		n := 1
		for all[i].allow && i+n < len(all) && all[i+n].allow {
			n++
		}
		var named, others []rule
		for _, r := range all[i : i+n] {
			if r.allow && r.names() {
				named = append(named, r)
			} else {
				others = append(others, r)
			}
		}
		copy(all[i:], append(named, others...))
		i += n
	}
	return all
}

// names reports whether a rule names a port that only a rule opens.
func (r *rule) names() bool {
	var ours policy.Rule
	var outside, inside bool
	ours.External, outside = r.external.ranges()
	ours.Internal, inside = r.internal.ranges()
	if !outside || !inside {
		return false
	}
	named, _, _ := privileged(&ours)
	return named != ""
}

// noter notes something about one rule.
type noter func(kind NoteKind, format string, args ...any)

// ruleOf adds a rule as ours, with notes of what is different.
func (t *translation) ruleOf(r rule) {
	ours := policy.Rule{Action: portmap.Deny}
	if r.allow {
		ours.Action = portmap.Allow
	}
	note := func(kind NoteKind, format string, args ...any) {
		t.note(r.line, fmt.Sprintf("rule[%d]", len(t.config.Rules)), kind, fmt.Sprintf(format, args...))
	}
	var outside, inside bool
	ours.External, outside = r.external.ranges()
	ours.Internal, inside = r.internal.ranges()
	if !outside || !inside {
		note(NoCounterpart, "a rule for port 0 alone, which no mapping has, is left out")
		return
	}
	exact := t.clients(&r, &ours)
	exact = said(&r, &ours, note) && exact
	switch {
	case exact:
	case r.allow:
		note(Stricter, "a rule that allows is left out, because its mask, its network or its expression has no form here")
		return
	default:
		note(Stricter, "a rule that denies is wider, because its mask, its network or its expression has no form here")
	}
	if r.allow && r.network != "" {
		t.only4(ours, r)
	}
	if r.allow && !openable(&ours, note) {
		return
	}
	_, few := whole(ours.Internal)
	if !r.allow && (len(ours.Clients) == 0 || r.network != "" && !few) && t.config.LAN.IPv6 {
		note(Stricter, `this denies IPv6 as well, which miniupnpd leaves open`)
	}
	ours.Name = t.nameOf(r.name, r.line)
	t.config.Rules = append(t.config.Rules, ours)
}

// only4 has another rule stand before one that means the hosts of a LAN, and names ports which
// only a rule opens: it keeps from IPv6 what that is not of, because no condition of ours says
// which LAN and which family.
func (t *translation) only4(ours policy.Rule, r rule) {
	silent := func(NoteKind, string, ...any) {}
	if !t.config.LAN.IPv6 || !openable(&ours, silent) {
		return
	}
	named, _, _ := privileged(&ours)
	if named == "" || t.denied6[named] {
		return
	}
	t.denied6[named] = true
	t.note(r.line, fmt.Sprintf("rule[%d]", len(t.config.Rules)), Stricter, "IPv6 stays closed for these ports: rules of miniupnpd's are of IPv4")
	t.config.Rules = append(t.config.Rules, policy.Rule{
		Name: t.nameOf("no IPv6 to "+named, r.line), Action: portmap.Deny, Clients: []policy.ClientMatch{{Prefix: anyIPv6}},
		Transports: ours.Transports, External: ours.External, Internal: ours.Internal,
	})
}

// clients sets whom a rule means, or more; exact reports that it is not more.
func (t *translation) clients(r *rule, ours *policy.Rule) (exact bool) {
	if r.network != "" {
		device, ok := t.lans[r.network]
		if ok {
			ours.Clients = []policy.ClientMatch{{Interface: device}}
		}
		return ok
	}
	prefix, exact := r.address.prefix()
	if prefix.Bits() > 0 {
		ours.Clients = []policy.ClientMatch{{Prefix: prefix}}
	}
	return exact
}

// said sets which texts of programs a rule means, or any; exact reports that it is not more.
func said(r *rule, ours *policy.Rule, note noter) (exact bool) {
	if r.text == "" {
		return true
	}
	re, ok := pattern(r.text)
	if ok && !r.allow {
		re = "(?:" + re + ")|^$" // what has no text matches there
	}
	switch {
	case !ok || len(re) > policy.MaxPattern:
		return false
	case r.allow:
		note(Stricter, "the text of a program decides, which proves nothing; a request without one, as by NAT-PMP, is not allowed by it")
	default:
		note(Stricter, `a rule that denies by its text denies what has none as well, as do NAT-PMP and PCP; via = ["upnp"] leaves these out`)
	}
	ours.Description = regexp.MustCompile(re)
	return true
}

// openable fits a rule that allows to what a rule can open here, and notes what stays
// closed and what it opens by name. It reports false where nothing is left of it.
func openable(ours *policy.Rule, note noter) bool {
	if err := ours.Check(); err != nil { // one port that is never opened, by one protocol or both
		whole := *ours
		for _, one := range []portmap.Transport{portmap.TCP, portmap.UDP} {
			part := whole
			part.Transports = []portmap.Transport{one}
			if part.Check() == nil {
				*ours = part
			}
		}
		note(Stricter, "%v", err)
		if ours.Check() != nil {
			return false
		}
	}
	named, closed, kinds := privileged(ours)
	if named != "" {
		note(Look, "this opens %s by name", named)
		if len(ours.Clients) == 0 { // its rules are of IPv4; by IPv6 it opens no such port to anybody
			ours.Clients = []policy.ClientMatch{{Prefix: anyIPv4}}
		}
	}
	if kinds > 0 {
		note(Stricter, "%d kinds of ports stay closed%s, which only a rule opens that names them, in a range of at most %d; `portcullis ports` lists them",
			kinds, closed, policy.NamingWidth)
	}
	return true
}

// anyIPv4 and anyIPv6 are every host of a family.
var (
	anyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	anyIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// whole returns the one range of a rule's ports.
func whole(list []portmap.PortRange) (p portmap.PortRange, narrow bool) {
	p = portmap.PortRange{First: 1, Last: 65535}
	if list != nil {
		p = list[0]
	}
	return p, int(p.Last)-int(p.First) < policy.NamingWidth
}

// privileged lists the ports that a rule names though they are dangerous, and a few of those,
// of which it counts the kinds, that it holds and does not name.
func privileged(ours *policy.Rule) (named, closed string, kinds int) {
	inside, narrow := whole(ours.Internal)
	outside, narrowOutside := whole(ours.External)
	var names, examples []string
	for _, c := range policy.ClosedPorts() {
		first, last := max(inside.First, c.Ports.First), min(inside.Last, c.Ports.Last)
		of := len(ours.Transports) == 0 || slices.Contains(c.Transports, ours.Transports[0])
		if first > last || !of || c.Tier == policy.Privileged && c.Ports.Last < system.Last { // which that has
			continue
		}
		text := portmap.PortRange{First: first, Last: last}.String()
		if c.Tier == policy.Privileged && narrow {
			names = append(names, text)
			continue
		}
		if kinds++; slices.Contains([]string{"3389", "5900-5909", "8080-8081", "9090"}, text) {
			examples = append(examples, text)
		}
	}
	if outside.First <= system.Last { // of Tier 1 as the external port, too
		text := portmap.PortRange{First: outside.First, Last: min(outside.Last, system.Last)}.String()
		switch {
		case narrowOutside && !slices.Contains(names, text):
			names = append(names, text+" outside")
		case !narrowOutside && inside.First > system.Last:
			kinds++
			examples = append(examples, text+" outside")
		}
	}
	if examples != nil {
		closed = ", " + strings.Join(examples, ", ") + " among them"
	}
	return strings.Join(names, ", "), closed, kinds
}

// system are the ports of which each is in Tier 1, whatever else it is.
var system = portmap.PortRange{First: 1, Last: 1023}

// nameOf returns a name that no rule has.
func (t *translation) nameOf(given string, line int) string {
	given = strings.TrimSpace(printable(given))
	if given == "" {
		what := "line"
		if t.file.Name == usage {
			what = "argument"
		}
		given = fmt.Sprintf("%s %d of miniupnpd", what, line)
	}
	if short := []rune(given); len(short) > 50 {
		given = string(short[:50])
	}
	name := given
	for n := 2; t.names[name]; n++ {
		name = fmt.Sprintf("%s (%d)", given, n)
	}
	t.names[name] = true
	return name
}

// printable has nothing that a terminal would obey.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) && c != unicode.ReplacementChar {
			return c
		}
		return '?'
	}, s)
}
