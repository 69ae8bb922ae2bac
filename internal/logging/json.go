package logging

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// EscapeJSON returns the same JSON, without indentation by tabs, for a terminal: what is no
// graphic character is escaped. The encoder leaves as they are the controls from U+007F up,
// of which U+009B begins what a terminal obeys, and those that turn the letters around, which
// devices can write into their descriptions.
func EscapeJSON(text []byte) []byte {
	if bytes.IndexFunc(text, obeyed) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+len(`\u009b`))
	for _, r := range string(text) {
		if !obeyed(r) {
			out = append(out, string(r)...)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

func obeyed(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }

// escaping writes JSON, a whole value at a time, as EscapeJSON has it.
type escaping struct{ w io.Writer }

func (e escaping) Write(line []byte) (int, error) {
	if _, err := e.w.Write(EscapeJSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
