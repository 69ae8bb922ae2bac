package journal

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// scanner walks over the words of a line. Its first error sticks, and what it
// returns after that is of no meaning.
type scanner struct {
	rest string
	bad  bool
}

// until returns what comes before the next sep, which is consumed.
func (s *scanner) until(sep byte) string {
	i := strings.IndexByte(s.rest, sep)
	if i < 0 {
		s.bad = true
		return ""
	}
	word := s.rest[:i]
	s.rest = s.rest[i+1:]
	return word
}

// word returns the next word, "" at the end.
func (s *scanner) word() string {
	word, rest, _ := strings.Cut(s.rest, " ")
	s.rest = rest
	return word
}

// has reports whether the field comes next.
func (s *scanner) has(key string) bool {
	return strings.HasPrefix(s.rest, key) && strings.HasPrefix(s.rest[len(key):], "=")
}

// field returns the value of the field that must come next.
func (s *scanner) field(key string) string {
	if !s.has(key) {
		s.bad = true
		return ""
	}
	return s.word()[len(key)+1:]
}

// quoted returns the value of a quoted field, "" where it does not come next.
func (s *scanner) quoted(key string) string {
	if !s.has(key) {
		return ""
	}
	quote, err := strconv.QuotedPrefix(s.rest[len(key)+1:])
	text, err2 := strconv.Unquote(quote)
	if err != nil || err2 != nil {
		s.bad = true
		return ""
	}
	s.rest = strings.TrimPrefix(s.rest[len(key)+1+len(quote):], " ")
	return text
}

func (s *scanner) number(word string) uint64 { return s.bounded(word, 1<<64-1) }

func (s *scanner) bounded(word string, most uint64) uint64 {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil || n > most {
		s.bad = true
		return 0
	}
	return n
}

// time reads seconds with three decimals.
func (s *scanner) time(word string) int64 {
	t, err := strconv.ParseInt(strings.Replace(word, ".", "", 1), 10, 64)
	s.bad = s.bad || err != nil || t < -longest || t > longest
	return t
}

func (s *scanner) wall(word string) int64 {
	t, err := time.Parse(wallForm, word)
	if err != nil || t.Year() > 9999 {
		s.bad = true
		return 0
	}
	return t.UnixMilli()
}

func (s *scanner) addr(word string) netip.Addr {
	a, err := netip.ParseAddr(word)
	s.bad = s.bad || err != nil
	return a
}

func (s *scanner) addrPort(word string) netip.AddrPort {
	a, err := netip.ParseAddrPort(word)
	s.bad = s.bad || err != nil
	return a
}
