package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// The file as it is written. These structs are the one list of keys: the
// reader, the writer and the tests of the documents all go by their tags. The
// types in use are string, bool, int64, []string, and pointers for what a rule
// may leave out.
type (
	rawFile struct {
		LAN      rawLAN      `toml:"lan"`
		WAN      rawWAN      `toml:"wan"`
		UPnP     rawUPnP     `toml:"upnp"`
		PCP      rawPCP      `toml:"pcp"`
		Lease    rawLease    `toml:"lease"`
		Limits   rawLimits   `toml:"limits"`
		Policy   rawPolicy   `toml:"policy"`
		Rules    []rawRule   `toml:"rule"`
		Firewall rawFirewall `toml:"firewall"`
		State    rawState    `toml:"state"`
		Control  rawControl  `toml:"control"`
		Metrics  rawMetrics  `toml:"metrics"`
		Log      rawLog      `toml:"log"`
	}
	rawLAN struct {
		Interfaces    []string `toml:"interfaces"`
		ExtraPrefixes []string `toml:"extra_prefixes"`
		Leases        []string `toml:"leases"`
	}
	rawWAN struct {
		Interface      string `toml:"interface"`
		Interface6     string `toml:"interface6"`
		ExternalIP     string `toml:"external_ip"`
		PrivateAddress string `toml:"private_address"`
	}
	rawUPnP struct {
		Enabled      bool   `toml:"enabled"`
		HTTPPort     int64  `toml:"http_port"`
		Events       bool   `toml:"events"`
		FriendlyName string `toml:"friendly_name"`
	}
	rawPCP struct {
		NATPMP bool   `toml:"natpmp"`
		PCP    bool   `toml:"pcp"`
		Nonce  string `toml:"nonce"`
	}
	rawLease struct {
		Max string `toml:"max"`
		Min string `toml:"min"`
	}
	rawLimits struct {
		MappingsPerClient int64 `toml:"mappings_per_client"`
		Mappings          int64 `toml:"mappings"`
		GrantsPerSecond   int64 `toml:"grants_per_second"`
		RequestsPerSecond int64 `toml:"requests_per_second"`
	}
	rawPolicy struct {
		Default     string `toml:"default"`
		SameDevice  bool   `toml:"same_device"`
		UniqueLocal bool   `toml:"unique_local"`
	}
	rawRule struct {
		Name          *string  `toml:"name"`
		Action        *string  `toml:"action"`
		Clients       []string `toml:"clients"`
		ExternalPorts []string `toml:"external_ports"`
		InternalPorts []string `toml:"internal_ports"`
		Protocols     []string `toml:"protocols"`
		Via           []string `toml:"via"`
		Description   *string  `toml:"description"`
		MaxLifetime   *string  `toml:"max_lifetime"`
		MaxMappings   *int64   `toml:"max_mappings"`
	}
	rawFirewall struct {
		Backend      string `toml:"backend"`
		AcceptChain  string `toml:"accept_chain"`
		AcceptChain6 string `toml:"accept_chain6"`
		Mark         string `toml:"mark"`
		KeepOnStop   bool   `toml:"keep_on_stop"`
	}
	rawState struct {
		Dir string `toml:"dir"`
	}
	rawControl struct {
		Socket string `toml:"socket"`
		Group  string `toml:"group"`
	}
	rawMetrics struct {
		Listen string `toml:"listen"`
	}
	rawLog struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	}
)

const ruleTag = "rule"

// keysOf lists the keys of a raw struct, in the order of its fields.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("toml")
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

// file binds the whole document over what raw already holds, the defaults. The
// library's own binding to structs is not used: it takes a key in any case
// ("Interfaces"), stops at the first value of a wrong type, in the random order
// of a map, and names our Go types to the owner.
func (r *reader) file(doc map[string]any, raw *rawFile) {
	rv := reflect.ValueOf(raw).Elem()
	for i, tag := range keysOf(rv.Type()) {
		v, ok := doc[tag]
		if !ok {
			continue
		}
		if tag == ruleTag {
			r.rules(v, raw)
			continue
		}
		table, ok := v.(map[string]any)
		if !ok {
			r.fail(tag, "%q must be a table, and is %s; write it as [%s]", tag, kindOf(v), tag)
			continue
		}
		r.table(tag, "["+tag+"]", table, rv.Field(i))
	}
	r.unknownTop(doc, keysOf(rv.Type()))
	// An owner who wrote [policy] meant to decide something (abuse case C13).
	if t, ok := doc["policy"].(map[string]any); ok && len(t) == 0 {
		r.fail("policy", "[policy] is empty; allowed: default = one of %s, same_device, unique_local, or no [policy] at all", oneOf(actionWords))
	}
}

// maxRules bounds the time of a decision, which walks over the rules.
const maxRules = 1000

func (r *reader) rules(v any, raw *rawFile) {
	tables, ok := v.([]map[string]any)
	if !ok {
		r.fail(ruleTag, "%q is %s; rules are written as [[rule]] tables, one for each rule", ruleTag, kindOf(v))
		return
	}
	if len(tables) > maxRules {
		r.fail(ruleTag, "%d rules; allowed: at most %d", len(tables), maxRules)
		return
	}
	raw.Rules = make([]rawRule, len(tables))
	for i, t := range tables {
		r.table(rulePath(i), "[[rule]]", t, reflect.ValueOf(&raw.Rules[i]).Elem())
	}
}

// table binds one table to its raw struct.
func (r *reader) table(path, shown string, table map[string]any, into reflect.Value) {
	keys := keysOf(into.Type())
	for i, key := range keys {
		v, ok := table[key]
		if !ok {
			continue
		}
		if want := assign(into.Field(i).Addr().Interface(), v); want != "" {
			r.fail(path+"."+key, "%s", want)
		}
	}
	for _, key := range sortedKeys(table) {
		if !slices.Contains(keys, key) {
			r.failLine(r.at.line(path+"."+toml.Key{key}.String(), path),
				fmt.Sprintf("unknown key %s in %s%s; allowed: %s", quote(key), shown, r.elsewhere(key), strings.Join(keys, ", ")))
		}
	}
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
			r.failLine(line, fmt.Sprintf("unknown table %s; allowed: %s", quote(key), strings.Join(tags, ", ")))
		default:
			r.failLine(line, fmt.Sprintf("key %s stands outside every table%s; tables: %s", quote(key), r.elsewhere(key), strings.Join(tags, ", ")))
		}
	}
}

// elsewhere says which tables do have a key of that name.
func (r *reader) elsewhere(key string) string {
	if home, ok := r.home[key]; ok {
		return " (it belongs in " + strings.Join(home, " or ") + ")"
	}
	return ""
}

// homes lists the tables of each key.
func homes() map[string][]string {
	home := make(map[string][]string)
	rt := reflect.TypeFor[rawFile]()
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

// assign stores v, as the library gave it, in a field of a raw struct. It
// returns "" or says what should stand there.
func assign(field, v any) string {
	ok := false
	want := ""
	switch p := field.(type) {
	case *string:
		ok, want = store(p, v), `must be a text in quotes`
	case **string:
		s := new(string)
		if ok, want = store(s, v), `must be a text in quotes`; ok {
			*p = s
		}
	case *bool:
		ok, want = store(p, v), `must be true or false, without quotes`
	case *int64:
		ok, want = store(p, v), `must be a whole number, without quotes`
	case **int64:
		n := new(int64)
		if ok, want = store(n, v), `must be a whole number, without quotes`; ok {
			*p = n
		}
	case *[]string:
		return assignList(p, v)
	}
	if ok {
		return ""
	}
	return want + ", and is " + kindOf(v)
}

// store leaves the field as it is where v has another type: the default does
// no harm, and the zero value could earn a second error.
func store[T any](field *T, v any) bool {
	x, ok := v.(T)
	if ok {
		*field = x
	}
	return ok
}

func assignList(p *[]string, v any) string {
	const want = `must be a list of texts in quotes, like ["a", "b"], and `
	list, ok := v.([]any)
	if !ok {
		return want + "is " + kindOf(v)
	}
	all := make([]string, len(list)) // never nil: an empty list is not a missing one
	for i, e := range list {
		if all[i], ok = e.(string); !ok {
			return want + fmt.Sprintf("element %d is %s", i+1, kindOf(e))
		}
	}
	*p = all
	return ""
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
