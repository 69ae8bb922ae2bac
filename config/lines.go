package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library reports the line of a key only inside its own errors, and for
// an array of tables only that of the last one. It does list all keys in the
// order of the text, so the lines are found by a scan of our own that lists
// nothing but the line of each key, in the same order; FuzzKeyLines holds the
// two against each other.
//
// The scan also runs before the library sees the text, because the library
// recurses for each bracket and copies the whole path for each part of a key:
// a megabyte of "{a=" costs it minutes and all memory (measured).
const (
	maxDepth    = 8 // brackets inside brackets; the deepest key of ours needs 2
	maxKeyParts = 8 // a.b.c; the longest key of ours has 2
)

var errTooDeep = errors.New("too deep")

// index holds the line of each key, and of each element of a list. Rules are
// told apart by their number: "rule[0].name", "rule[0].clients#2".
type index map[string]int

// newIndex pairs the library's keys with the lines of the scan.
func newIndex(keys []toml.Key, lines []keyLine) index {
	ix := make(index, len(keys))
	first := func(path string, at keyLine) {
		if _, ok := ix[path]; ok {
			return
		}
		ix[path] = at.line
		for i, line := range at.elements {
			ix[elementPath(path, i)] = line
		}
	}
	rules := 0
	for i, k := range keys {
		if i >= len(lines) {
			break
		}
		first(k[:1].String(), keyLine{line: lines[i].line}) // "lan.interfaces = ..." alone implies a table
		switch {
		case k[0] != ruleTag:
			first(k.String(), lines[i])
		case len(k) == 1:
			rules++
			first(rulePath(rules-1), lines[i])
		default:
			first(rulePath(rules-1)+"."+k[1:].String(), lines[i])
		}
	}
	return ix
}

// line returns the line of the first of the paths that the file has, else 1.
func (ix index) line(paths ...string) int {
	for _, p := range paths {
		if n, ok := ix[p]; ok {
			return n
		}
	}
	return 1
}

// has reports whether the file has the key.
func (ix index) has(path string) bool {
	_, ok := ix[path]
	return ok
}

func rulePath(i int) string { return fmt.Sprintf("%s[%d]", ruleTag, i) }

func elementPath(path string, i int) string { return fmt.Sprintf("%s#%d", path, i) }

// keyLine is where a key stands, and where the elements of its list do.
type keyLine struct {
	line     int
	elements []int // nil where the value is no list
}

// scanner walks over TOML text. What it lists is right for valid TOML; for any
// other text it only ends without harm, and the library finds the error.
type scanner struct {
	text string
	pos  int
	at   int // line of pos, from 1
	open []bracket
	keys []keyLine
}

type bracket struct {
	kind byte // '[' or '{'
	key  int  // whose list it is, a place in keys; -1: a table, or a list inside a list
}

// inside returns the innermost open bracket, 0 for none.
func (s *scanner) inside() byte {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[len(s.open)-1].kind
}

// keyLines lists the line of each key and table header, in the order of the
// text. errTooDeep comes with the line of the offence as the last one.
func keyLines(text string) ([]keyLine, error) {
	s := &scanner{text: strings.TrimPrefix(text, "\ufeff"), at: 1}
	step := s.key
	for step != nil {
		next, err := step()
		if err != nil {
			return append(s.keys, keyLine{line: s.at}), err
		}
		step = next
	}
	return s.keys, nil
}

// state is a step of the scan; nil ends it.
type state func() (state, error)

// key stands where a statement, or a key of an inline table, may begin.
func (s *scanner) key() (state, error) {
	s.blank()
	switch s.peek() {
	case 0:
		return nil, nil
	case '}':
		return s.after, nil
	case '[':
		if len(s.open) == 0 {
			s.keys = append(s.keys, keyLine{line: s.at})
			return s.key, s.name(']', "[")
		}
	}
	s.keys = append(s.keys, keyLine{line: s.at})
	if err := s.name('=', ""); err != nil {
		return nil, err
	}
	return s.value, nil
}

// name skips a key or a header up to and with its end, or to the end of the
// line where the end is missing.
func (s *scanner) name(end byte, lead string) error {
	for strings.HasPrefix(s.text[s.pos:], lead) && lead != "" {
		s.skip(1)
	}
	for parts := 1; ; {
		switch c := s.peek(); c {
		case 0, '\n':
			return nil
		case '"', '\'':
			s.quoted(c)
			continue
		case '.':
			if parts++; parts > maxKeyParts {
				return errTooDeep
			}
		case end:
			for end == ']' && s.peek() == ']' {
				s.skip(1)
			}
			if end == '=' {
				s.skip(1)
			}
			return nil
		}
		s.skip(1)
	}
}

// value stands before a value.
func (s *scanner) value() (state, error) {
	s.blank()
	c := s.peek()
	if s.inside() == '[' && c != ']' {
		// More elements than that are an error of the whole list.
		if key := s.open[len(s.open)-1].key; key >= 0 && len(s.keys[key].elements) < MaxList {
			s.keys[key].elements = append(s.keys[key].elements, s.at)
		}
	}
	switch c {
	case 0:
		return nil, nil
	case '[', '{':
		return s.begin(c)
	case '"', '\'':
		s.quoted(c)
	default:
		n := strings.IndexAny(s.text[s.pos:], ",]}#\n")
		if n < 0 {
			n = len(s.text) - s.pos
		}
		s.skip(n)
	}
	return s.after, nil
}

// begin opens a list or an inline table.
func (s *scanner) begin(kind byte) (state, error) {
	if len(s.open) == maxDepth {
		return nil, errTooDeep
	}
	b := bracket{kind: kind, key: -1}
	if kind == '[' && s.inside() != '[' {
		b.key = len(s.keys) - 1
	}
	s.open = append(s.open, b)
	s.skip(1)
	if kind == '{' {
		return s.key, nil
	}
	return s.value, nil
}

// after stands behind a value, or before the bracket that closes one.
func (s *scanner) after() (state, error) {
	if len(s.open) == 0 {
		if c := s.peek(); c == ']' || c == '}' || c == ',' {
			s.skip(1) // not TOML; go on somewhere
		}
		return s.key, nil
	}
	s.blank()
	switch s.peek() {
	case 0:
		return nil, nil
	case ',':
		s.skip(1)
		if s.inside() == '{' {
			return s.key, nil
		}
		return s.value, nil
	case ']', '}':
		s.open = s.open[:len(s.open)-1]
	}
	s.skip(1)
	return s.after, nil
}

// quoted skips a string of any of the four kinds; q is its first byte.
func (s *scanner) quoted(q byte) {
	end := string(q)
	if long := strings.Repeat(end, 3); strings.HasPrefix(s.text[s.pos:], long) {
		end = long
	}
	s.skip(len(end))
	for s.pos < len(s.text) {
		switch {
		case q == '"' && s.peek() == '\\':
			s.skip(2)
		case strings.HasPrefix(s.text[s.pos:], end):
			s.skip(len(end))
			// """a""""" holds two quotes of its own at the end.
			for n := 0; len(end) == 3 && n < 2 && s.peek() == q; n++ {
				s.skip(1)
			}
			return
		case len(end) == 1 && s.peek() == '\n':
			return
		default:
			s.skip(1)
		}
	}
}

// blank skips white space, line ends and comments.
func (s *scanner) blank() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.skip(1)
		case '#':
			n := strings.IndexByte(s.text[s.pos:], '\n')
			if n < 0 {
				n = len(s.text) - s.pos
			}
			s.skip(n)
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end (the text has no NUL, see checkText).
func (s *scanner) peek() byte {
	if s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *scanner) skip(n int) {
	n = min(n, len(s.text)-s.pos)
	s.at += strings.Count(s.text[s.pos:s.pos+n], "\n")
	s.pos += n
}
