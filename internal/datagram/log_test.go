package datagram_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
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

// TestNotSent: an announcement on an interface that has gone is no news, any other that
// could not be sent is.
func TestNotSent(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		&os.SyscallError{Syscall: "sendmsg", Err: syscall.ENODEV}: "level=DEBUG",
		errors.Join(syscall.ENXIO, nil):                           "level=DEBUG",
		syscall.EADDRNOTAVAIL:                                     "level=DEBUG",
		syscall.ENETDOWN:                                          "level=DEBUG",
		syscall.EPERM:                                             "level=WARN",
		syscall.ENETUNREACH:                                       "level=DEBUG",
	} {
		var out bytes.Buffer
		l := datagram.NewLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		l.NotSent(time.Unix(1e9, 0), netip.MustParseAddr("192.168.1.1"), err)
		if !strings.Contains(out.String(), want+` msg="announcement not sent`) {
			t.Errorf("%v: %s, want %s", err, &out, want)
		}
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
