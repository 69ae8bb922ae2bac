package json

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Raw is JSON as it stands.
type Raw []byte

// Number is a number by its digits; a text of them is read as well.
type Number string

var (
	rawType    = reflect.TypeFor[Raw]()
	numberType = reflect.TypeFor[Number]()
)

// Marshal returns v as JSON that may stand in HTML.
func Marshal(v any) ([]byte, error) { return Append(nil, v) }

// Append appends what Marshal returns.
func Append(b []byte, v any) ([]byte, error) {
	e := encoder{out: b, html: true}
	err := e.value(reflect.ValueOf(v))
	return e.out, err
}

// AppendPlain appends the same, with <, > and & as they are.
func AppendPlain(b []byte, v any) ([]byte, error) {
	e := encoder{out: b}
	err := e.value(reflect.ValueOf(v))
	return e.out, err
}

// MarshalIndent returns v as JSON for people, with two blanks for each level.
func MarshalIndent(v any) ([]byte, error) {
	e := encoder{html: true, indent: true}
	err := e.value(reflect.ValueOf(v))
	return e.out, err
}

type encoder struct {
	out          []byte
	html, indent bool
	depth        int
}

func (e *encoder) value(v reflect.Value) error {
	if !v.IsValid() {
		e.text("null")
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return e.value(v.Elem())
	case reflect.Map, reflect.Slice:
		if v.IsNil() {
			e.text("null")
			return nil
		}
	}
	if v.Type().NumMethod() > 0 {
		if m, ok := v.Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			e.out = appendString(e.out, string(text), e.html)
			return err
		}
	}
	return e.methodless(v)
}

// methodless appends what knows nothing of JSON itself.
func (e *encoder) methodless(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	case reflect.String:
		e.string(v)
	case reflect.Struct:
		return e.structure(v)
	case reflect.Map:
		return e.mapping(v)
	case reflect.Slice, reflect.Array:
		return e.array(v)
	default:
		return fmt.Errorf("a %s is not written as JSON", v.Type())
	}
	return nil
}

func (e *encoder) string(v reflect.Value) {
	if v.Type() == numberType {
		e.text(cmp.Or(v.String(), "0"))
		return
	}
	e.out = appendString(e.out, v.String(), e.html)
}

func (e *encoder) text(s string) { e.out = append(e.out, s...) }

// next begins a member, where there may have been one before.
func (e *encoder) next(first bool) {
	if !first {
		e.text(",")
	}
	e.line()
}

func (e *encoder) line() {
	if e.indent {
		e.text("\n")
		for range e.depth {
			e.text("  ")
		}
	}
}

// end ends an object or an array.
func (e *encoder) end(bracket string, empty bool) {
	if e.depth--; !empty {
		e.line()
	}
	e.text(bracket)
}

func (e *encoder) colon() {
	if e.text(":"); e.indent {
		e.text(" ")
	}
}

func (e *encoder) structure(v reflect.Value) error {
	e.text("{")
	e.depth++
	first := true
	fields := fieldsOf(v.Type())
	for i := range fields {
		f := &fields[i]
		member := v.Field(f.index)
		for _, i := range f.within {
			member = member.Field(i)
		}
		if f.omitEmpty && empty(member) {
			continue
		}
		e.next(first)
		first = false
		e.text(f.quoted)
		e.colon()
		var err error
		if f.plain {
			err = e.methodless(member)
		} else {
			err = e.value(member)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.quoted, err)
		}
	}
	e.end("}", first)
	return nil
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func (e *encoder) mapping(v reflect.Value) error {
	if v.Type().Key().Kind() != reflect.String {
		return fmt.Errorf("a %s is not written as JSON", v.Type())
	}
	keys := v.MapKeys()
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	slices.Sort(names)
	e.text("{")
	e.depth++
	for i, name := range names {
		e.next(i == 0)
		e.out = appendString(e.out, name, e.html)
		e.colon()
		if err := e.value(v.MapIndex(reflect.ValueOf(name).Convert(v.Type().Key()))); err != nil {
			return err
		}
	}
	e.end("}", len(names) == 0)
	return nil
}

func (e *encoder) array(v reflect.Value) error {
	if v.Type() == rawType {
		e.out = append(e.out, v.Bytes()...)
		return nil
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return fmt.Errorf("a %s is not written as JSON", v.Type())
	}
	e.text("[")
	e.depth++
	for i := range v.Len() {
		e.next(i == 0)
		if err := e.value(v.Index(i)); err != nil {
			return err
		}
	}
	e.end("]", v.Len() == 0)
	return nil
}

const hexDigits = "0123456789abcdef"

// AppendString appends a text as JSON, which may stand in no HTML.
func AppendString(b []byte, s string) []byte { return appendString(b, s, false) }

// appendString appends a text as JSON. What no terminal and no JavaScript takes for more than a
// letter stays as it is.
func appendString(b []byte, s string, html bool) []byte {
	b = append(b, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && !(html && (c == '<' || c == '>' || c == '&')) {
			i++
			continue
		}
		size := 1
		var r rune
		if c >= utf8.RuneSelf {
			if r, size = utf8.DecodeRuneInString(s[i:]); !(r == utf8.RuneError && size == 1) && r != '\u2028' && r != '\u2029' {
				i += size
				continue
			}
		} else {
			r = rune(c)
		}
		b = append(b, s[done:i]...)
		b = appendEscaped(b, r)
		i += size
		done = i
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

func appendEscaped(b []byte, r rune) []byte {
	if i := strings.IndexRune("\"\\\b\f\n\r\t", r); i >= 0 {
		return append(b, '\\', `"\bfnrt`[i])
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
