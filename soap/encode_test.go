package soap_test

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	goupnp "github.com/huin/goupnp/soap"

	"portcullis/soap"
)

func TestEncodeResponse(t *testing.T) {
	t.Parallel()
	got := string(soap.EncodeResponse(service, "GetExternalIPAddress", []soap.Arg{{Name: "NewExternalIPAddress", Value: "203.0.113.7"}}))
	want := `<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` +
		`<u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>` +
		`</u:GetExternalIPAddressResponse></s:Body></s:Envelope>
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestEscaping: what clients wrote comes back as text, and never as markup
// (abuse cases G11, G13).
func TestEscaping(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`a<b>&"'c`:                `a<b>&"'c`,
		"</NewProtocol><Evil/>":   "</NewProtocol><Evil/>",
		"]]>":                     "]]>",
		"`touch c` $(x) ;|& %n%s": "`touch c` $(x) ;|& %n%s",
		"\u202eright to left":     "\u202eright to left",
		"bad \xff\xfe bytes":      "bad \ufffd\ufffd bytes",
		"control \x01 characters": "control \ufffd characters",
		"tab\tand\nline":          "tab\tand\nline",
	} {
		var env struct {
			Body struct {
				R struct{ V string } `xml:"XResponse"`
			}
		}
		if err := xml.Unmarshal(soap.EncodeResponse(service, "X", []soap.Arg{{Name: "V", Value: in}}), &env); err != nil {
			t.Errorf("%q: %v", in, err)
		} else if env.Body.R.V != want {
			t.Errorf("%q comes back as %q", in, env.Body.R.V)
		}
	}
}

// TestCDATA: a document goes out unescaped, unless a CDATA section would change
// it, end early, or spoil the envelope.
func TestCDATA(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"<a>b</a>":           "<V><![CDATA[<a>b</a>]]></V>",
		"<a>\tb\n</a>":       "<V><![CDATA[<a>\tb\n</a>]]></V>",
		"a]]><Evil/>":        "<V>a]]&gt;&lt;Evil/&gt;</V>",
		"a\rb":               "<V>a&#xD;b</V>",
		"a\x01b":             "<V>a\ufffdb</V>",
		"a\xffb":             "<V>a\ufffdb</V>",
		"a\uffffb":           "<V>a\ufffdb</V>",
		"<M\u00fcller's PC>": "<V><![CDATA[<M\u00fcller's PC>]]></V>",
	} {
		doc := soap.EncodeResponse(service, "X", []soap.Arg{{Name: "V", Value: in, CDATA: true}})
		if !strings.Contains(string(doc), want) {
			t.Errorf("%q: no %q in %q", in, want, doc)
		}
		if err := xml.Unmarshal(doc, new(struct{})); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestFaultReadsInGoupnp: a well-known client finds the code and the text.
func TestFaultReadsInGoupnp(t *testing.T) {
	t.Parallel()
	var env struct {
		XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
		Body    struct {
			Fault goupnp.SOAPFaultError `xml:"Fault"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	if err := xml.Unmarshal(soap.EncodeFault(714, `No <such> "entry"`), &env); err != nil {
		t.Fatal(err)
	}
	f := env.Body.Fault
	if f.FaultCode != "s:Client" || f.FaultString != "UPnPError" || f.Detail.UPnPError.Errorcode != 714 ||
		f.Detail.UPnPError.ErrorDescription != `No <such> "entry"` {
		t.Errorf("read %+v", f)
	}
}

// TestFault: the shape of UDA 1.1 section 3.2.2, to the byte.
func TestFault(t *testing.T) {
	t.Parallel()
	want := `<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` +
		`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">` +
		`<errorCode>606</errorCode><errorDescription>a&lt;b</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>
`
	if diff := cmp.Diff(want, string(soap.EncodeFault(606, "a<b"))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "80": 80, "65535": 65535, " 80\t": 80, "\r\n80": 80, "0080": 80, "0000000000000080": 80,
		"65536": -1, "70000": -1, "-1": -1, "+80": -1, "": -1, " ": -1, "abc": -1, "80a": -1, "8 0": -1, "0x50": -1,
		"8e1": -1, "80.0": -1, "8_0": -1, "80\x00": -1, "\u0668\u0660": -1, "4294967376": -1, "18446744073709551696": -1,
		"00000000000000080": -1, "\u00a080": -1,
	} {
		got, err := soap.ParseUI2(in)
		if (err == nil) != (want >= 0) || err == nil && int64(got) != want {
			t.Errorf("B6: ui2 %q is %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]int64{
		"0": 0, "604801": 604801, "2147483648": 1 << 31, "4294967295": 1<<32 - 1,
		"4294967296": -1, "-1": -1, "abc": -1, "1h": -1,
	} {
		got, err := soap.ParseUI4(in)
		if (err == nil) != (want >= 0) || err == nil && int64(got) != want {
			t.Errorf("C10: ui4 %q is %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestBooleans(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1": "1", "true": "1", "TRUE": "1", "yes": "1", " 1 ": "1",
		"0": "0", "false": "0", "No": "0", "": "", "2": "", "on": "", "tru": "", "01": "",
	} {
		b, err := soap.ParseBoolean(in)
		got := ""
		if err == nil {
			got = soap.FormatBoolean(b)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
