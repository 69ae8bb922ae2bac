package xml1

import (
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a document. SOAP needs a depth of 4; what a stack of .NET adds is a handful of
// attributes.
const (
	MaxDepth = 8  // elements within each other
	MaxAttrs = 16 // attributes of one element
	MaxName  = 64 // octets of either part of a name
)

// ErrSyntax: not well-formed, beyond a bound, or refused by what doc.go says.
var ErrSyntax = errors.New("not well-formed XML")

// Namespaces that need no declaration (Namespaces in XML 1.0 section 3).
const (
	xmlPrefix, xmlSpace = "xml", "http://www.w3.org/XML/1998/namespace"
	xmlns               = "xmlns" // what a declaration is called, or the prefix of its name
)

// Kind is what a token is.
type Kind int

// The kinds of tokens. An empty-element tag is a Start and an End.
const (
	Start   Kind = iota + 1
	End          // of the innermost element that is open
	Text         // up to the next markup, or one CDATA section, which may be empty
	Comment      // its text is not kept
)

// Name is the name of an element or an attribute.
type Name struct {
	Prefix, Local string
	Space         string // the namespace, "" if it has none
}

// Undeclared reports whether the prefix has no namespace, which no declaration can give
// it. That of a declaration has none either.
func (n Name) Undeclared() bool { return n.Prefix != "" && n.Space == "" }

// Attr is an attribute.
type Attr struct {
	Name  Name
	Value string
}

// Reader reads a document token by token, after Open. It is a value so that it needs no
// heap of its own.
type Reader struct {
	// Of the token that was read last.
	Name Name   // of a Start or an End
	Text string // of a Text: references resolved, lines ended by LF (sections 2.11, 4.1)

	doc    string
	at     int // octets read
	open   [MaxDepth]element
	depth  int // elements that are open
	attrs  [MaxAttrs]Attr
	has    int       // attributes that the element has that was opened last
	bound  []binding // namespaces in scope, the innermost last
	rooted bool      // the root has been opened
	empty  bool      // the element that was opened last was an empty-element tag
	err    error     // which ended the reading
}

// element is one that is open.
type element struct {
	name  Name
	bound int // namespaces in scope around it
}

// binding is a namespace in scope. The default one has no prefix.
type binding struct{ prefix, space string }

// Open begins to read a document. It returns ErrSyntax for one whose declaration or
// encoding keeps it from being read. A byte order mark is for the caller to take away.
func (r *Reader) Open(doc []byte) error {
	if r.err = ErrSyntax; utf8.Valid(doc) {
		r.doc, r.bound = string(doc), make([]binding, 0, 8)
		r.err = r.declaration()
	}
	return r.err
}

// Attrs returns the attributes of the element that was opened last, declarations included,
// in their order. They are good until the next call of Next.
func (r *Reader) Attrs() []Attr { return r.attrs[:r.has] }

// Offset returns how many octets have been read.
func (r *Reader) Offset() int { return r.at }

// Next reads the next token, and returns its kind; io.EOF behind the whole document, or
// ErrSyntax. An error stays.
func (r *Reader) Next() (Kind, error) {
	var kind Kind
	if r.err == nil {
		kind, r.err = r.next()
	}
	return kind, r.err
}

func (r *Reader) next() (Kind, error) {
	rest := r.doc[r.at:]
	switch {
	case r.empty:
		r.empty = false
		r.pop()
		return End, nil
	case rest == "" && r.rooted && r.depth == 0:
		return 0, io.EOF
	case rest == "":
		return 0, ErrSyntax
	case rest[0] != '<':
		return Text, r.text(rest)
	case strings.HasPrefix(rest, "</"):
		return End, r.end()
	case strings.HasPrefix(rest, "<!--"):
		return Comment, r.comment(rest[len("<!--"):])
	case strings.HasPrefix(rest, "<![CDATA["):
		return Text, r.cdata(rest[len("<![CDATA["):])
	}
	return Start, r.start() // which knows no name that begins like a declaration or an instruction
}

// take reads s, and reports whether it was there.
func (r *Reader) take(s string) bool {
	if !strings.HasPrefix(r.doc[r.at:], s) {
		return false
	}
	r.at += len(s)
	return true
}

// blanks reads white space (section 2.3), and reports whether there was any.
func (r *Reader) blanks() bool {
	from := r.at
	for r.at < len(r.doc) && blank(r.doc[r.at]) {
		r.at++
	}
	return r.at > from
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// text reads character data (section 2.4). Around the root there is white space alone.
func (r *Reader) text(rest string) (err error) {
	if end := strings.IndexByte(rest, '<'); end >= 0 {
		rest = rest[:end]
	}
	r.at += len(rest)
	if strings.Contains(rest, "]]>") || r.depth == 0 && strings.Trim(rest, " \t\r\n") != "" {
		return ErrSyntax
	}
	r.Text, err = resolve(rest, true)
	return err
}

// comment reads what stands behind the opening of a comment (section 2.5).
func (r *Reader) comment(rest string) (err error) {
	text, rest, _ := strings.Cut(rest, "--")
	if !strings.HasPrefix(rest, ">") {
		return ErrSyntax
	}
	r.at = len(r.doc) - len(rest) + 1
	_, err = resolve(text, false)
	return err
}

// cdata reads what stands behind the opening of a CDATA section (section 2.7).
func (r *Reader) cdata(rest string) (err error) {
	text, rest, ended := strings.Cut(rest, "]]>")
	if !ended || r.depth == 0 {
		return ErrSyntax
	}
	r.at = len(r.doc) - len(rest)
	r.Text, err = resolve(text, false)
	return err
}

// start reads the tag that opens an element (section 3.1).
func (r *Reader) start() error {
	r.at++ // the <
	name, ok := r.name()
	if !ok || name.Prefix == xmlns || r.depth == MaxDepth || r.depth == 0 && r.rooted {
		return ErrSyntax
	}
	around := len(r.bound)
	if err := r.attributes(); err != nil {
		return err
	}
	if err := r.bind(); err != nil {
		return err
	}
	name.Space = r.space(name.Prefix)
	r.open[r.depth] = element{name, around}
	r.depth++
	r.rooted = true
	r.Name = name
	return nil
}

// attributes reads the rest of a tag.
func (r *Reader) attributes() error {
	for r.has = 0; ; r.has++ {
		r.blanks()
		r.empty = r.take("/>")
		if r.empty || r.take(">") {
			return nil
		}
		name, ok := r.name()
		if !ok || r.has == MaxAttrs {
			return ErrSyntax
		}
		value, err := r.value()
		if err != nil {
			return err
		}
		r.attrs[r.has] = Attr{name, value}
	}
}

// value reads what stands behind an attribute's name: an equals sign, and text in quotes.
func (r *Reader) value() (string, error) {
	r.blanks()
	if !r.take("=") {
		return "", ErrSyntax
	}
	r.blanks()
	quote := `"`
	if !r.take(quote) {
		quote = "'"
		if !r.take(quote) {
			return "", ErrSyntax
		}
	}
	raw, _, ended := strings.Cut(r.doc[r.at:], quote)
	if !ended || strings.Contains(raw, "<") {
		return "", ErrSyntax
	}
	r.at += len(raw) + len(quote)
	return resolve(raw, true)
}

// bind takes the declarations among the attributes of an element into scope, and gives
// all their namespaces. No attribute stands there twice (Namespaces section 6.3).
func (r *Reader) bind() error {
	attrs := r.Attrs()
	for _, a := range attrs {
		prefix, declares := a.declares()
		if !declares {
			continue
		}
		if prefix == xmlns || (prefix == xmlPrefix) != (a.Value == xmlSpace) || prefix != "" && a.Value == "" {
			return ErrSyntax
		}
		r.bound = append(r.bound, binding{prefix, a.Value})
	}
	for i := range attrs {
		name := &attrs[i].Name
		if name.Prefix != "" { // an attribute without one is in no namespace
			name.Space = r.space(name.Prefix)
		}
		for _, other := range attrs[:i] {
			if name.Local == other.Name.Local && (name.Prefix == other.Name.Prefix || name.Space != "" && name.Space == other.Name.Space) {
				return ErrSyntax
			}
		}
	}
	return nil
}

// declares reports whether the attribute gives a prefix a namespace. The default one's is
// "".
func (a *Attr) declares() (prefix string, yes bool) {
	if a.Name.Prefix == xmlns {
		return a.Name.Local, true
	}
	return "", a.Name.Prefix == "" && a.Name.Local == xmlns
}

// space returns the namespace of a prefix, "" if it has none.
func (r *Reader) space(prefix string) string {
	if prefix == xmlPrefix {
		return xmlSpace
	}
	for i := len(r.bound) - 1; i >= 0; i-- {
		if r.bound[i].prefix == prefix {
			return r.bound[i].space
		}
	}
	return ""
}

// end reads the tag that closes an element: the one that was opened last.
func (r *Reader) end() error {
	r.at += len("</")
	name, ok := r.name()
	r.blanks()
	if !ok || !r.take(">") || r.depth == 0 {
		return ErrSyntax
	}
	if opened := &r.open[r.depth-1].name; name.Prefix != opened.Prefix || name.Local != opened.Local {
		return ErrSyntax
	}
	r.pop()
	return nil
}

// pop closes the element that was opened last.
func (r *Reader) pop() {
	r.depth--
	e := &r.open[r.depth]
	r.Name, r.bound = e.name, r.bound[:e.bound]
}

// name reads a name of one part or two (Namespaces section 4).
func (r *Reader) name() (Name, bool) {
	end := r.at
	for end < len(r.doc) && (r.doc[end] == ':' || inName(r.doc[end])) {
		end++
	}
	whole := r.doc[r.at:end]
	r.at = end
	prefix, local, parted := strings.Cut(whole, ":")
	if !parted {
		return Name{Local: whole}, isName(whole)
	}
	return Name{Prefix: prefix, Local: local}, isName(prefix) && isName(local)
}

// isName reports whether s is a name without a colon, and short enough.
func isName(s string) bool {
	if s == "" || len(s) > MaxName || !letter(s[0]) {
		return false
	}
	for i := range len(s) {
		if !inName(s[i]) {
			return false
		}
	}
	return true
}

func inName(c byte) bool { return letter(c) || '0' <= c && c <= '9' || c == '-' || c == '.' }

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }

// declaration reads the XML declaration (section 2.8), where there is one. Of the
// encodings only those are taken that are UTF-8, or a part of it: US-ASCII is what
// Python's ElementTree declares when nobody tells it what to write. A document that says
// so and holds more is refused: another parser would not read it.
func (r *Reader) declaration() error {
	if !strings.HasPrefix(r.doc, "<?xml") || len(r.doc) == len("<?xml") || !blank(r.doc[len("<?xml")]) {
		return nil
	}
	r.at = len("<?xml")
	var seen [len(pseudo)]bool
	for {
		r.blanks()
		if r.take("?>") {
			return nil
		}
		name, ok := r.name()
		value, err := r.value()
		what := slices.Index(pseudo[:], name.Local)
		if !ok || err != nil || what < 0 || name.Prefix != "" || seen[what] {
			return ErrSyntax
		}
		seen[what] = true
		switch pseudo[what] {
		case "version":
			ok = value == "1.0"
		case "encoding":
			ok = r.encoded(strings.ToLower(value))
		case "standalone":
			ok = value == "yes" || value == "no"
		}
		if !ok {
			return ErrSyntax
		}
	}
}

// pseudo are what an XML declaration says in the manner of attributes.
var pseudo = [...]string{"version", "encoding", "standalone"}

// encoded reports whether the document is in an encoding, and we understand it.
func (r *Reader) encoded(label string) bool {
	switch label {
	case "utf-8", "utf8":
		return true
	case "us-ascii":
		return !strings.ContainsFunc(r.doc, func(c rune) bool { return c >= utf8.RuneSelf })
	}
	return false
}
