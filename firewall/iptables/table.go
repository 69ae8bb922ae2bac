package iptables

import (
	"bufio"
	"bytes"
	"slices"
	"strings"
)

// line is a rule as the program saves it.
type line struct {
	words []string // behind "-A CHAIN", quotes taken off
}

func (l line) text() string { return strings.Join(l.words, " ") }

// after returns the word behind an option, "" where there is none.
func (l line) after(option string) string {
	if i := slices.Index(l.words, option); i >= 0 && i+1 < len(l.words) {
		return l.words[i+1]
	}
	return ""
}

// negated reports whether an option is turned round by a "!" before it.
func (l line) negated(option string) bool {
	i := slices.Index(l.words, option)
	return i > 0 && l.words[i-1] == "!"
}

func (l line) target() string {
	if t := l.after("-j"); t != "" {
		return t
	}
	return l.after("-g")
}

// place names a chain of a table.
type chainKey struct{ table, chain string }

// saved is what the program saves.
type saved struct {
	chains map[chainKey][]line
	policy map[chainKey]string
}

// parseSaved reads what iptables-save prints. Lines that it does not understand
// are passed over: they are not ours.
func parseSaved(text []byte) *saved {
	s := &saved{chains: make(map[chainKey][]line), policy: make(map[chainKey]string)}
	table := ""
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		row := scan.Text()
		switch {
		case strings.HasPrefix(row, "*"):
			table = row[1:]
		case strings.HasPrefix(row, ":"):
			name, rest, _ := strings.Cut(row[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			at := chainKey{table, name}
			s.chains[at] = s.chains[at][:len(s.chains[at]):len(s.chains[at])]
			s.policy[at] = policy
		case strings.HasPrefix(row, "-A "):
			s.rule(table, row)
		}
	}
	return s
}

func (s *saved) rule(table, row string) {
	if words := split(row); len(words) > 1 {
		at := chainKey{table, words[1]}
		s.chains[at] = append(s.chains[at], line{words[2:]})
	}
}

// split takes a row apart at its spaces; what is in quotes is one word.
func split(row string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for i := 0; i < len(row); i++ {
		switch c := row[i]; {
		case c == '\\' && quoted && i+1 < len(row):
			i++
			word.WriteByte(row[i])
		case c == '"':
			quoted, any = !quoted, true
		case c == ' ' && !quoted:
			if any || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteByte(c)
		}
	}
	if any || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// owners reports whether there is anything that somebody else wrote: a rule, or a
// policy other than to accept.
func (s *saved) owners() bool {
	for at, lines := range s.chains {
		if p := s.policy[at]; p != "-" && p != "ACCEPT" && p != "" {
			return true
		}
		if len(lines) > len(ours(lines))+listed(lines) {
			return true
		}
	}
	return false
}
