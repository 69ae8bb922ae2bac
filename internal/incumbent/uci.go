package incumbent

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portcullis/config"
)

// maxSection bounds what is looked through for each option.
const maxSection = 1 << 15

// These bound a string that goes on in the next line: its bytes and its lines, for each of which
// it is read anew.
const (
	maxString = 1 << 12
	maxLines  = 64
)

// section is one of a UCI file.
type section struct {
	line    int
	kind    string
	name    string    // "": it has none
	options []setting // a list is one
	size    int       // of its lines
}

// settled reports whether it is the one that the second version has in the place of the first
// one's: what that calls config, whatever its type, is called settings here.
func (s *section) settled() bool {
	return s.kind == "settings" || s.kind == "upnpd" && s.name == "settings"
}

// get returns the last value of the first of the names that is set.
func (s *section) get(otherwise string, names ...string) string {
	for _, name := range names {
		if i := s.last(name); i >= 0 {
			return s.options[i].value
		}
	}
	return otherwise
}

// last returns where an option was set last; -1: it was not.
func (s *section) last(name string) int {
	for i, o := range slices.Backward(s.options) {
		if o.name == name {
			return i
		}
	}
	return -1
}

// uci reads the form of OpenWrt's /etc/config, and makes settings and rules of it in the
// order in which its init script writes them for miniupnpd.
func (f *File) uci(lines []string) *Error {
	sections, err := f.sections(lines)
	if err != nil {
		return err
	}
	var before, own, after []rule
	settings := 0 // the line of their section
	for _, s := range sections {
		switch s.kind {
		case "upnpd", "config", "settings":
			if settings > 0 {
				return f.failed(s.line, "there are settings in line %d already, and who reads them takes one section; allowed: one", settings)
			}
			settings = s.line
			f.settings = append(f.settings, s.options...)
		case "perm_rule", "acl_entry":
			r, err := f.permission(&s)
			if err != nil {
				return err
			}
			own = append(own, r...)
		case "internal_network":
			b, a, err := f.network(&s, slices.ContainsFunc(sections, func(s section) bool { return s.settled() }))
			if err != nil {
				return err
			}
			before, after = append(before, b...), append(after, a...)
			if len(before)+len(after) > config.MaxRules {
				return f.failed(s.line, "%s", tooMany)
			}
		default:
			f.settings = append(f.settings, setting{s.line, "config " + s.kind, ""})
		}
	}
	for _, s := range sections {
		if s.settled() && !slices.ContainsFunc(sections, func(s section) bool { return s.kind == "internal_network" }) {
			f.settings = append(f.settings, setting{s.line, "internal_iface", ""}) // it does not start then
		}
	}
	f.rules = append(append(before, own...), after...)
	// In the second version what no rule accepts is rejected, also where there is none.
	if i := slices.IndexFunc(sections, func(s section) bool { return s.settled() || s.kind == "internal_network" || s.kind == "acl_entry" }); i >= 0 {
		every := span{1, 65535}
		f.rules = append(f.rules, rule{line: sections[i].line, external: every, internal: every, name: "reject what no rule accepts"})
	}
	return nil
}

// What libuci takes for a name, and for a section's type. A file with anything else it does not
// read at all, and has no option of, also not the one by which the service is off.
var (
	uciName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	uciType = regexp.MustCompile(`^[!-~]+$`)
)

// sections takes the lines apart as libuci does: sections of one name are one, and so are an
// option's values, of which the last one counts.
func (f *File) sections(lines []string) (all []section, err *Error) {
	named := map[string]int{}
	in := -1
	for i, n := 0, 0; i < len(lines); i += n {
		var text string
		var words []string
		var ok bool
		text, words, n, ok = statement(lines[i:])
		switch {
		case !ok:
			return nil, f.failed(i+1, "%s: a quotation mark is open at the end", shown(text))
		case len(words) == 0 || words[0] == "package" && len(words) == 2 && uciName.MatchString(strings.ReplaceAll(words[1], "-", "_")):
		case words[0] == "config" && (len(words) == 2 || len(words) == 3):
			name := strings.Join(words[2:], "")
			before, known := named[name]
			switch {
			case !uciType.MatchString(words[1]):
				return nil, f.failed(i+1, "%s is no type of a section; allowed: characters of ASCII without blanks", shown(words[1]))
			case name != "" && !uciName.MatchString(name):
				return nil, f.failed(i+1, "%s is no name of a section; allowed: letters, digits and _", shown(name))
			case known && all[before].kind != words[1]:
				return nil, f.failed(i+1, "%s is a section of another type in line %d", shown(name), all[before].line)
			case known:
				in = before
				continue
			}
			all = append(all, section{line: i + 1, kind: words[1], name: name})
			if in = len(all) - 1; name != "" {
				named[name] = in
			}
		case (words[0] == "option" || words[0] == "list") && len(words) == 3 && in >= 0:
			if !uciName.MatchString(words[1]) {
				return nil, f.failed(i+1, "%s is no name of an option; allowed: letters, digits and _", shown(words[1]))
			}
			if wrong := all[in].set(words[0] == "list", setting{i + 1, words[1], words[2]}); wrong != "" {
				return nil, f.failed(i+1, "%s", wrong)
			}
		default:
			return nil, f.failed(i+1, "%s is no line of a UCI file", shown(text))
		}
	}
	return all, nil
}

// set gives an option a value, or adds one to a list, which is one value for a script.
func (s *section) set(list bool, to setting) (wrong string) {
	if s.size += len(to.name) + len(to.value) + len("option  "); s.size > maxSection {
		return fmt.Sprintf("the section has more than %d bytes", maxSection)
	}
	switch last := s.last(to.name); {
	case last < 0:
		s.options = append(s.options, to)
	case list:
		s.options[last].value += " " + to.value
	default:
		s.options[last] = to
	}
	return ""
}

// begins is how a line begins that no string is meant to have: in the line before it, a
// quotation mark is missing.
var begins = regexp.MustCompile(`^\s*(config|option|list)\s`)

// statement takes the first of some lines apart, and with it those into which a string of it
// goes on. ok is false where a string does not end, or is too long.
func statement(lines []string) (text string, words []string, n int, ok bool) {
	for n = 1; ; n++ {
		text = strings.Join(lines[:n], "\n")
		words, ok = uciWords(text)
		if ok || n == min(len(lines), maxLines) || len(text) > maxString || begins.MatchString(lines[n]) {
			return text, words, n, ok
		}
	}
}

// uciWords takes a line of a UCI file apart: words, which quotation marks of two kinds keep
// together, before a comment. Two statements in a line, which a semicolon parts, nobody writes:
// that is a word of its own, so that they are no line.
func uciWords(line string) (words []string, ok bool) {
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			in = true
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t' || c == ';':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
			if c == ';' {
				words = append(words, ";")
			}
		case c == '#' && !in:
			return words, true
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, quote == 0
}

// permission reads a rule of the owner's: perm_rule, or acl_entry of the second version.
func (f *File) permission(s *section) ([]rule, *Error) {
	r := rule{line: s.line, name: s.get("", "comment")}
	switch action := s.get("deny", "action"); action {
	case "allow", "accept":
		r.allow = true
	case "deny", "reject":
	case "ignore":
		return nil, nil
	default:
		return nil, f.failed(s.line, "%s is no action; allowed: allow, deny", shown(action))
	}
	var why string
	if r.external, why = portsOf(s.get("0-65535", "ext_ports", "ext_port")); why != "" {
		return nil, f.failed(s.line, "%s", why)
	}
	if r.internal, why = portsOf(s.get("0-65535", "int_ports", "int_port")); why != "" {
		return nil, f.failed(s.line, "%s", why)
	}
	if r.address, why = addressOf(s.get("0.0.0.0/0", "int_addr")); why != "" {
		return nil, f.failed(s.line, "%s", why)
	}
	r.text = s.get("", "descr_filter")
	return []rule{r}, nil
}

// presets are the ports that the second version's words open.
var presets = map[string]string{
	"accept-high-ports":         "1024-65535",
	"accept-high-ports+web":     "1024-65535 80 443",
	"accept-web+high-ports":     "1024-65535 80 443",
	"accept-high-ports+web+dns": "1024-65535 80 443 53 853",
	"accept-web-ports":          "80 443",
	"accept-all-ports":          "1-65535",
}

// network reads internal_network of the second version: a LAN, and which ports it may open.
// Its rules stand before those of the owner, and in part behind them. Later drafts, which have
// settings and drop "acl_" from the names, open nothing by themselves and ask the owner's rules
// first.
func (f *File) network(s *section, settled bool) (before, after []rule, err *Error) {
	name := s.get("", "interface")
	if name == "" {
		return nil, nil, f.failed(s.line, "an internal_network without its interface")
	}
	f.settings = append(f.settings, setting{s.line, "internal_iface", name})
	later := settled && s.get("", "acl_preset", "acl_accept_ports", "acl_reject_ports", "acl_custom_first") == ""
	preset, last := "accept-high-ports", s.get("0", "acl_custom_first") == "1"
	if later {
		preset, last = "none", s.get("0", "ignore_acl") == "0"
	}
	preset = s.get(preset, "acl_preset", "access_preset", "access")
	rules := func(allow bool, words string) (all []rule) {
		for _, word := range strings.Fields(words) {
			if len(all) > config.MaxRules {
				break
			}
			ports, why := portsOf(word)
			if why != "" {
				err = f.failed(s.line, "%s", why)
			}
			verb := "reject "
			if allow {
				verb = "accept "
			}
			all = append(all, rule{line: s.line, allow: allow, external: ports, internal: ports, network: name, name: verb + word + " on " + name})
		}
		return all
	}
	before = rules(false, s.get("21 23 135 137-139 445 3389", "acl_reject_ports", "reject_ports"))
	open := rules(true, presets[preset]+" "+s.get("", "acl_accept_ports", "accept_ports"))
	if last {
		return before, open, err
	}
	before = append(before, open...)
	if preset != "none" || later {
		before = append(before, rules(false, "1-65535")...)
	}
	return before, nil, err
}

// portsOf reads "x", "x-y" or "x:y".
func portsOf(word string) (p span, why string) {
	first, last, ranged := strings.Cut(strings.Replace(word, ":", "-", 1), "-")
	if !ranged {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || b < a {
		return p, shown(word) + " is not a port or a range of ports from 0 to 65535"
	}
	return span{uint16(a), uint16(b)}, ""
}
