package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/listeners"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// The loopback interface is on every machine: an error there is no interface's end.
const lan = "lo"

func network(addrs ...string) netif.LAN {
	l := netif.LAN{Name: lan, Index: 1}
	for _, text := range addrs {
		p := netip.MustParsePrefix(text)
		l.Addrs = append(l.Addrs, p.Addr())
		l.Prefixes = append(l.Prefixes, p.Masked())
		if p.Addr().Is4() && !l.Addr.IsValid() {
			l.Addr = p.Addr()
		}
	}
	return l
}

// world is what happens to servers, each named after its listener.
type world struct {
	mu     sync.Mutex
	lines  []string                     // guarded by mu; since the last told
	broken map[string]error             // guarded by mu; cannot be opened
	ending map[string]chan error        // guarded by mu; ends a server that runs
	checks map[string]listeners.Accepts // guarded by mu
	failed []error                      // guarded by mu
	hangs  string                       // guarded by mu; a server that does not serve
	*listeners.Set
}

func newWorld() *world {
	w := &world{broken: map[string]error{}, ending: map[string]chan error{}, checks: map[string]listeners.Accepts{}}
	w.Set = listeners.New(listeners.Config{
		Log: slog.New(slog.DiscardHandler), Open: w.open,
		Failed: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.failed = append(w.failed, err)
		},
	})
	return w
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *world) open(_ context.Context, at listeners.Key, l netif.LAN, accepts listeners.Accepts) ([]*listeners.Server, error) {
	name := fmt.Sprintf("%s/%d", at.LAN, at.Family())
	if at.Also.IsValid() {
		name += "/" + at.Also.String()
	}
	w.mu.Lock()
	err, ending := w.broken[name], make(chan error)
	w.ending[name], w.checks[name] = ending, accepts
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if l.MAC == [6]byte{9} {
		return nil, nil // no protocol is for it
	}
	w.say("open %s", name)
	return []*listeners.Server{{
		Name: "test",
		Run: func(ctx context.Context) error {
			w.say("run %s", name)
			defer w.say("end %s", name)
			select {
			case <-ctx.Done():
				return nil
			case err := <-ending:
				return err
			}
		},
		Close:    func() error { w.say("close %s", name); return nil },
		Follow:   func(l netif.LAN) { w.say("follow %s %d", name, len(l.Addrs)) },
		Announce: func() { w.say("announce %s", name) },
		Pulse: func() <-chan struct{} {
			w.say("asked %s", name)
			w.mu.Lock()
			defer w.mu.Unlock()
			c := make(chan struct{})
			if w.hangs != name {
				close(c)
			}
			return c
		},
	}}, nil
}

// told compares what happened since it was asked last, in whatever order.
func (w *world) told(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.lines)
	slices.Sort(want)
	if !slices.Equal(w.lines, want) {
		t.Errorf("%s:\n got %s\nwant %s", when, strings.Join(w.lines, ", "), strings.Join(want, ", "))
	}
	w.lines = nil
}

func (w *world) follow(t *testing.T, lans ...netif.LAN) {
	t.Helper()
	if err := w.Follow(t.Context(), lans); err != nil {
		t.Error(err)
	}
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld()) })
}

// TestFollow: each family of a LAN has a listener while it has an address, and each
// further IPv4 address has one; sockets that still fit stay open.
func TestFollow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		w.follow(t, network("192.168.1.1/24"))
		w.told(t, "before the start", "open lo/4", "follow lo/4 1")
		w.Serve(ctx)
		w.told(t, "at the start", "run lo/4")
		w.follow(t, network("192.168.1.1/24", "fe80::1/64", "192.168.2.1/24"))
		w.told(t, "more addresses", "follow lo/4 3", "open lo/6", "follow lo/6 3", "run lo/6",
			"open lo/4/192.168.2.1", "follow lo/4/192.168.2.1 3", "run lo/4/192.168.2.1")
		w.follow(t, network("192.168.1.1/24", "2001:db8::1/64"))
		w.told(t, "other IPv6 addresses", "follow lo/4 2", "follow lo/6 2", "end lo/4/192.168.2.1")
		w.follow(t, network("192.168.3.1/24", "2001:db8::1/64"))
		w.told(t, "another IPv4 address", "end lo/4", "open lo/4", "follow lo/4 2", "run lo/4", "follow lo/6 2")
		moved := network("192.168.3.1/24")
		moved.Index = 2
		w.follow(t, moved)
		w.told(t, "the interface was made anew", "end lo/4", "open lo/4", "follow lo/4 1", "run lo/4", "end lo/6")
		w.follow(t)
		w.told(t, "the LAN is gone", "end lo/4")
		w.follow(t, network("192.168.1.1/24"))
		w.told(t, "it is back", "open lo/4", "follow lo/4 1", "run lo/4")
		stop()
		w.Wait(ctx)
		w.told(t, "at the end", "end lo/4")
		w.follow(t, network("192.168.1.1/24", "192.168.2.1/24"))
		w.told(t, "after the end")
	})
}

// TestServerEnds: a server that ends before its time closes its listener, is told of,
// and is opened again when the network is looked at again.
func TestServerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		both := network("192.168.1.1/24", "fe80::1/64")
		w.follow(t, both)
		w.Serve(ctx)
		w.told(t, "at the start", "open lo/4", "follow lo/4 2", "run lo/4", "open lo/6", "follow lo/6 2", "run lo/6")
		broken := errors.New("broken")
		w.ending["lo/4"] <- broken
		w.told(t, "it ended", "end lo/4")
		if len(w.failed) != 1 || w.failed[0] != broken {
			t.Errorf("told of %v", w.failed)
		}
		w.follow(t, both)
		w.told(t, "another look", "open lo/4", "follow lo/4 2", "run lo/4", "follow lo/6 2")
		stop()
		w.Wait(ctx)
	})
}

// TestCannotOpen: a listener that cannot be opened does not keep others from it; that
// its interface has just gone is no error.
func TestCannotOpen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		taken := errors.New("taken")
		w.broken["lo/4"], w.broken["lo/6"] = taken, fmt.Errorf("listen: %w", netif.ErrGone)
		err := w.Follow(t.Context(), []netif.LAN{network("192.168.1.1/24", "192.168.2.1/24", "fe80::1/64")})
		if !errors.Is(err, taken) || errors.Is(err, netif.ErrGone) {
			t.Errorf("the error is %v", err)
		}
		w.told(t, "one is open", "open lo/4/192.168.2.1", "follow lo/4/192.168.2.1 3")
		if err := w.Abandon(); err != nil {
			t.Error(err)
		}
		w.told(t, "given up", "close lo/4/192.168.2.1")
	})
}

// TestPulse: every server is asked whether it serves; one that hangs is named, and one that has
// ended holds nobody up.
func TestPulse(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		w.follow(t, network("192.168.1.1/24", "fe80::1/64", "192.168.2.1/24"))
		w.Serve(ctx)
		synctest.Wait()
		w.lines = nil
		if err := w.Pulse(t.Context()); err != nil {
			t.Error(err)
		}
		w.told(t, "all", "asked lo/4", "asked lo/4/192.168.2.1", "asked lo/6")
		w.hangs = "lo/6"
		late := errors.New("late")
		impatient, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
		defer cancel()
		if err := w.Pulse(impatient); !errors.Is(err, late) || !strings.Contains(err.Error(), "test on lo (IPv6) hangs") {
			t.Errorf("the error is %v", err)
		}
		answered := make(chan error, 1)
		go func() { answered <- w.Pulse(t.Context()) }()
		synctest.Wait()
		w.ending["lo/6"] <- errors.New("broken")
		if err := <-answered; err != nil {
			t.Error(err)
		}
		stop()
		w.Wait(ctx)
	})
}

// TestNoServers: where no protocol has a server, nothing is served again and again.
func TestNoServers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		l := network("192.168.1.1/24")
		l.MAC = [6]byte{9}
		w.follow(t, l)
		w.Serve(ctx)
		w.follow(t, l)
		w.told(t, "nothing")
		stop()
		w.Wait(ctx)
	})
}

// TestAnnounce: clients of the families that are named hear of it, no others.
func TestAnnounce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.follow(t, network("192.168.1.1/24", "fe80::1/64"))
		w.told(t, "open", "open lo/4", "follow lo/4 2", "open lo/6", "follow lo/6 2")
		w.Announce(false, false)
		w.told(t, "nobody")
		w.Announce(true, false)
		w.told(t, "IPv4", "announce lo/4")
		w.Announce(false, true)
		w.told(t, "IPv6", "announce lo/6")
		if err := w.Abandon(); err != nil {
			t.Error(err)
		}
	})
}

// TestAccepts: a connection must come from the LAN to an address of ours there, as they
// are now.
func TestAccepts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.follow(t, network("192.168.1.1/24"))
		w.follow(t, network("192.168.1.1/24", "192.168.2.1/24"))
		at := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 5000) }
		for _, c := range []struct {
			remote, local string
			want          bool
		}{
			{"192.168.1.9", "192.168.1.1", true},
			{"192.168.2.9", "192.168.1.1", true},
			{"192.168.3.9", "192.168.1.1", false},
			{"192.168.1.9", "192.168.1.2", false},
			{"203.0.113.9", "192.168.1.1", false},
		} {
			if got := w.checks["lo/4"](at(c.remote), at(c.local)); got != c.want {
				t.Errorf("from %s to %s: %v", c.remote, c.local, got)
			}
		}
		if err := w.Abandon(); err != nil {
			t.Error(err)
		}
	})
}
