package config

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
)

// Adopt returns the configuration of a daemon that runs one and is given another: next has
// the live keys of the new one. live and restart are the keys that differ; "rule" stands for
// all rules.
func Adopt(running, given Config) (next Config, live, restart []string) {
	next = running
	is, want := reflect.ValueOf(&next).Elem(), reflect.ValueOf(given)
	adopt := func(f reflect.StructField, key string, x, y reflect.Value) {
		if f.Tag.Get("live") == "yes" {
			x.Set(y)
			live = append(live, key)
		} else {
			restart = append(restart, key)
		}
	}
	for i, table := range keysOf(is.Type()) {
		x, y := is.Field(i), want.Field(i)
		if table == ruleTag {
			if !bytes.Equal(rules(x), rules(y)) {
				adopt(is.Type().Field(i), ruleTag, x, y)
			}
			continue
		}
		for j, key := range keysOf(x.Type()) {
			if a, b := x.Field(j), y.Field(j); !bytes.Equal(appendValue(nil, a), appendValue(nil, b)) {
				adopt(x.Type().Field(j), table+"."+key, a, b)
			}
		}
	}
	return next, live, restart
}

// rules returns their text.
func rules(v reflect.Value) (b []byte) {
	for i := range v.Len() {
		b = appendTable(b, "", v.Index(i))
	}
	return b
}

// Live reports whether a running daemon takes over a key, "lan.interfaces" or "rule".
func Live(key string) bool {
	table, name, _ := strings.Cut(key, ".")
	c := reflect.TypeFor[Config]()
	i := slices.Index(keysOf(c), table)
	if i < 0 {
		return false
	}
	f := c.Field(i)
	if table != ruleTag {
		j := slices.Index(keysOf(f.Type), name)
		if j < 0 {
			return false
		}
		f = f.Type.Field(j)
	}
	return f.Tag.Get("live") == "yes"
}
