package netif_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/netif"
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

// last gives the newest subscription.
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

// follow runs the watch until the test ends and gives what it has published
// when all is quiet.
func (w *world) follow(t *testing.T) (published func() []int) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var numbers []int
	ended := make(chan error, 1)
	go func() {
		ended <- w.run(ctx, func(s netif.State) {
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, s.Links[0].Index)
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
	return func() []int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(numbers)
	}
}

// after lets d pass and every consequence happen.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func expect(t *testing.T, published func() []int, want ...int) {
	t.Helper()
	if got := published(); !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
}
