package incumbent

import (
	"regexp"
	"strings"
)

// pattern returns an extended regular expression of POSIX, which finds in any letter case,
// as one of RE2 that finds the same; ok is false where the two might differ, as they do about
// back references, repeated repetitions and the backslash inside brackets.
func pattern(ere string) (re string, ok bool) {
	const repeats = "*+?{"
	before := byte('(') // what a repetition would repeat
	for i := 0; i < len(ere); i++ {
		c := ere[i]
		switch {
		case c < ' ' || c > '~' || c == '}' || c == '{':
			return "", false
		case c == '\\':
			if i++; i == len(ere) || isWord(ere[i]) || strings.IndexByte("<>`'", ere[i]) >= 0 {
				return "", false
			}
			c = 'a'
		case c == '[':
			n := bracket(ere[i:])
			if n == 0 {
				return "", false
			}
			i, c = i+n-1, 'a'
		case strings.IndexByte(repeats, c) >= 0 && strings.IndexByte(repeats+"(|^$", before) >= 0:
			return "", false
		case (c == ')' || c == '|') && (before == '(' || before == '|'): // an empty branch
			return "", false
		}
		before = c
	}
	if before == '|' || before == '(' {
		return "", false
	}
	re = "(?is)" + ere
	_, err := regexp.Compile(re)
	return re, err == nil
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// bracket returns how long the bracket expression is that a text begins with; 0 where it has
// what RE2 reads otherwise.
func bracket(s string) int {
	i := 1
	if i < len(s) && s[i] == '^' {
		i++
	}
	for first := true; i < len(s); i++ {
		switch {
		case s[i] == ']' && !first:
			return i + 1
		case s[i] == '\\' || s[i] < ' ' || s[i] > '~':
			return 0
		case s[i] == '[':
			end := strings.Index(s[i:], ":]")
			if !strings.HasPrefix(s[i:], "[:") || end < 0 {
				return 0
			}
			i += end + 1
		}
		first = false
	}
	return 0
}
