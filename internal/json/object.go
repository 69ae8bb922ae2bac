package json

import (
	"fmt"
	"reflect"
	"unicode/utf16"
	"unicode/utf8"
)

func (d *decoder) object(v reflect.Value) error {
	var members members
	if v.IsValid() {
		switch v.Kind() {
		case reflect.Struct:
			members = &structMembers{v: v, fields: fieldsOf(v.Type()), strict: d.strict}
		case reflect.Map:
			if v.Type().Key().Kind() != reflect.String {
				return misfit(v)
			}
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			members = &mapMembers{v: v, seen: map[string]bool{}}
		default:
			return misfit(v)
		}
	}
	if d.take('}') {
		return nil
	}
	for {
		if err := d.member(members); err != nil {
			return err
		}
		if d.take('}') {
			return nil
		}
		if !d.take(',') {
			return d.unexpected()
		}
	}
}

// members are what an object is read into.
type members interface {
	// of returns where the value of a name belongs, which is nowhere where the name is not known,
	// and an error where it was there before.
	of(name []byte) (reflect.Value, error)
	// done is told that it has been read.
	done(name []byte, v reflect.Value)
}

func (d *decoder) member(all members) error {
	if d.peek() != '"' {
		return d.unexpected()
	}
	name, err := d.octets()
	if err != nil {
		return err
	}
	if !d.take(':') {
		return d.unexpected()
	}
	if all == nil {
		return d.value(reflect.Value{})
	}
	v, err := all.of(name)
	if err != nil {
		return err
	}
	if err := d.value(v); err != nil {
		return fmt.Errorf("%.40q: %w", name, err)
	}
	all.done(name, v)
	return nil
}

func twice(name []byte) error { return fmt.Errorf("%.40q is there twice", name) }

type structMembers struct {
	v      reflect.Value
	fields []field
	next   int // the likeliest: most come in our order
	strict bool
	seen   uint64 // bits, by field
}

func (m *structMembers) of(name []byte) (reflect.Value, error) {
	for i := range m.fields {
		at := (m.next + i) % len(m.fields)
		f := &m.fields[at]
		if f.name != string(name) {
			continue
		}
		m.next = at + 1
		if m.seen&(1<<at) != 0 {
			return reflect.Value{}, twice(name)
		}
		m.seen |= 1 << at
		v := m.v.Field(f.index)
		for _, i := range f.within {
			v = v.Field(i)
		}
		return v, nil
	}
	if m.strict {
		return reflect.Value{}, fmt.Errorf("unknown field %.40q", name)
	}
	return reflect.Value{}, nil
}

func (m *structMembers) done([]byte, reflect.Value) {}

type mapMembers struct {
	v    reflect.Value
	seen map[string]bool
}

func (m *mapMembers) of(name []byte) (reflect.Value, error) {
	if m.seen[string(name)] {
		return reflect.Value{}, twice(name)
	}
	m.seen[string(name)] = true
	return reflect.New(m.v.Type().Elem()).Elem(), nil
}

func (m *mapMembers) done(name []byte, v reflect.Value) {
	m.v.SetMapIndex(reflect.ValueOf(string(name)).Convert(m.v.Type().Key()), v)
}

// string reads a text, whose quotation mark is next.
func (d *decoder) string() (string, error) {
	text, err := d.octets()
	return string(text), err
}

// octets reads a text, and returns a part of what is read where that has it as it is. What is no
// UTF-8 becomes U+FFFD.
func (d *decoder) octets() ([]byte, error) {
	d.at++
	begin := d.at
	for d.at < len(d.text) {
		c := d.text[d.at]
		switch {
		case c == '"':
			d.at++
			return d.text[begin : d.at-1], nil
		case c == '\\' || c >= utf8.RuneSelf:
			return d.escaped(append([]byte(nil), d.text[begin:d.at]...))
		case c < ' ':
			return nil, d.unexpected()
		}
		d.at++
	}
	return nil, errEnd
}

// escaped reads on behind the plain letters that a text begins with.
func (d *decoder) escaped(out []byte) ([]byte, error) {
	for d.at < len(d.text) {
		c := d.text[d.at]
		switch {
		case c == '"':
			d.at++
			return out, nil
		case c == '\\':
			r, err := d.escape()
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
		case c < ' ':
			return nil, d.unexpected()
		case c < utf8.RuneSelf:
			out = append(out, c)
			d.at++
		default:
			r, size := utf8.DecodeRune(d.text[d.at:])
			out = utf8.AppendRune(out, r)
			d.at += size
		}
	}
	return nil, errEnd
}

// escape reads what a backslash begins.
func (d *decoder) escape() (rune, error) {
	d.at++
	if d.at == len(d.text) {
		return 0, errEnd
	}
	c := d.text[d.at]
	const letters, meant = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	for i := range len(letters) {
		if letters[i] == c {
			d.at++
			return rune(meant[i]), nil
		}
	}
	if c != 'u' {
		return 0, d.unexpected()
	}
	d.at++
	first, err := d.unit()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if d.at+1 < len(d.text) && d.text[d.at] == '\\' && d.text[d.at+1] == 'u' {
		behind := d.at
		d.at += 2
		second, err := d.unit()
		if err != nil {
			return 0, err
		}
		if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
			return r, nil
		}
		d.at = behind
	}
	return utf8.RuneError, nil
}

// unit reads four hexadecimal digits.
func (d *decoder) unit() (r rune, err error) {
	for range 4 {
		if d.at == len(d.text) {
			return 0, errEnd
		}
		switch c := d.text[d.at]; {
		case c >= '0' && c <= '9':
			r = r<<4 + rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 + rune(c|0x20-'a') + 10
		default:
			return 0, d.unexpected()
		}
		d.at++
	}
	return r, nil
}
