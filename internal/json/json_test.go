package json

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

type inner struct {
	ID   uint64 `json:"id"`
	Text string `json:"text,omitempty"`
}

// sample has a field of each kind that the program has.
type sample struct {
	inner
	Name    string           `json:"name"`
	Small   uint8            `json:"small"`
	Port    uint16           `json:"port,omitempty"`
	Level   int8             `json:"level"`
	Count   int64            `json:"count"`
	OK      bool             `json:"ok,omitempty"`
	Hidden  string           `json:"-"`
	Plain   int              // by its own name
	Address netip.Addr       `json:"address"`
	Until   *time.Time       `json:"until,omitempty"`
	Made    time.Time        `json:"made"`
	Next    *inner           `json:"next"`
	Words   []string         `json:"words"`
	Many    []inner          `json:"many,omitempty"`
	By      map[string]int   `json:"by"`
	Of      map[string]inner `json:"of,omitempty"`
}

func samples() []any {
	at := time.Date(2026, 11, 30, 14, 0, 0, 123456789, time.FixedZone("", 3600))
	word := "x"
	return []any{
		nil, true, 7, -7, "a", "<b> & \"c\" \\ /\x00\x1f\x7f\u0080\u009b\u2028\u2029\ufffd\xff\xc3\n\r\t\b\f中😀", []string(nil), []string{}, &word,
		map[string]any{"id": 64, "b": "str", "a": true, "n": nil, "l": []any{1, "2"}}, map[string]map[string]any{"x": {}}, [2]int{1, 2},
		sample{}, &sample{
			inner: inner{1, "t"}, Name: "n", Small: 255, Port: 65535, Level: -128, Count: -1 << 63, OK: true, Hidden: "h", Plain: 1,
			Address: netip.MustParseAddr("fe80::1%br-lan"), Until: &at, Made: at, Next: &inner{2, ""}, Words: []string{"", "<"},
			Many: []inner{{}, {3, "y"}}, By: map[string]int{"b": 2, "a": 1, "<": 0}, Of: map[string]inner{"k": {4, ""}},
		},
		struct{}{}, []sample{{}, {}}, (*sample)(nil), time.Duration(5), struct {
			A any `json:"a"`
		}{[]inner{{}}},
	}
}

// TestWritesAlike: what is written is octet for octet what encoding/json writes.
func TestWritesAlike(t *testing.T) {
	t.Parallel()
	for _, v := range samples() {
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Marshal(v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v; %s, want %s", err, got, want)
		}
		want, _ = json.MarshalIndent(v, "", "  ")
		if got, err := MarshalIndent(v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v; %s, want %s", err, got, want)
		}
		var plain bytes.Buffer
		e := json.NewEncoder(&plain)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if got, err := AppendPlain(nil, v); err != nil || string(got)+"\n" != plain.String() {
			t.Errorf("%v; %s, want %s", err, got, plain.String())
		}
	}
	for _, v := range []any{1.5, []byte("a"), func() {}, map[int]int{}, []any{complex(1, 1)}, struct{ A chan int }{}} {
		if got, err := Marshal(v); err == nil {
			t.Errorf("%T became %s", v, got)
		}
	}
	if got, err := Marshal(map[string]any{"r": Raw(`{"a":1}`), "n": Number("12"), "z": Number("")}); err != nil || string(got) != `{"n":12,"r":{"a":1},"z":0}` {
		t.Errorf("%v; %s", err, got)
	}
}

// read reads text as both do.
func read(text []byte, strict bool) (ours, theirs sample, err, want error) {
	if strict {
		err = UnmarshalStrict(text, &ours)
	} else {
		err = Unmarshal(text, &ours)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if strict {
		d.DisallowUnknownFields()
	}
	if want = d.Decode(&theirs); want == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			want = errors.New("more than one")
		}
	}
	return ours, theirs, err, want
}

// TestReadsAlike: what encoding/json has written is read, and means the same.
func TestReadsAlike(t *testing.T) {
	t.Parallel()
	for _, v := range samples() {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs, err, want := read(text, true)
		if (err == nil) != (want == nil) || err == nil && !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: %v, %v\n%+v\n%+v", text, err, want, ours, theirs)
		}
	}
}

// TestRefused: what is no JSON, or does not fit, is refused in a sentence.
func TestRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", maxDepth+1)
	for text, want := range map[string]string{
		``: "it ends too early", `{`: "it ends too early", `{"id":7`: "it ends too early", `{"name":"a`: "it ends too early", `{"name":"\u12`: "it ends too early",
		`{"id":7}{"id":8}`: `byte 9: unexpected '{'`, `{id:7}`: `byte 2: unexpected 'i'`, `{"id":7,}`: `byte 9: unexpected '}'`, `{"id" 7}`: `byte 7: unexpected '7'`,
		`{"words":["a",]}`: `"words": byte 15: unexpected ']'`, `{"words":["a" "b"]}`: `"words": byte 15: unexpected '"'`, `[`: "must be an object", `{"nothing":1}`: `unknown field "nothing"`,
		`{"ID":7}`: `unknown field "ID"`, `{"id":7,"id":8}`: `"id" is there twice`, `{"by":{"a":1,"a":2}}`: `"by": "a" is there twice`,
		`{"id":-1}`: `"id": -1: must be a whole number from 0 to 18446744073709551615`, `{"id":1e3}`: `"id": 1e3: must be a whole number from 0 to 18446744073709551615`,
		`{"id":07}`: `byte 8: unexpected '7'`, `{"id":1.}`: `"id": byte 9: unexpected '}'`, `{"id":"7"}`: `"id": must be a whole number from 0 to 18446744073709551615`,
		`{"port":65536}`: `"port": 65536: must be a whole number from 0 to 65535`, `{"level":128}`: `"level": 128: must be a whole number from -128 to 127`,
		`{"name":7}`: `"name": must be a text`, `{"ok":1}`: `"ok": must be true or false`, `{"ok":truth}`: `"ok": byte 10: unexpected 't'`, `{"next":[]}`: `"next": must be an object`,
		`{"words":{}}`: `"words": must be an array`, `{"made":7}`: `"made": must be a text`, `{"address":{}}`: `"address": must be a text`,
		"{\"name\":\"a\nb\"}": `"name": byte 11: unexpected '\n'`, `{"name":"\x"}`: `"name": byte 11: unexpected 'x'`, `{"name":"\u00g0"}`: `"name": byte 14: unexpected 'g'`,
		"\x00": `byte 1: unexpected '\x00'`, `{"next":{"id":true}}`: `"next": "id": must be a whole number`,
	} {
		var s sample
		if err := UnmarshalStrict([]byte(text), &s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	var s sample
	if err := Unmarshal([]byte(`{"x":`+deep), &s); err == nil || !strings.Contains(err.Error(), "deeper than 64 levels") {
		t.Errorf("%v", err)
	}
	for _, text := range []string{`{"x":` + deep + strings.Repeat("]", maxDepth+1) + `}`, `{"x":[1,]}`, `{"x":{"a"}}`, `{"x":"\q"}`, `{"x":-}`, `{"x":tru}`} {
		if Unmarshal([]byte(text), &s) == nil {
			t.Errorf("%s is taken where nobody wants it", text)
		}
	}
	if err := Unmarshal([]byte(`{"x":{"y":[1.5e-3,null,"\ud83d\ude00",{}],"y":true},"id":3,"z":[]}`), &s); err != nil || s.ID != 3 {
		t.Errorf("%v; %+v", err, s)
	}
}

// TestRawAndNumber: values are passed on as they stand, and numbers of any length.
func TestRawAndNumber(t *testing.T) {
	t.Parallel()
	var all map[string]Raw
	if err := Unmarshal([]byte(` { "a" : [1, "]"] , "b":null} `), &all); err != nil || len(all) != 2 || string(all["a"]) != `[1, "]"]` || string(all["b"]) != "null" {
		t.Errorf("%v; %q", err, all)
	}
	var list []Raw
	if err := Unmarshal([]byte(`[{"a":1},2]`), &list); err != nil || len(list) != 2 || string(list[0]) != `{"a":1}` {
		t.Errorf("%v; %q", err, list)
	}
	var n struct {
		N Number `json:"n"`
	}
	for text, want := range map[string]Number{`{"n":18446744073709551616}`: "18446744073709551616", `{"n":"7"}`: "7", `{"n":-1.5e3}`: "-1.5e3"} {
		if err := Unmarshal([]byte(text), &n); err != nil || n.N != want {
			t.Errorf("%s: %v, %s", text, err, n.N)
		}
	}
	for _, text := range []string{`{"n":""}`, `{"n":"7 "}`, `{"n":"0x7"}`, `{"n":true}`, `{"n":[]}`} {
		if err := Unmarshal([]byte(text), &n); err == nil || !strings.Contains(err.Error(), "must be a number") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestStream: values come one at a time, and no octet behind one is waited for.
func TestStream(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		` {"a":"}\"]\\"} x`: `{"a":"}\"]\\"}`, `[[]]x`: `[[]]`, `"a\"b" `: `"a\"b"`, `12 `: `12`, `12`: `12`, `true,`: `true`, `]`: `]`,
	} {
		r := bufio.NewReader(iotest.OneByteReader(strings.NewReader(text)))
		if got, err := Next(r, 100); err != nil || string(got) != want {
			t.Errorf("%q: %v, %q", text, err, got)
		}
	}
	end, begin := io.Pipe()
	go begin.Write([]byte(`{}`)) // and nothing more
	if got, err := Next(bufio.NewReader(end), 100); err != nil || string(got) != "{}" {
		t.Errorf("%v, %q", err, got)
	}
	_ = begin.Close()
	for text, want := range map[string]error{"": io.EOF, " \n": io.EOF, `{"a"`: io.ErrUnexpectedEOF, `"a`: io.ErrUnexpectedEOF} {
		if _, err := Next(bufio.NewReader(strings.NewReader(text)), 100); !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Next(bufio.NewReader(strings.NewReader(`"`+strings.Repeat("a", 200)+`"`)), 100); err == nil {
		t.Error("a value of any length is read")
	}
	for text, want := range map[string]string{"[]": "", " [ 1,\n{\"a\":[2]} , \"]\"]": `1 {"a":[2]} "]" `} {
		var got strings.Builder
		err := List(bufio.NewReader(strings.NewReader(text)), 100, func(one Raw) error { got.Write(one); got.WriteByte(' '); return nil })
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %q", text, err, got.String())
		}
	}
	stop := errors.New("enough")
	for text, want := range map[string]error{"": io.ErrUnexpectedEOF, "[1": io.ErrUnexpectedEOF, "[1,": io.ErrUnexpectedEOF, "[": io.ErrUnexpectedEOF, "[3]": stop, "{}": nil, "[1 2]": nil} {
		err := List(bufio.NewReader(strings.NewReader(text)), 100, func(one Raw) error {
			if string(one) == "3" {
				return stop
			}
			return nil
		})
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// folded reports whether a name in text is one of ours but for the case of its letters, which
// encoding/json takes for ours.
func folded(text []byte) bool {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return false
	}
	var in func(any) bool
	in = func(v any) bool {
		switch v := v.(type) {
		case []any:
			return slices.ContainsFunc(v, in)
		case map[string]any:
			for name, member := range v {
				for _, f := range slices.Concat(fieldsOf(reflect.TypeFor[sample]()), fieldsOf(reflect.TypeFor[inner]())) {
					if name != f.name && strings.EqualFold(name, f.name) {
						return true
					}
				}
				if in(member) {
					return true
				}
			}
		}
		return false
	}
	return in(v)
}

// FuzzRead: what is read here encoding/json reads alike, strictly or not, by itself or from a
// stream.
func FuzzRead(f *testing.F) {
	for _, v := range samples() {
		text, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"name":"\ud83d\ude00\ud800\u0041\udc00\"\/","by":{"a":-0},"count":-0,"x":[{"y":1.5E+3}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, strict := range []bool{false, true} {
			ours, theirs, err, want := read(text, strict)
			if err == nil && !folded(text) && (want != nil || !reflect.DeepEqual(ours, theirs)) {
				t.Fatalf("%v: %+v, want %+v", want, ours, theirs)
			}
		}
		one, err := Next(bufio.NewReader(bytes.NewReader(text)), len(text)+1)
		var s sample
		if Unmarshal(text, &s) == nil && (err != nil || !bytes.Equal(one, bytes.Trim(text, " \t\r\n"))) {
			t.Fatalf("%v: %q", err, one)
		}
		if json.Valid(text) {
			var all []json.RawMessage
			isList := json.Unmarshal(text, &all) == nil && all != nil
			n := 0
			if err := List(bufio.NewReader(bytes.NewReader(text)), len(text)+1, func(one Raw) error {
				if string(one) != string(all[n]) {
					t.Fatalf("%q, want %q", one, all[n])
				}
				n++
				return nil
			}); (err == nil) != isList || isList && n != len(all) {
				t.Fatalf("%v: %d of %d", err, n, len(all))
			}
		}
	})
}

// FuzzWrite: what is written here is what encoding/json writes.
func FuzzWrite(f *testing.F) {
	f.Add("a", "<\u2028\xff", uint64(1), int64(-1), true)
	f.Fuzz(func(t *testing.T, a, b string, u uint64, i int64, is bool) {
		v := sample{inner: inner{u, a}, Name: b, Small: uint8(u), Port: uint16(u), Level: int8(i), Count: i, OK: is, Words: []string{a, b}, By: map[string]int{a: 1, b: 2}}
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Marshal(v); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v; %s, want %s", err, got, want)
		}
	})
}
