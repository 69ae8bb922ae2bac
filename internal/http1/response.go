package http1

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Status codes (RFC 9110 section 15).
const (
	OK                   = 200
	BadRequest           = 400
	Forbidden            = 403
	NotFound             = 404
	MethodNotAllowed     = 405
	Conflict             = 409
	LengthRequired       = 411
	PreconditionFailed   = 412
	ContentTooLarge      = 413
	UnsupportedMediaType = 415
	ExpectationFailed    = 417
	HeaderFieldsTooLarge = 431
	InternalServerError  = 500
	NotImplemented       = 501
	ServiceUnavailable   = 503
)

var reasons = map[int]string{
	OK: "OK", BadRequest: "Bad Request", Forbidden: "Forbidden", NotFound: "Not Found",
	MethodNotAllowed: "Method Not Allowed", Conflict: "Conflict", LengthRequired: "Length Required",
	PreconditionFailed: "Precondition Failed", ContentTooLarge: "Content Too Large",
	UnsupportedMediaType: "Unsupported Media Type", ExpectationFailed: "Expectation Failed",
	HeaderFieldsTooLarge: "Request Header Fields Too Large", InternalServerError: "Internal Server Error",
	NotImplemented: "Not Implemented", ServiceUnavailable: "Service Unavailable",
}

// Field is one line of a response's header. Its name is written as it stands here:
// some control points look for capitals.
type Field struct{ Name, Value string }

// Response is what a handler answers with. Date, Content-Length and Connection are
// added when it is written.
type Response struct {
	Status int
	Header []Field
	Body   []byte

	// Stream writes a body of unknown length, instead of Body. Its error ends the
	// connection.
	Stream func(io.Writer) error

	// Sent, where it is set, is called once, when the response has been handed to the
	// kernel, or cannot be.
	Sent func(error)
}

// Handler answers requests; nil is silence: the connection is closed.
type Handler interface {
	ServeHTTP(*Request) *Response
}

// HandlerFunc is a function that answers requests.
type HandlerFunc func(*Request) *Response

// ServeHTTP implements Handler.
func (f HandlerFunc) ServeHTTP(r *Request) *Response { return f(r) }

// Empty returns a response without a body.
func Empty(status int, header ...Field) *Response {
	return &Response{Status: status, Header: header}
}

// dateFormat is IMF-fixdate (RFC 9110 section 5.6.7), of a time in UTC.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// Write writes the response to a request, nil where that could not be read; now is its
// Date. A body goes out in one piece with the head, so that it is one segment where it
// fits. The version is the request's: HTTP/1.0 is what old clients know.
func (r *Response) Write(to io.Writer, asked *Request, now time.Time) (err error) {
	if r.Sent != nil {
		defer func() { r.Sent(err) }()
	}
	version, bare := "HTTP/1.1 ", false
	if asked != nil {
		bare = asked.Method == Head
		if asked.Minor == 0 {
			version = "HTTP/1.0 "
		}
	}
	piece := pieces.Get().(*[]byte)
	defer pieces.Put(piece)
	out := append((*piece)[:0], version...)
	out = strconv.AppendInt(out, int64(r.Status), 10)
	out = add(out, " ", reasons[r.Status], "\r\n")
	for _, f := range r.Header {
		out = add(out, f.Name, ": ", f.Value, "\r\n")
	}
	out = now.UTC().AppendFormat(add(out, "Date: "), dateFormat)
	if r.Stream == nil {
		out = strconv.AppendInt(add(out, "\r\nContent-Length: "), int64(len(r.Body)), 10)
	}
	out = add(out, "\r\nConnection: close\r\n\r\n")
	if !bare {
		out = append(out, r.Body...)
	}
	if cap(out) <= maxPiece {
		*piece = out
	}
	if _, err := to.Write(out); err != nil || r.Stream == nil || bare {
		return err
	}
	return r.Stream(to)
}

// pieces are what responses are put together in. A larger one than maxPiece octets is not
// kept.
var pieces = sync.Pool{New: func() any { return new([]byte) }}

const maxPiece = 4 << 10

func add(out []byte, parts ...string) []byte {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Answer is a response as a client reads it.
type Answer struct {
	Status int
	Header Header
	Body   io.Reader // up to the end of the connection, or of what Content-Length says
}

// ReadAnswer reads a response up to its body. A body that is shorter than announced
// ends with ErrCut.
func ReadAnswer(from *bufio.Reader) (*Answer, error) {
	head := lines{from: from}
	line, err := head.next()
	if err != nil {
		return nil, cut(err)
	}
	version, rest, _ := strings.Cut(string(line), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || !every(code, digit) || !strings.HasPrefix(version, "HTTP/1.") {
		return nil, ErrMalformed
	}
	a := &Answer{Status: status, Body: from}
	if a.Header, _, err = head.header(); err != nil {
		return nil, err
	}
	n, err := length(a.Header)
	if err != nil || len(a.Header["Transfer-Encoding"]) > 0 {
		return nil, ErrMalformed
	}
	if n >= 0 {
		a.Body = &exactly{from, n}
	}
	return a, nil
}

// exactly reads n octets, and ErrCut if there are fewer.
type exactly struct {
	from io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.from.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if e.left > 0 && err == io.EOF {
		err = ErrCut
	}
	return n, err
}
