package daemon

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/doctor"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// told compares how often a line was logged.
func (l *lines) told(t *testing.T, line string, times int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := strings.Count(l.text.String(), line); n != times {
		t.Errorf("%q was told %d times, want %d\n%s", line, n, times, &l.text)
	}
}

// halves are what a follower tells of the network.
type halves struct {
	*follower
	log *lines

	mu     sync.Mutex // guards what follows
	told   []string   // who was told, and of which LANs
	closed error      // what the front returns
	strays []doctor.Stray
	stop   func() // if set, when the warden was told
}

func newHalves(set netif.Settings) *halves {
	h := &halves{log: new(lines)}
	h.follower = newFollower(followerConfig{
		Log: slog.New(slog.NewTextHandler(h.log, nil)), Network: set,
		Warden: func(_ context.Context, _ netif.State, r netif.Roles) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, "warden "+names(r.LAN))
			if h.stop != nil {
				h.stop()
			}
		},
		Front: func(_ context.Context, lans []netif.LAN) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.told = append(h.told, "front "+names(lans))
			return h.closed
		},
		Strays: func(netif.State, netif.Roles) []doctor.Stray {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.strays
		},
	})
	return h
}

func names(lans []netif.LAN) string {
	var all []string
	for _, l := range lans {
		all = append(all, l.Name)
	}
	return strings.Join(all, " ")
}

// want compares who was told since the last time.
func (h *halves) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.told, want) {
		t.Errorf("told %q, want %q", h.told, want)
	}
	h.told = nil
}

// fails has the front fail from now on, or no more, and forgets who was told.
func (h *halves) fails(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed, h.told = err, nil
}

// networkOf has these links with an address each; the route outside is by the one that
// uplink names.
func networkOf(uplink string, addrs ...string) netif.State {
	var s netif.State
	for i, text := range addrs {
		name, prefix, _ := strings.Cut(text, " ")
		l := netif.Link{
			Index: i + 1, Name: name, Kind: "device", MAC: [6]byte{2, byte(i)}, Up: true, Running: true,
			Addrs: []netif.Addr{{Prefix: netip.MustParsePrefix(prefix)}},
		}
		if name == uplink {
			way := netip.MustParsePrefix(prefix).Masked().Addr().Next()
			l.Uplink = netif.Way{To: netip.MustParsePrefix("0.0.0.0/0"), Gateway: way, Table: 254}
			s.Default4 = []netif.DefaultRoute{{Index: l.Index, Gateway: way}}
		}
		s.Links = append(s.Links, l)
	}
	return s
}

var (
	served = networkOf("eth0", "eth0 203.0.113.5/24", "br-lan 192.168.1.1/24")
	noLAN  = networkOf("eth0", "eth0 203.0.113.5/24")
)

// TestFollow: the warden knows of a change before the front does, and nobody is told of
// one after the end.
func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHalves(netif.Settings{})
		h.changed(t.Context(), served)
		h.want(t, "warden br-lan", "front br-lan")
		h.changed(t.Context(), noLAN)
		h.want(t, "warden ", "front ")
		ctx, stop := context.WithCancel(t.Context())
		h.stop = stop
		h.changed(ctx, served)
		h.want(t, "warden br-lan")
	})
}

// TestFormerUplink: what has led outside in this run is no LAN by detection while its
// route is away; a new run, which has not seen it, would take it for one.
func TestFormerUplink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		links := []string{"eth0 192.168.8.2/24", "br-lan 192.168.1.1/24"}
		away := networkOf("", links...)
		h := newHalves(netif.Settings{WAN: "ppp0"})
		h.changed(t.Context(), networkOf("eth0", links...))
		h.changed(t.Context(), away)
		h.want(t, "warden br-lan", "front br-lan", "warden br-lan", "front br-lan")
		other := newHalves(netif.Settings{WAN: "ppp0"})
		other.changed(t.Context(), away)
		other.want(t, "warden eth0 br-lan", "front eth0 br-lan")
	})
}

// TestReminds: what keeps a LAN from being served is told when it begins and each minute
// while it is tried again, and its end is told once. Nobody tries when all is well.
func TestReminds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set    netif.Settings
		state  netif.State
		closed error
		line   string
		tries  string // what the front is told at each
		mended netif.State
	}{
		"no LAN":    {netif.Settings{}, noLAN, nil, `level=WARN msg="waiting for a LAN"`, "", served},
		"no socket": {netif.Settings{}, served, errors.New("port 5000 is taken"), `level=ERROR msg="cannot serve a LAN interface" err="port 5000 is taken"`, "br-lan", served},
		"a LAN is the WAN": {
			netif.Settings{LAN: []string{"br-lan", "eth0"}}, served, nil, `level=ERROR msg="network no longer fits the configuration"`, "br-lan",
			networkOf("eth1", "eth0 192.168.2.1/24", "br-lan 192.168.1.1/24", "eth1 203.0.113.5/24"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHalves(c.set)
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- h.remind(ctx) }()
				time.Sleep(remindEvery / 2)
				h.fails(c.closed)
				h.changed(ctx, c.state)
				h.changed(ctx, c.state) // the same is not told again
				h.log.told(t, c.line, 1)
				h.fails(c.closed)
				for n := range 3 {
					time.Sleep(remindEvery)
					h.want(t, "warden "+c.tries, "front "+c.tries)
					h.log.told(t, c.line, n+2)
				}
				h.fails(nil)
				h.changed(ctx, c.mended)
				h.log.told(t, "every LAN is served", 1)
				h.fails(nil)
				time.Sleep(3 * remindEvery)
				h.want(t)
				h.log.told(t, c.line, 4)
				stop()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

// TestServerEnded: the listener of a server that ended before its time is opened again
// within a minute.
func TestServerEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHalves(netif.Settings{})
		go func() { _ = h.remind(t.Context()) }()
		h.changed(t.Context(), served)
		h.fails(nil)
		h.failed(errors.New("broken"))
		time.Sleep(remindEvery)
		h.want(t, "warden br-lan", "front br-lan")
		h.log.told(t, "every LAN is served", 1)
		time.Sleep(remindEvery)
		h.want(t)
	})
}

// TestStrays: answers that leave by another way are told once for as long as they do, and
// when none does any more. One without a route may have it in a moment.
func TestStrays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHalves(netif.Settings{})
		vpn := doctor.Stray{By: "wg0"}
		for _, c := range []struct {
			strays      []doctor.Stray
			warned, end int
		}{
			{nil, 0, 0},
			{[]doctor.Stray{{}}, 0, 0},
			{[]doctor.Stray{vpn}, 1, 0},
			{[]doctor.Stray{vpn}, 1, 0},
			{[]doctor.Stray{{By: "wg1"}, vpn}, 2, 0},
			{nil, 2, 1},
			{nil, 2, 1},
			{[]doctor.Stray{vpn}, 3, 1},
		} {
			h.strays = c.strays
			h.changed(t.Context(), served)
			h.log.told(t, "mappings may not work", c.warned)
			h.log.told(t, "replies leave by the WAN again", c.end)
		}
	})
}

// TestNetworkWarnings: what may be wrong with the network is told once for as long as it
// is so.
func TestNetworkWarnings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHalves(netif.Settings{})
		twice := networkOf("eth0", "eth0 203.0.113.5/24", "br-lan 192.168.1.1/24", "br-guest 192.168.1.129/25")
		for _, s := range []netif.State{twice, twice, served, twice} {
			h.changed(t.Context(), s)
		}
		h.log.told(t, "msg=\"network warning\" why=", 2)
	})
}

// TestRestarts: only a context that ended for a successor is a restart.
func TestRestarts(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancelCause(t.Context())
	if restarts(ctx) {
		t.Error("a daemon at work restarts")
	}
	end(ErrRestart)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if !restarts(ctx) || restarts(stopped) {
		t.Errorf("for a successor: %v; stopped: %v", restarts(ctx), restarts(stopped))
	}
	broken := errors.New("broken")
	if unlessStopped(stopped, context.Canceled) != nil || !errors.Is(unlessStopped(stopped, broken), broken) ||
		!errors.Is(unlessStopped(t.Context(), context.Canceled), context.Canceled) {
		t.Error("only what a context's end makes is forgotten when that has ended")
	}
}

// TestTellsWAN: a WAN that appears, moves, gets another address or goes is told in a line.
func TestTellsWAN(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHalves(netif.Settings{})
		for _, s := range []netif.State{
			networkOf("", "br-lan 192.168.1.1/24"), networkOf("", "br-lan 192.168.1.1/24"), served, served,
			networkOf("wan1", "wan1 203.0.114.9/24", "br-lan 192.168.1.1/24"),
			networkOf("wan1", "wan1 203.0.114.8/24", "br-lan 192.168.1.1/24"),
			networkOf("", "br-lan 192.168.1.1/24"),
		} {
			h.changed(t.Context(), s)
		}
		var got []string
		for line := range strings.Lines(h.log.text.String()) {
			if _, text, ok := strings.Cut(line, `level=INFO msg="WAN changed" `); ok {
				got = append(got, strings.TrimSpace(text))
			}
		}
		want := []string{
			`is="eth0 203.0.113.5" was=none`, `is="wan1 203.0.114.9" was="eth0 203.0.113.5"`,
			`is="wan1 203.0.114.8" was="wan1 203.0.114.9"`, `is=none was="wan1 203.0.114.8"`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
