package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/slog"
)

// TestWatchdog: how often the supervisor wants a sign of life is what sd_watchdog_enabled(3)
// says; nonsense is as if it wanted none.
func TestWatchdog(t *testing.T) {
	for name, c := range map[string]struct {
		usec, pid string
		want      time.Duration
	}{
		"not wanted":       {"", "", 0},
		"wanted":           {"30000000", "", 30 * time.Second},
		"of another":       {"30000000", "1", 0},
		"no number":        {"30s", "", 0},
		"none at all":      {"0", "", 0},
		"below it":         {"-1", "", 0},
		"more than a year": {"999999999999999999", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			if got := watchdog(slog.New(slog.DiscardHandler)); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestKeepAlive: the supervisor hears a sign of life twice in its time, and none while the
// engine does not answer.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in, out := net.Pipe()
		s := &supervisor{log: slog.New(slog.DiscardHandler), conn: out, every: 15 * time.Second}
		heard := make(chan string)
		go func() {
			buf := make([]byte, 64)
			for {
				n, err := in.Read(buf)
				if err != nil {
					close(heard)
					return
				}
				heard <- string(buf[:n])
			}
		}()
		ctx, stop := context.WithCancel(t.Context())
		var stuck atomic.Bool
		ended := make(chan error)
		go func() {
			ended <- s.keepAlive(ctx, func(ctx context.Context) error {
				if !stuck.Load() {
					return nil
				}
				<-ctx.Done()
				return errors.New("stuck")
			})
		}()
		begun := time.Now()
		for range 4 {
			if got := <-heard; got != "WATCHDOG=1" {
				t.Errorf("the supervisor hears %q", got)
			}
		}
		if took := time.Since(begun); took != 45*time.Second {
			t.Errorf("four signs of life in %v", took)
		}
		synctest.Wait()
		stuck.Store(true)
		select {
		case got := <-heard:
			t.Errorf("of an engine that is stuck the supervisor hears %q", got)
		case <-time.After(time.Hour):
		}
		stop()
		<-ended
		out.Close()
		<-heard
	})
}

// TestNoSupervisor: without one nothing is said, and nothing fails.
func TestNoSupervisor(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	none := findSupervisor(slog.New(slog.DiscardHandler), nil)
	none.reloading()
	none.ready()
	none.status("serving nothing")
	none.stopping()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if s := findSupervisor(slog.New(slog.DiscardHandler), nil); s != nil {
		t.Errorf("there is a supervisor %+v", s)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := none.keepAlive(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
