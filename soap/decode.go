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

// Arg gives an argument's text as it was sent, blanks included, and whether it
// was there at all: a missing argument and an empty one differ.
func (a *Action) Arg(name string) (value string, present bool) {
	for _, arg := range a.args {
		if arg.Name == name {
			return arg.Value, true
		}
	}
	return "", false
}

// Args gives all arguments in the order of the request.
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
// The error wraps one of the four above.
func Decode(header string, body []byte) (*Action, error) {
	serviceType, name, err := ParseHeader(header)
	if err != nil {
		return nil, err
	}
	if err := scan(body); err != nil {
		return nil, err
	}
	d := decoder{xml: xml.NewDecoder(bytes.NewReader(trimBOM(body)))}
	d.xml.CharsetReader = onlyUTF8
	a, err := d.envelope()
	if err != nil {
		return nil, err
	}
	if a.Name != name || a.ServiceType != serviceType {
		return nil, ErrMismatch
	}
	return a, nil
}

func trimBOM(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) }

// onlyUTF8 accepts a spelling that encoding/xml does not know.
func onlyUTF8(label string, r io.Reader) (io.Reader, error) {
	if strings.EqualFold(label, "utf8") {
		return r, nil
	}
	return nil, errors.New("only UTF-8 is understood")
}

// scan refuses, before any XML is parsed, what no control point sends and what
// makes two parsers see two documents: DOCTYPE, entities, comments, CDATA, and
// processing instructions but for one XML declaration in front (abuse cases G4,
// G5).
func scan(body []byte) error {
	switch {
	case len(body) > MaxBody:
		return fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBody)
	case !utf8.Valid(body):
		return fmt.Errorf("%w: not UTF-8", ErrMalformed)
	case bytes.Contains(body, []byte("<!")):
		return fmt.Errorf("%w: a declaration, comment or CDATA", ErrMalformed)
	}
	if bytes.Contains(trimDeclaration(trimBOM(body)), []byte("<?")) {
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

// decoder walks the tokens with bounds of its own: Unmarshal would accept any
// depth, a second root, and the last of two equal arguments (style: section 3.5).
type decoder struct {
	xml      *xml.Decoder
	depth    int
	elements int
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// next gives the next token but blank text; text gets it when it is not nil.
func (d *decoder) next(text *strings.Builder) (xml.Token, error) {
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
				text.Write(t)
			} else if len(bytes.Trim(t, " \t\r\n")) > 0 {
				return nil, malformed("text between elements")
			}
		}
	}
}

func (d *decoder) open(t xml.StartElement) error {
	d.depth++
	d.elements++
	if d.depth > maxDepth || d.elements > maxElements || len(t.Attr) > maxAttrs || len(t.Name.Local) > maxName {
		return malformed("too deep, or too much of something")
	}
	return nil
}

// start gives the next start element; what may end instead is an error.
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
	if root.Name != (xml.Name{Space: envelopeNS, Local: "Envelope"}) {
		return nil, malformed("no SOAP 1.1 envelope")
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
	a := &Action{ServiceType: element.Name.Space, Name: element.Name.Local}
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

// skip passes over the rest of an element that was opened.
func (d *decoder) skip() error {
	for level := d.depth; d.depth >= level; {
		var ignored strings.Builder
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
		var text strings.Builder
		tok, err = d.next(&text)
		if err != nil {
			return unexpectedEnd(err)
		}
		if _, ok := tok.(xml.EndElement); !ok {
			return malformed("an argument with elements in it")
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
