package homenet

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// Backend is what the tests use of one.
type Backend interface {
	portmap.Firewall
	Configure(ctx context.Context, g firewall.Facts) error
	Audit(ctx context.Context, full bool) (drift string, err error)
	Repaired() uint64
	Entries(ctx context.Context) ([]firewall.Entry, error)
	Counters(ctx context.Context) (map[uint64]firewall.Counter, error)
	CountersOf(ctx context.Context, ids []uint64) (map[uint64]firewall.Counter, error)
	Counter(ctx context.Context, id uint64) (firewall.Counter, error)
	OutboundTimeout(t portmap.Transport) (time.Duration, error)
	Close(ctx context.Context, keep bool) error
}

// Firewall is a backend together with the program that writes the gateway's own
// firewall.
type Firewall struct {
	// Open opens the backend in a namespace, and does no more.
	Open func(t testing.TB, gateway *netnstest.Space) Backend
	// Facts changes what the backend is told of the gateway; nil leaves it as is.
	Facts func(*firewall.Facts)
	// Do has that program do what a script says.
	Do      func(t testing.TB, gateway *netnstest.Space, script string)
	Scripts Scripts
	// Refused lists the IPv6 flows that a host may not carry on, each
	// "2001:db8:77::10 80 2001:db8:5::66": the host, its port, its peer.
	Refused func(t testing.TB, gateway *netnstest.Space) []string
	// Timeouts: the kernel removes the entry of a lease that is over. Rules of
	// iptables have a date from which on they match nothing, and stay listed.
	Timeouts bool
}

// Scripts change the gateway's own firewall, or do what another program may do.
type Scripts struct {
	Home        string // from the start: a masquerade out of wan0, and what else the home has
	DropInput   string // what comes in by wan0 to the gateway and is not an answer is dropped
	Forward     string // port udp 5000 of wan0 is forwarded to bob's port 6000
	Unforward   string // no longer
	AcceptEcho  string // ICMPv6 is forwarded
	AcceptGuest string // from lan1 to lan0 all IPv6 is forwarded
	AcceptPort  string // from PeerY6 to TCP port 84 IPv6 is forwarded
	Reload      string // all rules of everybody are flushed, and those of Home are there anew
	FlushPins   string // the pinholes of our own are gone
}

// FrontUID is a user who has no process but those of Leash.
const FrontUID = 64999

// Facts is the gateway of the home as a backend is told of it.
func Facts() firewall.Facts {
	return firewall.Facts{
		WAN:         []firewall.Uplink{{Interface: "wan0", Addrs: []netip.Addr{netip.MustParseAddr(WAN)}}},
		WAN6:        []string{"wan0"},
		LAN:         []string{"lan0"},
		LANPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8:77::/64")},
		FrontUID:    FrontUID,
	}
}

// Start prepares a backend with its gateway, and closes it with the test.
func Start(t testing.TB, b Backend, g firewall.Facts) {
	t.Helper()
	t.Cleanup(func() {
		if err := b.Close(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	if err := b.Configure(Context(t), g); err != nil {
		t.Fatal(err)
	}
}

// Context is one for a step of a test.
func Context(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return c
}

// Logger hands log lines to the test.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// World returns what the kernel holds for a backend, as text.
func World(t testing.TB, b Backend) string {
	t.Helper()
	held, err := b.Entries(Context(t))
	if err != nil {
		t.Fatal(err)
	}
	return firewall.World(held)
}
