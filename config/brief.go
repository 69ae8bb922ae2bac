package config

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Brief returns c as a TOML file with those keys alone that differ from the default or have
// comments; Parse makes an equal Config of it. comments stand above their keys,
// "lan.interfaces", or above their rules, "rule[0]"; those of "", and of no such key, above
// everything. Whatever text they have, it stays in comments.
func Brief(c Config, comments map[string][]string) []byte {
	var tables []byte
	used := map[string]bool{"": true}
	above := func(b []byte, key string) []byte {
		used[key] = true
		return appendComments(b, comments[key])
	}
	v, defaults := reflect.ValueOf(c), reflect.ValueOf(Default())
	for i, tag := range keysOf(v.Type()) {
		if tag == ruleTag {
			for j := range v.Field(i).Len() {
				tables = above(append(tables, '\n'), rulePath(j))
				tables = appendTable(tables, "[["+tag+"]]", v.Field(i).Index(j))
			}
			continue
		}
		var keys []byte
		for j, key := range keysOf(v.Field(i).Type()) {
			is := appendValue(nil, v.Field(i).Field(j))
			if path := tag + "." + key; comments[path] != nil || !bytes.Equal(is, appendValue(nil, defaults.Field(i).Field(j))) {
				keys = above(keys, path)
				keys = append(append(append(keys, key+" = "...), is...), '\n')
			}
		}
		if keys != nil {
			tables = append(append(tables, "\n["+tag+"]\n"...), keys...)
		}
	}
	top := appendComments(nil, comments[""])
	for _, key := range slices.Sorted(maps.Keys(comments)) {
		if !used[key] {
			top = appendComments(top, comments[key])
		}
	}
	return append(top, tables...)
}

const commentWidth = 90

// appendComments appends each of the texts, in lines that can be read.
func appendComments(b []byte, texts []string) []byte {
	for _, text := range texts {
		text = strings.Map(func(c rune) rune {
			if unicode.IsPrint(c) && c != utf8.RuneError {
				return c
			}
			return '?'
		}, text)
		line := "#"
		for _, word := range strings.Fields(text) {
			if len(line) > 1 && len(line)+1+len(word) > commentWidth {
				b = append(b, line+"\n"...)
				line = "#  "
			}
			line += " " + word
		}
		b = append(b, line+"\n"...)
	}
	return b
}
