package soap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"portcullis/internal/xml1"
)

// Bounds of a request (abuse cases G2, G4), beside those that xml1 has for a document. A
// legal request needs a depth of 4 and nine arguments.
const (
	MaxBody     = 16 << 10 // bytes of a request body
	MaxArg      = 1 << 10  // bytes of one argument, after decoding
	usualArgs   = 8        // no action of a mapping has more
	maxElements = 64
	maxName     = 64  // bytes of an action's name, as xml1 has it
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
	d := decoder{serviceType: serviceType}
	if err := d.open(body); err != nil {
		return nil, err
	}
	a, err := d.envelope()
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

// scan refuses, before any XML is parsed, what no control point sends and what
// makes two parsers see two documents: DOCTYPE, entities, and processing
// instructions but for one XML declaration in front (abuse cases G4, G5). Of what
// begins with "<!" comments and CDATA sections pass: SOAP 1.1 section 3 forbids the
// others alone. That they split no value is for the decoder to see.
func scan(body []byte) error {
	if len(body) > MaxBody {
		return fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBody)
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

// decoder walks the tokens of an envelope.
type decoder struct {
	xml         xml1.Reader
	serviceType string // what SOAPACTION says
	elements    int
}

func (d *decoder) open(body []byte) error {
	if err := d.xml.Open(trimFront(body)); err != nil {
		return malformed(err.Error())
	}
	return nil
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// next reads up to the next start or end of an element; text gets what stands before it,
// when it is not nil. The end of the document is io.EOF.
func (d *decoder) next(text *content) (xml1.Kind, error) {
	for {
		kind, err := d.xml.Next()
		switch {
		case err == io.EOF:
			return 0, err
		case err != nil:
			return 0, malformed(err.Error())
		case kind == xml1.End:
			return kind, nil
		case kind == xml1.Start && d.elements == maxElements:
			return 0, malformed("too many elements")
		case kind == xml1.Start:
			d.elements++
			return kind, nil
		case text != nil:
			text.add(kind, d.xml.Text)
		case kind == xml1.Text && strings.Trim(d.xml.Text, " \t\r\n") != "":
			return 0, malformed("text between elements")
		}
	}
}

// content is the text of an element. It must be in one part: text, or a CDATA
// section. One that is made of several, or has a comment in it, is read otherwise by
// others (abuse case G5).
type content struct {
	string
	parts int
}

func (c *content) add(kind xml1.Kind, text string) {
	if kind == xml1.Comment {
		c.parts += 2 // it parts what stands around it
		return
	}
	c.parts++
	c.string = text
}

// want reads the next start or end of an element; the other one is an error, and so is
// the end of the document.
func (d *decoder) want(kind xml1.Kind) error {
	got, err := d.next(nil)
	switch {
	case err != nil:
		return unexpectedEnd(err)
	case got != kind:
		return malformed("an element is missing, or one too many")
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
	if err := d.want(xml1.Start); err != nil {
		return nil, err
	}
	if d.xml.Name.Local != "Envelope" {
		return nil, malformed("no envelope")
	}
	if d.xml.Name.Space != envelopeNS {
		return nil, ErrVersion
	}
	err := d.want(xml1.Start)
	if err == nil && d.at("Header") {
		if err = d.skip(); err == nil {
			err = d.want(xml1.Start)
		}
	}
	if err != nil {
		return nil, err
	}
	if !d.at("Body") {
		return nil, malformed("no body")
	}
	if err := d.want(xml1.Start); err != nil {
		return nil, err
	}
	a := &Action{ServiceType: d.namespace(), Name: d.xml.Name.Local, args: make([]Arg, 0, usualArgs)}
	if err := d.arguments(a); err != nil {
		return nil, err
	}
	for range 2 { // Body, Envelope
		if d.want(xml1.End) != nil {
			return nil, malformed("something after the action")
		}
	}
	if _, err := d.next(nil); err != io.EOF {
		return nil, malformed("something after the envelope")
	}
	return a, nil
}

// at reports whether the element is one of SOAP's own.
func (d *decoder) at(local string) bool {
	return d.xml.Name.Space == envelopeNS && d.xml.Name.Local == local
}

// namespace returns that of the action, which has just been opened. libplum until May
// 2025 declares the service type under one prefix and writes another one, which nobody
// has declared and which is therefore no name of anything: what the header names and the
// element itself declares, once, is meant.
func (d *decoder) namespace() string {
	if !d.xml.Name.Undeclared() {
		return d.xml.Name.Space
	}
	declared := 0
	for _, a := range d.xml.Attrs() {
		if a.Name.Prefix == "xmlns" && a.Value == d.serviceType {
			declared++
		}
	}
	if declared != 1 {
		return ""
	}
	return d.serviceType
}

// skip passes over the rest of an element that was opened.
func (d *decoder) skip() error {
	for level := 1; level > 0; {
		var ignored content
		kind, err := d.next(&ignored)
		if err != nil {
			return unexpectedEnd(err)
		}
		if kind == xml1.Start {
			level++
		} else {
			level--
		}
	}
	return nil
}

// arguments reads the children of the action element. Their namespace is not
// looked at: UDA wants none, and some stacks write one.
func (d *decoder) arguments(a *Action) error {
	for {
		kind, err := d.next(nil)
		if err != nil {
			return unexpectedEnd(err)
		}
		if kind == xml1.End {
			return nil // of the action
		}
		name := d.xml.Name.Local
		var text content
		kind, err = d.next(&text)
		switch {
		case err != nil:
			return unexpectedEnd(err)
		case kind != xml1.End:
			return malformed("an argument with elements in it")
		case text.parts > 1:
			return malformed("an argument in several parts")
		case len(text.string) > MaxArg:
			return ErrTooLong
		}
		if _, twice := a.Arg(name); twice {
			return ErrDuplicate
		}
		// A copy: a mapping keeps its description, and would keep the whole request by it.
		a.args = append(a.args, Arg{Name: name, Value: strings.Clone(text.string)})
	}
}
