package config

import (
	"reflect"

	"github.com/BurntSushi/toml"
)

// ReadWithin is ReadFile with another patience.
var ReadWithin = readWithin

// Keys lists every key of the file as "table.key", in the order of the structs.
func Keys() []string {
	var all []string
	t := reflect.TypeFor[Config]()
	for i, tag := range keysOf(t) {
		table := t.Field(i).Type
		if tag == ruleTag {
			table = table.Elem()
		}
		for _, key := range keysOf(table) {
			all = append(all, tag+"."+key)
		}
	}
	return all
}

// KeyLines returns the lines of the scan, and whether it gave up.
func KeyLines(text string) ([]int, error) {
	keys, err := keyLines(text)
	lines := make([]int, len(keys))
	for i, k := range keys {
		lines[i] = k.line
	}
	return lines, err
}

// LineOf returns the line of a key or an element as errors have it; ok is false
// where the text is not TOML.
func LineOf(text, path string) (line int, ok bool) {
	r := &reader{bad: make(map[string]bool)}
	if r.decode([]byte(text)); len(r.errs) > 0 {
		return 0, false
	}
	line, ok = r.at[path]
	return line, ok
}

// TOMLKeys returns the keys as the library lists them.
func TOMLKeys(text string) ([]toml.Key, error) {
	var doc map[string]any
	meta, err := toml.Decode(text, &doc)
	return meta.Keys(), err
}
