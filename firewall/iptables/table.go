package iptables

import (
	"bufio"
	"bytes"
	"slices"
	"sort"
	"strconv"
	"strings"

	"portcullis/firewall"
)

// line is a rule as the program saves it.
type line struct {
	counter firewall.Counter
	words   []string // behind "-A CHAIN", quotes taken off
}

func (l line) text() string { return strings.Join(l.words, " ") }

// after gives the word behind an option, "" where there is none.
func (l line) after(option string) string {
	if i := slices.Index(l.words, option); i >= 0 && i+1 < len(l.words) {
		return l.words[i+1]
	}
	return ""
}

// negated says whether an option is turned round by a "!" before it.
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
type place struct{ table, chain string }

// saved is what the program saves.
type saved struct {
	chains map[place][]line
	policy map[place]string
}

// parseSaved reads what iptables-save prints. Lines that it does not understand
// are passed over: they are not ours.
func parseSaved(text []byte) *saved {
	s := &saved{chains: make(map[place][]line), policy: make(map[place]string)}
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
			at := place{table, name}
			s.chains[at] = s.chains[at][:len(s.chains[at]):len(s.chains[at])]
			s.policy[at] = policy
		case strings.HasPrefix(row, "["), strings.HasPrefix(row, "-A "):
			s.rule(table, row)
		}
	}
	return s
}

func (s *saved) rule(table, row string) {
	var l line
	if counters, rest, ok := strings.Cut(row, "] "); ok && row[0] == '[' {
		packets, bytes, _ := strings.Cut(counters[1:], ":")
		l.counter.Packets, _ = strconv.ParseUint(packets, 10, 64)
		l.counter.Bytes, _ = strconv.ParseUint(bytes, 10, 64)
		row = rest
	}
	words := split(row)
	if len(words) < 2 || words[0] != "-A" {
		return
	}
	l.words = words[2:]
	at := place{table, words[1]}
	s.chains[at] = append(s.chains[at], l)
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

// ours gives all rules in our chains as text, without counters, to be compared.
func (s *saved) ours() string { return s.text(ourChain) }

// text gives the rules of some chains.
func (s *saved) text(which func(chain string) bool) string {
	var places []place
	for at := range s.chains {
		if which(at.chain) {
			places = append(places, at)
		}
	}
	sort.Slice(places, func(i, j int) bool { return places[i].table+places[i].chain < places[j].table+places[j].chain })
	var out strings.Builder
	for _, at := range places {
		out.WriteString(at.table + " " + at.chain + "\n")
		for _, l := range s.chains[at] {
			out.WriteString(l.text() + "\n")
		}
	}
	return out.String()
}

// owners says whether there is anything that somebody else wrote: a rule, or a
// policy other than to accept.
func (s *saved) owners() bool {
	for at, lines := range s.chains {
		if p := s.policy[at]; p != "-" && p != "ACCEPT" && p != "" {
			return true
		}
		if ourChain(at.chain) {
			continue
		}
		for _, l := range lines {
			if !ourChain(l.target()) {
				return true
			}
		}
	}
	return false
}

func ourChain(name string) bool { return strings.HasPrefix(name, prefix) }
