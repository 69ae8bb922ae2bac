package soap_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/soap"
)

const (
	service = "urn:schemas-upnp-org:service:WANIPConnection:1"
	header  = `"` + service + `#GetSpecificPortMappingEntry"`
)

// plain is a request as UDA 1.1 section 3.2.1 draws it.
const plain = `<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">
 <s:Body>
  <u:GetSpecificPortMappingEntry xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">
   <NewRemoteHost></NewRemoteHost>
   <NewExternalPort>6000</NewExternalPort>
   <NewProtocol>UDP</NewProtocol>
  </u:GetSpecificPortMappingEntry>
 </s:Body>
</s:Envelope>`

var plainArgs = []soap.Arg{{Name: "NewRemoteHost"}, {Name: "NewExternalPort", Value: "6000"}, {Name: "NewProtocol", Value: "UDP"}}

func args(a *soap.Action) []soap.Arg {
	if a == nil {
		return nil
	}
	return a.Args()
}

// TestAccepts has the habits of control points: prefixes, blanks, missing
// declarations, datatypes, qualified arguments.
func TestAccepts(t *testing.T) {
	t.Parallel()
	envelope := func(open, inner, closing string) string { return open + inner + closing }
	for name, c := range map[string]struct{ header, body string }{
		"plain":                {header, plain},
		"SOAP-35/unquoted":     {strings.Trim(header, `"`), plain},
		"single quotes":        {"'" + strings.Trim(header, `"`) + "'", plain},
		"blanks around header": {" " + header + "\t", plain},
		"no declaration":       {header, strings.TrimPrefix(plain, `<?xml version="1.0"?>`)},
		"byte order mark":      {header, "\xef\xbb\xbf" + plain},
		"encoding utf8":        {header, strings.Replace(plain, `version="1.0"`, `version="1.0" encoding="utf8"`, 1)},
		"encoding UTF-8":       {header, strings.Replace(plain, `version="1.0"`, `version="1.0" encoding="UTF-8"`, 1)},
		"SOAP-34/prefix m":     {header, strings.NewReplacer("u:", "m:", "xmlns:u", "xmlns:m").Replace(plain)},
		"SOAP-34/default namespace": {header, strings.NewReplacer("<u:", "<", "</u:", "</", "xmlns:u", "xmlns").Replace(
			plain)},
		"SOAP-ENV and dt:dt, as Windows writes it": {header, envelope(
			`<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" SOAP-ENV:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><SOAP-ENV:Body>`+
				`<m:GetSpecificPortMappingEntry xmlns:m="`+service+`">`,
			`<NewRemoteHost xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string"></NewRemoteHost>`+
				`<NewExternalPort xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="ui2">6000</NewExternalPort>`+
				`<NewProtocol xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string">UDP</NewProtocol>`,
			`</m:GetSpecificPortMappingEntry></SOAP-ENV:Body></SOAP-ENV:Envelope>`)},
		"qualified arguments": {header, strings.NewReplacer("<New", "<u:New", "</New", "</u:New").Replace(plain)},
		"SOAP header":         {header, strings.Replace(plain, "<s:Body>", "<s:Header><x>a<y/></x></s:Header><s:Body>", 1)},
		"empty element":       {header, strings.Replace(plain, "<NewRemoteHost></NewRemoteHost>", "<NewRemoteHost/>", 1)},
		"no newline":          {header, strings.ReplaceAll(plain, "\n", "")},
		"CRLF":                {header, strings.ReplaceAll(plain, "\n", "\r\n")},
		"ODD-2/undeclared prefix, as libplum writes it": {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:").Replace(plain)},
		"encoding us-ascii, as ElementTree writes it":   {header, strings.Replace(plain, `<?xml version="1.0"?>`, `<?xml version='1.0' encoding='us-ascii'?>`, 1)},
		"blank lines in front, as scripts have them":    {header, "\n  " + plain},
		"ODD-11/comments between elements": {header, "<!-- a -->" + strings.NewReplacer("<s:Body>", "<!-- b --><s:Body><!-- c -->",
			"<NewProtocol>", "<!-- <NewProtocol>TCP</NewProtocol> --><NewProtocol>").Replace(strings.TrimPrefix(plain, `<?xml version="1.0"?>`)) + "<!-- d -->"},
		"ODD-10/CDATA": {header, with("<NewProtocol><![CDATA[UDP]]></NewProtocol>")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := soap.Decode(c.header, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if a.ServiceType != service || a.Name != "GetSpecificPortMappingEntry" {
				t.Errorf("decoded %s#%s", a.ServiceType, a.Name)
			}
			if diff := cmp.Diff(plainArgs, args(a)); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPresence(t *testing.T) {
	t.Parallel()
	a, err := soap.Decode(header, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	if v, there := a.Arg("NewRemoteHost"); v != "" || !there {
		t.Errorf("empty argument: %q, %v", v, there)
	}
	if _, there := a.Arg("NewEnabled"); there {
		t.Error("an argument that was not sent is there")
	}
	spaced := strings.Replace(plain, ">UDP<", "> UDP \t<", 1)
	if a, err = soap.Decode(header, []byte(spaced)); err != nil {
		t.Fatal(err)
	}
	if v, _ := a.Arg("NewProtocol"); v != " UDP \t" {
		t.Errorf("B7: blanks were lost: %q", v)
	}
	if escaped, err := soap.Decode(header, []byte(strings.Replace(plain, ">UDP<", ">a&lt;b&gt;&amp;&quot;&#39;c<", 1))); err != nil {
		t.Error(err)
	} else if v, _ := escaped.Arg("NewProtocol"); v != `a<b>&"'c` {
		t.Errorf("SOAP-25: %q", v)
	}
}

// with puts text in place of the protocol argument.
func with(argument string) string {
	return strings.Replace(plain, "<NewProtocol>UDP</NewProtocol>", argument, 1)
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("<a>", 1000) + strings.Repeat("</a>", 1000)
	attrs := "<NewProtocol"
	for i := range 100 {
		attrs += fmt.Sprintf(` a%d="x"`, i)
	}
	attrs += ">UDP</NewProtocol>"
	for name, c := range map[string]struct {
		header, body string
		want         error
	}{
		"G1/no header":                      {"", plain, soap.ErrMalformed},
		"G1/no hash":                        {`"` + service + `"`, plain, soap.ErrMalformed},
		"G1/no action":                      {`"` + service + `#"`, plain, soap.ErrMalformed},
		"G1/no type":                        {`"#GetSpecificPortMappingEntry"`, plain, soap.ErrMalformed},
		"G1/one quote":                      {`"`, plain, soap.ErrMalformed},
		"G1/two quotes":                     {`""`, plain, soap.ErrMalformed},
		"G1/open quote":                     {header[:len(header)-1], plain, soap.ErrMalformed},
		"G1/two hashes":                     {`"` + service + `#a#b"`, plain, soap.ErrMalformed},
		"G1/long":                           {`"` + service + "#" + strings.Repeat("A", 1<<13) + `"`, plain, soap.ErrMalformed},
		"G1/type of 257 bytes":              {`"` + strings.Repeat("A", 257) + `#b"`, plain, soap.ErrMalformed},
		"G1/action of 65 bytes":             {`"` + service + "#" + strings.Repeat("A", 65) + `"`, plain, soap.ErrMalformed},
		"G1/long type":                      {`"` + strings.Repeat("A", 1<<13) + `#b"`, plain, soap.ErrMalformed},
		"G1/markup":                         {`"` + service + `#<script>"`, plain, soap.ErrMalformed},
		"G1/NUL":                            {`"` + service + "#Get\x00\"", plain, soap.ErrMalformed},
		"SOAP-37/other action":              {`"` + service + `#DeletePortMapping"`, plain, soap.ErrMismatch},
		"SOAP-37/other service":             {`"urn:schemas-upnp-org:service:WANPPPConnection:1#GetSpecificPortMappingEntry"`, plain, soap.ErrMismatch},
		"SOAP-37/other version":             {`"urn:schemas-upnp-org:service:WANIPConnection:2#GetSpecificPortMappingEntry"`, plain, soap.ErrMismatch},
		"SOAP-37/no namespace":              {header, strings.Replace(plain, ` xmlns:u="`+service+`"`, "", 1), soap.ErrMismatch},
		"G2/argument of 2 kB":               {header, with("<NewProtocol>" + strings.Repeat("U", 2048) + "</NewProtocol>"), soap.ErrTooLong},
		"G2/body of 20 kB":                  {header, with("<NewProtocol>" + strings.Repeat("U", 20<<10) + "</NewProtocol>"), soap.ErrMalformed},
		"G3/empty body":                     {header, "", soap.ErrMalformed},
		"G3/blank body":                     {header, "  \r\n", soap.ErrMalformed},
		"G3/no action":                      {header, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body></s:Body></s:Envelope>`, soap.ErrMalformed},
		"G3/no body":                        {header, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"></s:Envelope>`, soap.ErrMalformed},
		"G4/DOCTYPE":                        {header, `<!DOCTYPE x>` + plain, soap.ErrMalformed},
		"G4/internal entity":                {header, `<!DOCTYPE x [<!ENTITY a "b">]>` + with("<NewProtocol>&a;</NewProtocol>"), soap.ErrMalformed},
		"G4/external entity":                {header, `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + plain, soap.ErrMalformed},
		"G4/undefined entity":               {header, with("<NewProtocol>&nope;</NewProtocol>"), soap.ErrMalformed},
		"G4/processing instruction":         {header, strings.Replace(plain, "<s:Body>", "<?php x?><s:Body>", 1), soap.ErrMalformed},
		"G4/stylesheet in front":            {header, strings.Replace(plain, `<?xml version="1.0"?>`, `<?xml-stylesheet href="http://evil.example/"?>`, 1), soap.ErrMalformed},
		"G4/instruction like a declaration": {header, strings.Replace(plain, `<?xml version="1.0"?>`, `<?xmlx?>`, 1), soap.ErrMalformed},
		"G4/second declaration":             {header, `<?xml version="1.0"?>` + plain, soap.ErrMalformed},
		"G4/nest":                           {header, with(deep), soap.ErrMalformed},
		"G4/nest in a header":               {header, strings.Replace(plain, "<s:Body>", "<s:Header>"+deep+"</s:Header><s:Body>", 1), soap.ErrMalformed},
		"G4/attributes":                     {header, with(attrs), soap.ErrMalformed},
		"G4/elements":                       {header, with(strings.Repeat("<b/>", 200)), soap.ErrDuplicate},
		"G4/element=attribute":              {header, "<element attribute=", soap.ErrMalformed},
		"G4/ns: at the end":                 {header, "<ns:", soap.ErrMalformed},
		"G4/Latin-1 declared":               {header, strings.Replace(plain, `"1.0"`, `"1.0" encoding="iso-8859-1"`, 1), soap.ErrMalformed},
		"G4/not UTF-8":                      {header, with("<NewProtocol>\xff\xfe</NewProtocol>"), soap.ErrMalformed},
		"G4/UTF-16":                         {header, "\xff\xfe<\x00s\x00", soap.ErrMalformed},
		"G5/duplicate":                      {header, with("<NewProtocol>UDP</NewProtocol><NewProtocol>TCP</NewProtocol>"), soap.ErrDuplicate},
		"G5/duplicate in another namespace": {header, with(`<NewProtocol>UDP</NewProtocol><x:NewProtocol xmlns:x="y">TCP</x:NewProtocol>`), soap.ErrDuplicate},
		"G5/comment splits":                 {header, with("<NewProtocol>U<!-- -->DP</NewProtocol>"), soap.ErrMalformed},
		"G5/CDATA splits":                   {header, with("<NewProtocol>U<![CDATA[DP]]></NewProtocol>"), soap.ErrMalformed},
		"G5/comment in front":               {header, with("<NewProtocol><!-- -->UDP</NewProtocol>"), soap.ErrMalformed},
		"G5/comment behind":                 {header, with("<NewProtocol>UDP<!-- --></NewProtocol>"), soap.ErrMalformed},
		"G5/comment alone":                  {header, with("<NewProtocol><!-- --></NewProtocol>"), soap.ErrMalformed},
		"G5/comment beside CDATA":           {header, with("<NewProtocol><![CDATA[UDP]]><!-- --></NewProtocol>"), soap.ErrMalformed},
		"G5/CDATA in front":                 {header, with("<NewProtocol><![CDATA[UD]]>P</NewProtocol>"), soap.ErrMalformed},
		"G5/two CDATA":                      {header, with("<NewProtocol><![CDATA[UD]]><![CDATA[P]]></NewProtocol>"), soap.ErrMalformed},
		"G5/empty CDATA splits":             {header, with("<NewProtocol>UD<![CDATA[]]>P</NewProtocol>"), soap.ErrMalformed},
		"G5/blanks around CDATA":            {header, with("<NewProtocol> <![CDATA[UDP]]> </NewProtocol>"), soap.ErrMalformed},
		"G5/CDATA between elements":         {header, with("<![CDATA[x]]>"), soap.ErrMalformed},
		"G5/elements in CDATA":              {header, with("<![CDATA[<NewProtocol>UDP</NewProtocol>]]>"), soap.ErrMalformed},
		"G4/comment that does not end":      {header, with("<!-- "), soap.ErrMalformed},
		"G4/two dashes in a comment":        {header, with("<!-- -- -->"), soap.ErrMalformed},
		"G4/CDATA that does not end":        {header, with("<NewProtocol><![CDATA[UDP</NewProtocol>"), soap.ErrMalformed},
		"G4/DOCTYPE behind a comment":       {header, "<!-- --><!DOCTYPE x>" + strings.TrimPrefix(plain, `<?xml version="1.0"?>`), soap.ErrMalformed},
		"G4/DOCTYPE in lower case":          {header, "<!doctype x>" + plain, soap.ErrMalformed},
		"G4/DOCTYPE in a comment":           {header, with("<!-- <!DOCTYPE x> -->"), soap.ErrMalformed},
		"G4/a conditional section":          {header, with("<![INCLUDE[x]]>"), soap.ErrMalformed},
		"G4/us-ascii with more than that":   {header, strings.Replace(with("<NewProtocol>\u00e9</NewProtocol>"), `"1.0"`, `"1.0" encoding="us-ascii"`, 1), soap.ErrMalformed},
		"G4/UTF-16 declared":                {header, strings.Replace(plain, `"1.0"`, `"1.0" encoding="utf-16"`, 1), soap.ErrMalformed},
		"ODD-2/undeclared, another type":    {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", ":WANIPConnection:", ":WANPPPConnection:").Replace(plain), soap.ErrMismatch},
		"ODD-2/undeclared, no type":         {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", ` xmlns:u="`+service+`"`, "").Replace(plain), soap.ErrMismatch},
		"ODD-2/undeclared, type twice":      {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", "xmlns:u", `xmlns:v="`+service+`" xmlns:u`).Replace(plain), soap.ErrMismatch},
		"ODD-2/declared, another one":       {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", "xmlns:u", `xmlns:m="urn:x" xmlns:u`).Replace(plain), soap.ErrMismatch},
		"ODD-2/declared as itself":          {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", "xmlns:u", `xmlns:m="m" xmlns:u`).Replace(plain), soap.ErrMismatch},
		"ODD-2/type in no declaration":      {header, strings.NewReplacer("<u:", "<m:", "</u:", "</m:", "xmlns:u", "type").Replace(plain), soap.ErrMismatch},
		"G5/child splits":                   {header, with("<NewProtocol>U<b/>DP</NewProtocol>"), soap.ErrMalformed},
		"G5/two actions":                    {header, strings.Replace(plain, "</s:Body>", `<u:X xmlns:u="`+service+`"/></s:Body>`, 1), soap.ErrMalformed},
		"G5/two bodies":                     {header, strings.Replace(plain, "</s:Envelope>", "<s:Body/></s:Envelope>", 1), soap.ErrMalformed},
		"G5/two roots":                      {header, plain + plain[len(`<?xml version="1.0"?>`):], soap.ErrMalformed},
		"G5/text after the root":            {header, plain + "x", soap.ErrMalformed},
		"G5/text before the root":           {header, "x" + plain, soap.ErrMalformed},
		"G5/text between arguments":         {header, with("x"), soap.ErrMalformed},
		"ODD-13/SOAP 1.2":                   {header, strings.ReplaceAll(plain, "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope"), soap.ErrVersion},
		"ODD-13/SOAP 1.2 with a slash":      {header, strings.ReplaceAll(plain, "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope/"), soap.ErrVersion},
		"ODD-13/no slash":                   {header, strings.ReplaceAll(plain, "soap/envelope/", "soap/envelope"), soap.ErrVersion},
		"no envelope":                       {header, `<a/>`, soap.ErrMalformed},
		"envelope without namespace":        {header, strings.Replace(plain, ` xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"`, "", 1), soap.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if a, err := soap.Decode(c.header, []byte(c.body)); !errors.Is(err, c.want) {
				t.Errorf("decoded %+v, %v; want %v", a, err, c.want)
			}
		})
	}
}

// TestKeepsNoRequest: who keeps an argument, as a mapping its description, keeps no
// request by it.
func TestKeepsNoRequest(t *testing.T) { // alone: it looks at all memory
	body := []byte(strings.Replace(plain, "<s:Body>", "<s:Body>"+strings.Repeat(" ", soap.MaxBody-len(plain)), 1))
	const requests = 1000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	kept := make([]string, 0, requests)
	before := heap()
	for range requests {
		a, err := soap.Decode(header, body)
		if err != nil {
			t.Fatal(err)
		}
		port, _ := a.Arg("NewExternalPort")
		kept = append(kept, port)
	}
	if grown := int64(heap()) - int64(before); grown > requests*soap.MaxBody/4 {
		t.Errorf("%d arguments of 4 octets keep %d octets", requests, grown)
	}
	runtime.KeepAlive(kept)
}
