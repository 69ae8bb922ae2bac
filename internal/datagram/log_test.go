package datagram_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"portcullis/internal/datagram"
)

// K4: a flood of datagrams is not one of lines.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := datagram.NewLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	now := time.Unix(1e9, 0)
	for range 1000 {
		l.Ignored(now, datagram.Packet{}, "not a request")
	}
	if n := strings.Count(out.String(), "not a request"); n != 10 {
		t.Errorf("%d lines in a moment, want 10", n)
	}
	l.Ignored(now.Add(time.Second), datagram.Packet{}, "another")
	if !strings.Contains(out.String(), "another") {
		t.Error("a second later there is no room again")
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := datagram.NewLog(slog.New(slog.NewTextHandler(&out, nil)))
	for n, gaveUp := range []bool{false, false, true} {
		if err := l.Guard(func() {}); err != nil {
			t.Errorf("without a panic: %v", err)
		}
		if err := l.Guard(func() { panic("a bug") }); (err != nil) != gaveUp {
			t.Errorf("panic %d: %v, want an error: %v", n+1, err, gaveUp)
		}
	}
	if n := strings.Count(out.String(), "a bug"); n != 3 || !strings.Contains(out.String(), "log_test.go") {
		t.Errorf("%d panics in the log:\n%s", n, &out)
	}
}
