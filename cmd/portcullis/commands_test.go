package main

import (
	"strings"
	"testing"

	"portcullis/internal/cmdline"
)

// TestTable: what every row of the table keeps to.
func TestTable(t *testing.T) {
	t.Parallel()
	type seen struct{ command, arg string }
	options, names := map[string]seen{}, map[string]bool{}
	for _, c := range commands() {
		if names[c.Name] || c.Name != strings.ToLower(c.Name) || c.Run == nil {
			t.Errorf("%q is there twice, has capitals, or runs nothing", c.Name)
		}
		names[c.Name] = true
		if c.Does == "" || strings.HasSuffix(c.Does, ".") || strings.Contains(c.Does, "\n") || len(c.Does) > 70 {
			t.Errorf("%s: %q is not a line of help", c.Name, c.Does)
		}
		for _, o := range c.Options {
			// The parser meets options before it knows the command.
			if before, again := options[o.Name]; again && (before.arg == "") != (o.Arg == "") {
				t.Errorf("--%s has a value in %s or in %s alone", o.Name, before.command, c.Name)
			}
			options[o.Name] = seen{c.Name, o.Arg}
			if o.Does == "" || len(o.Does) > 70 {
				t.Errorf("%s --%s: %q is not a line of help", c.Name, o.Name, o.Does)
			}
		}
		if c.Example == "" {
			continue
		}
		words := strings.Fields(c.Example)
		if got, _, err := cmdline.Parse(commands(), words[1:]); err != nil || got.Name != c.Name || words[0] != cmdline.Program {
			t.Errorf("the example %q of %s calls %v: %v", c.Example, c.Name, got, err)
		}
	}
}
