package control_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"

	"portcullis/internal/control"
	"portcullis/internal/slog"
)

// full is a listener that has no descriptors left for a while, and then fails for good.
type full struct {
	net.Listener
	tries int
	last  error
}

func (f *full) Accept() (net.Conn, error) {
	if f.tries--; f.tries >= 0 {
		return nil, fmt.Errorf("accept: %w", syscall.EMFILE)
	}
	return nil, f.last
}

func (*full) Close() error { return nil }

// TestAcceptFails: too many open files do not end the server, and with it the daemon; they
// are waited out, more often than there is room for connections.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := control.New(control.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		f := &full{tries: 100, last: broken}
		if err := s.Serve(context.Background(), f); !errors.Is(err, broken) || f.tries != -1 {
			t.Errorf("ended with %v, %d tries left", err, f.tries)
		}
	})
}
