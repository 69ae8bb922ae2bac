package cmdline

import "strings"

// Complete returns what the last of words can become, with what it means, and whether that
// is the name of a file; the others stand before it. "--option=value" is completed in its
// value, whether a shell takes it for one word or, as bash does, for three.
func Complete(table []Command, before []string, last string) (found []Word, files bool) {
	if last == "=" {
		last = ""
	} else if n := len(before); n > 0 && before[n-1] == "=" {
		before = before[:n-1]
	}
	if n := len(before); n > 0 && len(before[n-1]) > 1 && before[n-1][0] == '-' {
		if o := anyOption(table, nameOf(before[n-1])); o != nil && o.Arg != "" {
			return ofValue(o.Arg, "", last)
		}
	}
	if given, value, attached := strings.Cut(last, "="); attached && len(given) > 1 && given[0] == '-' {
		if o := anyOption(table, nameOf(given)); o != nil {
			return ofValue(o.Arg, given+"=", value)
		}
		return nil, false
	}
	s := scan(table, before)
	c := find(table, s.command)
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
			files = files || strings.Trim(next, "[].") == "FILE"
		}
	}
	return begun(found, last), files
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

// ofValue returns the words that a value may be, behind what stands before it.
func ofValue(arg, prefix, value string) (found []Word, files bool) {
	for _, w := range words(arg) {
		found = append(found, Word{prefix + w, ""})
	}
	return begun(found, prefix+value), arg == "FILE"
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
