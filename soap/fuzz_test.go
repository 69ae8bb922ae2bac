package soap_test

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	goupnp "github.com/huin/goupnp/soap"

	"portcullis/soap"
)

// request writes a call as a client would.
func request(t testing.TB, a *soap.Action) []byte {
	var b bytes.Buffer
	b.WriteString(`<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>`)
	b.WriteString("<u:" + a.Name + ` xmlns:u="` + a.ServiceType + `">`)
	for _, arg := range a.Args() {
		b.WriteString("<" + arg.Name + ">")
		if err := xml.EscapeText(&b, []byte(arg.Value)); err != nil {
			t.Fatal(err)
		}
		b.WriteString("</" + arg.Name + ">")
	}
	b.WriteString("</u:" + a.Name + "></Body></Envelope>")
	return b.Bytes()
}

// FuzzDecode: whatever is accepted is what the header says, is bounded, and means
// the same when it is written again.
func FuzzDecode(f *testing.F) {
	for _, c := range calls(f) {
		f.Add(c.header, c.body)
	}
	f.Add(header, []byte(plain))
	f.Add(header, []byte(with("<NewProtocol>&#x41;&lt;&#13;</NewProtocol>")))
	f.Add(strings.Trim(header, `"`), []byte(strings.ReplaceAll(plain, "u:", "m:")))
	f.Add(header, []byte(`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`))
	f.Add(service+"#X", []byte(in(nest(20))))
	f.Add(header, []byte(with("<!-- <x> --><NewProtocol><![CDATA[a<b]]></NewProtocol>")))
	f.Add(header, []byte(with("<NewProtocol>U<![CDATA[DP]]><!-- --></NewProtocol>")))
	f.Add(header, []byte(strings.NewReplacer("<u:", "<m:", "</u:", "</m:").Replace(plain)))
	f.Add(header, []byte("\n"+strings.Replace(plain, `"1.0"`, `"1.0" encoding="us-ascii"`, 1)))
	f.Fuzz(func(t *testing.T, h string, body []byte) {
		a, err := soap.Decode(h, body)
		if err != nil {
			if a != nil {
				t.Fatal("an action beside an error")
			}
			return
		}
		serviceType, name, err := soap.ParseHeader(h)
		if err != nil || a.ServiceType != serviceType || a.Name != name {
			t.Fatalf("%q became %s#%s (%v)", h, a.ServiceType, a.Name, err)
		}
		if len(a.Args()) > soap.MaxElements {
			t.Fatalf("%d arguments", len(a.Args()))
		}
		for _, arg := range a.Args() {
			if len(arg.Value) > soap.MaxArg || len(arg.Name) > soap.MaxName {
				t.Fatalf("an argument of %d bytes, its name of %d", len(arg.Value), len(arg.Name))
			}
		}
		doc := request(t, a)
		again, err := soap.Decode(h, doc)
		if len(doc) > soap.MaxBody { // escaping made it longer
			return
		}
		if err != nil {
			t.Fatalf("written again: %v\n%s", err, doc)
		}
		if diff := cmp.Diff(args(a), args(again)); diff != "" {
			t.Fatalf("written again (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	for _, seed := range []string{header, `"`, `""`, `'a#b"`, " 'a:b#c'\t", "#", strings.Repeat("a", 256) + "#" + strings.Repeat("b", 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		serviceType, action, err := soap.ParseHeader(v)
		if err != nil {
			if serviceType != "" || action != "" {
				t.Fatal("a result beside an error")
			}
			return
		}
		if serviceType == "" || action == "" || strings.ContainsAny(serviceType+action, "\"'# \t\r\n<>&\x00") {
			t.Fatalf("%q splits into %q and %q", v, serviceType, action)
		}
		if again, name, err := soap.ParseHeader(`"` + serviceType + "#" + action + `"`); err != nil || again != serviceType || name != action {
			t.Fatalf("%q does not stay the same: %q, %q, %v", v, again, name, err)
		}
	})
}

// FuzzNumbers: what is accepted here, another implementation reads as the same
// number (abuse case B6).
func FuzzNumbers(f *testing.F) {
	for _, seed := range []string{"0", "0080", " 65535\r\n", "65536", "4294967295", "+1", "-0", "1e3", "0x10", "1_0", "\u0661", "1\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bare := strings.Trim(s, " \t\r\n")
		if n, err := soap.ParseUI4(s); err == nil {
			if other, err := goupnp.UnmarshalUi4(bare); err != nil || other != n {
				t.Fatalf("ui4 %q: %d here, %d there (%v)", s, n, other, err)
			}
		}
		if n, err := soap.ParseUI2(s); err == nil {
			other, err := goupnp.UnmarshalUi2(bare)
			if err != nil || other != n {
				t.Fatalf("ui2 %q: %d here, %d there (%v)", s, n, other, err)
			}
			if wide, err := soap.ParseUI4(s); err != nil || wide != uint32(n) {
				t.Fatalf("ui2 %q is no ui4: %d, %v", s, wide, err)
			}
		}
		if b, err := soap.ParseBoolean(s); err == nil {
			other, err := goupnp.UnmarshalBoolean(strings.ToLower(bare))
			if err != nil || other != b {
				t.Fatalf("boolean %q: %v here, %v there (%v)", s, b, other, err)
			}
		}
	})
}
