package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"portcullis/internal/nearest"
)

// others are words of other programs and of other parts of the file, and ours.
var others = map[string][]string{
	"permit": {"allow"}, "accept": {"allow"}, "block": {"deny"}, "drop": {"deny"}, "reject": {"deny"},
	"igd": {"upnp"}, "lifetime": {"max_lifetime"},
	"mac": {"clients"}, "ip": {"clients"}, "host": {"clients"}, "device": {"clients"}, "source": {"clients"},
	"port": {"internal_ports", "external_ports"}, "ports": {"internal_ports", "external_ports"},
}

// meant asks whether one of the words was meant, " (did you mean x?)", or is "".
// show writes a word as it stands in the file.
func meant(word string, words []string, show func(string) string) string {
	var found []string
	lower := strings.ToLower(word)
	for _, w := range others[lower] {
		if slices.Contains(words, w) {
			found = append(found, show(w))
		}
	}
	switch {
	case found != nil:
	case slices.Contains(words, lower):
		found = []string{show(lower)}
	default:
		if w := nearest.Of(word, words); w != "" {
			found = []string{show(w)}
		}
	}
	if found == nil {
		return ""
	}
	return " (did you mean " + strings.Join(found, " or ") + "?)"
}

// header is how a table begins in the file.
func header(table string) string {
	if table == ruleTag {
		return "[[" + table + "]]"
	}
	return "[" + table + "]"
}

// foreign are files of another program, which are no TOML.
var foreign = []struct {
	first *regexp.Regexp
	what  string
}{
	{regexp.MustCompile(`(?m)^\s*(ext_ifname|listening_ip|enable_natpmp|enable_upnp|secure_mode)\s*=|^\s*(allow|deny)\s+[0-9]`),
		"this is a miniupnpd.conf; `portcullis import FILE` prints what it becomes here"},
	{regexp.MustCompile(`(?m)^\s*config\s+(upnpd|perm_rule)\b`),
		"this is OpenWrt's /etc/config/upnpd; `portcullis import FILE` prints what it becomes here"},
}

// bare is a line that gives a key a value without quotes, or with typographic ones.
var bare = regexp.MustCompile(`^\s*[\w.-]+\s*=\s*\[?\s*([^\s"'\[\]{},#][^\s"'\]},#]*)`)

// defined is what the library says of a key that stands twice.
var defined = regexp.MustCompile(`^Key '([\w.-]{1,64})' has already been defined`)

// ofValue is how the library complains of a value.
var ofValue = regexp.MustCompile(`^expected value|^[Ii]nvalid (float|integer|datetime)|^expected a top-level item to end .* but got '[^,]'`)

// syntax says what keeps a text from being TOML, of which the library says msg, at a
// line from 1. Where people make the mistake, it says so in their words.
func syntax(text string, line int, msg string) string {
	for _, f := range foreign {
		if f.first.MatchString(text) {
			return f.what
		}
	}
	if m := defined.FindStringSubmatch(msg); m != nil {
		if first := firstLine(text, m[1], line); first > 0 {
			return twice(m[1], first)
		}
	}
	lines := strings.SplitAfterN(text, "\n", line+1)
	if m := bare.FindStringSubmatch(lines[min(line, len(lines))-1]); m != nil && ofValue.MatchString(msg) {
		switch word := m[1]; {
		case slices.Contains([]string{"yes", "no", "on", "off", "true", "false"}, strings.ToLower(word)):
			return word + " is not a value; allowed: true or false, without quotes"
		case strings.ContainsAny(word, "\u201c\u201d\u201e\u2018\u2019"):
			return `typographic quotes; allowed: the plain ones, "..."`
		default:
			word = plain(cut(word, maxQuoted))
			return fmt.Sprintf("%s is not a value; allowed: a text in quotes, like \"%s\", a whole number, true or false", word, word)
		}
	}
	return "not valid TOML: " + plain(msg)
}

// twice says that a table or a key, "lan" or "lan.interfaces", stands twice.
func twice(key string, first int) string {
	table, name, ok := strings.Cut(key, ".")
	if !ok {
		return fmt.Sprintf("the table %s stands on line %d already; allowed: once, with all of its keys", header(table), first)
	}
	return fmt.Sprintf("%s is set on line %d already; allowed: once in %s", quote(name), first, header(table))
}

// firstLine returns where a key stands first, before a line; 0 if that is not known.
func firstLine(text, key string, line int) int {
	parts := strings.SplitAfterN(text, "\n", line)
	before := strings.Join(parts[:len(parts)-1], "")
	lines, err := keyLines(before)
	if err != nil {
		return 0
	}
	var doc map[string]any
	meta, err := toml.Decode(before, &doc)
	if err != nil {
		return 0
	}
	if rules, ok := doc[ruleTag].([]map[string]any); ok {
		if name, ok := strings.CutPrefix(key, ruleTag+"."); ok { // of the last rule
			key = rulePath(len(rules)-1) + "." + name
		}
	}
	ix := newIndex(meta.Keys(), lines)
	if !ix.has(key) {
		return 0
	}
	return ix.line(key)
}
