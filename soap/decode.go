package soap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of a request (abuse cases G2, G4). A legal request needs a depth of 4
// and nine arguments.
const (
	MaxBody     = 16 << 10 // bytes of a request body
	MaxArg      = 1 << 10  // bytes of one argument, after decoding
	maxDepth    = 8
	maxElements = 64
	maxAttrs    = 16
	maxName     = 64  // bytes of a local name
	maxType     = 256 // bytes of a service type
)

// What can be wrong with a request.
var (
	// ErrMalformed: not one SOAP envelope with one action; HTTP 400.
	ErrMalformed = errors.New("malformed SOAP request")
	// ErrMismatch: the SOAPACTION header and the body name different actions;
	// a 401 fault, and nothing is executed.
	ErrMismatch = errors.New("SOAPACTION and body differ")
	// ErrDuplicate: an argument stands there twice; a 402 fault (abuse case G5).
	ErrDuplicate = errors.New("duplicate argument")
	// ErrTooLong: an argument is longer than MaxArg; a 605 fault.
	ErrTooLong = errors.New("argument too long")
	// ErrVersion: an envelope of another version of SOAP; a VersionMismatch fault
	// (SOAP 1.1 section 4.1.2).
	ErrVersion = errors.New("not SOAP 1.1")
)

const envelopeNS = "http://schemas.xmlsoap.org/soap/envelope/"

// Action is one decoded call.
type Action struct {
	ServiceType string // from SOAPACTION, and equal to the body's namespace
	Name        string
	args        []Arg
}

// Arg is one argument.
type Arg struct {
	Name, Value string
	// CDATA has EncodeResponse write the value as a CDATA section: the same to an
	// XML parser, but some clients read a document inside a string in no other
	// form. Decode never sets it.
	CDATA bool
}

// Arg returns an argument's text as it was sent, blanks included, and whether it
// was there at all: a missing argument and an empty one differ.
func (a *Action) Arg(name string) (value string, present bool) {
	for _, arg := range a.args {
		if arg.Name == name {
			return arg.Value, true
		}
	}
	return "", false
}

// Args returns all arguments in the order of the request.
func (a *Action) Args() []Arg { return a.args }

// ParseHeader splits a SOAPACTION header, "type#action". The quotes may be
// missing, or single ones (clients differ; UDA 1.0 section 3.1.1 has double
// quotes). Everything but the plain characters of a URN and a name is refused
// (abuse case G1).
func ParseHeader(v string) (serviceType, action string, err error) {
	v = strings.Trim(v, " \t")
	if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
		v = v[1 : n-1]
	}
	serviceType, action, ok := strings.Cut(v, "#")
	if !ok || serviceType == "" || action == "" {
		return "", "", fmt.Errorf("%w: SOAPACTION is not type#action", ErrMalformed)
	}
	if len(serviceType) > maxType || len(action) > maxName {
		return "", "", fmt.Errorf("%w: SOAPACTION is too long", ErrMalformed)
	}
	if strings.ContainsFunc(serviceType, notURNRune) || strings.ContainsFunc(action, notNameRune) {
		return "", "", fmt.Errorf("%w: SOAPACTION has odd characters", ErrMalformed)
	}
	return serviceType, action, nil
}

func notNameRune(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.')
}

func notURNRune(r rune) bool { return notNameRune(r) && r != ':' }

// Decode reads a request: the SOAPACTION header and the body, which must agree.
// The error wraps one of those above.
func Decode(header string, body []byte) (*Action, error) {
	serviceType, name, err := ParseHeader(header)
	if err != nil {
		return nil, err
	}
	if err := scan(body); err != nil {
		return nil, err
	}
	a, err := newDecoder(body, serviceType).envelope()
	if err != nil {
		return nil, err
	}
	if a.Name != name || a.ServiceType != serviceType {
		return nil, ErrMismatch
	}
	return a, nil
}

// trimFront takes away what may stand before a document: a byte order mark, and
// blank space, with which scripts begin whose envelope is a string of several lines.
func trimFront(b []byte) []byte {
	return bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), " \t\r\n")
}

// charset accepts what encoding/xml does not know and is UTF-8 all the same: another
// spelling, and US-ASCII, which Python's ElementTree declares when nobody tells it
// what to write. A body that says so and holds more is refused: another parser would
// not read it.
func charset(body []byte) func(string, io.Reader) (io.Reader, error) {
	return func(label string, r io.Reader) (io.Reader, error) {
		switch strings.ToLower(label) {
		case "utf8":
			return r, nil
		case "us-ascii":
			if !bytes.ContainsFunc(body, func(c rune) bool { return c >= utf8.RuneSelf }) {
				return r, nil
			}
		}
		return nil, errors.New("only UTF-8 is understood")
	}
}

// scan refuses, before any XML is parsed, what no control point sends and what
// makes two parsers see two documents: DOCTYPE, entities, and processing
// instructions but for one XML declaration in front (abuse cases G4, G5). Of what
// begins with "<!" comments and CDATA sections pass: SOAP 1.1 section 3 forbids the
// others alone. That they split no value is for the decoder to see.
func scan(body []byte) error {
	switch {
	case len(body) > MaxBody:
		return fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBody)
	case !utf8.Valid(body):
		return fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	for rest := body; ; {
		_, after, found := bytes.Cut(rest, []byte("<!"))
		if !found {
			break
		}
		if !bytes.HasPrefix(after, []byte("--")) && !bytes.HasPrefix(after, []byte("[CDATA[")) {
			return fmt.Errorf("%w: a declaration", ErrMalformed)
		}
		rest = after
	}
	if bytes.Contains(trimDeclaration(trimFront(body)), []byte("<?")) {
		return fmt.Errorf("%w: a processing instruction", ErrMalformed)
	}
	return nil
}

// trimDeclaration takes the opening of an XML declaration away. The blank behind
// it belongs to it: "<?xml-stylesheet" is a processing instruction.
func trimDeclaration(b []byte) []byte {
	rest, found := bytes.CutPrefix(b, []byte("<?xml"))
	if !found || len(rest) == 0 || !strings.ContainsRune(" \t\r\n", rune(rest[0])) {
		return b
	}
	return rest
}

// decoder walks the tokens with bounds of its own: Unmarshal would accept any depth, a
// second root, and the last of two equal arguments.
type decoder struct {
	xml         *xml.Decoder
	serviceType string // what SOAPACTION says
	depth       int
	elements    int
}

func newDecoder(body []byte, serviceType string) *decoder {
	d := &decoder{xml: xml.NewDecoder(bytes.NewReader(trimFront(body))), serviceType: serviceType}
	d.xml.CharsetReader = charset(body)
	return d
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// next returns the next token but blank text and comments; text gets what stands
// before it, when it is not nil.
func (d *decoder) next(text *content) (xml.Token, error) {
	for {
		tok, err := d.xml.Token()
		if err == io.EOF {
			return nil, io.EOF
		}
		if err != nil {
			return nil, malformed("not well-formed XML")
		}
		switch t := tok.(type) {
		case xml.StartElement:
			return tok, d.open(t)
		case xml.EndElement:
			d.depth--
			return tok, nil
		case xml.CharData:
			if text != nil {
				text.parts++
				text.Write(t)
			} else if len(bytes.Trim(t, " \t\r\n")) > 0 {
				return nil, malformed("text between elements")
			}
		case xml.Comment:
			if text != nil {
				text.parts += 2 // it parts what stands around it
			}
		case xml.Directive:
			return nil, malformed("a declaration")
		}
	}
}

// content is the text of an element. It must be in one part: text, or a CDATA
// section. One that is made of several, or has a comment in it, is read otherwise by
// others (abuse case G5).
type content struct {
	strings.Builder
	parts int
}

func (d *decoder) open(t xml.StartElement) error {
	d.depth++
	d.elements++
	if d.depth > maxDepth || d.elements > maxElements || len(t.Attr) > maxAttrs || len(t.Name.Local) > maxName {
		return malformed("too deep, or too much of something")
	}
	return nil
}

// start returns the next start element; what may end instead is an error.
func (d *decoder) start() (xml.StartElement, error) {
	tok, err := d.next(nil)
	if err != nil {
		return xml.StartElement{}, unexpectedEnd(err)
	}
	s, ok := tok.(xml.StartElement)
	if !ok {
		return xml.StartElement{}, malformed("an element is missing")
	}
	return s, nil
}

func (d *decoder) end() error {
	tok, err := d.next(nil)
	if err != nil {
		return unexpectedEnd(err)
	}
	if _, ok := tok.(xml.EndElement); !ok {
		return malformed("an element too many")
	}
	return nil
}

func unexpectedEnd(err error) error {
	if err == io.EOF {
		return malformed("it ends too early")
	}
	return err
}

// envelope reads the whole document: Envelope, perhaps Header, Body, one action.
func (d *decoder) envelope() (*Action, error) {
	root, err := d.start()
	if err != nil {
		return nil, err
	}
	if root.Name.Local != "Envelope" {
		return nil, malformed("no envelope")
	}
	if root.Name.Space != envelopeNS {
		return nil, ErrVersion
	}
	body, err := d.start()
	if err == nil && body.Name == (xml.Name{Space: envelopeNS, Local: "Header"}) {
		if err = d.skip(); err == nil {
			body, err = d.start()
		}
	}
	if err != nil {
		return nil, err
	}
	if body.Name != (xml.Name{Space: envelopeNS, Local: "Body"}) {
		return nil, malformed("no body")
	}
	element, err := d.start()
	if err != nil {
		return nil, err
	}
	a := &Action{ServiceType: d.namespace(element), Name: element.Name.Local}
	if err := d.arguments(a); err != nil {
		return nil, err
	}
	if err := errors.Join(d.end(), d.end()); err != nil { // Body, Envelope
		return nil, malformed("something after the action")
	}
	if _, err := d.next(nil); err != io.EOF {
		return nil, malformed("something after the envelope")
	}
	return a, nil
}

// namespace returns that of the action. libplum until May 2025 declares the service
// type under one prefix and writes another one, which nobody has declared and which
// is therefore no name of anything: what the header names and the element itself
// declares, once, is meant.
func (d *decoder) namespace(action xml.StartElement) string {
	prefix := action.Name.Space // encoding/xml leaves one here that is not declared
	if prefix == "" || strings.ContainsFunc(prefix, notNameRune) {
		return prefix
	}
	declared := 0
	for _, a := range action.Attr {
		if a.Name.Space == "xmlns" && a.Name.Local == prefix {
			return prefix // a declaration of ours that looks like a prefix
		}
		if a.Name.Space == "xmlns" && a.Value == d.serviceType {
			declared++
		}
	}
	if declared != 1 {
		return prefix
	}
	return d.serviceType
}

// skip passes over the rest of an element that was opened.
func (d *decoder) skip() error {
	for level := d.depth; d.depth >= level; {
		var ignored content
		if _, err := d.next(&ignored); err != nil {
			return unexpectedEnd(err)
		}
	}
	return nil
}

// arguments reads the children of the action element. Their namespace is not
// looked at: UDA wants none, and some stacks write one.
func (d *decoder) arguments(a *Action) error {
	for {
		tok, err := d.next(nil)
		if err != nil {
			return unexpectedEnd(err)
		}
		s, ok := tok.(xml.StartElement)
		if !ok {
			return nil // the action's end
		}
		var text content
		tok, err = d.next(&text)
		if err != nil {
			return unexpectedEnd(err)
		}
		if _, ok := tok.(xml.EndElement); !ok {
			return malformed("an argument with elements in it")
		}
		if text.parts > 1 {
			return malformed("an argument in several parts")
		}
		if text.Len() > MaxArg {
			return ErrTooLong
		}
		if _, twice := a.Arg(s.Name.Local); twice {
			return ErrDuplicate
		}
		a.args = append(a.args, Arg{Name: s.Name.Local, Value: text.String()})
	}
}
