package xml1

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// resolve returns what a piece of a document says: its lines end with LF (XML 1.0 section
// 2.11), and its references are resolved, where there may be any. That is never longer.
// Characters that XML has not are ErrSyntax. raw is UTF-8.
func resolve(raw string, references bool) (string, error) {
	plain := true
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '\r' || c == '&' && references:
			plain = false
		case c < ' ' && c != '\t' && c != '\n', c == 0xEF && noncharacter(raw[i:]):
			return "", ErrSyntax
		}
	}
	if plain {
		return raw, nil
	}
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '\r':
			b.WriteByte('\n')
			if strings.HasPrefix(raw[i+1:], "\n") {
				i++
			}
		case c == '&' && references:
			name, _, ended := strings.Cut(raw[i+1:], ";")
			char, ok := reference(name)
			if !ended || !ok {
				return "", ErrSyntax
			}
			b.WriteRune(char)
			i += len(name) + 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// noncharacter reports whether s begins with U+FFFE or U+FFFF.
func noncharacter(s string) bool {
	return strings.HasPrefix(s, "\uFFFE") || strings.HasPrefix(s, "\uFFFF")
}

// reference returns what a name between "&" and ";" stands for (XML 1.0 sections 4.1 and
// 4.6), and whether it is one of those that need no declaration.
func reference(name string) (rune, bool) {
	switch name {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "apos":
		return '\'', true
	case "quot":
		return '"', true
	}
	digits, numeric := strings.CutPrefix(name, "#")
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 21) // as many bits as a character has
	if !numeric || err != nil {
		return 0, false
	}
	return rune(n), char(rune(n)) // #nosec G115 -- 21 bits
}

// char reports whether XML has a character (section 2.2).
func char(r rune) bool {
	return r >= ' ' && r <= 0xD7FF || r == '\t' || r == '\n' || r == '\r' || r >= 0xE000 && r <= 0xFFFD ||
		r >= 0x10000 && r <= utf8.MaxRune
}

// Escape returns s as text of an element, or a value in quotes: markup, quotes, and what a
// reader would turn into other blanks become references; what XML cannot carry becomes
// U+FFFD. ">" is a reference too, so that no text ends a CDATA section.
func Escape(s string) string {
	var b []byte
	done := 0 // octets of s that b has
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if with := escaped(r, size); with != "" {
			if b == nil {
				b = make([]byte, 0, 2*len(s)+16)
			}
			b = append(append(b, s[done:i]...), with...)
			done = i + size
		}
		i += size
	}
	if done == 0 {
		return s
	}
	return string(append(b, s[done:]...))
}

// escaped returns what is written for a character of size octets, "" for itself.
func escaped(r rune, size int) string {
	switch r {
	case '"':
		return "&#34;" // shorter than &quot;
	case '\'':
		return "&#39;"
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	case '\t':
		return "&#x9;"
	case '\n':
		return "&#xA;"
	case '\r':
		return "&#xD;"
	}
	if !char(r) || r == utf8.RuneError && size == 1 {
		return "\uFFFD"
	}
	return ""
}
