package netif_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
)

// watched runs Watch against a real kernel and keeps what it publishes.
type watched struct {
	t      *testing.T
	states chan netif.State
}

func watch(t *testing.T, k *netif.Kernel) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{t: t, states: make(chan netif.State, 1000)}
	ended := make(chan error, 1)
	go func() { ended <- k.Watch(ctx, func(s netif.State) { w.states <- s }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch returned %v, want the context's error", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not end")
		}
	})
	return w
}

// until waits for a state that fits.
func (w *watched) until(what string, fits func(netif.State) bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case s := <-w.states:
			if fits(s) {
				return
			}
		case <-deadline:
			w.t.Fatalf("never published: %s", what)
		}
	}
}

func hasAddr(name, addr string) func(netif.State) bool {
	return func(s netif.State) bool {
		l, _ := s.Link(name)
		return slices.ContainsFunc(l.Addrs, func(a netif.Addr) bool {
			return a.Prefix.Addr() == netip.MustParseAddr(addr)
		})
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	s := spaceWithUplinks(t)
	w := watch(t, s.k)
	w.until("the first state", func(st netif.State) bool {
		return hasAddr("wan0", "203.0.113.5")(st) && len(st.Default4) == 0
	})

	s.Address("wan0", "203.0.113.77/24")
	w.until("the new address", hasAddr("wan0", "203.0.113.77"))

	s.addRoute("0.0.0.0/0", "wan0", "203.0.113.1", 0)
	by := func(name string) func(netif.State) bool {
		index := s.Index(name)
		return func(st netif.State) bool { return len(st.Default4) == 1 && st.Default4[0].Index == index }
	}
	w.until("the default route", by("wan0"))

	s.must(s.h.RouteReplace(s.route("0.0.0.0/0", "lte0", "198.51.100.1", 0)))
	w.until("the route on the other link", by("lte0"))

	s.must(s.h.LinkSetDown(s.link("isp0"))) // the cable is pulled
	w.until("wan0 without carrier", func(st netif.State) bool {
		l, _ := st.Link("wan0")
		return l.Up && !l.Running
	})
	s.must(s.h.LinkSetDown(s.link("wan0")))
	w.until("wan0 down", func(st netif.State) bool {
		l, _ := st.Link("wan0")
		return !l.Up
	})
	s.must(s.h.LinkDel(s.link("wan0")))
	w.until("wan0 gone", func(st netif.State) bool {
		_, ok := st.Link("wan0")
		return !ok
	})
	s.addRoute("::/0", "lte0", "fe80::1", 3)
	w.until("the IPv6 route", func(st netif.State) bool { return len(st.Default6) == 1 })
}

func TestWatchOverBeforeItBegins(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := s.k.Watch(ctx, func(netif.State) { t.Error("published") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestWatchPublishesOnlyDifferences(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		w.hint(nil)
		after(time.Second)
		if w.readings() != 2 {
			t.Errorf("%d readings, want 2", w.readings())
		}
		w.expect(t, 1)
		w.set(2, nil)
		after(time.Hour) // no polling: without a hint nothing is read
		w.expect(t, 1)
		w.hint(nil)
		after(time.Second)
		w.expect(t, 1, 2)
	})
}

func TestWatchDebounce(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		w.set(2, nil)
		for range 50 {
			w.hint(nil)
		}
		after(netif.Debounce - time.Millisecond)
		w.expect(t, 1)
		if w.readings() != 1 {
			t.Errorf("read %d times before the wait was over", w.readings()-1)
		}
		after(time.Millisecond)
		w.expect(t, 1, 2)
		after(time.Hour)
		if w.readings() != 2 {
			t.Errorf("%d readings for one burst, want one", w.readings()-1)
		}
	})
}

// A link that flaps all the time must not keep the reading away.
func TestWatchIsNotStarved(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		w.set(2, nil)
		for range 100 {
			w.hint(nil)
			after(netif.Debounce / 10)
		}
		w.expect(t, 1, 2)
		if n := w.readings() - 1; n < 5 || n > 11 {
			t.Errorf("%d readings in 10 times the wait", n)
		}
	})
}

// Reading a large network again and again must leave time for other things.
func TestWatchSlowReading(t *testing.T) {
	t.Parallel()
	w := &world{slow: time.Second}
	w.follow(t, func(t *testing.T) {
		for range 1000 {
			w.hint(nil)
			after(100 * time.Millisecond)
		}
		if n := w.readings(); n < 15 || n > 22 {
			t.Errorf("%d readings of a second in 100 seconds", n)
		}
	})
}

func TestWatchLostHintsAreAHint(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		w.set(2, nil)
		w.hint(unix.EINTR)
		after(time.Second)
		w.expect(t, 1)
		w.hint(unix.ENOBUFS)
		after(time.Second)
		w.expect(t, 1, 2)
		if len(w.sources) != 1 || w.last().isClosed() {
			t.Error("subscribed again for nothing")
		}
	})
}

func TestWatchSubscribesAgain(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		first := w.last()
		w.refuseNext(3)
		first.said <- errors.New("the socket broke")
		w.set(2, nil) // nobody is told
		after(10 * time.Second)
		if !first.isClosed() {
			t.Error("the broken subscription was left open")
		}
		w.expect(t, 1, 2)
		w.set(3, nil)
		w.hint(nil)
		after(time.Second)
		w.expect(t, 1, 2, 3)
		if n := w.warnings(); n != 2 {
			t.Errorf("%d warnings, want one for the end and one for the refusals:\n%s", n, &w.log)
		}
	})
}

// A subscription that fails at once, always, must not spin.
func TestWatchHopelessSubscription(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		for range 100 {
			w.hint(errors.New("broken"))
			after(10 * time.Millisecond)
		}
		if n := len(w.sources); n > 12 {
			t.Errorf("%d subscriptions within a second", n)
		}
	})
}

func TestWatchReadsAgain(t *testing.T) {
	t.Parallel()
	w := &world{}
	w.follow(t, func(t *testing.T) {
		w.set(2, netif.ErrInterrupted)
		w.hint(nil)
		after(time.Minute)
		w.expect(t, 1)
		if n := w.readings(); n < 5 || n > 25 {
			t.Errorf("%d attempts in a minute", n)
		}
		w.set(3, nil)
		after(10 * time.Second)
		w.expect(t, 1, 3)
		if n := w.warnings(); n != 1 {
			t.Errorf("%d warnings for one series of failures:\n%s", n, &w.log)
		}
	})
}

// The newest state wins: a consumer that stops listening for a while gets what
// holds at the end, not a queue.
func TestWatchSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set(1, nil)
		ctx, cancel := context.WithCancel(t.Context())
		leave, ended := make(chan struct{}), make(chan error, 1)
		var got []int
		go func() {
			ended <- w.run(ctx, func(s netif.State) {
				if got = append(got, s.Links[0].Index); len(got) == 1 {
					<-leave
				}
			})
		}()
		synctest.Wait()
		for n := range 50 {
			w.set(2+n, nil)
			w.hint(nil)
			after(time.Second)
		}
		if len(w.last().said) != 0 {
			t.Error("the reader was blocked by the consumer")
		}
		close(leave)
		after(time.Second)
		cancel()
		<-ended
		if !slices.Equal(got, []int{1, 51}) {
			t.Errorf("published %v, want 1 and the newest", got)
		}
	})
}

func TestWatchCannotBegin(t *testing.T) {
	t.Parallel()
	never := func(netif.State) { t.Error("published") }
	w := &world{refuse: 1}
	if err := w.run(t.Context(), never); !errors.Is(err, errRefused) {
		t.Errorf("without subscription: error %v", err)
	}
	w.set(1, netif.ErrInterrupted)
	if err := w.run(t.Context(), never); !errors.Is(err, netif.ErrInterrupted) {
		t.Errorf("without state: error %v", err)
	}
	if !w.last().isClosed() {
		t.Error("the subscription was left open")
	}
}

// Wherever it is, it ends with its context: waiting for a hint, in the wait
// after it, between attempts to read or to subscribe.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	for name, bring := range map[string]func(*world){
		"idle":         func(*world) {},
		"debouncing":   func(w *world) { w.hint(nil) },
		"failing read": func(w *world) { w.set(1, netif.ErrInterrupted); w.hint(nil); after(5 * time.Second) },
		"resubscribing": func(w *world) {
			w.refuseNext(1000)
			w.hint(errors.New("broken"))
			after(5 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				w.set(1, nil)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- w.run(ctx, func(netif.State) {}) }()
				synctest.Wait()
				bring(w)
				cancel()
				synctest.Wait()
				select {
				case err := <-ended:
					if !errors.Is(err, context.Canceled) {
						t.Errorf("error %v", err)
					}
				default:
					t.Error("still running") // and synctest.Test fails for a goroutine left behind
				}
				if !w.last().isClosed() {
					t.Error("the subscription was left open")
				}
			})
		})
	}
}
