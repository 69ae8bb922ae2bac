package control_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/slog"
)

// serveMetrics serves metrics as a listener on the loopback has them, and returns its address.
func serveMetrics(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	open := control.NewMetrics(control.Config{Logger: slog.New(slog.DiscardHandler), Metrics: func(context.Context) []byte { return []byte("portcullis_up 1\n") }})
	ended := make(chan error)
	go func() { ended <- open.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-ended })
	return l.Addr().String()
}

// scrape asks for the metrics by a name, and returns the status.
func scrape(t *testing.T, at, host string) int {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // each slow one may take ten
	fmt.Fprintf(conn, "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

// TestMetricsByName: a web page whose name has become the address of this machine reads no
// metrics; who asks by an address does, by a tunnel too.
func TestMetricsByName(t *testing.T) {
	t.Parallel()
	at := serveMetrics(t)
	for host, want := range map[string]int{
		at: 200, "127.0.0.1": 200, "[::1]:9180": 200, "[::1]": 200, "localhost:9180": 200, "LOCALHOST": 200, "": 200,
		"evil.example": 403, "evil.example:9180": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:9180": 403, "localhost.:9180": 403, "1:2:3": 403,
	} {
		if code := scrape(t, at, host); code != want {
			t.Errorf("%q: %d, want %d", host, code, want)
		}
	}
}

// TestMetricsBesideSlow: connections over which nothing comes keep no collector out.
func TestMetricsBesideSlow(t *testing.T) {
	t.Parallel()
	at := serveMetrics(t)
	for range 200 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if code := scrape(t, at, at); code != 200 {
		t.Errorf("beside them: %d", code)
	}
}
