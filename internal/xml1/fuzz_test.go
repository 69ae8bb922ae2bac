package xml1_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/internal/xml1"
)

// token is one of either reader, in words that both have.
type token struct {
	Kind  string
	Name  xml.Name
	Attrs []xml.Attr
	Text  string
}

// ours reads a document to its end.
func ours(doc []byte) (all []token, err error) {
	var r xml1.Reader
	if err := r.Open(doc); err != nil {
		return nil, err
	}
	for {
		kind, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var one token
		switch kind {
		case xml1.Start:
			one = token{Kind: "start", Name: theirName(r.Name)}
			for _, a := range r.Attrs() {
				one.Attrs = append(one.Attrs, xml.Attr{Name: theirName(a.Name), Value: a.Value})
			}
		case xml1.End:
			one = token{Kind: "end", Name: theirName(r.Name)}
		case xml1.Text:
			one = token{Kind: "text", Text: r.Text}
		case xml1.Comment:
			one = token{Kind: "comment"}
		}
		all = append(all, one)
	}
}

// theirName is a name as encoding/xml writes it, which leaves an undeclared prefix where
// the namespace would be.
func theirName(n xml1.Name) xml.Name {
	if n.Undeclared() {
		return xml.Name{Space: n.Prefix, Local: n.Local}
	}
	return xml.Name{Space: n.Space, Local: n.Local}
}

// theirs reads a document with encoding/xml, which has to be told that US-ASCII is a part
// of UTF-8.
func theirs(doc []byte) (all []token, err error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = func(label string, r io.Reader) (io.Reader, error) {
		if l := strings.ToLower(label); l != "utf8" && l != "us-ascii" {
			return nil, errors.New("another encoding")
		}
		return r, nil
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			var attrs []xml.Attr
			all = append(all, token{Kind: "start", Name: t.Name, Attrs: append(attrs, t.Attr...)})
		case xml.EndElement:
			all = append(all, token{Kind: "end", Name: t.Name})
		case xml.CharData:
			all = append(all, token{Kind: "text", Text: string(t)})
		case xml.Comment:
			all = append(all, token{Kind: "comment"})
		case xml.ProcInst:
			if t.Target != "xml" || len(all) > 0 {
				all = append(all, token{Kind: "instruction"})
			}
		default:
			all = append(all, token{Kind: "declaration"})
		}
	}
}

// envelopes returns what control points send, from soap's collection.
func envelopes(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../../soap/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no envelopes: %v", err)
	}
	all := make(map[string][]byte)
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range archive.Files {
			if part.Name == "body" {
				all[filepath.Base(file)] = part.Data
			}
		}
	}
	if len(all) != len(files) {
		t.Fatalf("%d envelopes in %d files", len(all), len(files))
	}
	return all
}

// TestEnvelopes: what control points send is read, and as encoding/xml reads it.
func TestEnvelopes(t *testing.T) {
	t.Parallel()
	for name, doc := range envelopes(t) {
		doc = bytes.TrimLeft(bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf")), " \r\n\t")
		want, err := theirs(doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := ours(doc)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// FuzzReader: what is accepted here, encoding/xml accepts, and reads alike; and it is
// within the bounds.
func FuzzReader(f *testing.F) {
	for _, doc := range envelopes(f) {
		f.Add(doc)
	}
	for _, c := range slices.Concat(alike, narrower) {
		f.Add([]byte(c))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, err := ours(doc)
		if err != nil {
			if !errors.Is(err, xml1.ErrSyntax) || got != nil {
				t.Fatalf("%v, and %d tokens", err, len(got))
			}
			return
		}
		want, err := theirs(doc)
		if err != nil {
			t.Fatalf("accepted, but: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-encoding/xml +ours:\n%s", diff)
		}
		depth := 0
		for _, one := range got {
			if len(one.Attrs) > xml1.MaxAttrs || len(one.Name.Local) > xml1.MaxName || len(one.Text) > len(doc) {
				t.Fatalf("beyond the bounds: %+v", one)
			}
			switch one.Kind {
			case "start":
				depth++
			case "end":
				depth--
			}
			if depth > xml1.MaxDepth {
				t.Fatalf("a depth of %d", depth)
			}
		}
	})
}

// FuzzEscape: encoding/xml escapes the same, and what is escaped comes back.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", `a<b>&"'c`, "]]>", "\t\r\n", "\x00\x01\x7f", "\xff\xfe", "\ufffd\ufffe\uffff", "\u00e9\u4e16\U0001f600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := xml1.Escape(s)
		var want bytes.Buffer
		if err := xml.EscapeText(&want, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if got != want.String() {
			t.Fatalf("%q became %q, and %q by encoding/xml", s, got, want.String())
		}
		carried := func(r rune) rune {
			if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
				return utf8.RuneError
			}
			return r
		}
		for _, doc := range []string{"<a>" + got + "</a>", "<a b=\"" + got + "\">" + got + "</a>", "<a b='" + got + "'>" + got + "</a>"} {
			all, err := ours([]byte(doc))
			if err != nil {
				t.Fatalf("%q: %v", doc, err)
			}
			back := ""
			if len(all) == 3 {
				back = all[1].Text
			}
			// What is not UTF-8 is as many characters as octets, for both of them.
			if want := strings.Map(carried, s); back != want {
				t.Fatalf("%q comes back as %q", want, back)
			}
		}
	})
}
