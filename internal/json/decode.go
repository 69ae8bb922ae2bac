package json

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
)

// maxDepth is how deep a value may be. Ours are of six levels.
const maxDepth = 64

var errEnd = errors.New("it ends too early")

// Unmarshal reads the one value that text is into what v points to; fields that it does not have
// are looked past.
func Unmarshal(text []byte, v any) error { return unmarshal(text, v, false) }

// UnmarshalStrict does the same, and refuses fields that v does not have.
func UnmarshalStrict(text []byte, v any) error { return unmarshal(text, v, true) }

func unmarshal(text []byte, v any, strict bool) error {
	d := decoder{text: text, strict: strict}
	if err := d.value(reflect.ValueOf(v).Elem()); err != nil {
		return err
	}
	if d.blanks(); d.at < len(d.text) {
		return d.unexpected()
	}
	return nil
}

type decoder struct {
	text   []byte
	at     int
	strict bool
	depth  int
}

// peek returns the next octet that is no blank, 0 at the end.
func (d *decoder) peek() byte {
	if d.blanks(); d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) blanks() {
	for d.at < len(d.text) && blank(d.text[d.at]) {
		d.at++
	}
}

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// unexpected is the error of the octet that stands next.
func (d *decoder) unexpected() error {
	if d.at >= len(d.text) {
		return errEnd
	}
	return fmt.Errorf("byte %d: unexpected %q", d.at+1, d.text[d.at])
}

// take goes past an octet if it is next, and reports whether it was.
func (d *decoder) take(c byte) bool {
	if d.peek() != c || d.at == len(d.text) {
		return false
	}
	d.at++
	return true
}

// value reads a value into v, or past it where v is none.
func (d *decoder) value(v reflect.Value) error {
	c := d.peek()
	if v.IsValid() && v.Type() == rawType {
		begin := d.at
		if err := d.value(reflect.Value{}); err != nil {
			return err
		}
		v.Set(reflect.ValueOf(Raw(append([]byte(nil), d.text[begin:d.at]...))))
		return nil
	}
	if c == 'n' {
		return d.null(v)
	}
	for v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if c == '"' {
		s, err := d.string()
		if err != nil || !v.IsValid() {
			return err
		}
		return setText(v, s)
	}
	if v.IsValid() && textOf(v) != nil {
		return errors.New("must be a text")
	}
	switch {
	case c == '{':
		return d.nested(v, d.object)
	case c == '[':
		return d.nested(v, d.array)
	case c == 't', c == 'f':
		return d.bool(v)
	case c == '-', c >= '0' && c <= '9':
		return d.number(v)
	}
	return d.unexpected()
}

// nested goes one level down.
func (d *decoder) nested(v reflect.Value, read func(reflect.Value) error) error {
	if d.depth++; d.depth > maxDepth {
		return fmt.Errorf("it is deeper than %d levels", maxDepth)
	}
	d.at++
	err := read(v)
	d.depth--
	return err
}

// word goes past a literal.
func (d *decoder) word(s string) error {
	for i := range len(s) {
		if d.at == len(d.text) || d.text[d.at] != s[i] {
			return d.unexpected()
		}
		d.at++
	}
	return nil
}

// null empties what can be empty, and leaves alone what cannot.
func (d *decoder) null(v reflect.Value) error {
	if err := d.word("null"); err != nil || !v.IsValid() {
		return err
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		v.SetZero()
	}
	return nil
}

func (d *decoder) bool(v reflect.Value) error {
	is, word := d.text[d.at] == 't', "false"
	if is {
		word = "true"
	}
	if err := d.word(word); err != nil || !v.IsValid() {
		return err
	}
	if v.Kind() != reflect.Bool {
		return misfit(v)
	}
	v.SetBool(is)
	return nil
}

// textOf returns what reads a text into v, nil where that is none but a string.
func textOf(v reflect.Value) encoding.TextUnmarshaler {
	if !v.CanAddr() || v.Addr().Type().NumMethod() == 0 {
		return nil
	}
	t, _ := v.Addr().Interface().(encoding.TextUnmarshaler)
	return t
}

func setText(v reflect.Value, s string) error {
	if t := textOf(v); t != nil {
		return t.UnmarshalText([]byte(s))
	}
	if v.Kind() != reflect.String {
		return misfit(v)
	}
	if v.Type() == numberType {
		if d := (&decoder{text: []byte(s)}); s == "" || d.digits() != nil || d.at < len(s) {
			return misfit(v)
		}
	}
	v.SetString(s)
	return nil
}

// misfit says what belongs where something else is.
func misfit(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		return errors.New("must be true or false")
	case reflect.Struct, reflect.Map:
		return errors.New("must be an object")
	case reflect.Slice:
		return errors.New("must be an array")
	case reflect.String:
		if v.Type() == numberType {
			return errors.New("must be a number")
		}
		return errors.New("must be a text")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits := v.Type().Bits() - 1
		return fmt.Errorf("must be a whole number from %d to %d", int64(-1)<<bits, uint64(1)<<bits-1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Errorf("must be a whole number from 0 to %d", ^uint64(0)>>(64-v.Type().Bits()))
	}
	return fmt.Errorf("a %s is not read from JSON", v.Type())
}

func (d *decoder) number(v reflect.Value) error {
	begin := d.at
	if err := d.digits(); err != nil || !v.IsValid() {
		return err
	}
	s := string(d.text[begin:d.at])
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%.40s: %w", s, misfit(v))
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%.40s: %w", s, misfit(v))
		}
		v.SetUint(n)
	case reflect.String:
		if v.Type() != numberType {
			return misfit(v)
		}
		v.SetString(s)
	default:
		return misfit(v)
	}
	return nil
}

// digits goes past a number (RFC 8259 section 6).
func (d *decoder) digits() error {
	d.sign("-")
	if d.at < len(d.text) && d.text[d.at] == '0' {
		d.at++
	} else if err := d.some(); err != nil {
		return err
	}
	if d.sign(".") {
		if err := d.some(); err != nil {
			return err
		}
	}
	if d.sign("eE") {
		d.sign("+-")
		return d.some()
	}
	return nil
}

// sign goes past one of these octets, and reports whether one was next.
func (d *decoder) sign(any string) bool {
	for i := range len(any) {
		if d.at < len(d.text) && d.text[d.at] == any[i] {
			d.at++
			return true
		}
	}
	return false
}

// some goes past digits, one at least.
func (d *decoder) some() error {
	begin := d.at
	for d.at < len(d.text) && d.text[d.at] >= '0' && d.text[d.at] <= '9' {
		d.at++
	}
	if d.at == begin {
		return d.unexpected()
	}
	return nil
}

func (d *decoder) array(v reflect.Value) error {
	if v.IsValid() {
		if v.Kind() != reflect.Slice {
			return misfit(v)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	if d.take(']') {
		return nil
	}
	for n := 0; ; n++ {
		var member reflect.Value
		if v.IsValid() {
			v.Grow(1)
			v.SetLen(n + 1)
			member = v.Index(n)
			member.SetZero()
		}
		if err := d.value(member); err != nil {
			return err
		}
		if d.take(']') {
			return nil
		}
		if !d.take(',') {
			return d.unexpected()
		}
	}
}
