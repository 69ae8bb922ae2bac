package soap

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	head = `<?xml version="1.0"?>` + "\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`
	tail = `</s:Body></s:Envelope>` + "\n"
)

// EncodeResponse returns the envelope of a success. serviceType and action are those of
// the decoded request; they and the arguments' names are written as they are, values
// are escaped. The arguments stand in the order of the service description. It is
// written as text because encoding/xml cannot write the prefixes that control points
// expect.
func EncodeResponse(serviceType, action string, out []Arg) []byte {
	var b bytes.Buffer
	b.WriteString(head)
	b.WriteString("<u:" + action + `Response xmlns:u="`)
	escape(&b, serviceType)
	b.WriteString(`">`)
	for _, a := range out {
		b.WriteString("<" + a.Name + ">")
		if a.CDATA && fitsCDATA(a.Value) {
			b.WriteString("<![CDATA[" + a.Value + "]]>")
		} else {
			escape(&b, a.Value)
		}
		b.WriteString("</" + a.Name + ">")
	}
	b.WriteString("</u:" + action + "Response>" + tail)
	return b.Bytes()
}

// EncodeFault returns the envelope of a refusal (UDA 1.1 section 3.2.2).
func EncodeFault(code int, description string) []byte {
	var b bytes.Buffer
	b.WriteString(head + `<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>` +
		`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>`)
	b.WriteString(strconv.Itoa(code))
	b.WriteString("</errorCode><errorDescription>")
	escape(&b, description)
	b.WriteString("</errorDescription></UPnPError></detail></s:Fault>" + tail)
	return b.Bytes()
}

// EncodeVersionMismatch returns the envelope that answers one of another version of
// SOAP (SOAP 1.1 section 4.4.1).
func EncodeVersionMismatch() []byte {
	return []byte(head + `<s:Fault><faultcode>s:VersionMismatch</faultcode>` +
		`<faultstring>UPnP speaks SOAP 1.1</faultstring></s:Fault>` + tail)
}

// fitsCDATA reports whether a CDATA section yields s as it is. Nothing can be
// escaped in one, so it may hold neither its own end nor what XML cannot carry,
// and no CR, which a parser reads as LF (XML 1.0 section 2.11).
func fitsCDATA(s string) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "]]>") && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' || r == 0xFFFE || r == 0xFFFF
	})
}

// escape writes text; bytes that XML cannot carry become U+FFFD.
func escape(b *bytes.Buffer, s string) {
	_ = xml.EscapeText(b, []byte(s)) // a bytes.Buffer never fails
}
