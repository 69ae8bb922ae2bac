package soap_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"portcullis/soap"
)

// in puts text into an envelope: behind the opening of its body.
func in(inner string) string {
	return `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` + inner + `</s:Body></s:Envelope>`
}

// action is a call of X with these children.
func action(children string) string {
	return in(`<u:X xmlns:u="` + service + `">` + children + `</u:X>`)
}

func nest(levels int) string {
	return strings.Repeat("<a>", levels) + strings.Repeat("</a>", levels)
}

// TestBounds stands on both sides of each bound (abuse cases G2, G4).
func TestBounds(t *testing.T) {
	t.Parallel()
	elements := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<a%d/>", i)
		}
		return b.String()
	}
	attrs := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ` a%d="x"`, i)
		}
		return "<V" + b.String() + "/>"
	}
	named := func(n int) string { return "<" + strings.Repeat("n", n) + "/>" }
	value := func(n int) string { return "<V>" + strings.Repeat("v", n) + "</V>" }
	headed := func(levels int) string {
		return strings.Replace(action(""), "<s:Body>", "<s:Header>"+nest(levels)+"</s:Header><s:Body>", 1)
	}
	filled := func(n int) string { return action("") + strings.Repeat("\n", n-len(action(""))) }
	for _, c := range []struct {
		name, within, beyond string
		want                 error
	}{
		// Envelope and Header, or Envelope, Body and X, stand in front.
		{"G4/depth", headed(soap.MaxDepth - 2), headed(soap.MaxDepth - 1), soap.ErrMalformed},
		{"G4/elements", action(elements(soap.MaxElements - 3)), action(elements(soap.MaxElements - 2)), soap.ErrMalformed},
		{"G4/attributes", action(attrs(soap.MaxAttrs)), action(attrs(soap.MaxAttrs + 1)), soap.ErrMalformed},
		{"G4/name", action(named(soap.MaxName)), action(named(soap.MaxName + 1)), soap.ErrMalformed},
		{"G2/argument", action(value(soap.MaxArg)), action(value(soap.MaxArg + 1)), soap.ErrTooLong},
		{"G2/argument in references", action("<V>" + strings.Repeat("&#118;", soap.MaxArg) + "</V>"),
			action("<V>" + strings.Repeat("&#118;", soap.MaxArg+1) + "</V>"), soap.ErrTooLong},
		{"G2/body", filled(soap.MaxBody), filled(soap.MaxBody + 1), soap.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := soap.Decode(service+"#X", []byte(c.within)); err != nil {
				t.Errorf("at the bound: %v", err)
			}
			if _, err := soap.Decode(service+"#X", []byte(c.beyond)); !errors.Is(err, c.want) {
				t.Errorf("beyond the bound: %v, want %v", err, c.want)
			}
		})
	}
}

// TestWork: what is too much is left at once, not read to its end. Counted, not
// timed (abuse case G4).
func TestWork(t *testing.T) {
	t.Parallel()
	open := len(in("")) // everything that may stand before the fault
	many := "<V" + strings.Repeat(` a="x"`, 2500) + "/>"
	for _, c := range []struct {
		name, body string
		elements   int
		bytes      int
	}{
		{"nest of a million", in(nest(1_000_000)), 0, 0},
		{"nest that fits the body", in(nest(2000)), soap.MaxDepth + 1, open + 3*soap.MaxDepth},
		{"nest in a header", strings.Replace(in(""), "<s:Body>", "<s:Header>"+nest(2000)+"</s:Header><s:Body>", 1), soap.MaxDepth + 1, open + 3*soap.MaxDepth},
		{"ten thousand attributes", action("<V" + strings.Repeat(` a="x"`, 10_000) + "/>"), 0, 0},
		{"attributes that fit the body", action(many), 4, len(action("")) + len(many)},
		{"elements that fit the body", action(strings.Repeat("<a/>", 2000)), 5, len(action("")) + 8},
		{"elements of a header", strings.Replace(in(""), "<s:Body>", "<s:Header>"+strings.Repeat("<a/>", 2000)+"</s:Header><s:Body>", 1), soap.MaxElements + 1, open + 5*soap.MaxElements},
	} {
		t.Run("G4/"+c.name, func(t *testing.T) {
			t.Parallel()
			if a, err := soap.Decode(service+"#X", []byte(c.body)); err == nil {
				t.Fatalf("decoded %+v", a)
			}
			elements, read := soap.Work([]byte(c.body))
			if elements > c.elements || read > int64(c.bytes) {
				t.Errorf("%d elements and %d bytes were read, want at most %d and %d", elements, read, c.elements, c.bytes)
			}
		})
	}
}

// TestInert: what is dangerous elsewhere is an argument's text here, and nothing
// else (abuse case G11).
func TestInert(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"`touch c`", "$(touch c)", ";|&amp; touch c", "%n%s%x", `'"`, "a\nb", "\u202eb", "\u00e9\u4e16", "../../etc/passwd", "-1",
	} {
		a, err := soap.Decode(service+"#X", []byte(action("<V>"+text+"</V>")))
		if err != nil {
			t.Errorf("G11/%q: %v", text, err)
			continue
		}
		if v, _ := a.Arg("V"); v != strings.ReplaceAll(text, "&amp;", "&") {
			t.Errorf("G11/%q became %q", text, v)
		}
	}
}

// TestUnknownAction: names are not this room's business (SOAP-31): an action that
// nobody has is decoded like any other.
func TestUnknownAction(t *testing.T) {
	t.Parallel()
	a, err := soap.Decode(service+"#X", []byte(action("")))
	if err != nil || a.Name != "X" || len(a.Args()) != 0 {
		t.Errorf("SOAP-31: %+v, %v", a, err)
	}
}
