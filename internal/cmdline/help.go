package cmdline

import (
	"fmt"
	"strings"
)

// Usage returns one line for each form of the command, as the manual has them.
func (c *Command) Usage() []string {
	lines := make([]string, 0, len(c.forms()))
	for _, form := range c.forms() {
		line := []string{Program, c.Name}
		for _, o := range c.Options {
			switch {
			case c.ofForms(o.Name):
			case o.Needed:
				line = append(line, o.String())
			default:
				line = append(line, "["+o.String()+"]")
			}
		}
		if form != "" {
			line = append(line, form)
		}
		lines = append(lines, strings.Join(line, " "))
	}
	return lines
}

// UsageLine returns all forms of the command in one line.
func (c *Command) UsageLine() string {
	all := c.Usage()
	return all[0] + strings.Join(append([]string{""}, c.forms()[1:]...), " | ")
}

// ofForms reports whether an option makes a form of its own.
func (c *Command) ofForms(name string) bool {
	for _, form := range c.forms() {
		for _, w := range strings.Fields(form) {
			if w == "--"+name {
				return true
			}
		}
	}
	return false
}

// String returns the option as it is given.
func (o Option) String() string { return strings.TrimSpace("--" + o.Name + " " + o.Arg) }

// Help returns what "help" prints of one command.
func (c *Command) Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n\n", Program, c.Name, c.Does)
	before := "usage: "
	for _, line := range c.Usage() {
		b.WriteString(before + line + "\n")
		before = "       "
	}
	if len(c.Options) > 0 {
		b.WriteByte('\n')
	}
	width := 0
	for _, o := range c.Options {
		width = max(width, len(o.String()))
	}
	for _, o := range c.Options {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, o, o.Does)
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\nexample: %s\n", c.Example)
	}
	return b.String()
}

// Help returns what "help" prints of all commands.
func Help(table []Command) string {
	width := 0
	for _, name := range names(table) {
		width = max(width, len(name))
	}
	var b strings.Builder
	for i := range table {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, table[i].Name, table[i].Does)
	}
	return fmt.Sprintf("usage: %s COMMAND [OPTION...] [ARGUMENT...]\n\n%s\n"+
		"%[1]s help COMMAND says how one is called; %[1]s(8) says more.\n", Program, &b)
}

// list joins words as a sentence does.
func list(words []string, last string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + last + words[n-1]
	}
	return strings.Join(words, "")
}
