package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Effective returns c as a TOML file with every key; Parse makes an equal Config
// of it. A rule lacks the conditions that it does not have.
func Effective(c Config) []byte {
	var b []byte
	v := reflect.ValueOf(c)
	for i, tag := range keysOf(v.Type()) {
		if tag != ruleTag {
			b = appendTable(append(b, '\n'), "["+tag+"]", v.Field(i))
			continue
		}
		for j := range v.Field(i).Len() {
			b = appendTable(append(b, '\n'), "[["+tag+"]]", v.Field(i).Index(j))
		}
	}
	return b[1:]
}

func appendTable(b []byte, header string, v reflect.Value) []byte {
	b = append(b, header+"\n"...)
	for i := range v.NumField() {
		key, omit := keyOf(v.Type().Field(i))
		if omit && v.Field(i).IsZero() {
			continue
		}
		b = append(b, key+" = "...)
		b = append(appendValue(b, v.Field(i)), '\n')
	}
	return b
}

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Int:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint16:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Slice:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendString(b, text(v.Index(i)))
		}
		return append(b, ']')
	}
	return appendString(b, text(v))
}

// text returns the text that stands for a value in the file, without its quotes.
func text(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case encoding.TextMarshaler:
		t, _ := x.MarshalText() // of netip and regexp, which give no error
		return string(t)
	case fmt.Stringer:
		return x.String()
	}
	return v.String()
}

// appendString appends a basic string of TOML.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || c == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, string(c)...)
		}
	}
	return append(b, '"')
}
