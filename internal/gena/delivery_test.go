package gena_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/gena"
	"portcullis/internal/http1"
)

func accept(notify) string { return ok200 }
func stall(notify) string  { return "" }

// bubble runs f where time passes when everybody waits, and where a goroutine
// that is left over is a failure.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestEvents(t *testing.T) {
	bubble(t, "GENA-2/a change", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values(prop("Entries", 0), prop("Update", 0)))
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("Entries", 1), prop("Update", 1)})
		h.Publish("other", []gena.Property{prop("Entries", 9)})
		time.Sleep(time.Second)
		want := []told{
			{"0", body(prop("Entries", 0), prop("Update", 0))},
			{"1", body(prop("Entries", 1), prop("Update", 1))},
		}
		if diff := cmp.Diff(want, short(h.messages())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "GENA-2/what happens before the first event is in it", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		var entries atomic.Int32
		h.subscribe(alice, "conn", func() []gena.Property { return []gena.Property{prop("Entries", int(entries.Load()))} })
		entries.Store(3)
		h.Publish("conn", []gena.Property{prop("Entries", 3)})
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]told{{"0", body(prop("Entries", 3))}}, short(h.messages())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "each subscriber its own values", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values())
		h.subscribe(bob, "conn", values())
		time.Sleep(time.Second)
		h.PublishEach("conn", func(s gena.Subscriber) []gena.Property {
			if s == alice {
				return []gena.Property{prop("Entries", 1)}
			}
			return nil
		})
		time.Sleep(time.Second)
		got := h.messages()
		if len(got) != 3 || got[2].to.Addr() != alice.Addr {
			t.Errorf("got %d messages, want two first events and one for alice: %v", len(got), short(got))
		}
	})
	bubble(t, "renewal carries on", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		sid := h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid)
		if got := one(t, w.Header(), "SID"); w.Code != http.StatusOK || got != sid {
			t.Errorf("got %d, %s", w.Code, got)
		}
		h.Publish("conn", []gena.Property{prop("Entries", 1)})
		time.Sleep(time.Second)
		if diff := cmp.Diff([]told{{"0", body()}, {"1", body(prop("Entries", 1))}}, short(h.messages())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "values are escaped", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values(gena.Property{Name: "X", Value: "</X>&\"'<\x00"}))
		time.Sleep(time.Second)
		want := body(gena.Property{Name: "X", Value: "&lt;/X&gt;&amp;&#34;&#39;&lt;\uFFFD"})
		if diff := cmp.Diff([]told{{"0", want}}, short(h.messages())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "SEQ wraps to 1", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.SetSeq(h.subscribe(alice, "conn", values()), 4294967294)
		for i := range 4 {
			time.Sleep(time.Second)
			h.Publish("conn", []gena.Property{prop("Entries", i)})
		}
		time.Sleep(time.Second)
		var got []string
		for _, n := range h.messages() {
			got = append(got, n.seq())
		}
		if diff := cmp.Diff([]string{"4294967294", "4294967295", "1", "2", "3"}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestModeration(t *testing.T) {
	bubble(t, "one outstanding, the newest value wins", func(t *testing.T) {
		answered := make(chan string)
		h := newHome(t, gena.Config{}, func(notify) string { return <-answered })
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		for i := range 100 {
			h.Publish("conn", []gena.Property{prop("A", i)})
			h.Publish("conn", []gena.Property{prop("B", 2*i)})
			time.Sleep(10 * time.Millisecond)
		}
		if got := len(h.messages()); got != 1 {
			t.Fatalf("%d messages while the first is outstanding", got)
		}
		answered <- ok200
		time.Sleep(time.Second)
		answered <- ok200
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]told{{"0", body()}, {"1", body(prop("A", 99), prop("B", 198))}}, short(h.messages())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "a storm of changes becomes five messages a second", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		for i := range 1000 {
			h.Publish("conn", []gena.Property{prop("A", i)})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		got := h.messages()
		if len(got) != 1+6 {
			t.Errorf("%d messages, want the first event, one at once and one each 200 ms", len(got))
		}
		for i := 2; i < len(got); i++ {
			if gap := got[i].at.Sub(got[i-1].at); gap < gena.DefaultMinInterval {
				t.Errorf("message %d after %v", i, gap)
			}
		}
		if last := got[len(got)-1].body; last != body(prop("A", 999)) {
			t.Errorf("the last value is lost: %s", last)
		}
	})
	bubble(t, "a lone change goes at once", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		then := time.Now()
		h.Publish("conn", []gena.Property{prop("A", 1)})
		if got := h.messages(); len(got) != 2 || !got[1].at.Equal(then) {
			t.Errorf("got %d messages", len(got))
		}
	})
}

func TestFailures(t *testing.T) {
	const refused = "HTTP/1.1 500 Internal Server Error\r\n\r\n"
	for name, answer := range map[string]string{
		"GENA-11/500":       refused,
		"GENA-11/no answer": "",
		"F6/redirect":       "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://192.168.1.10:49201/\r\n\r\n",
		"F6/not HTTP":       "SSH-2.0-OpenSSH\r\n",
		"F6/no line break":  strings.Repeat("x", 5000),
	} {
		bubble(t, name+" once", func(t *testing.T) {
			h := newHome(t, gena.Config{}, func(n notify) string {
				if n.seq() == "1" || n.seq() == "3" {
					return answer
				}
				return ok200
			})
			h.subscribe(alice, "conn", values(prop("A", 0)))
			time.Sleep(10 * time.Second)
			h.Publish("conn", []gena.Property{prop("A", 1)})
			time.Sleep(10 * time.Second)
			h.Publish("conn", []gena.Property{prop("B", 1)}) // what failed comes along
			time.Sleep(10 * time.Second)
			h.Publish("conn", []gena.Property{prop("A", 2)})
			time.Sleep(10 * time.Second)
			h.Publish("conn", []gena.Property{prop("A", 3)}) // newer than what failed
			time.Sleep(10 * time.Second)
			want := []told{
				{"0", body(prop("A", 0))},
				{"1", body(prop("A", 1))},
				{"2", body(prop("A", 1), prop("B", 1))},
				{"3", body(prop("A", 2))},
				{"4", body(prop("A", 3))},
			}
			if diff := cmp.Diff(want, short(h.messages())); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if got, want := h.Stats(), (gena.Stats{Subscriptions: 1, Delivered: 3, Failed: 2}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
		bubble(t, name+" twice in a row", func(t *testing.T) {
			h := newHome(t, gena.Config{}, func(notify) string { return answer })
			sid := h.subscribe(alice, "conn", values(prop("A", 0)))
			time.Sleep(10 * time.Second)
			for i := range 5 {
				h.Publish("conn", []gena.Property{prop("A", i)})
				time.Sleep(10 * time.Second)
			}
			if got := len(h.messages()); got != 2 {
				t.Errorf("%d messages, want 2", got)
			}
			if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed {
				t.Errorf("renewal: %d", w.Code)
			}
			if got, want := h.Stats(), (gena.Stats{Failed: 2, Dropped: 1}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if h.Hosts() != 0 {
				t.Error("the host is still remembered")
			}
		})
	}
	bubble(t, "GENA-11/the first event fails", func(t *testing.T) {
		h := newHome(t, gena.Config{}, func(n notify) string {
			if n.seq() == "0" {
				return refused
			}
			return ok200
		})
		h.subscribe(alice, "conn", values(prop("A", 0), prop("B", 0)))
		time.Sleep(time.Hour / 3)
		if got := len(h.messages()); got != 1 {
			t.Fatalf("%d messages: it was sent again by itself", got)
		}
		h.Publish("conn", []gena.Property{prop("B", 1)})
		time.Sleep(time.Second)
		if diff := cmp.Diff(told{"1", body(prop("A", 0), prop("B", 1))}, short(h.messages())[1]); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "GENA-11/what changes meanwhile is newer than what fails", func(t *testing.T) {
		answered := make(chan string)
		h := newHome(t, gena.Config{}, func(notify) string { return <-answered })
		h.subscribe(alice, "conn", values(prop("A", 0), prop("B", 0)))
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		answered <- refused
		time.Sleep(time.Second)
		answered <- ok200
		time.Sleep(time.Second)
		if diff := cmp.Diff(told{"1", body(prop("A", 1), prop("B", 0))}, short(h.messages())[1]); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "a panic of the caller's", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", func() []gena.Property { panic("oops") })
		h.subscribe(bob, "conn", values())
		time.Sleep(time.Second)
		if got, want := h.Stats(), (gena.Stats{Subscriptions: 2, Delivered: 1, Failed: 1, Panics: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestSeveralURLs(t *testing.T) {
	bubble(t, "GENA-10/the first is closed", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values(), closedPort, otherPort)
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		time.Sleep(time.Second)
		got := h.messages()
		if diff := cmp.Diff([]told{{"0", body()}, {"1", body(prop("A", 1))}}, short(got)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		for _, n := range got {
			if n.to != netip.AddrPortFrom(alice.Addr, otherPort) {
				t.Errorf("went to %v", n.to)
			}
		}
	})
	bubble(t, "GENA-10/the first hangs", func(t *testing.T) {
		h := newHome(t, gena.Config{}, func(n notify) string {
			if n.to.Port() == openPort {
				return ""
			}
			return ok200
		})
		began := time.Now()
		h.subscribe(alice, "conn", values(), openPort, otherPort)
		time.Sleep(10 * time.Second)
		got := h.messages()
		if len(got) != 2 || got[1].to.Port() != otherPort || got[1].seq() != "0" || got[1].at.Sub(began) >= 5*time.Second {
			t.Errorf("got %+v", got)
		}
		if got := h.Stats(); got.Delivered != 1 || got.Failed != 0 {
			t.Errorf("got %+v", got)
		}
	})
	bubble(t, "GENA-10/the first works", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.subscribe(alice, "conn", values(), openPort, otherPort)
		time.Sleep(time.Second)
		if diff := cmp.Diff([]netip.AddrPort{netip.AddrPortFrom(alice.Addr, openPort)}, h.dialed(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	bubble(t, "F6/four that hang take five seconds in all", func(t *testing.T) {
		h := newHome(t, gena.Config{}, stall)
		began := time.Now()
		h.subscribe(alice, "conn", values(), 50001, 50002, 50003, 50004)
		for h.Stats().Failed == 0 {
			if time.Sleep(10 * time.Millisecond); time.Since(began) > time.Minute {
				t.Fatal("never given up")
			}
		}
		if took := time.Since(began); took > 5100*time.Millisecond || len(h.dialed()) != 4 {
			t.Errorf("%v, %d attempts", took, len(h.dialed()))
		}
	})
}

func TestAnswerFirst(t *testing.T) {
	subscribe := func() *http1.Request {
		return request("SUBSCRIBE", "conn", "CALLBACK: "+callbackTo(alice, openPort), "NT: upnp:event")
	}
	bubble(t, "the first event waits for the answer", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		answer := h.Handle(subscribe(), "conn", alice, values())
		time.Sleep(time.Minute)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		time.Sleep(time.Minute)
		if len(h.dialed()) != 0 {
			t.Fatal("connected before the answer was out")
		}
		answered := time.Now()
		answer.Sent(nil)
		time.Sleep(time.Second)
		got := h.messages()
		if len(got) != 1 || got[0].seq() != "0" {
			t.Fatalf("got %v", short(got))
		}
		if after := got[0].at.Sub(answered); after <= 0 {
			t.Errorf("%v after the answer: the FIN has no chance to be first", after)
		}
	})
	bubble(t, "who cannot be answered is not subscribed", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		h.Handle(subscribe(), "conn", alice, values()).Sent(net.ErrClosed)
		time.Sleep(time.Minute)
		if got := h.Stats().Subscriptions; got != 0 || len(h.dialed()) != 0 || h.Hosts() != 0 {
			t.Errorf("%d subscriptions, %d connections", got, len(h.dialed()))
		}
	})
}

func TestSlowSubscribers(t *testing.T) {
	bubble(t, "F6/one host that stalls does not delay another", func(t *testing.T) {
		h := newHome(t, gena.Config{}, func(n notify) string {
			if n.to.Addr() == alice.Addr {
				return ""
			}
			return ok200
		})
		for range gena.DefaultMaxPerDevice {
			h.subscribe(alice, "conn", values())
		}
		time.Sleep(time.Second) // alice has taken what she can
		began := time.Now()
		h.subscribe(bob, "conn", values())
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		time.Sleep(100 * time.Millisecond)
		var toBob []notify
		for _, n := range h.messages() {
			if n.to.Addr() == bob.Addr {
				toBob = append(toBob, n)
			}
		}
		if len(toBob) != 2 || toBob[0].at.Sub(began) > 100*time.Millisecond {
			t.Errorf("bob got %v", short(toBob))
		}
		for range 2 {
			time.Sleep(time.Minute)
			h.Publish("conn", []gena.Property{prop("A", 2)})
		}
		time.Sleep(time.Minute)
		if got := h.Stats(); got.Subscriptions != 1 || got.Dropped != gena.DefaultMaxPerDevice {
			t.Errorf("got %+v", got)
		}
	})
	bubble(t, "K2/one device that stalls at four addresses does not delay another", func(t *testing.T) {
		h := newHome(t, gena.Config{}, func(n notify) string {
			if n.to.Addr() != bob.Addr {
				return ""
			}
			return ok200
		})
		for i := range byte(gena.DefaultMaxPerDevice) {
			sub := alice
			sub.Device, sub.Addr = "br-lan 02:00:00:00:00:10", netip.AddrFrom4([4]byte{192, 168, 1, 100 + i/2})
			h.subscribe(sub, "conn", values())
		}
		time.Sleep(time.Second) // it has taken what it can
		began := time.Now()
		h.subscribe(bob, "conn", values())
		time.Sleep(time.Second)
		for _, n := range h.messages() {
			if n.to.Addr() == bob.Addr && n.at.Sub(began) < 100*time.Millisecond {
				return
			}
		}
		t.Errorf("bob heard nothing within 100 ms: %v", short(h.messages()))
	})
	bubble(t, "F6/at most eight connections at a time", func(t *testing.T) {
		var open, most atomic.Int32
		h := newHome(t, gena.Config{}, func(notify) string {
			most.Store(max(most.Load(), open.Add(1)))
			time.Sleep(time.Second)
			open.Add(-1)
			return ok200
		})
		for i := range byte(28) {
			sub := alice
			sub.Addr = netip.AddrFrom4([4]byte{192, 168, 1, 100 + i})
			sub.Device = sub.Addr.String()
			h.subscribe(sub, "conn", values())
			h.subscribe(sub, "conn", values())
		}
		time.Sleep(time.Minute)
		if got := h.Stats().Delivered; got != 56 || most.Load() != 8 {
			t.Errorf("%d delivered, %d at a time", got, most.Load())
		}
	})
	bubble(t, "headers that never end are not waited for", func(t *testing.T) {
		h := newHome(t, gena.Config{Dial: func(context.Context, gena.Subscriber, netip.AddrPort) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				_, _ = readNotify(theirs)
				_, _ = theirs.Write([]byte("HTTP/1.1 200 OK\r\n"))
				_, _ = theirs.Read(make([]byte, 1))
			}()
			return ours, nil
		}}, nil)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		if got := h.Stats().Delivered; got != 1 {
			t.Error("not delivered within a second")
		}
	})
	bubble(t, "Publish does not wait", func(t *testing.T) {
		h := newHome(t, gena.Config{}, stall)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		began := time.Now()
		for i := range 1000 {
			h.Publish("conn", []gena.Property{prop("A", i)})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}
