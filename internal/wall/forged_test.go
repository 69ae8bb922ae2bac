package wall

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// mute is an end of a wall whose other end the test plays.
func mute(t *testing.T) (end *os.File, other *conn) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if other, err = newConn(b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.close() })
	return a, other
}

// greet sends what a warden sends first.
func greet(t *testing.T, warden *conn) {
	t.Helper()
	if err := errors.Join(warden.send(Message{Body: new(Settings)}), warden.send(Message{Body: new(Network)})); err != nil {
		t.Fatal(err)
	}
}

// TestForgedFront: the warden ends a wall over which comes what no front of ours sends, and
// nothing that came with it stays open.
func TestForgedFront(t *testing.T) {
	open := descriptors(t)
	ok := encode(t, Message{Number: 1, Patience: time.Second, Body: &Own{asker.ID(), 0, 1}})
	slow := Message{Patience: time.Second, Body: &Map{wish, 1}}
	for name, c := range map[string]struct {
		send func(*conn) error
		want error
	}{
		"garbage":             {func(c *conn) error { return c.write([]byte("GET / HTTP/1.1")) }, errVersion},
		"an octet too much":   {func(c *conn) error { return c.write(append(ok, 0)) }, errTrailing},
		"an answer":           {func(c *conn) error { return c.send(Message{Number: 1, Body: new(Done)}) }, errNoAsk},
		"settings":            {func(c *conn) error { return c.send(Message{Body: new(Settings)}) }, errNoAsk},
		"a turn to come":      {func(c *conn) error { return c.send(Message{Body: &Served{Turn: 1}}) }, errTurn},
		"a network":           {func(c *conn) error { return c.send(Message{Body: new(Network)}) }, errNoAsk},
		"a descriptor":        {func(c *conn) error { return c.write(ok, 0) }, errPassed},
		"many descriptors":    {func(c *conn) error { return c.write(ok, 0, 0, 0, 0, 0, 0, 0, 0) }, errCut},
		"an answer with one":  {func(c *conn) error { return c.send(Message{Number: 1, Body: &Socket{ByMark}}, 0) }, errNoAsk},
		"more than any":       {func(c *conn) error { return c.write(make([]byte, MaxMessage+2)) }, errCut},
		"a number twice":      {func(c *conn) error { return many(c, slow, func(int) uint32 { return 1 }) }, errTwice},
		"a flood of requests": {func(c *conn) error { return many(c, slow, func(i int) uint32 { return uint32(i + 1) }) }, errTooMany},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecider()
			d.began = make(chan struct{}, 2*MaxUnderWay)
			d.is(make(chan struct{}), nil)
			end, front := mute(t)
			server, err := NewServer(end, d.config(slog.New(slog.DiscardHandler), nil))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Run(context.Background()) }()
			if err := c.send(front); err != nil {
				t.Fatal(err)
			}
			if err := within(t, ended); !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if n := len(server.underWay); n > 0 { // Run has ended
				t.Errorf("%d requests under way", n)
			}
			_ = front.close()
		})
	}
	leaks(t, open)
}

// many sends one request after another.
func many(c *conn, m Message, number func(int) uint32) error {
	for i := range MaxUnderWay + 1 {
		m.Number = number(i)
		if err := c.send(m); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			return err
		}
	}
	return nil
}

// TestForgedWarden: likewise at the other end, and whoever waits is told.
func TestForgedWarden(t *testing.T) {
	open := descriptors(t)
	for name, c := range map[string]struct {
		send func(*conn, uint32) error
		want error
	}{
		"garbage":        {func(c *conn, _ uint32) error { return c.write([]byte{1, 99}) }, errType},
		"a request":      {func(c *conn, n uint32) error { return c.send(Message{Number: n, Body: new(Suspect)}) }, errUnasked},
		"settings again": {func(c *conn, _ uint32) error { return c.send(Message{Body: new(Settings)}) }, errUnasked},
		"to begin again": {func(c *conn, _ uint32) error {
			return errors.Join(c.send(Message{Body: new(Serve)}), c.send(Message{Body: new(Serve)}))
		}, errOrder},
		"served":            {func(c *conn, _ uint32) error { return c.send(Message{Body: new(Served)}) }, errUnasked},
		"an answer to none": {func(c *conn, n uint32) error { return c.send(Message{Number: n + 1, Body: new(Done)}) }, errAnswer},
		"a socket to none": {func(c *conn, n uint32) error {
			return c.send(Message{Number: n + 1, Body: &Socket{ByPacketSocket}}, 0, 0)
		}, errAnswer},
		"a socket without": {func(c *conn, n uint32) error { return c.send(Message{Number: n, Body: &Socket{ByMark}}) }, errPassed},
		"its end":          {func(c *conn, _ uint32) error { return c.close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			end, warden := mute(t)
			greet(t, warden)
			client, err := Dial(end)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- client.Run(context.Background()) }()
			asked := make(chan error, 1)
			go func() {
				_, err := client.Map(context.Background(), wish)
				asked <- err
			}()
			m, _, err := warden.receive()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.send(warden, m.Number); err != nil {
				t.Fatal(err)
			}
			if err := within(t, ended); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if err := within(t, asked); !errors.Is(err, errClosed) {
				t.Errorf("who asked is told %v", err)
			}
			if _, err := client.Own(context.Background(), asker.ID(), 0, 1); err == nil {
				t.Error("asked behind the end")
			}
			_ = warden.close()
		})
	}
	leaks(t, open)
}

// TestOrder: a warden that does not begin as ours do is none.
func TestOrder(t *testing.T) {
	open := descriptors(t)
	for name, first := range map[string][]Body{
		"the network first": {new(Network)}, "events first": {new(Settings), new(Stop)}, "settings twice": {new(Settings), new(Settings)},
		"a ping first": {new(Settings), new(Ping)},
	} {
		end, warden := mute(t)
		for _, b := range first {
			if err := warden.send(Message{Body: b}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Dial(end); !errors.Is(err, errOrder) {
			t.Errorf("%s: %v", name, err)
		}
		_ = warden.close()
	}
	leaks(t, open)
}

// TestWrongAnswer: an answer of another type is an error, and what came with it is closed.
func TestWrongAnswer(t *testing.T) {
	open := descriptors(t)
	end, warden := mute(t)
	greet(t, warden)
	client, err := Dial(end)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- client.Run(ctx) }()
	go func() { // answers whatever it is asked with a socket
		for {
			m, _, err := warden.receive()
			if err != nil {
				return
			}
			_ = warden.send(Message{Number: m.Number, Body: &Socket{ByPacketSocket}}, 0, 0)
		}
	}()
	lo := netif.LAN{Name: "lo", Index: 1}
	_, one := client.Map(ctx, wish)
	_, two := client.HTTP(ctx, lo, netip.AddrPortFrom(loopback, httpPort))
	_, three := client.Discovery(ctx, lo, false) // of what is no socket
	_, four := client.Dial(ctx, "lo", loopback, netip.AddrPortFrom(loopback, httpPort))
	for i, err := range []error{one, two, three, four} {
		if err == nil {
			t.Errorf("%d: no error", i)
		}
	}
	cancel()
	if err := within(t, ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = warden.close()
	leaks(t, open)
}

// TestEnds: the end of either half ends the other, in the middle of requests; nothing is
// left of them.
func TestEnds(t *testing.T) {
	open := descriptors(t)
	for i, name := range []string{"the warden", "the front"} {
		t.Run(name, func(t *testing.T) {
			r := build(t)
			slow := make(chan struct{})
			r.decider.is(slow, nil)
			lo := r.LANs()["lo"]
			conn, err := r.Discovery(t.Context(), lo, false)
			if err != nil {
				t.Fatal(err)
			}
			asked := make(chan error, 3)
			for range cap(asked) {
				go func() {
					_, err := r.Map(context.Background(), wish)
					asked <- err
				}()
				within(t, r.decider.began)
			}
			r.stop[i]()
			if err := r.end(t, i); !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v", err)
			}
			if err := r.end(t, 1-i); err == nil {
				t.Error("the other does not end")
			}
			for range cap(asked) {
				if err := within(t, asked); err == nil {
					t.Error("a request has an answer")
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	leaks(t, open)
}

// BenchmarkRoundTrip is what a question costs.
func BenchmarkRoundTrip(b *testing.B) {
	r := build(b)
	for b.Loop() {
		if _, err := r.Own(b.Context(), asker.ID(), 0, 1); err != nil {
			b.Fatal(err)
		}
		r.decider.taken()
	}
}

func encode(t *testing.T, m Message) []byte {
	t.Helper()
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open is what a process has open.
type open struct{ descriptors, goroutines int }

func descriptors(t *testing.T) open {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return open{len(all), runtime.NumGoroutine()}
}

// leaks waits until no more is open than before.
func leaks(t *testing.T, before open) {
	t.Helper()
	for began := time.Now(); ; runtime.Gosched() {
		now := descriptors(t)
		if now.descriptors <= before.descriptors && now.goroutines <= before.goroutines {
			return
		}
		if time.Since(began) > long {
			t.Fatalf("%+v are left, %+v were there", now, before)
		}
	}
}
