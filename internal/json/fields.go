package json

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// field is one of a struct, or of a struct that is embedded there.
type field struct {
	name      string
	quoted    string
	index     int
	within    []int // the way on from there, of a field that an embedded struct has
	omitEmpty bool
	plain     bool // methodless has it
}

// mostFields is how many bits there are for those that were read.
const mostFields = 64

// known has the fields of the structs that were met, by their types.
var known sync.Map

func fieldsOf(t reflect.Type) []field {
	if got, ok := known.Load(t); ok {
		return got.([]field)
	}
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" && rest == "":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			for _, inner := range fieldsOf(f.Type) {
				inner.within = append([]int{inner.index}, inner.within...)
				inner.index = i
				all = append(all, inner)
			}
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			if rest != "" && rest != "omitempty" { // nobody obeys it
				panic(fmt.Sprintf("json: %s.%s has the option %q", t, f.Name, rest))
			}
			all = append(all, field{name: name, quoted: string(appendString(nil, name, true)), index: i, omitEmpty: rest == "omitempty", plain: plain(f.Type)})
		}
	}
	if len(all) > mostFields {
		panic(fmt.Sprintf("json: %s has more than %d fields", t, mostFields))
	}
	known.Store(t, all)
	return all
}

// plain reports whether a value of t is always there, and has no methods.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return false
	}
	return t.NumMethod() == 0
}
