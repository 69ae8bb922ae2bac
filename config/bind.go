package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"portcullis/policy"
	"portcullis/portmap"
)

const ruleTag = "rule"

// keyOf returns the key that a field of Config, or of one of its tables, is in
// the file, and whether it has no empty form there, so that it is left out.
func keyOf(f reflect.StructField) (key string, omit bool) {
	key, option, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return key, option == "omitempty"
}

// keysOf lists the keys of a table, in the order of its fields.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _ = keyOf(t.Field(i))
	}
	return keys
}

// reader turns one parsed file into a Config and keeps what is wrong with it.
type reader struct {
	name string
	at   index
	errs Errors
	home map[string][]string // where each key belongs, for people
	bad  map[string]bool     // the keys with an error, and their tables: no further check builds on them
}

// fail keeps an error at the line of path, which is a key, or an element of a
// list, as index has it.
func (r *reader) fail(path, format string, args ...any) {
	key, _, _ := strings.Cut(path, "#")
	table, _, _ := strings.Cut(key, ".")
	r.bad[key], r.bad[table] = true, true
	r.failLine(r.at.line(path, key, table), label(key)+fmt.Sprintf(format, args...))
}

func (r *reader) failLine(line int, text string) {
	r.errs = append(r.errs, &Error{File: r.name, Line: line, Text: text})
}

// label is how an error names a key: "lan.interfaces: ", "rule.clients: ". The
// line already says which rule it is.
func label(path string) string {
	table, key, _ := strings.Cut(path, ".")
	if table, _, isRule := strings.Cut(table, "["); isRule {
		if key == "" {
			return ""
		}
		return table + "." + key + ": "
	}
	if key == "" {
		return ""
	}
	return path + ": "
}

// file binds the whole document over what c already holds, the defaults. The
// library's own binding to structs is not used: it takes a key in any case
// ("Interfaces"), stops at the first value of a wrong type, in the random order
// of a map, and names our Go types to the owner.
func (r *reader) file(doc map[string]any, c *Config) {
	cv := reflect.ValueOf(c).Elem()
	tags := keysOf(cv.Type())
	for i, tag := range tags {
		v, ok := doc[tag]
		if !ok {
			continue
		}
		if tag == ruleTag {
			r.rules(v, c)
			continue
		}
		table, ok := v.(map[string]any)
		if !ok {
			r.fail(tag, "%q must be a table, and is %s; write it as [%s]", tag, kindOf(v), tag)
			continue
		}
		r.table(tag, "["+tag+"]", table, cv.Field(i))
	}
	r.unknownTop(doc, tags)
	// An owner who wrote [policy] meant to decide something (abuse case C13).
	if t, ok := doc["policy"].(map[string]any); ok && len(t) == 0 {
		r.fail("policy", "[policy] is empty; allowed: one or more of %s, or no [policy] at all",
			strings.Join(keysOf(reflect.TypeFor[Policy]()), ", "))
	}
}

// MaxRules bounds the rules of a file, and so the time of a decision, which walks over the rules.
const MaxRules = 1000

func (r *reader) rules(v any, c *Config) {
	tables, ok := v.([]map[string]any)
	if !ok {
		r.fail(ruleTag, "%q is %s; rules are written as [[rule]] tables, one for each rule", ruleTag, kindOf(v))
		return
	}
	if len(tables) > MaxRules {
		r.fail(ruleTag, "%d rules; allowed: at most %d", len(tables), MaxRules)
		return
	}
	c.Rules = make([]policy.Rule, len(tables))
	for i, t := range tables {
		r.table(rulePath(i), "[[rule]]", t, reflect.ValueOf(&c.Rules[i]).Elem())
	}
}

// table binds one table to its struct.
func (r *reader) table(path, shown string, table map[string]any, into reflect.Value) {
	keys := keysOf(into.Type())
	for i, key := range keys {
		if v, ok := table[key]; ok {
			r.value(path+"."+key, into.Type().Field(i), into.Field(i), v)
		}
	}
	for _, key := range sortedKeys(table) {
		if !slices.Contains(keys, key) {
			hint := meant(key, keys, quote)
			if hint == "" {
				hint = r.elsewhere(key)
			}
			r.failLine(r.at.line(path+"."+toml.Key{key}.String(), path),
				fmt.Sprintf("unknown key %s in %s%s; allowed: %s", quote(key), shown, hint, strings.Join(keys, ", ")))
		}
	}
}

// value stores v, as the library gave it, in a field. What cannot be stored
// leaves the default there, which does no harm.
func (r *reader) value(path string, f reflect.StructField, field reflect.Value, v any) {
	switch field.Kind() {
	case reflect.Bool:
		if yes, ok := v.(bool); ok {
			field.SetBool(yes)
			return
		}
		r.fail(path, "must be true or false, without quotes, and is %s", kindOf(v))
	case reflect.Int, reflect.Uint16:
		r.number(path, f.Tag.Get("range"), field, v)
	case reflect.Slice:
		r.list(path, f, field, v)
	default:
		s, ok := v.(string)
		if !ok {
			r.fail(path, "must be a string in quotes, and is %s", kindOf(v))
			return
		}
		if _, omit := keyOf(f); s == "" && !omit && text(field) == "" {
			return
		}
		if err := parse(field.Addr().Interface(), s); err != nil {
			r.refuse(path, s, err)
		}
	}
}

// refuse keeps the error of a text, and asks which word of a closed set was meant.
func (r *reader) refuse(path, s string, err error) {
	if e, ok := err.(*portmap.WordError); ok {
		r.fail(path, "%s is unknown%s; allowed: %s", quote(s), meant(s, e.Allowed, quote), oneOf(e.Allowed))
		return
	}
	r.fail(path, "%s %v", quote(s), err)
}

// number stores a number of a range such as "1-65535".
func (r *reader) number(path, within string, field reflect.Value, v any) {
	n, ok := v.(int64)
	if !ok {
		r.fail(path, "must be a whole number, without quotes, and is %s", kindOf(v))
		return
	}
	low, high, _ := strings.Cut(within, "-")
	if n < atoi(low) || n > atoi(high) {
		r.fail(path, "%d is out of range; allowed: %s to %s", n, low, high)
		return
	}
	field.Set(reflect.ValueOf(n).Convert(field.Type()))
}

// atoi reads a bound of ours.
func atoi(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("config: a range is not like \"1-65535\": " + err.Error())
	}
	return n
}

// MaxList bounds every list of a file.
const MaxList = 256

// list stores a list of texts. It refuses one that is too long or says the same
// thing twice, and the empty list as a condition of a rule: it could mean "nobody"
// as well as "anybody", and one of the two would let strangers in (abuse case C13).
func (r *reader) list(path string, f reflect.StructField, field reflect.Value, v any) {
	list, why := listOf(v)
	if why == "" && len(list) > MaxList {
		why = fmt.Sprintf("%d elements; allowed: at most %d", len(list), MaxList)
	}
	if _, omit := keyOf(f); why == "" && omit && len(list) == 0 {
		why = "the list is empty; allowed: at least one element; leave the key out to match everything"
	}
	if why != "" {
		r.fail(path, "%s", why)
	}
	if why != "" || len(list) == 0 {
		return
	}
	all := reflect.MakeSlice(field.Type(), len(list), len(list))
	for i, s := range list {
		if slices.Contains(list[:i], s) && f.Tag.Get("repeat") != "yes" {
			r.fail(elementPath(path, i), "%s is listed twice", quote(s))
		}
		if err := parse(all.Index(i).Addr().Interface(), s); err != nil {
			r.refuse(elementPath(path, i), s, err)
		}
	}
	field.Set(all)
}

func listOf(v any) (list []string, why string) {
	const want = `must be a list of texts in quotes, like ["a", "b"], and `
	raw, ok := v.([]any)
	if !ok {
		return nil, want + "is " + kindOf(v)
	}
	for i, e := range raw {
		s, ok := e.(string)
		if !ok {
			return nil, want + fmt.Sprintf("element %d is %s", i+1, kindOf(e))
		}
		list = append(list, s)
	}
	return list, ""
}

// parse stores in what p points to what a text means.
func parse(p any, s string) error {
	switch p := p.(type) {
	case *string:
		*p = s
		return nil
	case *time.Duration:
		return parseDuration(p, s)
	case **regexp.Regexp:
		return parsePattern(p, s)
	}
	return p.(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
}

// unknownTop reports what stands in the file outside the tables we know.
func (r *reader) unknownTop(doc map[string]any, tags []string) {
	for _, key := range sortedKeys(doc) {
		if slices.Contains(tags, key) {
			continue
		}
		line := r.at.line(toml.Key{key}.String())
		switch doc[key].(type) {
		case map[string]any, []map[string]any:
			r.failLine(line, fmt.Sprintf("unknown table %s%s; allowed: %s", quote(key), meant(key, tags, header), strings.Join(tags, ", ")))
		default:
			r.failLine(line, fmt.Sprintf("key %s is outside every table%s; tables: %s", quote(key), r.elsewhere(key), strings.Join(tags, ", ")))
		}
	}
}

// elsewhere returns, for people, which tables do have a key of that name.
func (r *reader) elsewhere(key string) string {
	if home, ok := r.home[key]; ok {
		return " (it belongs in " + strings.Join(home, " or ") + ")"
	}
	return ""
}

// homes lists the tables of each key.
func homes() map[string][]string {
	home := make(map[string][]string)
	rt := reflect.TypeFor[Config]()
	for i, tag := range keysOf(rt) {
		t, shown := rt.Field(i).Type, "["+tag+"]"
		if tag == ruleTag {
			t, shown = t.Elem(), "[[rule]]"
		}
		for _, key := range keysOf(t) {
			home[key] = append(home[key], shown)
		}
	}
	return home
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// kindOf names the type of a value for people.
func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + quote(v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %g", v)
	case bool:
		return fmt.Sprintf("%t", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a date or time"
}
