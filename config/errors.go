package config

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one thing wrong with a file.
type Error struct {
	File string
	Line int    // from 1
	Text string // what is wrong, and what is allowed
}

// Error returns "file:line: text".
func (e *Error) Error() string {
	return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Text
}

// Errors is everything wrong with a file, by line; never empty. Parse and Load
// return it for a file that was read and is not valid.
type Errors []*Error

// Error returns one line for each error.
func (es Errors) Error() string {
	var b strings.Builder
	for i, e := range es {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Unwrap returns the single errors, for errors.As.
func (es Errors) Unwrap() []error {
	all := make([]error, len(es))
	for i, e := range es {
		all[i] = e
	}
	return all
}

const (
	maxErrors = 100 // a garbled file must not fill the log
	maxQuoted = 64  // bytes of a value that are shown
)

// quote shows a value of the file, in quotes, escaped and capped.
func quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.Quote(s)
	}
	return strconv.Quote(cut(s, maxQuoted)) + "..."
}

// cut returns at most n bytes of s, whole characters only.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// plain caps a message of the TOML library, which may repeat parts of the
// file, and takes everything out of it that a terminal would obey.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
	if short := cut(s, 200); short != s {
		return short + "..."
	}
	return s
}

// oneOf lists what is allowed.
func oneOf[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(string(w))
	}
	return strings.Join(quoted, ", ")
}
