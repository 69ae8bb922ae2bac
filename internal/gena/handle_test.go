package gena_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/gena"
	"portcullis/internal/slog"
)

// noDial is a Dial for requests that must not lead to a connection.
func noDial(t *testing.T) func(context.Context, gena.Subscriber, netip.AddrPort) (net.Conn, error) {
	return func(_ context.Context, _ gena.Subscriber, to netip.AddrPort) (net.Conn, error) {
		t.Errorf("connected to %v", to)
		return nil, errors.New("not in this test")
	}
}

var sidForm = regexp.MustCompile(`^uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestGranted(t *testing.T) {
	for _, tc := range []struct{ name, ask, want string }{
		{"GENA-1/300", "Second-300", "Second-1800"},
		{"1800", "Second-1800", "Second-1800"},
		{"1801", "Second-1801", "Second-1801"},
		{"7200", "Second-7200", "Second-7200"},
		{"F4/7201", "Second-7201", "Second-7200"},
		{"F4/2^63", "Second-9223372036854775808", "Second-7200"},
		{"F4/infinite", "Second-infinite", "Second-1800"},
		{"F4/negative", "Second--1", "Second-1800"},
		{"absent", "", "Second-1800"},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			h := newHome(t, gena.Config{Server: "x/1 UPnP/1.1 y/1"}, accept)
			header := []string{"CALLBACK: " + callbackTo(alice, openPort), "NT: upnp:event"}
			if tc.ask != "" {
				header = append(header, "TIMEOUT: "+tc.ask)
			}
			w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), header...)
			sid := one(t, w.Header(), "SID")
			if w.Code != http.StatusOK || w.Body.Len() != 0 || !sidForm.MatchString(sid) {
				t.Errorf("%d, SID %q, body %q", w.Code, sid, w.Body)
			}
			want := map[string][]string{"SID": {sid}, "TIMEOUT": {tc.want}, "SERVER": {"x/1 UPnP/1.1 y/1"}, "Content-Length": {"0"}}
			if diff := cmp.Diff(want, w.Header()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			// The renewal is answered alike, and lasts as long as it says.
			header = []string{"SID: " + sid}
			if tc.ask != "" {
				header = append(header, "TIMEOUT: "+tc.ask)
			}
			w = ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, header...)
			if diff := cmp.Diff(want, w.Header()); w.Code != http.StatusOK || diff != "" {
				t.Errorf("renewal: %d (-want +got)\n%s", w.Code, diff)
			}
			lasts, _ := gena.ParseTimeout(tc.want)
			time.Sleep(lasts - time.Second)
			synctest.Wait()
			before := h.Stats().Subscriptions
			time.Sleep(time.Second)
			synctest.Wait()
			if after := h.Stats().Subscriptions; before != 1 || after != 0 {
				t.Errorf("%d subscriptions a second before the end, %d at the end", before, after)
			}
		})
	}
	bubble(t, "F4/two TIMEOUT lines", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), "CALLBACK: "+callbackTo(alice, openPort), "NT: upnp:event",
			"TIMEOUT: Second-7200", "TIMEOUT: Second-3600")
		if got := one(t, w.Header(), "TIMEOUT"); got != "Second-1800" {
			t.Error(got)
		}
	})
	bubble(t, "F5/SIDs differ", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		if a, b := h.subscribe(alice, "conn", values()), h.subscribe(alice, "conn", values()); a == b {
			t.Error(a)
		}
	})
}

func TestRefused(t *testing.T) {
	const good, nt = "CALLBACK: <http://192.168.1.10:49200/cb>", "NT: upnp:event"
	const sid = "SID: uuid:2f8ae2a5-5a3c-4d35-9d51-1d2c7dc18f6e"
	type test struct {
		name, method string
		header       []string
		want         int
	}
	tests := []test{
		{"GENA-7/CALLBACK missing", "SUBSCRIBE", []string{nt}, 412},
		{"GENA-7/NT missing", "SUBSCRIBE", []string{good}, 412},
		{"GENA-7/NT wrong", "SUBSCRIBE", []string{good, "NT: upnp:propchange"}, 412},
		{"GENA-7/NT in other case", "SUBSCRIBE", []string{good, "NT: UPNP:EVENT"}, 412},
		{"GENA-7/NT empty", "SUBSCRIBE", []string{good, "NT: "}, 412},
		{"GENA-7/nothing", "SUBSCRIBE", nil, 412},
		{"F2/two CALLBACK lines", "SUBSCRIBE", []string{good, good, nt}, 412},
		{"F2/good and foreign CALLBACK line", "SUBSCRIBE", []string{good, "CALLBACK: <http://198.51.100.9:80/>", nt}, 412},
		{"two NT lines", "SUBSCRIBE", []string{good, nt, nt}, 412},
		{"GENA-5/renewal of unknown SID", "SUBSCRIBE", []string{sid}, 412},
		{"renewal with empty SID", "SUBSCRIBE", []string{"SID: "}, 412},
		{"renewal with two SIDs", "SUBSCRIBE", []string{sid, sid}, 412},
		{"F5/SID with CALLBACK", "SUBSCRIBE", []string{sid, good}, 400},
		{"F5/SID with NT", "SUBSCRIBE", []string{sid, nt}, 400},
		{"F5/SID with both", "SUBSCRIBE", []string{sid, good, nt}, 400},
		{"F5/empty SID with both", "SUBSCRIBE", []string{"SID: ", good, nt}, 400},
		{"UNSUBSCRIBE without SID", "UNSUBSCRIBE", nil, 412},
		{"UNSUBSCRIBE with empty SID", "UNSUBSCRIBE", []string{"SID: "}, 412},
		{"UNSUBSCRIBE with unknown SID", "UNSUBSCRIBE", []string{sid}, 412},
		{"UNSUBSCRIBE with CALLBACK", "UNSUBSCRIBE", []string{sid, good}, 400},
		{"UNSUBSCRIBE with NT", "UNSUBSCRIBE", []string{sid, nt}, 400},
		{"GET", "GET", nil, 405},
		{"POST", "POST", []string{good, nt}, 405},
		{"NOTIFY", "NOTIFY", []string{good, nt}, 405},
		{"lower case method", "subscribe", []string{good, nt}, 405},
	}
	for _, name := range slices.Sorted(maps.Keys(refusedCallbacks)) {
		header := strings.ReplaceAll(refusedCallbacks[name], "192.168.1.50", "192.168.1.10")
		tests = append(tests, test{name, "SUBSCRIBE", []string{"CALLBACK: " + header, nt}, 412})
	}
	for _, tc := range tests {
		bubble(t, tc.name, func(t *testing.T) {
			h := newHome(t, gena.Config{Dial: noDial(t)}, nil)
			w := ask(h.Notifier, tc.method, alice, "conn", values(), tc.header...)
			if w.Code != tc.want || w.Body.Len() != 0 {
				t.Errorf("got %d, body %q, want %d", w.Code, w.Body, tc.want)
			}
			want := map[string][]string{"Content-Length": {"0"}}
			if tc.want == 405 {
				want["Allow"] = []string{"SUBSCRIBE, UNSUBSCRIBE"}
			}
			if diff := cmp.Diff(want, w.Header()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			h.Publish("conn", []gena.Property{prop("A", 1)})
			time.Sleep(time.Hour)
			if h.Stats() != (gena.Stats{}) || h.Hosts() != 0 {
				t.Errorf("left behind: %+v, %d hosts", h.Stats(), h.Hosts())
			}
		})
	}
}

// TestSubscriberItself: who the socket says is asking can be a reason too.
func TestSubscriberItself(t *testing.T) {
	local := netip.MustParseAddr("192.168.1.1")
	for name, addr := range map[string]netip.Addr{
		"F1/the gateway":      local,
		"A8/mapped":           netip.MustParseAddr("::ffff:192.168.1.10"),
		"unspecified":         netip.IPv4Unspecified(),
		"multicast":           netip.MustParseAddr("239.255.255.250"),
		"none":                {},
		"GENA-8/off the link": netip.MustParseAddr("10.9.9.9"),
	} {
		bubble(t, name, func(t *testing.T) {
			h := newHome(t, gena.Config{Dial: noDial(t), OnLink: func(_ string, a netip.Addr) bool {
				return a != netip.MustParseAddr("10.9.9.9")
			}}, nil)
			sub := gena.Subscriber{Addr: addr, Local: local, Interface: "br-lan"}
			w := ask(h.Notifier, "SUBSCRIBE", sub, "conn", values(),
				"CALLBACK: <http://"+netip.AddrPortFrom(addr, 49200).String()+"/>", "NT: upnp:event")
			if w.Code != http.StatusPreconditionFailed {
				t.Errorf("got %d", w.Code)
			}
			time.Sleep(time.Minute)
		})
	}
	bubble(t, "link-local IPv6", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		sub := gena.Subscriber{Addr: netip.MustParseAddr("fe80::10"), Local: netip.MustParseAddr("fe80::1%br-lan"), Interface: "br-lan"}
		sid := h.subscribe(sub, "conn", values())
		time.Sleep(time.Second)
		got := h.messages()
		if len(got) != 1 || got[0].to != netip.MustParseAddrPort("[fe80::10%br-lan]:49200") ||
			!strings.Contains(got[0].raw, "\r\nHOST: [fe80::10]:49200\r\n") {
			t.Fatalf("got %+v", got)
		}
		sub.Addr = sub.Addr.WithZone("br-lan") // with or without its zone, it is the same host
		if w := ask(h.Notifier, "UNSUBSCRIBE", sub, "conn", nil, "SID: "+sid); w.Code != http.StatusOK {
			t.Errorf("UNSUBSCRIBE: %d", w.Code)
		}
	})
}

func TestOwnership(t *testing.T) {
	guest := alice
	guest.Interface = "br-guest"
	for _, tc := range []struct {
		name    string
		sub     gena.Subscriber
		service string
	}{
		{"F5/another host", bob, "conn"},
		{"F5/same address on another interface", guest, "conn"},
		{"F5/another service", alice, "other"},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			h := newHome(t, gena.Config{}, accept)
			sid := h.subscribe(alice, "conn", values())
			for _, method := range []string{"SUBSCRIBE", "UNSUBSCRIBE"} {
				if w := ask(h.Notifier, method, tc.sub, tc.service, nil, "SID: "+sid); w.Code != http.StatusPreconditionFailed || len(w.Header()["SID"]) != 0 {
					t.Errorf("%s: %d %v", method, w.Code, w.Header())
				}
			}
			h.Publish("conn", []gena.Property{prop("A", 1)})
			time.Sleep(gena.DefaultTimeout - time.Millisecond)
			if got := h.Stats().Subscriptions; got != 1 || len(h.messages()) == 0 {
				t.Errorf("alice has %d subscriptions, %d messages", got, len(h.messages()))
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if got := h.Stats().Subscriptions; got != 0 {
				t.Error("the stranger has renewed it")
			}
		})
	}
}

func TestCaps(t *testing.T) {
	full := func(h *home, sub gena.Subscriber) int {
		return ask(h.Notifier, "SUBSCRIBE", sub, "conn", values(), "CALLBACK: "+callbackTo(sub, openPort), "NT: upnp:event").Code
	}
	bubble(t, "GENA-14/per host", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		var sids []string
		for range gena.DefaultMaxPerDevice {
			sids = append(sids, h.subscribe(alice, "conn", values()))
		}
		for range 1000 {
			if got := full(h, alice); got != http.StatusServiceUnavailable {
				t.Fatalf("got %d", got)
			}
		}
		h.subscribe(bob, "conn", values()) // others are not touched
		time.Sleep(time.Second)
		h.Publish("conn", []gena.Property{prop("A", 1)})
		time.Sleep(time.Second)
		if got := h.Stats(); got.Subscriptions != 9 || got.Delivered != 18 {
			t.Errorf("got %+v", got)
		}
		for _, sid := range sids {
			if w := ask(h.Notifier, "SUBSCRIBE", alice, "conn", nil, "SID: "+sid); w.Code != http.StatusOK {
				t.Errorf("renewal: %d", w.Code)
			}
		}
		ask(h.Notifier, "UNSUBSCRIBE", alice, "conn", nil, "SID: "+sids[0])
		if got := full(h, alice); got != http.StatusOK {
			t.Errorf("room was made, got %d", got)
		}
	})
	bubble(t, "GENA-14/what has ended takes no room, though Run does not run", func(t *testing.T) {
		h := &home{Notifier: gena.New(gena.Config{Logger: slog.New(slog.DiscardHandler), Dial: noDial(t)}), t: t}
		for range 3 {
			for range gena.DefaultMaxPerDevice {
				h.subscribe(alice, "conn", values())
			}
			time.Sleep(gena.DefaultTimeout)
		}
	})
	bubble(t, "K2/eight addresses of one device", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		granted := 0
		for i := range byte(64) {
			sub := alice
			sub.Device, sub.Addr = "br-lan 02:00:00:00:00:10", netip.AddrFrom4([4]byte{192, 168, 1, 100 + i/8})
			if full(h, sub) == http.StatusOK {
				granted++
			}
		}
		if granted != gena.DefaultMaxPerDevice {
			t.Errorf("one device got %d subscriptions, want %d", granted, gena.DefaultMaxPerDevice)
		}
		h.subscribe(bob, "conn", values())
	})
	bubble(t, "K2/the last eighth is for devices without any", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		device := func(i int) gena.Subscriber {
			sub := alice
			sub.Device, sub.Addr = strconv.Itoa(i), netip.AddrFrom4([4]byte{192, 168, 2, byte(i)})
			return sub
		}
		for i := range 7 * gena.DefaultMaxPerDevice {
			h.subscribe(device(i/gena.DefaultMaxPerDevice), "conn", values())
		}
		h.subscribe(device(100), "conn", values())
		if got := full(h, device(100)); got != http.StatusServiceUnavailable {
			t.Errorf("a second one out of the reserve: %d", got)
		}
		for i := range 7 {
			h.subscribe(device(101+i), "conn", values())
		}
		if got := full(h, device(200)); got != http.StatusServiceUnavailable {
			t.Errorf("there is no place, got %d", got)
		}
	})
	bubble(t, "F4/addresses without a known device share half", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		granted := 0
		for i := range byte(200) {
			sub := alice
			sub.Addr = netip.AddrFrom4([4]byte{10, 0, 0, i})
			if full(h, sub) == http.StatusOK {
				granted++
			}
		}
		known := bob
		known.Device = "br-lan 02:00:00:00:00:20"
		h.subscribe(known, "conn", values())
		if granted != gena.DefaultMaxTotal/2 {
			t.Errorf("%d granted, want half of %d", granted, gena.DefaultMaxTotal)
		}
	})
	bubble(t, "F4/in all", func(t *testing.T) {
		h := newHome(t, gena.Config{}, accept)
		granted := 0
		for i := range 10_000 {
			sub := alice
			sub.Addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			sub.Device = sub.Addr.String()
			if code := full(h, sub); code == http.StatusOK {
				granted++
			} else if code != http.StatusServiceUnavailable {
				t.Fatalf("got %d", code)
			}
		}
		if granted != gena.DefaultMaxTotal || h.Hosts() != gena.DefaultMaxTotal {
			t.Errorf("%d granted, %d hosts remembered", granted, h.Hosts())
		}
		time.Sleep(gena.DefaultTimeout)
		if got := full(h, alice); got != http.StatusOK {
			t.Errorf("they have ended, got %d", got)
		}
	})
}

// TestLog: not a byte that a client wrote is in the log, nor above Debug
// anything that it can cause.
func TestLog(t *testing.T) {
	bubble(t, "K4/nothing of the client's", func(t *testing.T) {
		var log bytes.Buffer
		h := newHome(t, gena.Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))},
			func(notify) string { return "HTTP/1.1 500 marker\r\nmarker: marker\r\n\r\n" })
		ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), "CALLBACK: <http://marker/>", "NT: marker", "TIMEOUT: marker")
		ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), "CALLBACK: <http://marker/>", "NT: upnp:event")
		ask(h.Notifier, "UNSUBSCRIBE", alice, "conn", nil, "SID: marker")
		ask(h.Notifier, "SUBSCRIBE", alice, "conn", values(), "CALLBACK: <http://192.168.1.10:49200/marker>", "NT: upnp:event")
		time.Sleep(time.Second)
		h.stop()
		if got := strings.Count(log.String(), "\n"); got != 5 || strings.Contains(log.String(), "marker") || strings.Count(log.String(), "level=DEBUG") != got {
			t.Errorf("the log has %d lines:\n%s", got, log.String())
		}
	})
}
