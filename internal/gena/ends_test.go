package gena_test

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/gena"
)

func TestEnds(t *testing.T) {
	bubble(t, "GENA-13/expired", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		sid := h.subscribe(alice, "conn", values())
		time.Sleep(gena.DefaultTimeout - time.Millisecond)
		if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusOK {
			t.Fatalf("just in time: %d", w.Code)
		}
		time.Sleep(gena.DefaultTimeout - time.Millisecond)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		if got := len(h.messages()); got != 2 {
			t.Fatalf("%d messages, want one more after the renewal", got)
		}
		time.Sleep(time.Millisecond)
		h.Publish("conn", []gena.Property{prop("A", 2)})
		time.Sleep(time.Minute)
		if got := len(h.messages()); got != 2 || h.Stats().Subscriptions != 0 {
			t.Errorf("%d messages, %d subscriptions", got, h.Stats().Subscriptions)
		}
		if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed {
			t.Errorf("renewal: %d", w.Code)
		}
		if w := ask(h.Notifier, "UNSUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed {
			t.Errorf("UNSUBSCRIBE: %d", w.Code)
		}
	})
	bubble(t, "GENA-13/expired to the instant", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		sid := h.subscribe(alice, "conn", values())
		time.Sleep(gena.DefaultTimeout)
		if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed {
			t.Errorf("renewal: %d", w.Code)
		}
	})
	bubble(t, "GENA-4/UNSUBSCRIBE drops what was not delivered", func(t *testing.T) {
		h := newHome(t, gena.Config{}, stall)
		began := time.Now()
		sid := h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		for i, want := range []int{http.StatusOK, http.StatusPreconditionFailed} {
			if w := ask(h.Notifier, "UNSUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != want {
				t.Errorf("%d: got %d, want %d", i, w.Code, want)
			}
		}
		h.stop() // returns when the delivery under way has ended
		if took := time.Since(began); took > time.Second || len(h.messages()) != 1 {
			t.Errorf("%v, %d messages", took, len(h.messages()))
		}
		if got, want := h.Stats(), (gena.Stats{}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	bubble(t, "UNSUBSCRIBE before the first event", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		sid := h.subscribe(alice, "conn", values())
		ask(h.Notifier, "UNSUBSCRIBE", alice, "conn", nil, "SID: "+sid)
		time.Sleep(time.Minute)
		if len(h.dialed()) != 0 || h.Hosts() != 0 {
			t.Error("connected")
		}
	})
	bubble(t, "Reset", func(t *testing.T) {
		h := newHome(t, gena.Config{}, stall)
		sid := h.subscribe(alice, "conn", values())
		h.subscribe(bob, "conn", values())
		time.Sleep(time.Second)
		h.Reset()
		synctest.Wait()
		if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed {
			t.Errorf("renewal: %d", w.Code)
		}
		if got := h.Stats(); got != (gena.Stats{}) || h.Hosts() != 0 {
			t.Errorf("got %+v, %d hosts", got, h.Hosts())
		}
	})
	bubble(t, "Run ends with all it began", func(t *testing.T) {
		h := newHome(t, gena.Config{}, stall)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		began := time.Now()
		h.stop()
		if took := time.Since(began); took != 0 || h.Stats().Subscriptions != 0 || h.Hosts() != 0 {
			t.Errorf("%v, %+v", took, h.Stats())
		}
		w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), "CALLBACK: "+callbackTo(alice, openPort), "NT: upnp:event")
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("after the end: %d", w.Code)
		}
		if err := h.Run(t.Context()); err == nil {
			t.Error("Run twice gave no error")
		}
	})
	bubble(t, "GENA-8/gone off the link", func(t *testing.T) {
		var away atomic.Bool
		h := newHome(t, gena.Config{OnLink: func(iface string, addr netip.Addr) bool {
			if iface != alice.Interface || addr != alice.Addr {
				t.Errorf("asked for %s, %s", iface, addr)
			}
			return !away.Load()
		}}, accept)
		h.subscribe(alice, "conn", values())
		time.Sleep(time.Second)
		away.Store(true)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		time.Sleep(time.Second)
		if got := h.Stats(); len(h.dialed()) != 1 || got.Failed != 1 {
			t.Errorf("%d connections, %+v", len(h.dialed()), got)
		}
	})
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	bubble(t, "everything at once", func(t *testing.T) {
		h := newHome(t, gena.Config{MinInterval: time.Millisecond}, func(n notify) string {
			if seq, _ := strconv.Atoi(n.seq()); seq%7 == 6 {
				return ""
			}
			return ok200
		})
		var wg sync.WaitGroup
		for i := range byte(8) {
			sub := alice
			sub.Addr = netip.AddrFrom4([4]byte{192, 168, 1, 100 + i})
			wg.Go(func() {
				for range 20 {
					sid := h.subscribe(sub, "conn", values(prop("A", 0)))
					time.Sleep(300 * time.Millisecond)
					ask(h.Notifier, "SUBSCRIBE", sub, "conn", nil, "SID: "+sid)
					ask(h.Notifier, "UNSUBSCRIBE", sub, "conn", nil, "SID: "+sid)
				}
			})
			wg.Go(func() {
				for j := range 2000 {
					h.Publish("conn", []gena.Property{prop("A", j)})
					time.Sleep(3 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		synctest.Wait() // what was cut off has ended
		if got := h.Stats(); got.Subscriptions != 0 || got.Delivered < 8*20 || h.Hosts() != 0 {
			t.Errorf("got %+v, %d hosts", got, h.Hosts())
		}
	})
}
