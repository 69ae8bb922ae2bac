package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/http1"
)

func reader(s string) *bufio.Reader {
	return bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(s)), http1.MaxHead)
}

func TestReadRequest(t *testing.T) {
	t.Parallel()
	from := reader("\r\nPOST /a?b=%zz HTTP/1.0\r\nhost:\t192.168.1.1:5000 \r\nSOAPACTION: \"x#y\"\r\nX: 1\r\nx: \xe4\r\nContent-Length: 4\r\nEmpty:\r\n\r\nbody and more")
	got, err := http1.ReadRequest(from)
	if err == nil {
		err = got.ReadBody(from)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := &http1.Request{
		Method: "POST", Target: "/a?b=%zz", Minor: 0, Host: "192.168.1.1:5000", Lines: 6, Length: 4, Body: []byte("body"),
		Header: http1.Header{"Soapaction": {`"x#y"`}, "X": {"1", "\xe4"}, "Content-Length": {"4"}, "Empty": {""}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestBadRequests: what two parsers could read in two ways is malformed.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	const first = "GET / HTTP/1.1\r\n"
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"nothing":                 {"", io.EOF},
		"half a line":             {"GET / HT", http1.ErrCut},
		"no end":                  {first + "Host: a\r\n", http1.ErrCut},
		"long line":               {"GET /" + strings.Repeat("x", http1.MaxHead) + " HTTP/1.1\r\n\r\n", http1.ErrTooLong},
		"long head":               {first + strings.Repeat("X: y\r\n", http1.MaxHead/6) + "\r\n", http1.ErrTooLong},
		"bare LF":                 {"GET / HTTP/1.1\n\n", http1.ErrMalformed},
		"bare LF in the header":   {first + "A: b\nC: d\r\n\r\n", http1.ErrMalformed},
		"bare CR":                 {first + "A: b\rC: d\r\n\r\n", http1.ErrMalformed},
		"folded":                  {first + "A: b\r\n c\r\n\r\n", http1.ErrMalformed},
		"folded at the beginning": {first + " A: b\r\n\r\n", http1.ErrMalformed},
		"space before the colon":  {first + "A : b\r\n\r\n", http1.ErrMalformed},
		"no colon":                {first + "A\r\n\r\n", http1.ErrMalformed},
		"two hosts":               {first + "Host: a\r\nHost: a\r\n\r\n", http1.ErrMalformed},
		"two lengths":             {first + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", http1.ErrMalformed},
		"empty length":            {first + "Content-Length:\r\n\r\n", http1.ErrMalformed},
		"signed length":           {first + "Content-Length: +1\r\n\r\n", http1.ErrMalformed},
		"long length":             {first + "Content-Length: 1000000000000000000\r\n\r\n", http1.ErrMalformed},
		"control character":       {first + "A: \x01\r\n\r\n", http1.ErrMalformed},
		"two spaces":              {"GET  / HTTP/1.1\r\n\r\n", http1.ErrMalformed},
		"space in the target":     {"GET /a b HTTP/1.1\r\n\r\n", http1.ErrMalformed},
		"no target":               {"GET  HTTP/1.1\r\n\r\n", http1.ErrMalformed},
		"other version":           {"GET / HTTP/2.0\r\n\r\n", http1.ErrMalformed},
		"small letters":           {"GET / http/1.1\r\n\r\n", http1.ErrMalformed},
		"octets over 127":         {"GET /\xff HTTP/1.1\r\n\r\n", http1.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := http1.ReadRequest(reader(c.text)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := http1.ReadRequest(bufio.NewReader(iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v, want the connection's own error", err)
	}
}

func TestCutBody(t *testing.T) {
	t.Parallel()
	from := reader("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nbody")
	r, err := http1.ReadRequest(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadBody(from); !errors.Is(err, http1.ErrCut) {
		t.Errorf("got %v", err)
	}
}

// FuzzRequest: net/http is the second opinion. What is accepted here it accepts too, and
// reads the same; and nothing here follows a head that it ends elsewhere.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\nX: y\r\nx: z\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n",
		"\r\nSUBSCRIBE /e HTTP/1.1\r\nHOST: [::1]:5000\r\nCALLBACK: <http://a/>\r\nNT: upnp:event\r\n\r\n",
		"POST http://a/x HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", "GET * HTTP/1.9\r\n:\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		from := bufio.NewReaderSize(bytes.NewReader(message), http1.MaxHead)
		got, err := http1.ReadRequest(from)
		if err != nil || got.Encoded() || got.Length > 1<<20 {
			return
		}
		cutBody := got.ReadBody(from)
		second := bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(message, []byte("\r\n"))))
		other, err := http.ReadRequest(second)
		if err != nil {
			if got.Target[0] != '/' || strings.Contains(got.Target, "%") || strings.HasPrefix(got.Target, "//") || strings.Contains(got.Host, "%") || !plain(got.Host) {
				return // a target or a host that net/http decodes, and the guard compares
			}
			t.Fatalf("net/http refuses it: %v", err)
		}
		body, err := io.ReadAll(other.Body)
		if (err != nil) != (cutBody != nil) {
			t.Errorf("body: %v, net/http: %v", cutBody, err)
		}
		header := http.Header(got.Header).Clone()
		if len(other.TransferEncoding) == 0 && other.ContentLength == 0 && got.Length < 0 {
			header.Del("Content-Length")
		}
		host := other.Host
		if got.Target[0] != '/' {
			host = got.Host // net/http has the authority there
		}
		if got.Method != other.Method || got.Target != other.RequestURI || got.Host != host || got.Minor != other.ProtoMinor ||
			cutBody == nil && !bytes.Equal(got.Body, body) {
			t.Errorf("read %q %q %q %q, net/http %q %q %q %q", got.Method, got.Target, got.Host, got.Body, other.Method, other.RequestURI, other.Host, body)
		}
		if diff := cmp.Diff(header, other.Header); diff != "" {
			t.Errorf("header (-ours +net/http)\n%s", diff)
		}
	})
}

func plain(host string) bool {
	return !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// TestWrite: the response is what net/http's client reads.
func TestWrite(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 9, 8, 7, 6, 0, time.FixedZone("", 3600))
	r := &http1.Response{Status: http1.OK, Header: []http1.Field{{Name: "EXT"}, {Name: "SID", Value: "uuid:1"}}, Body: []byte("<ok/>")}
	const head = "HTTP/1.1 200 OK\r\nEXT: \r\nSID: uuid:1\r\nDate: Mon, 09 Nov 2026 07:07:06 GMT\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
	for _, c := range []struct {
		asked *http1.Request
		want  string
	}{
		{nil, head + "<ok/>"},
		{&http1.Request{Method: "GET", Minor: 1}, head + "<ok/>"},
		{&http1.Request{Method: "HEAD", Minor: 1}, head},
		{&http1.Request{Method: "GET"}, strings.Replace(head, "1.1", "1.0", 1) + "<ok/>"},
	} {
		var out bytes.Buffer
		if err := r.Write(&out, c.asked, now); err != nil || out.String() != c.want {
			t.Errorf("%+v: %v, %q", c.asked, err, out.String())
		}
	}
}

// TestStream: a body of unknown length ends with the connection; whoever waits for the
// response to be sent hears once of each end.
func TestStream(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var sent []error
	r := &http1.Response{Status: http1.OK, Sent: func(err error) { sent = append(sent, err) }, Stream: func(w io.Writer) error {
		if _, err := io.WriteString(w, "part"); err != nil {
			return err
		}
		return broken
	}}
	var out bytes.Buffer
	if err := r.Write(&out, nil, time.Now()); !errors.Is(err, broken) || !strings.HasSuffix(out.String(), "\r\nConnection: close\r\n\r\npart") || strings.Contains(out.String(), "Content-Length") {
		t.Errorf("%v, %q", err, out.String())
	}
	_ = r.Write(iotestErrWriter{broken}, nil, time.Now())
	if len(sent) != 2 || !errors.Is(sent[0], broken) || !errors.Is(sent[1], broken) {
		t.Errorf("heard %v", sent)
	}
}

type iotestErrWriter struct{ err error }

func (w iotestErrWriter) Write([]byte) (int, error) { return 0, w.err }

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text   string
		status int
		body   string
		want   error // of the head, or of the body
	}{
		"length":         {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody and more", 200, "body", nil},
		"to the end":     {"HTTP/1.0 404 Not Found\r\n\r\nall of it", 404, "all of it", nil},
		"no reason":      {"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", 503, "", nil},
		"cut body":       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody", 200, "body", http1.ErrCut},
		"nothing":        {"", 0, "", http1.ErrCut},
		"other protocol": {"SSH-2.0-OpenSSH\r\n\r\n", 0, "", http1.ErrMalformed},
		"chunked":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", http1.ErrMalformed},
		"bad length":     {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 0, "", http1.ErrMalformed},
		"bad status":     {"HTTP/1.1 +20 OK\r\n\r\n", 0, "", http1.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := http1.ReadAnswer(reader(c.text))
			if err != nil {
				if c.status != 0 || !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				return
			}
			body, err := io.ReadAll(a.Body)
			if a.Status != c.status || string(body) != c.body || !errors.Is(err, c.want) {
				t.Errorf("got %d %q %v", a.Status, body, err)
			}
		})
	}
}
