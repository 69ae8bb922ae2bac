package xml1_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/xml1"
)

// alike is what both readers accept.
var alike = []string{
	`<a/>`, `<a></a>`, "\n<a/>\n", `<a >b</a >`, `<a b="c"/>`, `<a b = 'c' d="e"/>`, `<a b="c"d="e"/>`, "<a\n\tb\r\n=\n'c'\t/>",
	`<?xml version="1.0"?><a/>`, `<?xml version='1.0' encoding='utf-8' standalone="yes" ?><a/>`, `<?xml version="1.0" encoding="UTF-8"?><a/>`,
	`<?xml version="1.0" encoding="us-ascii"?><a/>`, `<?xml version="1.0" encoding="utf8"?><a>é</a>`, `<?xml encoding="utf-8"?><a/>`, `<?xml ?><a/>`,
	`<!-- a --><a/><!-- b -->`, `<!----><a/>`, `<a><!-- <b> & --></a>`, `<!--><a/>--><a/>`,
	`<a><![CDATA[b]]></a>`, `<a><![CDATA[]]></a>`, `<a><![CDATA[<b>&c;]]]]></a>`, "<a><![CDATA[\r\n\r]]></a>", `<a>b<![CDATA[c]]>d</a>`,
	`<a>&lt;&gt;&amp;&apos;&quot;</a>`, `<a>&#65;&#x41;&#x4a;&#x4A;&#0000000000065;</a>`, `<a b="&lt;&#x10FFFF;]]>'"/>`, `<a>&#13;&#10;&#9;</a>`,
	"<a>\r\n\r\r\n&#13;\n\r&#10;</a>", "<a b='\r\n\t '/>", `<a>]]&gt;]]</a>`, `<a>></a>`, "<a>\u007f\u0085\ufffd\U0001f600</a>",
	`<a xmlns="b"><c/><d xmlns=""><e/></d></a>`, `<p:a xmlns:p="b" p:c="d" c="d"/>`, `<p:a/>`, `<p:a p:b="c"/>`,
	`<a xmlns:p="b"><p:c xmlns:p="d"/><p:e/></a>`, `<a xmlns:p="b" xmlns:q="p"><q:c/></a>`, `<a xml:lang="en"/>`, `<a xmlns="&#98;"/>`,
	`<a xmlns:xml="http://www.w3.org/XML/1998/namespace"/>`, `<_.-9:_.-9/>`,
}

// narrower is what is refused here; encoding/xml accepts some of it.
var narrower = []string{
	"", " ", "a", "<", "<a", "<a>", "<a/", "<a/ >", "</a>", "<a></b>", "<a></a", "<a></ a>", "< a/>", "<a/>b", "b<a/>", "<a/><b/>", "<a><b></a></b>",
	"<a/>&#32;", "<![CDATA[ ]]><a/>", "<a/><![CDATA[]]>", "<p:a xmlns:p='b' xmlns:q='b'></q:a>", "<a:></a:>", "<:a/>", "<a:b:c/>", "<1/>", "<-/>", "<a:1/>",
	"<é/>", "<a é='b'/>", "<a b/>", "<a b=c/>", "<a b=/>", "<a b='c/>", "<a b='<'/>", "<a 'b'/>", "<a =''/>", "<a b=\"c'/>",
	"<a b='' b=''/>", "<a xmlns='b' xmlns='b'/>", "<a xmlns:p='b' xmlns:q='b' p:c='' q:c=''/>", "<a p:b='' p:b=''/>",
	"<a xmlns:p=''/>", "<a xmlns:xmlns='b'/>", "<a xmlns:xml='b'/>", "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", "<xmlns:a/>",
	"<!DOCTYPE a><a/>", "<!doctype a><a/>", "<!ENTITY a 'b'><a/>", "<a><!ELEMENT b></a>", "<![INCLUDE[a]]><a/>", "<a><![cdata[b]]></a>", "<! -- a --><a/>",
	"<?a?><a/>", "<a><?b?></a>", "<a/><?b?>", "<?xml-stylesheet a?><a/>", "<?xmla?><a/>", " <?xml version='1.0'?><a/>", "<?xml version='1.0'?><?xml version='1.0'?><a/>",
	"<!-- --><?xml version='1.0'?><a/>", "<a><?xml version='1.0'?></a>", "<?xml?><a/>", "<?xml version='1.1'?><a/>", "<?xml version=1.0?><a/>", "<?xml version='1.0'><a/>",
	"<?xml version='1.0' version='1.0'?><a/>", "<?xml version='1.0' encoding='iso-8859-1'?><a/>", "<?xml version='1.0' encoding='utf-16'?><a/>",
	"<?xml version='1.0' encoding='us-ascii'?><a>é</a>", "<?xml version='1.0' standalone='maybe'?><a/>", "<?xml version='1.0' x='y'?><a/>", "<?xml version='1.0' p:encoding='utf-8'?><a/>",
	"<!-- <a/>", "<!-- a -- b --><a/>", "<!-- a ---><a/>", "<!--->-<a/>", "<!-- \x01 --><a/>", "<!- a --><a/>", "<a><![CDATA[b</a>", "<a><![CDATA[\x01]]></a>", "<a>]]></a>",
	"<a>&</a>", "<a>& </a>", "<a>&b;</a>", "<a>&lt</a>", "<a>&LT;</a>", "<a>&;</a>", "<a>&#;</a>", "<a>&#x;</a>", "<a>&#X41;</a>", "<a>&#-65;</a>", "<a>&#+65;</a>", "<a>&#6_5;</a>", "<a>&#65</a>",
	"<a>&x41;</a>", "<a>&#0;</a>", "<a>&#1;</a>", "<a>&#xD800;</a>", "<a>&#xDFFF;</a>", "<a>&#xFFFE;</a>", "<a>&#x110000;</a>", "<a>&#99999999999999999999;</a>", "<a b='&c;'/>", "<a b='&#0;'/>",
	"<a>\x00</a>", "<a>\x1b</a>", "<a b='\x01'/>", "<a>\ufffe</a>", "<a>\uffff</a>", "<a>\xff</a>", "<a>\xed\xa0\x80</a>", "\xef\xbb\xbf<a/>", "\xff\xfe<\x00a\x00/\x00>\x00",
}

func TestReads(t *testing.T) {
	t.Parallel()
	for _, doc := range alike {
		want, err := theirs([]byte(doc))
		if err != nil {
			t.Fatalf("encoding/xml refuses %q: %v", doc, err)
		}
		got, err := ours([]byte(doc))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", doc, diff)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	for _, doc := range narrower {
		if got, err := ours([]byte(doc)); !errors.Is(err, xml1.ErrSyntax) {
			t.Errorf("%q is read as %+v, %v", doc, got, err)
		}
	}
}

// TestNamespaces has what encoding/xml tells apart by nothing: a prefix that nobody has
// declared, and one that is declared by its own name (case ODD-2).
func TestNamespaces(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]xml1.Name{
		`<p:a/>`:                  {Prefix: "p", Local: "a"},
		`<p:a xmlns:p="p"/>`:      {Prefix: "p", Local: "a", Space: "p"},
		`<p:a xmlns:p="q"/>`:      {Prefix: "p", Local: "a", Space: "q"},
		`<a xmlns="q"/>`:          {Local: "a", Space: "q"},
		`<a/>`:                    {Local: "a"},
		`<p:a xmlns="q"/>`:        {Prefix: "p", Local: "a"},
		`<p:a xmlns:q="p"></p:a>`: {Prefix: "p", Local: "a"},
	} {
		var r xml1.Reader
		if err := r.Open([]byte(doc)); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []xml1.Kind{xml1.Start, xml1.End} {
			got, err := r.Next()
			if err != nil || got != kind || r.Name != want || r.Name.Undeclared() != (want.Prefix != "" && want.Space == "") {
				t.Errorf("ODD-2/%s: %v %+v, %v; want %v %+v", doc, got, r.Name, err, kind, want)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v at its end", doc, err)
		}
	}
}

// TestBounds stands on both sides of each bound (abuse case G4).
func TestBounds(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	attrs := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " a%d=''", i)
		}
		return "<a" + b.String() + "/>"
	}
	long := func(n int) string { return strings.Repeat("n", n) }
	for name, c := range map[string]struct {
		bound int
		doc   func(int) string
	}{
		"depth":          {xml1.MaxDepth, nest},
		"attributes":     {xml1.MaxAttrs, attrs},
		"name":           {xml1.MaxName, func(n int) string { return "<" + long(n) + "/>" }},
		"prefix":         {xml1.MaxName, func(n int) string { return "<" + long(n) + ":a/>" }},
		"attribute name": {xml1.MaxName, func(n int) string { return "<a " + long(n) + "=''/>" }},
	} {
		if _, err := ours([]byte(c.doc(c.bound))); err != nil {
			t.Errorf("G4/%s at the bound: %v", name, err)
		}
		if _, err := ours([]byte(c.doc(c.bound + 1))); !errors.Is(err, xml1.ErrSyntax) {
			t.Errorf("G4/%s beyond the bound: %v", name, err)
		}
	}
}

// TestErrorStays: nothing is read behind an error.
func TestErrorStays(t *testing.T) {
	t.Parallel()
	for doc, before := range map[string]int{"<a>&b;<c/></a>": 1, "<a/>&b;": 2, "\xff<a/>": 0, "<?xml version='2'?><a/>": 0} {
		var r xml1.Reader
		if err := r.Open([]byte(doc)); (err != nil) != (before == 0) {
			t.Fatalf("%q: %v", doc, err)
		}
		for range before {
			if _, err := r.Next(); err != nil {
				t.Fatalf("%q: %v", doc, err)
			}
		}
		for range 3 {
			if got, err := r.Next(); !errors.Is(err, xml1.ErrSyntax) {
				t.Errorf("%q: %v, %v", doc, got, err)
			}
		}
	}
}
