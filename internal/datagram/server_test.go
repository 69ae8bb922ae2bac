package datagram_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
)

const (
	lanIndex    = 3
	maxDatagram = 8
)

// fakeConn is a socket in memory.
type fakeConn struct {
	in     chan arrival
	closed chan struct{}
}

type arrival struct {
	packet datagram.Packet
	bytes  []byte
	err    error
}

func (c *fakeConn) Receive(b []byte) (datagram.Packet, error) {
	select {
	case a := <-c.in:
		a.packet.Size = copy(b, a.bytes)
		return a.packet, a.err
	case <-c.closed:
		return datagram.Packet{}, net.ErrClosed
	}
}

func (c *fakeConn) Send([]byte, netip.Addr, netip.AddrPort) error { return nil }

func (c *fakeConn) Close() error {
	close(c.closed)
	return nil
}

// recorder is a Handler that notes its calls, those of Act but for the time.
type recorder struct {
	began time.Time
	every time.Duration // between calls of Act
	takes time.Duration // each call of Act

	mu      sync.Mutex // guards what follows
	calls   []string
	acts    []time.Duration // since began
	panics  int             // in Act, from the next on
	receive func([]byte)    // may be nil
}

func (r *recorder) Adopt(_ time.Time, a datagram.Addresses) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf("adopt %v %v", a.Locals, a.Prefixes))
}

func (r *recorder) Receive(_ context.Context, _ time.Time, p datagram.Packet, b []byte) {
	r.mu.Lock()
	r.calls = append(r.calls, fmt.Sprintf("receive %v %s", p.Destination, b))
	receive := r.receive
	r.mu.Unlock()
	if receive != nil {
		receive(b)
	}
}

func (r *recorder) Act(_ context.Context, now time.Time) time.Time {
	time.Sleep(r.takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acts = append(r.acts, now.Sub(r.began))
	if r.panics > 0 {
		r.panics--
		panic("a bug in Act")
	}
	return now.Add(r.every)
}

// take returns the calls since the last one, once everybody waits.
func (r *recorder) take() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.calls = nil }()
	return strings.Join(r.calls, "\n")
}

// set changes what a handler does.
func (r *recorder) set(panics int, receive func([]byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.panics, r.receive = panics, receive
}

// times returns when Act was called, the same time once; and how often it was.
func (r *recorder) times() ([]time.Duration, int) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Compact(slices.Clone(r.acts)), len(r.acts)
}

// took wants the calls since the last one to be these.
func (r *recorder) took(t *testing.T, want ...string) {
	t.Helper()
	if got := r.take(); got != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// rig is a server that runs in a bubble.
type rig struct {
	*recorder
	conn   *fakeConn
	server *datagram.Server
	log    *bytes.Buffer
	result chan error
	stop   context.CancelFunc
}

// inBubble runs a test with a server; edit may call it before it runs.
func inBubble(t *testing.T, edit func(*rig), test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{
			recorder: &recorder{began: time.Now(), every: time.Hour},
			conn:     &fakeConn{in: make(chan arrival), closed: make(chan struct{})},
			log:      new(bytes.Buffer), result: make(chan error, 1),
		}
		var err error
		r.server, err = datagram.NewServer(datagram.Config{
			Protocol: "test", Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Ifname: "lan0", Ifindex: lanIndex, Groups: []netip.Addr{group4}, MaxDatagram: maxDatagram, Conn: r.conn,
		})
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r.stop = cancel
		go func() {
			err := r.server.Run(ctx, r.recorder)
			r.result <- errors.Join(err, r.server.Close())
		}()
		synctest.Wait()
		test(t, r)
		cancel()
	})
}

// finish stops the server; the bubble proves that no goroutine stays.
func (r *rig) finish(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.result; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// give hands the server a datagram of a host on the link.
func (r *rig) give(to netip.Addr, ifindex int, text string) {
	p := datagram.Packet{Source: netip.MustParseAddrPort("192.168.1.9:5000"), Destination: to, Ifindex: ifindex}
	r.conn.in <- arrival{packet: p, bytes: []byte(text)}
}

func (r *rig) setAddresses(locals ...netip.Addr) {
	r.server.SetAddresses(locals, prefixes("192.168.1.0/24"))
}

var (
	gateway = addr("192.168.1.1")
	second  = addr("192.168.1.2")
)

// TestServerReceives: A2, A4. A handler is given what was sent to an address of the
// interface, as it is now, or to a group, and came in by the interface; of a datagram
// that is too long, one octet more than is valid.
func TestServerReceives(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.give(gateway, lanIndex, "early")
		r.took(t)
		r.setAddresses(gateway)
		r.took(t, "adopt [192.168.1.1] [192.168.1.0/24]")
		r.give(gateway, lanIndex, "one")
		r.give(group4, lanIndex, "two")
		r.give(gateway, lanIndex+1, "by the WAN")
		r.give(second, lanIndex, "to another")
		r.give(gateway, lanIndex, "0123456789")
		r.took(t, "receive 192.168.1.1 one", "receive 239.255.255.250 two", "receive 192.168.1.1 012345678")
		r.setAddresses(second)
		r.take()
		r.give(gateway, lanIndex, "gone")
		r.give(second, lanIndex, "here")
		r.took(t, "receive 192.168.1.2 here")
		r.setAddresses()
		r.take()
		r.give(group4, lanIndex, "nobody")
		r.took(t)
		r.finish(t)
		for _, reason := range []string{"no address", "came in by another interface", "sent to another address"} {
			if !strings.Contains(r.log.String(), `reason="`+reason) {
				t.Errorf("not in the log: %s", reason)
			}
		}
	})
}

// TestServerPulse: who asks whether a server serves waits for as long as the handler is busy, and
// no longer; under a flood too.
func TestServerPulse(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		answered := func(pulse <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-pulse:
				return true
			default:
				return false
			}
		}
		for range 2 {
			if !answered(r.server.Pulse()) {
				t.Error("no answer from an idle server")
			}
		}
		hangs := make(chan struct{})
		r.set(0, func([]byte) { <-hangs })
		r.setAddresses(gateway)
		synctest.Wait()
		r.give(gateway, lanIndex, "one")
		synctest.Wait()
		first, second := r.server.Pulse(), r.server.Pulse()
		if answered(first) || answered(second) {
			t.Error("an answer from a server that hangs")
		}
		close(hangs)
		if !answered(first) || !answered(second) {
			t.Error("no answer from a server that goes on")
		}
		r.set(0, func([]byte) { time.Sleep(time.Second) })
		flood, stop := context.WithCancel(t.Context())
		go func() {
			for flood.Err() == nil {
				r.give(gateway, lanIndex, "two")
			}
		}()
		<-r.server.Pulse()
		stop()
		<-time.After(time.Hour)
		r.finish(t)
	})
}

// TestServerAdoptsFirst: what is known before Run is adopted before any datagram, and
// of several calls the last one.
func TestServerAdoptsFirst(t *testing.T) {
	t.Parallel()
	for range 50 { // selects pick at random
		inBubble(t, func(r *rig) {
			r.takes = time.Second // and then there are both
			r.setAddresses(gateway)
			r.setAddresses(second, gateway)
			go r.give(gateway, lanIndex, "one")
			synctest.Wait()
		}, func(t *testing.T, r *rig) {
			time.Sleep(time.Minute)
			r.took(t, "adopt [192.168.1.2 192.168.1.1] [192.168.1.0/24]", "receive 192.168.1.1 one")
			r.finish(t)
		})
	}
}

// TestServerKeepsItsOwnAddresses: the caller may use its slices again.
func TestServerKeepsItsOwnAddresses(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		locals, networks := []netip.Addr{gateway}, prefixes("192.168.1.0/24")
		r.server.SetAddresses(locals, networks)
		locals[0], networks[0] = second, prefixes("10.0.0.0/8")[0]
		r.took(t, "adopt [192.168.1.1] [192.168.1.0/24]")
		r.finish(t)
	})
}

// TestServerActs: at the times it asks for, and after every event.
func TestServerActs(t *testing.T) {
	t.Parallel()
	inBubble(t, func(r *rig) { r.every = 2 * time.Second }, func(t *testing.T, r *rig) {
		var want []time.Duration
		check := func(what string, at ...time.Duration) {
			t.Helper()
			want = append(want, at...)
			if got, _ := r.times(); !slices.Equal(got, want) {
				t.Errorf("%s: acts at %v, want %v", what, got, want)
			}
		}
		check("start", 0)
		time.Sleep(5 * time.Second)
		check("time", 2*time.Second, 4*time.Second)
		r.setAddresses(gateway)
		check("addresses", 5*time.Second)
		time.Sleep(time.Second)
		r.give(gateway, lanIndex, "one")
		check("datagram", 6*time.Second)
		time.Sleep(time.Second)
		for range 3 {
			r.server.Wake() // never waits
		}
		check("woken", 7*time.Second)
		time.Sleep(2 * time.Second)
		check("time again", 9*time.Second)
		r.finish(t)
	})
}

// TestServerSurvivesPanics: two are borne, and Act is called again at once.
func TestServerSurvivesPanics(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.setAddresses(gateway)
		evil := func(b []byte) {
			if string(b) == "evil" {
				panic("a bug in Receive")
			}
		}
		r.set(0, evil)
		r.take()
		r.give(gateway, lanIndex, "evil")
		r.give(gateway, lanIndex, "good")
		r.took(t, "receive 192.168.1.1 evil", "receive 192.168.1.1 good")
		r.set(1, evil)
		_, before := r.times()
		r.server.Wake()
		if _, n := r.times(); n != before+2 {
			t.Errorf("Act was called %d times, want again at once", n-before)
		}
		r.give(gateway, lanIndex, "evil")
		if err := <-r.result; err == nil || err.Error() != "test: lan0: answering panicked 3 times" {
			t.Errorf("Run: %v", err)
		}
		for text, n := range map[string]int{"a bug in Receive": 2, "a bug in Act": 1} {
			if got := strings.Count(r.log.String(), `panic="`+text); got != n {
				t.Errorf("%d lines about %s, want %d", got, text, n)
			}
		}
	})
}

// TestServerSurvivesReadErrors: nine in a row are borne, with a pause after each, the
// tenth ends Run; a datagram between them starts the count anew.
func TestServerSurvivesReadErrors(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.setAddresses(gateway)
		r.take()
		broken := errors.New("broken")
		for range 9 {
			r.conn.in <- arrival{err: broken}
		}
		r.give(gateway, lanIndex, "one")
		r.took(t, "receive 192.168.1.1 one")
		if waited := time.Since(r.began); waited != 900*time.Millisecond {
			t.Errorf("9 errors took %v, want 100 ms each", waited)
		}
		for range 10 {
			r.conn.in <- arrival{err: broken}
		}
		if err := <-r.result; !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "test: lan0: ") {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestServerReadsAheadLittle: while a handler is busy, 16 datagrams are read and no
// more, and none of them is lost or changed.
func TestServerReadsAheadLittle(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, r *rig) {
		r.setAddresses(gateway)
		r.take()
		busy := make(chan struct{})
		r.set(0, func([]byte) { <-busy })
		taken := 0
		var want []string
		for range 17 {
			want = append(want, fmt.Sprintf("receive 192.168.1.1 %d", taken))
			select {
			case r.conn.in <- arrival{
				packet: datagram.Packet{Source: netip.MustParseAddrPort("192.168.1.9:5000"), Destination: gateway, Ifindex: lanIndex},
				bytes:  []byte(fmt.Sprint(taken)),
			}:
				taken++
			case <-time.After(time.Minute):
			}
		}
		if taken != 16 {
			t.Errorf("%d datagrams read, want 16", taken)
		}
		close(busy)
		r.took(t, want[:16]...)
		for range 2 * 16 { // the buffers are used again
			r.give(gateway, lanIndex, "more")
		}
		r.finish(t)
	})
}

// TestNewServerRefuses what cannot run.
func TestNewServerRefuses(t *testing.T) {
	t.Parallel()
	good := datagram.Config{Protocol: "test", Logger: slog.New(slog.DiscardHandler), Ifindex: 1, Conn: new(fakeConn)}
	for what, edit := range map[string]func(*datagram.Config){
		"logger":          func(c *datagram.Config) { c.Logger = nil },
		"connection":      func(c *datagram.Config) { c.Conn = nil },
		"interface index": func(c *datagram.Config) { c.Ifindex = 0 },
	} {
		cfg := good
		edit(&cfg)
		if _, err := datagram.NewServer(cfg); err == nil || !strings.HasPrefix(err.Error(), "test: ") || !strings.Contains(err.Error(), what) {
			t.Errorf("no %s: %v", what, err)
		}
	}
}
