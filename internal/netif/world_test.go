package netif_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// world is a network without a kernel, for tests inside a synctest bubble,
// where waiting costs nothing and synctest.Wait says when all is quiet.
type world struct {
	mu      sync.Mutex
	state   netif.State
	readErr error
	reads   []time.Time
	slow    time.Duration // how long a reading takes
	sources []*source     // every subscription so far
	refuse  int           // so many subscriptions are refused
	log     bytes.Buffer

	published []int // the states that follow was told of
}

// source is a subscription that says what the test tells it to.
type source struct {
	said   chan error
	gone   chan struct{}
	closed sync.Once
}

func (s *source) Wait() error {
	select {
	case err := <-s.said:
		return err
	case <-s.gone:
		return errors.New("closed")
	}
}

func (s *source) Close() error {
	s.closed.Do(func() { close(s.gone) })
	return nil
}

func (s *source) isClosed() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (w *world) subscribe() (netif.Hints, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse > 0 {
		w.refuse--
		return nil, errRefused
	}
	s := &source{said: make(chan error, 100), gone: make(chan struct{})}
	w.sources = append(w.sources, s)
	return s, nil
}

var errRefused = errors.New("refused")

func (w *world) read(ctx context.Context) (netif.State, error) {
	if w.slow > 0 {
		select {
		case <-time.After(w.slow):
		case <-ctx.Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads = append(w.reads, time.Now())
	if ctx.Err() != nil {
		return netif.State{}, ctx.Err()
	}
	return w.state, w.readErr
}

// set makes the world be in the state with this number, and fail to be read if
// err is not nil.
func (w *world) set(n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.readErr = netif.State{Links: []netif.Link{{Index: n}}}, err
}

// refuseNext makes so many subscriptions fail.
func (w *world) refuseNext(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = n
}

// last returns the newest subscription.
func (w *world) last() *source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sources[len(w.sources)-1]
}

func (w *world) readings() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reads)
}

func (w *world) run(ctx context.Context, publish func(netif.State)) error {
	log := slog.New(slog.NewTextHandler(&w.log, nil))
	return netif.RunWatch(ctx, log, w.subscribe, w.read, publish)
}

// follow runs f in a synctest bubble, beside a watch of the world that has
// published state 1, and lasts until f returns.
func (w *world) follow(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.set(1, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- w.run(ctx, func(s netif.State) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.published = append(w.published, s.Links[0].Index)
			})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Watch returned %v, want the context's error", err)
			}
			if !w.last().isClosed() {
				t.Error("the subscription was left open")
			}
		})
		after(w.slow)
		w.expect(t, 1)
		f(t)
	})
}

// hint wakes the watch, or says what is wrong with the subscription.
func (w *world) hint(err error) { w.last().said <- err }

// expect compares what was published since the beginning, when all is quiet.
func (w *world) expect(t *testing.T, want ...int) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.published, want) {
		t.Errorf("published %v, want %v", w.published, want)
	}
}

// warnings counts them in the log.
func (w *world) warnings() int { return strings.Count(w.log.String(), "level=WARN") }

// after lets d pass and every consequence happen.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
