package cmdline

import (
	"context"
	"io"
	"strings"
)

// Program is what the commands are commands of.
const Program = "portcullis"

// Command is one row of the table: everything that is said of a command, and what it runs.
type Command struct {
	Name string
	Does string // one line, in the imperative, without a full stop

	// Options may be given, in the order in which they are shown.
	Options []Option

	// Forms are the ways to call it: the words behind the options, with a blank between.
	// A word in capitals stands for a value, "tcp|udp" for one of these words, "ID..." for
	// one or more, "[COMMAND]" for one or none, and "--all" for an option without which
	// this form is not meant. None: it has no arguments.
	Forms []string

	Example string // a whole line; "" where the first form says enough

	// Run does it. It gets only what the row allows, with as many arguments as one of the
	// forms has. An error of Usagef is answered with the usage.
	Run func(ctx context.Context, c *Call) error
}

// Option is one that begins with two dashes.
type Option struct {
	Name string // without the dashes
	Arg  string // the word for its value, as in Forms: FILE is a file's name; "": it has none
	Does string // a few words

	Needed bool // it cannot be left out
}

// Call is one command as it was given.
type Call struct {
	Out, Err io.Writer
	Args     []string          // without the command and the options
	Given    map[string]string // options and their values, "" where an option has none
}

// Has reports whether an option was given.
func (c *Call) Has(option string) bool {
	_, given := c.Given[option]
	return given
}

// words returns the words that one in a form allows, nil where it stands for a value.
func words(form string) []string {
	form = strings.Trim(form, "[].")
	if form == "" || form != strings.ToLower(form) {
		return nil
	}
	return strings.Split(form, "|")
}

// arguments returns the words of a form but its options.
func arguments(form string) (list []string) {
	for _, w := range strings.Fields(form) {
		if !strings.HasPrefix(w, "--") {
			list = append(list, w)
		}
	}
	return list
}

// forms returns the ways to call the command, one at least.
func (c *Command) forms() []string {
	if len(c.Forms) == 0 {
		return []string{""}
	}
	return c.Forms
}

func (c *Command) option(name string) *Option {
	for i := range c.Options {
		if c.Options[i].Name == name {
			return &c.Options[i]
		}
	}
	return nil
}

// find returns the command of that name, nil where there is none.
func find(table []Command, name string) *Command {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}

// names returns those of all commands.
func names(table []Command) []string {
	list := make([]string, len(table))
	for i := range table {
		list[i] = table[i].Name
	}
	return list
}
