package incumbent

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"portcullis/config"
)

// MaxFileSize is how many bytes a file may have.
const MaxFileSize = 1 << 20

// maxLine is where miniupnpd breaks a line of its configuration in two.
const maxLine = 1022

// Kind is what a file is.
type Kind uint8

// The kinds of files.
const (
	Conf   Kind = iota + 1 // miniupnpd.conf
	UCI                    // OpenWrt's /etc/config/upnpd
	Leases                 // what miniupnpd writes down of its mappings, of either family
)

// File is one that was read.
type File struct {
	Name     string
	Kind     Kind
	settings []setting
	rules    []rule
	leases   []lease
	notes    []Note // of the command line
}

// setting gives an option a value. The name is the file's own.
type setting struct {
	line        int
	name, value string
}

// Error is what keeps a file from being read.
type Error struct {
	File string
	Line int // from 1
	Text string
}

// Error returns "file:line: text".
func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// The first line that is no comment shows what a file is.
var (
	leaseLine = regexp.MustCompile(`^(TCP|UDP)[:;]`)
	uciLine   = regexp.MustCompile(`^\s*(package|config)\s+\S`)
	confLine  = regexp.MustCompile(`^\s*([a-z0-9_]+\s*=|allow|deny)`)
)

// Read takes a file apart; the name is for errors and notes. An error is an *Error.
func Read(name string, data []byte) (File, error) {
	f := File{Name: name}
	if len(data) > MaxFileSize {
		return f, &Error{name, 1, fmt.Sprintf("the file is too large; allowed: at most %d bytes", MaxFileSize)}
	}
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t\r\v\f")
		if line := strings.TrimLeft(line, " \t"); f.Kind == 0 && line != "" && line[0] != '#' {
			f.Kind = kindOf(line)
			if f.Kind == 0 {
				return f, &Error{name, i + 1, "this is no miniupnpd.conf, no /etc/config/upnpd of OpenWrt and no lease file of miniupnpd"}
			}
		}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return f, &Error{name, 1 + bytes.Count(data[:i], []byte("\n")), "a NUL byte; allowed: text"}
	}
	var err *Error
	switch f.Kind {
	case Conf:
		err = f.conf(lines)
	case UCI:
		err = f.uci(lines)
	case Leases:
		f.leaseLines(lines)
	default:
		err = &Error{name, 1, "the file has nothing but comments"}
	}
	if err == nil && len(f.rules) > maxRules {
		err = f.failed(f.rules[maxRules].line, "%s", tooMany)
	}
	if err != nil {
		return f, err
	}
	return f, nil
}

const maxRules = config.MaxRules

var tooMany = fmt.Sprintf("too many rules; allowed: at most %d", config.MaxRules)

func kindOf(line string) Kind {
	switch {
	case leaseLine.MatchString(line):
		return Leases
	case uciLine.MatchString(line):
		return UCI
	case confLine.MatchString(line):
		return Conf
	}
	return 0
}

func (f *File) failed(line int, format string, args ...any) *Error {
	return &Error{f.Name, line, fmt.Sprintf(format, args...)}
}

// conf reads a miniupnpd.conf, as strictly as miniupnpd where a line decides who may what.
func (f *File) conf(lines []string) *Error {
	for i, line := range lines {
		text := strings.TrimLeft(line, " \t")
		switch {
		case text == "" || text[0] == '#':
			continue
		case len(line) > maxLine:
			return f.failed(i+1, "the line has %d bytes, and miniupnpd reads %d at once", len(line), maxLine)
		case len(text) > 6 && (strings.HasPrefix(text, "allow") || strings.HasPrefix(text, "deny")):
			r, why := confRule(text)
			if why != "" {
				return f.failed(i+1, "%s: miniupnpd does not start with such a rule", why)
			}
			r.line = i + 1
			f.rules = append(f.rules, r)
			continue
		case strings.HasPrefix(text, "set_learn_dscp"):
			f.settings = append(f.settings, setting{i + 1, "set_learn_dscp", ""})
			continue
		}
		name, value, found := strings.Cut(text, "=")
		if !found {
			return f.failed(i+1, "%s is neither an option with its value nor a rule", shown(text))
		}
		f.settings = append(f.settings, setting{i + 1, strings.TrimRight(name, " \t"), strings.TrimLeft(value, " \t")})
	}
	return nil
}

// has reports whether an option is set.
func (f *File) has(name string) bool {
	return slices.ContainsFunc(f.settings, func(s setting) bool { return s.name == name && s.value != "" })
}

// is reports whether an option is set to a value.
func (f *File) is(name, value string) bool {
	return slices.Contains(f.values(name), value)
}

func (f *File) values(name string) (all []string) {
	for _, s := range f.settings {
		if s.name == name {
			all = append(all, s.value)
		}
	}
	return all
}

// shown quotes what stands in a file.
func shown(s string) string {
	const most = 60
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	for n := most; ; n-- {
		if utf8.RuneStart(s[n]) || n == 0 {
			return fmt.Sprintf("%q...", s[:n])
		}
	}
}
