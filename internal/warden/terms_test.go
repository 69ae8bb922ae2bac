package warden

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/config"
	"portcullis/internal/presence"
	"portcullis/portmap"
)

// TestAdoptAgain: what a configuration does not allow, and the kernel did not let be closed,
// is closed as soon as it does, without anybody asking again.
func TestAdoptAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWarden(t, new(bytes.Buffer))
		w.hosts, w.undone = presence.New(presence.Config{}), make(chan struct{}, 1)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.adoptAgain(ctx) }()
		c := config.Default()
		c.Policy.Default = portmap.Deny
		busy := errors.New("busy")
		b.Fail(busy, busy, busy)
		revoked, err := w.Adopt(t.Context(), c)
		if !errors.Is(err, busy) || len(revoked) > 0 {
			t.Errorf("a kernel that is busy: %d closed, %v", len(revoked), err)
		}
		for try := range 3 {
			synctest.Wait()
			if open := w.engine.Snapshot().Len(); open != 3 {
				t.Errorf("after %d tries %d are open", try, open)
			}
			time.Sleep(adoptEvery)
		}
		synctest.Wait()
		if open := w.engine.Snapshot().Len(); open != 0 {
			t.Errorf("%d are open in the end", open)
		}
		stop()
		<-ended
	})
}
