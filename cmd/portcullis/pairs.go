package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// pairs are two columns, of which the second begins at one place in all rows.
type pairs [][2]string

// add adds a row.
func (c *pairs) add(first, format string, args ...any) {
	*c = append(*c, [2]string{first, fmt.Sprintf(format, args...)})
}

// print writes all rows.
func (c pairs) print(out io.Writer) error {
	width := 0
	for _, row := range c {
		width = max(width, utf8.RuneCountInString(row[0]))
	}
	var text strings.Builder
	for _, row := range c {
		fmt.Fprintf(&text, "%-*s  %s\n", width, row[0], row[1])
	}
	_, err := io.WriteString(out, text.String())
	return err
}
