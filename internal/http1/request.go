package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// MaxHead bounds a message up to its body, in octets.
const MaxHead = 8 << 10

// Methods of HTTP (RFC 9110 section 9.3).
const (
	Get  = "GET"
	Head = "HEAD"
	Post = "POST"
)

// What a peer may write wrongly.
var (
	ErrMalformed = errors.New("malformed HTTP message")
	ErrTooLong   = fmt.Errorf("HTTP head of more than %d octets", MaxHead)
	ErrCut       = errors.New("HTTP message ends before its end")
)

// Request is what a client asks. Remote and Local come from the socket, all else is
// the client's word.
type Request struct {
	Method string
	Target string // as it was sent: nothing is decoded or cleaned
	Minor  int    // of HTTP/1.Minor
	Host   string // "": the line is missing, or empty
	Header Header // without Host
	Lines  int    // how many lines the header has, Host included
	Body   []byte

	// Length is what Content-Length says, -1 if nothing does.
	Length int64

	// Remote and Local are the ends of the connection, not IPv4-mapped. Remote has the
	// zone of a link-local address.
	Remote, Local netip.AddrPort
}

// Header is what the lines of a head say, by the canonical form of their names: a capital
// at the beginning and behind each dash, and small letters otherwise. Values are without
// white space at their ends.
type Header map[string][]string

// Get returns the first value of a header with this canonical name, "" if there is none.
func (h Header) Get(name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Encoded reports whether the body has a Transfer-Encoding, and so no known end.
func (r *Request) Encoded() bool { return len(r.Header["Transfer-Encoding"]) > 0 }

// ReadRequest reads a request up to its body. It returns ErrMalformed, ErrTooLong, or
// the connection's error.
func ReadRequest(from *bufio.Reader) (*Request, error) {
	head := lines{from: from}
	line, err := head.next()
	if err == nil && len(line) == 0 { // RFC 9112 section 2.2
		line, err = head.next()
	}
	if err != nil {
		return nil, err
	}
	r := &Request{}
	if err := r.begin(string(line)); err != nil {
		return nil, err
	}
	if r.Header, r.Lines, err = head.header(); err != nil {
		return nil, err
	}
	if len(r.Header["Host"]) > 1 { // RFC 9112 section 3.2
		return nil, ErrMalformed
	}
	r.Host = r.Header.Get("Host")
	delete(r.Header, "Host")
	r.Length, err = length(r.Header)
	return r, err
}

// begin reads the request line (RFC 9112 section 3).
func (r *Request) begin(line string) error {
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	minor, ok := strings.CutPrefix(version, "HTTP/1.")
	if !ok || len(minor) != 1 || minor[0] < '0' || minor[0] > '9' || !every(method, token) || !every(target, visible) {
		return ErrMalformed
	}
	r.Method, r.Target, r.Minor = method, target, int(minor[0]-'0')
	return nil
}

// ReadBody reads the body that Length announces, and none if nothing does. Its size is
// for the caller to bound before. It returns ErrCut for less, or the connection's error.
func (r *Request) ReadBody(from *bufio.Reader) error {
	if r.Length <= 0 {
		return nil
	}
	body := make([]byte, r.Length)
	if _, err := io.ReadFull(from, body); err != nil {
		return cut(err)
	}
	r.Body = body
	return nil
}

// length reads Content-Length (RFC 9110 section 8.6): digits alone, once, and of a size
// that can be counted in. -1 says that there is none.
func length(h Header) (int64, error) {
	values, ok := h["Content-Length"]
	if !ok {
		return -1, nil
	}
	const most = 18 // digits that int64 always holds
	if len(values) != 1 || len(values[0]) > most || !every(values[0], digit) {
		return 0, ErrMalformed
	}
	var n int64
	for _, c := range []byte(values[0]) {
		n = 10*n + int64(c-'0')
	}
	return n, nil
}

// lines reads a head line by line.
type lines struct {
	from *bufio.Reader
	read int // octets
}

// next returns the next line without its end, in the reader's buffer, which bounds it. It
// is good, and may be written to, until the next call.
func (l *lines) next() ([]byte, error) {
	line, err := l.from.ReadSlice('\n')
	if l.read += len(line); l.read > MaxHead || errors.Is(err, bufio.ErrBufferFull) {
		return nil, ErrTooLong
	}
	if err != nil {
		if l.read > 0 {
			err = cut(err)
		}
		return nil, err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return nil, ErrMalformed
	}
	return text, nil
}

// header reads the lines up to the empty one (RFC 9112 section 5), and counts them. They
// are kept as one text, and the values of all names in one list: one piece of memory
// instead of one each.
func (l *lines) header() (h Header, n int, err error) {
	all := make([]byte, 0, usualHead)
	ends := make([]lineEnds, 0, usualLines)
	for {
		line, err := l.next()
		if err != nil {
			return nil, len(ends), err
		}
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		ends = append(ends, lineEnds{len(all), len(all) + colon, len(all) + len(line)})
		if colon < 0 || !every(line[:colon], token) {
			return nil, len(ends), ErrMalformed // a folded line begins with a space, which no name has
		}
		canonical(line[:colon])
		all = append(all, line...)
	}
	h, err = fields(string(all), ends)
	return h, len(ends), err
}

// What the head of a control point's request has room in.
const (
	usualHead  = 512 // octets
	usualLines = 12
)

// lineEnds are where a line begins, has its colon, and ends.
type lineEnds struct{ begin, colon, end int }

// fields takes lines apart whose names have been looked at.
func fields(head string, lines []lineEnds) (Header, error) {
	h, values := make(Header), make([]string, 0, len(lines))
	for _, l := range lines {
		name, value := head[l.begin:l.colon], strings.Trim(head[l.colon+1:l.end], " \t")
		if value != "" && !every(value, text) {
			return nil, ErrMalformed
		}
		if others := h[name]; len(others) > 0 {
			h[name] = append(others, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return h, nil
}

// canonical writes a name in its canonical form.
func canonical(name []byte) {
	begins := true
	for i, c := range name {
		switch {
		case begins && 'a' <= c && c <= 'z', !begins && 'A' <= c && c <= 'Z':
			name[i] ^= 0x20
		}
		begins = c == '-'
	}
}

// cut names the end of a connection in the middle of a message.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCut
	}
	return err
}

// every reports whether s has octets, and each is one of a kind.
func every[S string | []byte](s S, kind func(byte) bool) bool {
	for i := range len(s) {
		if !kind(s[i]) {
			return false
		}
	}
	return len(s) > 0
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// token reports whether c may stand in a method or a header's name (RFC 9110 section
// 5.6.2).
func token(c byte) bool {
	return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// visible reports whether c may stand in a target.
func visible(c byte) bool { return '!' <= c && c <= '~' }

// text reports whether c may stand in a value (RFC 9110 section 5.5).
func text(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
