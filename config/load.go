package config

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"portcullis/internal/digest"
)

// MaxFileSize is how many bytes a file may have.
const MaxFileSize = 1 << 20

// Load reads and checks the file at path. A missing file is an error that
// satisfies errors.Is(err, fs.ErrNotExist): the caller knows whether it was
// named explicitly or may be replaced by Default. A file that was read but is
// not valid yields Errors, and never a Config.
func Load(path string) (Config, error) {
	c, _, _, err := load(path)
	return c, err
}

// Sum is the SHA-256 of a file's octets, by which two readings of it are compared.
type Sum [digest.Size]byte

// String returns it in hexadecimal digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// LoadSum is Load, and returns the Sum of what was read, also where that is not valid.
func LoadSum(path string) (Config, Sum, error) {
	c, _, sum, err := load(path)
	return c, sum, err
}

// LoadLines is Load, and returns where the keys stand.
func LoadLines(path string) (Config, Lines, error) {
	c, lines, _, err := load(path)
	return c, lines, err
}

// LoadAll is LoadSum and LoadLines, of one reading.
func LoadAll(path string) (Config, Lines, Sum, error) { return load(path) }

func load(path string) (c Config, lines Lines, sum Sum, err error) {
	data, mode, err := ReadFile(path, MaxFileSize)
	if err != nil {
		return c, lines, sum, fmt.Errorf("config: %w", err)
	}
	sum = digest.Sum(data)
	// What a lost power supply leaves of a file must not pass for a file
	// without rules (abuse case C13). A device such as /dev/null is meant.
	if mode.IsRegular() && len(bytes.TrimSpace(data)) == 0 {
		return c, lines, sum, Errors{{File: path, Line: 1, Text: "the file is empty; allowed: at least a comment, or no file at all for the defaults"}}
	}
	c, lines, err = ParseLines(path, data)
	return c, lines, sum, err
}

// Lines knows where the keys of a file stand; the zero value of none.
type Lines struct{ at index }

// Of returns the line of an element of a list, from 0, at a key such as
// "lan.interfaces", or of the key where it has no such element. It is 0 where the file
// does not have the key.
func (l Lines) Of(key string, element int) int {
	for _, path := range []string{elementPath(key, element), key} {
		if l.at.has(path) {
			return l.at.line(path)
		}
	}
	return 0
}

// Rule returns the same for a key of a rule, from 0; "" stands for the rule itself.
func (l Lines) Rule(i int, key string, element int) int {
	if key == "" {
		return l.Of(rulePath(i), 0)
	}
	return l.Of(rulePath(i)+"."+key, element)
}

// Parse checks the text of a file; name stands in the errors. What the text
// leaves out has the value of Default. Every error is one of Errors, all of
// them together, by line.
func Parse(name string, data []byte) (Config, error) {
	c, _, err := ParseLines(name, data)
	return c, err
}

// ParseLines is Parse, and returns where the keys stand.
func ParseLines(name string, data []byte) (Config, Lines, error) {
	r := &reader{name: name, home: homes(), bad: make(map[string]bool)}
	doc := r.decode(data)
	if len(r.errs) > 0 {
		return Config{}, Lines{}, r.errs
	}
	c := Default()
	r.file(doc, &c)
	r.together(&c)
	if len(r.errs) > 0 {
		return Config{}, Lines{}, r.sorted()
	}
	return c, Lines{r.at}, nil
}

// sorted returns the errors by line, and not more than a person reads.
func (r *reader) sorted() Errors {
	sort.SliceStable(r.errs, func(i, j int) bool { return r.errs[i].Line < r.errs[j].Line })
	if more := len(r.errs) - maxErrors; more > 0 {
		last := r.errs[maxErrors]
		last.Text = fmt.Sprintf("%d more errors from here on", more)
		return r.errs[:maxErrors+1]
	}
	return r.errs
}

// decode parses the text as TOML and notes the lines of its keys. The library
// stops at the first error of syntax, so there is at most one.
func (r *reader) decode(data []byte) map[string]any {
	if line, text := checkText(data); text != "" {
		r.failLine(line, text)
		return nil
	}
	text := string(data)
	lines, err := keyLines(text)
	if err != nil {
		r.failLine(lines[len(lines)-1].line, fmt.Sprintf("nested too deeply; allowed: %d brackets inside each other, %d parts in a key", maxDepth, maxKeyParts))
		return nil
	}
	doc := make(map[string]any)
	meta, err := toml.Decode(text, &doc)
	if err != nil {
		line := 1
		var pe toml.ParseError
		msg := err.Error()
		if errors.As(err, &pe) {
			line, msg = max(line, pe.Position.Line), pe.Message
		}
		r.failLine(line, syntax(text, line, msg))
		return nil
	}
	r.at = newIndex(meta.Keys(), lines)
	return doc
}

// checkText refuses what is no text before anything looks at it.
func checkText(data []byte) (line int, text string) {
	if len(data) > MaxFileSize {
		return 1, fmt.Sprintf("the file is too large; allowed: at most %d bytes", MaxFileSize)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 1, "the file is UTF-16; save it as UTF-8"
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return lineOf(data, i), "a NUL byte; allowed: UTF-8 text"
	}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			return lineOf(data, i), fmt.Sprintf("the byte 0x%02x is not UTF-8; allowed: UTF-8 text", data[i])
		}
		i += n
	}
	return 0, ""
}

func lineOf(data []byte, i int) int { return 1 + bytes.Count(data[:i], []byte("\n")) }
