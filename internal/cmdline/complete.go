package cmdline

import "strings"

// Place is where a word stands that can become what the table does not list.
type Place struct {
	Values  []string          // which values it may be, by their words in the table: FILE, ID
	Command string            // "" where there is none yet
	Args    []string          // of it, before that word
	Given   map[string]string // options before it, with their values

	typed, attached string // what there is of the word; the option in it, with its "="
}

// Fit returns those of the words that it can become.
func (at *Place) Fit(list []Word) []Word {
	for i := range list {
		list[i].Text = at.attached + list[i].Text
	}
	return begun(list, at.typed)
}

// Complete returns what the last of words can become, with what it means, and which values
// could stand there; the others stand before it. "--option=value" is completed in its
// value, whether a shell takes it for one word or, as bash does, for three.
func Complete(table []Command, before []string, last string) (found []Word, at Place) {
	if last == "=" {
		last = ""
	} else if n := len(before); n > 0 && before[n-1] == "=" {
		before = before[:n-1]
	}
	before = joined(before)
	s := scan(table, before)
	c := find(table, s.command)
	at = Place{Command: s.command, Args: s.args, Given: s.given, typed: last}
	if n := len(before); n > 0 && len(before[n-1]) > 1 && before[n-1][0] == '-' {
		if o := optionOf(table, c, before[n-1]); o != nil && o.Arg != "" {
			found = at.value(o.Arg)
			return found, at
		}
	}
	if given, _, attached := strings.Cut(last, "="); attached && len(given) > 1 && given[0] == '-' {
		if o := optionOf(table, c, given); o != nil {
			at.attached = given + "="
			found = at.value(o.Arg)
			return found, at
		}
		return nil, at
	}
	switch {
	case strings.HasPrefix(last, "-"):
		for i := range table {
			if c == nil || &table[i] == c {
				found = append(found, table[i].options(s, found)...)
			}
		}
	case s.command == "", s.command == "help" && len(s.args) == 0:
		for i := range table {
			found = append(found, Word{table[i].Name, table[i].Does})
		}
	case c != nil:
		for _, form := range c.forms() {
			next := argument(arguments(form), len(s.args))
			for _, w := range words(next) {
				found = append(found, Word{w, ""})
			}
			if value := strings.Trim(next, "[]."); value != "" && words(next) == nil {
				at.Values = append(at.Values, value)
			}
		}
	}
	return at.Fit(found), at
}

// optionOf returns the option that is given, of the command where it has that, nil for none.
func optionOf(table []Command, c *Command, given string) *Option {
	if c != nil {
		if o := c.option(nameOf(given)); o != nil {
			return o
		}
	}
	return anyOption(table, nameOf(given))
}

// joined returns words in which bash has taken "--option=value" apart as they were typed.
func joined(words []string) (list []string) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if i+2 < len(words) && words[i+1] == "=" && len(w) > 1 && w[0] == '-' {
			w += "=" + words[i+2]
			i += 2
		}
		list = append(list, w)
	}
	return list
}

// argument returns one of a form's, from 0, of which the last may come again; "" is none.
func argument(all []string, i int) string {
	n := len(all)
	if i >= n && n > 0 && strings.HasSuffix(strings.TrimSuffix(all[n-1], "]"), "...") {
		i = n - 1
	}
	if i >= n {
		return ""
	}
	return all[i]
}

// Word is one that a line may have, and what it means.
type Word struct{ Text, Does string }

// options returns those that are not given yet, nor among others.
func (c *Command) options(s *scanned, others []Word) (list []Word) {
	for _, o := range c.Options {
		text, again := "--"+o.Name, false
		for _, other := range others {
			again = again || other.Text == text
		}
		if _, given := s.given[o.Name]; !given && !again {
			list = append(list, Word{text, o.Does})
		}
	}
	return list
}

// value returns the words that an option's value may be, or sets which it is.
func (at *Place) value(arg string) (found []Word) {
	for _, w := range words(arg) {
		found = append(found, Word{w, ""})
	}
	if found == nil {
		at.Values = []string{arg}
	}
	return at.Fit(found)
}

func begun(list []Word, last string) (fit []Word) {
	seen := map[string]bool{}
	for _, w := range list {
		if strings.HasPrefix(w.Text, last) && !seen[w.Text] {
			seen[w.Text] = true
			fit = append(fit, w)
		}
	}
	return fit
}
