package process

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/wall"
)

// TestWatch: a front is asked every so often for as long as it runs; one that answers within
// the time is left alone, however often, and one that does not has its end.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		takes  time.Duration // an answer
		answer error
		until  time.Duration // the front runs
		asked  int
		end    error
		after  time.Duration
	}{
		"at once":      {0, nil, 10*pingEvery + 1, 10, nil, 10*pingEvery + 1},
		"late":         {pingTimeout - 1, nil, 10*pingEvery + pingTimeout, 10, nil, 10*pingEvery + pingTimeout},
		"too late":     {pingTimeout + 1, nil, time.Hour, 1, errTime, pingEvery + pingTimeout},
		"broken":       {0, errors.ErrUnsupported, time.Hour, 1, errors.ErrUnsupported, pingEvery},
		"ends":         {0, wall.ErrEnded, pingEvery + 1, 1, nil, pingEvery + 1},
		"is not asked": {0, nil, pingEvery - 1, 0, nil, pingEvery - 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, asked, done := time.Now(), 0, make(chan struct{})
				time.AfterFunc(c.until, func() { close(done) })
				err := watch(t.Context(), done, func(ctx context.Context) error {
					asked++
					select {
					case <-time.After(c.takes):
						return c.answer
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})
				if !errors.Is(err, c.end) || asked != c.asked || time.Since(began) != c.after {
					t.Errorf("asked %d times, after %v: %v", asked, time.Since(began), err)
				}
			})
		})
	}
}

// TestWatchStops: the end of the daemon is no fault of the front's.
func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), pingEvery+time.Second)
		defer stop()
		err := watch(ctx, nil, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			t.Error(err)
		}
	})
}
