package journal

import (
	"strconv"
	"strings"
	"time"
)

// coder writes the fields of a line, or reads them. Each field is named once, for both.
// Reading is lenient, because decodeLine writes again what was read, and refuses a line
// that comes out as another.
type coder struct {
	reading bool
	in      string // what is left to read
	out     []byte // what was written
}

// has reports whether the field is the next to read.
func (c *coder) has(key string) bool {
	return len(c.in) > len(key)+1 && c.in[0] == ' ' && c.in[1:1+len(key)] == key && c.in[1+len(key)] == '='
}

// word writes a field that has no spaces, unless it is empty, or returns what is there.
func (c *coder) word(key, value string) string {
	switch {
	case !c.reading && value != "":
		c.out = append(append(append(append(c.out, ' '), key...), '='), value...)
	case c.reading && !c.has(key):
		return ""
	case c.reading:
		value, _, _ = strings.Cut(c.in[len(key)+2:], " ")
		c.in = c.in[len(key)+2+len(value):]
	}
	return value
}

// field is word for a value that is left out when it is zero.
func field[T comparable](c *coder, key string, v *T, format func(T) string, parse func(string) (T, error)) {
	var zero T
	text := ""
	if !c.reading && *v != zero {
		text = format(*v)
	}
	if text = c.word(key, text); c.reading && text != "" {
		*v, _ = parse(text)
	}
}

// quoted is for text from outside, which so cannot begin a new line or a new field
// (abuse case C12).
func (c *coder) quoted(key string, v *string) {
	switch {
	case !c.reading && *v != "":
		c.out = strconv.AppendQuote(append(append(append(c.out, ' '), key...), '='), *v)
	case c.reading && c.has(key):
		rest := c.in[len(key)+2:]
		if quote, err := strconv.QuotedPrefix(rest); err == nil {
			*v, _ = strconv.Unquote(quote)
			c.in = rest[len(quote):]
		}
	}
}

func (c *coder) flag(key string, v *bool) {
	text := ""
	if *v {
		text = "yes"
	}
	if text = c.word(key, text); c.reading {
		*v = text == "yes"
	}
}

func (c *coder) number(key string, v *uint64) {
	if text := c.word(key, strconv.FormatUint(*v, 10)); c.reading {
		*v, _ = strconv.ParseUint(text, 10, 64)
	}
}

func (c *coder) time(key string, v *int64) {
	if text := c.word(key, timeText(*v)); c.reading {
		*v = parseTime(text)
	}
}

func (c *coder) wall(key string, v *int64) {
	if text := c.word(key, wallText(*v)); c.reading {
		*v = parseWall(text)
	}
}

func (c *coder) lease(l *lease) {
	end := "never"
	if l.end != never {
		end = timeText(l.end)
	}
	if end = c.word("end", end); c.reading {
		if l.end = never; end != "never" {
			l.end = parseTime(end)
		}
	}
	if l.until != 0 || c.has("until") {
		c.wall("until", &l.until)
	}
}

// timeText writes milliseconds as seconds.
func timeText(t int64) string { return string(appendTime(make([]byte, 0, 20), t)) }

func appendTime(b []byte, t int64) []byte {
	if t < 0 {
		b, t = append(b, '-'), -t
	}
	b = append(strconv.AppendInt(b, t/1000, 10), '.')
	rest := t % 1000
	return append(b, byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// parseTime returns 0 for what is no time, or further away than longest.
func parseTime(text string) int64 {
	t, err := strconv.ParseInt(strings.Replace(text, ".", "", 1), 10, 64)
	if err != nil || t < -longest || t > longest {
		return 0
	}
	return t
}

const wallForm = "2006-01-02T15:04:05.000Z"

func wallText(t int64) string { return time.UnixMilli(t).UTC().Format(wallForm) }

func parseWall(text string) int64 {
	t, err := time.Parse(wallForm, text)
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}
