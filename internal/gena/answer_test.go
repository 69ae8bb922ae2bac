package gena_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"portcullis/internal/gena"
)

// endless never ends, as the response of F6 that is a gigabyte long; it counts
// what was taken from it.
type endless struct {
	head string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
		if e.read < len(e.head) {
			p[i] = e.head[e.read]
		}
		e.read++
	}
	return len(p), nil
}

var answers = []struct {
	name, in string
	want     int // 0: refused
}{
	{"plain", "HTTP/1.1 200 OK\r\n\r\n", 200},
	{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200},
	{"no phrase", "HTTP/1.1 200\r\n\r\n", 200},
	{"empty phrase", "HTTP/1.1 200 \r\n\r\n", 200},
	{"bare line feeds", "HTTP/1.1 200 OK\n\n", 200},
	{"closed after the status", "HTTP/1.1 200 OK\r\n", 200},
	{"closed in the headers", "HTTP/1.1 204 No Content\r\nServer: x", 204},
	{"412", "HTTP/1.1 412 Precondition Failed\r\n\r\n", 412},
	{"F6/redirect", "HTTP/1.1 302 Found\r\nLocation: http://198.51.100.9/\r\n\r\n", 302},
	{"nothing", "", 0},
	{"line cut", "HTTP/1.1 200 OK", 0},
	{"HTTP/0.9", "hello\n", 0},
	{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", 0},
	{"no digit in version", "HTTP/1.x 200 OK\r\n\r\n", 0},
	{"two digits", "HTTP/1.1 20 OK\r\n\r\n", 0},
	{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0},
	{"negative", "HTTP/1.1 -20 OK\r\n\r\n", 0},
	{"below 100", "HTTP/1.1 099 OK\r\n\r\n", 0},
	{"two blanks", "HTTP/1.1  200 OK\r\n\r\n", 0},
	{"lower case", "http/1.1 200 OK\r\n\r\n", 0},
	{"blank line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", 0},
	{"status line too long", "HTTP/1.1 200 " + strings.Repeat("x", 2000) + "\r\n\r\n", 0},
	{"headers too long", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2000) + "\r\n\r\n", 200},
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	for _, tc := range answers {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for how, r := range map[string]io.Reader{
				"at once": strings.NewReader(tc.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tc.in)),
			} {
				if got, err := gena.ReadAnswer(r); got != tc.want || (err == nil) != (tc.want != 0) {
					t.Errorf("%s: got %d, %v, want %d", how, got, err, tc.want)
				}
			}
		})
	}
	t.Run("F6/1 GB response", func(t *testing.T) {
		t.Parallel()
		for head, want := range map[string]int{"": 0, "HTTP/1.1 200 OK\r\nX: ": 200} {
			e := &endless{head: head}
			if got, _ := gena.ReadAnswer(e); got != want || e.read > gena.MaxAnswer {
				t.Errorf("%q: got %d after %d bytes, want %d after at most %d", head, got, e.read, want, gena.MaxAnswer)
			}
		}
	})
	t.Run("F6/reset", func(t *testing.T) {
		t.Parallel()
		reset := errors.New("reset")
		if _, err := gena.ReadAnswer(io.MultiReader(strings.NewReader("HTTP/1.1 2"), iotest.ErrReader(reset))); !errors.Is(err, reset) {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzAnswer: at most maxAnswer bytes are read, the code is one, and how the
// bytes are cut into segments makes no difference.
func FuzzAnswer(f *testing.F) {
	for _, tc := range answers {
		f.Add([]byte(tc.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		code, err := gena.ReadAnswer(r)
		if len(in)-r.Len() > gena.MaxAnswer {
			t.Fatalf("read %d bytes", len(in)-r.Len())
		}
		if (err == nil) != (code >= 100 && code <= 999) {
			t.Fatalf("code %d with error %v", code, err)
		}
		if again, _ := gena.ReadAnswer(iotest.OneByteReader(bytes.NewReader(in))); again != code {
			t.Fatalf("got %d at once, %d byte by byte", code, again)
		}
	})
}
