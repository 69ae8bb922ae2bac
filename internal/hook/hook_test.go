package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"portcullis/internal/slog"
)

// TestMain is in place of the process between, too, which Start starts of this program. The real
// one wants a sandbox that a program of cgo's cannot have; test/faults has it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Argument {
		k := keeper{report: os.NewFile(reports, "reports")}
		k.say("started %d", os.Getpid())
		_, err := io.Copy(io.Discard, os.Stdin)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func pipe(t *testing.T) (from, to *os.File) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(from.Close(), to.Close()) }) // perhaps again
	return from, to
}

// TestQueue: what there is no room for is left out and reported, and the oldest stay.
func TestQueue(t *testing.T) {
	t.Parallel()
	about, report := pipe(t)
	k := &keeper{report: report, lines: make(chan []byte, waiting)}
	var events bytes.Buffer
	for i := range waiting + 7 {
		fmt.Fprintln(&events, i)
	}
	k.read(&events)
	_ = report.Close()
	h := &Hook{}
	lines(about, h.heard)
	if h.Status().Missed != 7 || len(k.lines) != waiting {
		t.Errorf("%d missed, %d wait", h.Status().Missed, len(k.lines))
	}
	if first := string(<-k.lines); first != "0\n" {
		t.Errorf("the first is %q", first)
	}
}

// TestBackOff: a hook that ends is started after a second, then two, up to a minute, and after
// a second again when it has lived; not when there are no more events.
func TestBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open, stop := context.WithCancel(t.Context())
		var pauses []time.Duration
		ended := time.Now()
		k := &keeper{open: open}
		k.run(func() bool {
			pauses = append(pauses, time.Since(ended))
			if len(pauses) == 9 {
				time.Sleep(livesLong + 1)
			}
			if len(pauses) == 11 {
				time.AfterFunc(time.Second, stop) // while it waits
			}
			ended = time.Now()
			return false
		})
		var want []time.Duration
		for _, s := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60, 1, 2} {
			want = append(want, s*time.Second)
		}
		if fmt.Sprint(pauses) != fmt.Sprint(want) {
			t.Errorf("the pauses are %v", pauses)
		}
		if waited := time.Since(ended); waited != time.Second {
			t.Errorf("it ends %v after the events", waited)
		}
	})
}

// TestNotRead: a hook that does not read is given up, with the event counted.
func TestNotRead(t *testing.T) {
	t.Parallel()
	for want, prepare := range map[string]func(from *os.File){
		"it has read nothing for 50ms": func(*os.File) {},
		"it does not read":             func(from *os.File) { _ = from.Close() },
	} {
		about, report := pipe(t)
		from, to := pipe(t)
		prepare(from)
		k := &keeper{report: report, lines: make(chan []byte, waiting), open: t.Context(), patience: 50 * time.Millisecond}
		go func() {
			for t.Context().Err() == nil {
				select {
				case k.lines <- bytes.Repeat([]byte("x"), maxEvent):
				case <-t.Context().Done():
				}
			}
		}()
		if why := k.feed(to, make(chan syscall.WaitStatus)); why != want {
			t.Errorf("it is over because %q, not because %q", why, want)
		}
		_ = report.Close()
		h := &Hook{}
		lines(about, h.heard)
		if h.Status().Missed != 1 {
			t.Errorf("%s: %d missed", want, h.Status().Missed)
		}
	}
}

// TestStuckKeeper: where the process between hangs nobody waits for it but once, for a second.
func TestStuckKeeper(t *testing.T) {
	t.Parallel()
	_, to := pipe(t)
	h := &Hook{to: to}
	told := 0
	for ; h.Status().Missed == 0; told++ {
		h.Tell(bytes.Repeat([]byte("x"), 4096))
	}
	began := time.Now()
	for range 100 {
		h.Tell([]byte("x"))
	}
	if took := time.Since(began); took > handTime {
		t.Errorf("100 events took %v", took)
	}
	if s := h.Status(); s.Missed != 101 {
		t.Errorf("after %d that went, %d are missed", told, s.Missed)
	}
}

// TestOutput: of a hook that does nothing but print, so many lines are logged, and of each so
// much.
func TestOutput(t *testing.T) {
	t.Parallel()
	from, to := pipe(t)
	var log bytes.Buffer
	h := &Hook{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, room: rate.NewLimiter(0, linesAtOnce)}
	go func() {
		for range 50 * linesAtOnce {
			_, _ = fmt.Fprintln(to, strings.Repeat("y", 3*maxLine))
		}
		_ = to.Close()
	}()
	lines(from, h.said)
	if n := strings.Count(log.String(), "\n"); n != linesAtOnce {
		t.Errorf("%d lines are logged", n)
	}
	if n := strings.Count(log.String(), "y"); n > linesAtOnce*(maxLine+10) {
		t.Errorf("%d octets of it are logged", n)
	}
}

// locked is a buffer for several.
type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

// TestKeeperDies: when the process between has died the status says so, and how; no event
// waits for it, and there is no zombie.
func TestKeeperDies(t *testing.T) {
	t.Parallel()
	var log locked
	h, err := Start(Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Command: []string{"/bin/cat"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- h.Run(ctx) }()
	until := func(what string, ok func(Status) bool) {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); !ok(h.Status()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v\n%s", what, h.Status(), log.String())
			}
		}
	}
	until("it runs", func(s Status) bool { return s.PID != 0 })
	if err := syscall.Kill(h.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until("it is over", func(s Status) bool { return s.Over })
	h.Tell([]byte("{}"))
	if s := h.Status(); s.PID != 0 || s.Missed != 1 || s.Last != "the process that starts it has ended: signal 9 (killed)" {
		t.Errorf("the status is %+v", s)
	}
	if err := syscall.Kill(h.pid, 0); err != syscall.ESRCH {
		t.Errorf("it is still there: %v", err)
	}
	stop()
	<-over
	if !strings.Contains(log.String(), "level=ERROR msg=\"hook is over until portcullis is started again\"") {
		t.Errorf("the log says\n%s", log.String())
	}
}
