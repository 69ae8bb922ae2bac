package control_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
)

// TestStuck: who asks a daemon that has stopped is told so, whatever he asks, also where it stops
// in the middle of an answer; who follows its events waits, until he does not want to any more.
func TestStuck(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{"before": "", "in the head": "HTTP/1.1 200 O", "in the body": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[{"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
					_, _ = conn.Write([]byte(part)) // it does not read
				}
			}()
			c := control.NewClient(l.Addr().String())
			c.Hasty(50 * time.Millisecond)
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			for what, ask := range map[string]func() error{
				"status":  func() error { _, err := c.Status(ctx); return err },
				"list":    func() error { return c.EachMapping(ctx, func(*control.Mapping) {}) },
				"approve": func() error { _, err := c.Approve(ctx, control.Answer{ID: 1}); return err },
				"reload":  func() error { _, err := c.Reload(ctx); return err },
			} {
				if err := ask(); !errors.As(err, new(*control.Stuck)) || !strings.Contains(err.Error(), "has not answered on "+l.Addr().String()+" for 50ms") {
					t.Errorf("%s: %v", what, err)
				}
			}
			short, end := context.WithTimeout(ctx, 200*time.Millisecond)
			defer end()
			if err := c.Events(short, func(control.Event) error { return nil }); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*control.Stuck)) {
				t.Errorf("events: %v", err)
			}
			gone, leave := context.WithCancel(ctx)
			leave()
			if _, err := c.Status(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("who has gone: %v", err)
			}
		})
	}
}
