package soap

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"portcullis/internal/xml1"
)

const (
	head = `<?xml version="1.0"?>` + "\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`
	tail = `</s:Body></s:Envelope>` + "\n"
)

// EncodeResponse returns the envelope of a success. serviceType and action are those of
// the decoded request; they and the arguments' names are written as they are, values
// are escaped. The arguments stand in the order of the service description.
func EncodeResponse(serviceType, action string, out []Arg) []byte {
	size := len(head) + len(tail) + len(serviceType) + 2*len(action) + 64
	for _, a := range out {
		size += 2*len(a.Name) + len(a.Value) + len(cdataOpen+cdataEnd) + 5
	}
	b := join(make([]byte, 0, size), head, "<u:", action, `Response xmlns:u="`, xml1.Escape(serviceType), `">`)
	for _, a := range out {
		if a.CDATA && fitsCDATA(a.Value) {
			b = join(b, "<", a.Name, ">", cdataOpen, a.Value, cdataEnd, "</", a.Name, ">")
		} else {
			b = join(b, "<", a.Name, ">", xml1.Escape(a.Value), "</", a.Name, ">")
		}
	}
	return join(b, "</u:", action, "Response>", tail)
}

const cdataOpen, cdataEnd = "<![CDATA[", "]]>"

func join(b []byte, parts ...string) []byte {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// EncodeFault returns the envelope of a refusal (UDA 1.1 section 3.2.2).
func EncodeFault(code int, description string) []byte {
	return join(make([]byte, 0, 512), head, `<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>`,
		`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>`, strconv.Itoa(code),
		"</errorCode><errorDescription>", xml1.Escape(description), "</errorDescription></UPnPError></detail></s:Fault>", tail)
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
