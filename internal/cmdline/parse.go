package cmdline

import (
	"fmt"
	"math"
	"strings"

	"portcullis/internal/nearest"
)

// Error is what is wrong with a call, in one line.
type Error struct {
	Command *Command // nil: it is not known which was meant
	Text    string
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Text }

// Usagef returns an Error for a command whose arguments have the right number and are
// wrong. Parse's caller knows the command.
func Usagef(format string, values ...any) error { return &Error{nil, fmt.Sprintf(format, values...)} }

// Parse returns the command that args call, and with what; Out and Err of the Call are the
// caller's to set. With -h or --help anywhere that is the command "help", whatever else is
// wrong; -V and --version in place of a command are "version". Every error is an *Error.
func Parse(table []Command, args []string) (*Command, *Call, error) {
	s := scan(table, args)
	if s.help {
		s = &scanned{command: "help", args: s.helped()}
	}
	if s.command == "" {
		return nil, nil, s.noCommand(table)
	}
	c := find(table, s.command)
	if c == nil {
		return nil, nil, unknown(table, s.command)
	}
	if err := c.check(table, s); err != nil {
		return nil, nil, err
	}
	if c.Name == "help" && len(s.args) > 0 && find(table, s.args[0]) == nil {
		return nil, nil, unknown(table, s.args[0])
	}
	return c, &Call{Args: s.args, Given: s.given}, nil
}

func unknown(table []Command, name string) error {
	return &Error{nil, fmt.Sprintf("there is no command %.40q", name) + meant(name, names(table), "")}
}

// meant returns the part of a sentence that names the nearest word, if there is one.
func meant(word string, words []string, before string) string {
	if near := nearest.Of(word, words); near != "" {
		return "; did you mean " + before + near + "?"
	}
	return ""
}

// scanned is a command line taken apart, before anything is known of the command.
type scanned struct {
	command string
	args    []string
	given   map[string]string
	order   []string // the options with their dashes, as given
	help    bool
	err     error // the first thing that is wrong whatever the command is
}

// scan takes a line apart. Which options have a value is the same in all commands, or an
// option could not stand before its command.
func scan(table []Command, args []string) *scanned {
	s := &scanned{given: map[string]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			for _, rest := range args[i+1:] {
				s.word(rest)
			}
			return s
		case arg == "-h", arg == "-help", arg == "--help":
			s.help = true
		case s.command == "" && (arg == "-V" || arg == "-version" || arg == "--version"):
			s.command = "version"
		case len(arg) < 2 || arg[0] != '-':
			s.word(arg)
		default:
			if s.option(table, arg, args[i+1:]) {
				i++
			}
		}
	}
	return s
}

// helped returns the command that help was asked for, if one was named.
func (s *scanned) helped() []string {
	switch {
	case s.command == "help" && len(s.args) > 0:
		return s.args[:1]
	case s.command == "help" || s.command == "":
		return nil
	}
	return []string{s.command}
}

func (s *scanned) noCommand(table []Command) error {
	for _, given := range s.order {
		if anyOption(table, nameOf(given)) == nil {
			return &Error{nil, fmt.Sprintf("there is no option %.40q", given)}
		}
	}
	if s.err != nil {
		return s.err
	}
	return &Error{nil, "a command is missing"}
}

// word takes what is no option.
func (s *scanned) word(w string) {
	switch {
	case s.command != "":
		s.args = append(s.args, w)
	case w == "":
		s.fail("a command is missing")
	default:
		s.command = w
	}
}

// option takes an option, and reports whether its value is the next word. One dash does as
// well as two.
func (s *scanned) option(table []Command, arg string, next []string) (took bool) {
	arg, value, attached := strings.Cut(arg, "=")
	name := nameOf(arg)
	known := anyOption(table, name)
	_, again := s.given[name]
	s.order = append(s.order, arg)
	s.given[name] = value
	if known == nil {
		return false
	}
	switch {
	case known.Arg == "" && attached:
		s.fail("--%s takes no value", name)
	case known.Arg == "":
	case again:
		s.fail("--%s is given twice", name)
	case !attached && len(next) > 0 && next[0] != "" && !looksLikeOption(next[0]):
		s.given[name] = next[0]
		return true
	case value == "":
		s.fail("--%s needs a value: --%s %s", name, name, known.Arg)
	}
	return false
}

// nameOf returns the name of an option that begins with one dash or two.
func nameOf(given string) string { return strings.TrimPrefix(given[1:], "-") }

// looksLikeOption reports whether a word is more probably an option than the value of one.
// Such a value can be attached with "=".
func looksLikeOption(word string) bool { return len(word) > 1 && word[0] == '-' }

func (s *scanned) fail(format string, values ...any) {
	if s.err == nil {
		s.err = &Error{nil, fmt.Sprintf(format, values...)}
	}
}

// anyOption returns an option of that name, of whatever command has it.
func anyOption(table []Command, name string) *Option {
	for i := range table {
		if o := table[i].option(name); o != nil {
			return o
		}
	}
	return nil
}

// check holds a line against the row of its command.
func (c *Command) check(table []Command, s *scanned) error {
	for _, given := range s.order {
		name := nameOf(given)
		o := c.option(name)
		if o == nil {
			return &Error{c, c.noOption(table, given)}
		}
		if one := words(o.Arg); one != nil {
			if text := oneOf(s.given[name], one); s.given[name] != "" && text != "" {
				return &Error{c, "--" + name + ": " + text}
			}
		}
	}
	if s.err != nil {
		return &Error{c, s.err.Error()}
	}
	if text := c.misfit(s.args); text != "" {
		return &Error{c, text}
	}
	return nil
}

func (c *Command) noOption(table []Command, given string) string {
	own := make([]string, len(c.Options))
	for i, o := range c.Options {
		own[i] = o.Name
	}
	near := meant(nameOf(given), own, "--")
	if near == "" && anyOption(table, nameOf(given)) != nil {
		return c.Name + " has no option " + given
	}
	return fmt.Sprintf("there is no option %.40q", given) + near
}

// misfit returns what is wrong with the arguments, "" where nothing is: their number, and
// where there is one form alone its fixed words.
func (c *Command) misfit(args []string) string {
	least, most, missing := math.MaxInt, 0, ""
	for _, form := range c.forms() {
		all := arguments(form)
		needed := 0
		for _, w := range all {
			if !strings.HasPrefix(w, "[") {
				needed++
			}
		}
		if needed < least {
			least = needed
			if len(args) < needed {
				missing = all[len(args)]
			}
		}
		if most = max(most, len(all)); strings.HasSuffix(strings.TrimSuffix(form, "]"), "...") {
			most = math.MaxInt
		}
	}
	switch {
	case len(args) < least:
		return strings.TrimRight(missing, ".") + " is missing"
	case most == 0 && len(args) > 0:
		return fmt.Sprintf("%s takes no arguments, and here is %.40q", c.Name, args[0])
	case len(args) > most:
		return fmt.Sprintf("%.40q is too much", args[most])
	case len(c.forms()) > 1:
		return ""
	}
	for i, w := range arguments(c.forms()[0]) {
		if one := words(w); one != nil && i < len(args) {
			if text := oneOf(args[i], one); text != "" {
				return text
			}
		}
	}
	return ""
}

// oneOf returns what is wrong with a word that has to be one of several, "" where it is.
func oneOf(word string, allowed []string) string {
	for _, a := range allowed {
		if word == a {
			return ""
		}
	}
	return fmt.Sprintf("%.40q is not %s", word, list(allowed, " or ")) + meant(word, allowed, "")
}
