package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/igd"
	"portcullis/internal/datagram"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// warden is the other half, without a kernel.
type warden struct {
	*portmap.Engine // nil: nobody asks

	mu     sync.Mutex // guards what follows
	view   portmap.View
	lans   map[string]netif.LAN
	kept   []string // epochs, in minutes since began
	bootID uint32
}

var began = time.Now()

func (w *warden) Uplink() (portmap.WAN, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view.WAN(), w.view.WAN6Up
}

func (w *warden) Events(context.Context) <-chan portmap.Event { return w.Watch(1).C }

func (w *warden) LANs() map[string]netif.LAN {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lans
}

func (w *warden) KeepEpochs(four, six time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, fmt.Sprint(int(four.Sub(began)/time.Minute), int(six.Sub(began)/time.Minute)))
}

func (w *warden) NextBootID(last uint32) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bootID = max(w.bootID, last) + 1
	return w.bootID
}

func (*warden) Packets(context.Context, portmap.Mapping) (uint64, error) { return 0, nil }

func (*warden) OutboundTimeout(portmap.Transport) (time.Duration, error) { return time.Minute, nil }

func (*warden) Heard(portmap.MAC) bool { return true }

func (*warden) Suspect() {}

func (*warden) Resolve(string, netip.Addr) error { return nil }

// is has the network be another one.
func (w *warden) is(external string, up6 bool, lans ...netif.LAN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view = portmap.View{WANs: []portmap.WAN{{Name: "wan0"}}, WAN6Up: up6}
	if external != "" {
		w.view.WANs[0].Up, w.view.WANs[0].External = true, netip.MustParseAddr(external)
	}
	w.lans = map[string]netif.LAN{}
	for _, l := range lans {
		w.lans[l.Name] = l
	}
}

// sockets opens some that nobody sends to.
type sockets struct {
	mu     sync.Mutex // guards what follows
	opened []string
	open   int
	fail   string // that which cannot be opened
}

func (s *sockets) take(what string) (*socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what == s.fail {
		return nil, errors.New(what + " is taken")
	}
	s.opened = append(s.opened, what)
	s.open++
	return &socket{of: s, closed: make(chan struct{})}, nil
}

func family(what string, six bool) string { return what + map[bool]string{false: "4", true: "6"}[six] }

func (s *sockets) Discovery(_ context.Context, _ netif.LAN, six bool) (datagram.Conn, error) {
	return conn(s.take(family("discovery", six)))
}

func (s *sockets) PortControl(_ context.Context, _ netif.LAN, six bool) (datagram.Conn, error) {
	return conn(s.take(family("ports", six)))
}

func (s *sockets) HTTP(_ context.Context, _ netif.LAN, at netip.AddrPort) (net.Listener, error) {
	c, err := s.take("http " + at.String())
	if err != nil {
		return nil, err
	}
	return listener{c}, nil
}

func (s *sockets) Dial(_ context.Context, lan string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if _, err := s.take(fmt.Sprintf("dial %s %s %s", lan, local, to)); err != nil {
		return nil, err
	}
	return nil, errors.New("nobody listens there")
}

func conn(s *socket, err error) (datagram.Conn, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *sockets) want(t *testing.T, when string, open int, opened ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.opened)
	if !slices.Equal(s.opened, opened) || s.open != open {
		t.Errorf("%s: opened %q, %d are open; want %q, %d", when, s.opened, s.open, opened, open)
	}
	s.opened = nil
}

// socket is one that is open.
type socket struct {
	of     *sockets
	once   sync.Once
	closed chan struct{}
}

func (s *socket) Receive([]byte) (datagram.Packet, error) {
	<-s.closed
	return datagram.Packet{}, net.ErrClosed
}

func (s *socket) Send([]byte, netip.Addr, netip.AddrPort) error { return nil }

func (s *socket) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		s.of.open--
	})
	return nil
}

// listener is a socket that is listened at.
type listener struct{ *socket }

func (l listener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (listener) Addr() net.Addr { return &net.TCPAddr{} }

// kernel reads nothing but the counters of the WAN.
type kernel struct {
	Kernel
	stats map[string]netif.Stats
	speed uint64
}

func (k kernel) Stats(ifname string) (netif.Stats, error) {
	s, there := k.stats[ifname]
	if !there {
		return s, netif.ErrNoInterface
	}
	return s, nil
}

func (k kernel) Speed(string) (uint64, bool) { return k.speed, k.speed > 0 }

// lan is one with these addresses.
func lan(prefixes ...string) netif.LAN {
	l := netif.LAN{Name: "lo", Index: 1, MAC: [6]byte{2}}
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		l.Addrs = append(l.Addrs, p.Addr())
		l.Prefixes, l.Direct = append(l.Prefixes, p.Masked()), append(l.Direct, p.Masked())
		if p.Addr().Is4() && !l.Addr.IsValid() {
			l.Addr = p.Addr()
		}
	}
	return l
}

// rig is a Front over these.
type rig struct {
	*Front
	warden  *warden
	sockets *sockets
	log     bytes.Buffer
	failed  []error
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{warden: new(warden), sockets: new(sockets)}
	var err error
	if r.warden.Engine, err = portmap.NewEngine(portmap.EngineConfig{
		Policy: nobody{}, Firewall: nobody{}, Gateway: nobody{}, LeaseMax: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	r.warden.is("203.0.113.1", true)
	cfg := Config{
		Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Warden: r.warden, Sockets: r.sockets, Kernel: kernel{},
		UPnP: true, Events: true, NATPMP: true, PCP: true, HTTPPort: 5000,
		UUID: "00000000-0000-4000-8000-000000000001", Path: "00112233445566778899aabb",
		Failed: func(err error) { r.failed = append(r.failed, err) },
	}
	if change != nil {
		change(&cfg)
	}
	if r.Front, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// nobody is what an engine needs that is never asked.
type nobody struct{}

func (nobody) View() *portmap.View  { return &portmap.View{} }
func (nobody) Look(context.Context) {}
func (nobody) Decide(portmap.Request, portmap.Facts) portmap.Decision {
	return portmap.Decision{}
}
func (nobody) Apply(context.Context, []portmap.Mapping, []portmap.Mapping) error { return nil }
func (nobody) Replace(context.Context, []portmap.Mapping) error                  { return nil }

// TestOpen: a LAN has a socket of each protocol that is spoken in each of its families,
// one of HTTP for each IPv4 address more; or none at all.
func TestOpen(t *testing.T) {
	t.Parallel()
	both := lan("192.168.1.1/24", "192.168.2.1/24", "fe80::1/64")
	for name, c := range map[string]struct {
		change func(*Config)
		lan    netif.LAN
		fail   string
		open   int
		opened []string
	}{
		"all": {nil, both, "", 7, []string{
			"discovery4", "discovery6", "http 192.168.1.1:5000", "http 192.168.2.1:5000", "http [::]:5000", "ports4", "ports6",
		}},
		"IPv4 alone": {nil, lan("192.168.1.1/24"), "", 3, []string{"discovery4", "http 192.168.1.1:5000", "ports4"}},
		"no PCP": {func(c *Config) { c.PCP = false }, both, "", 6, []string{
			"discovery4", "discovery6", "http 192.168.1.1:5000", "http 192.168.2.1:5000", "http [::]:5000", "ports4",
		}},
		"neither NAT-PMP nor PCP": {func(c *Config) { c.PCP, c.NATPMP = false, false }, lan("192.168.1.1/24"), "", 2, []string{
			"discovery4", "http 192.168.1.1:5000",
		}},
		"no UPnP":              {func(c *Config) { c.UPnP = false }, both, "", 2, []string{"ports4", "ports6"}},
		"HTTP is taken":        {nil, lan("192.168.1.1/24"), "http 192.168.1.1:5000", 0, nil},
		"discovery is taken":   {nil, lan("192.168.1.1/24"), "discovery4", 0, []string{"http 192.168.1.1:5000"}},
		"port 5351 is taken":   {nil, lan("192.168.1.1/24"), "ports4", 0, []string{"discovery4", "http 192.168.1.1:5000"}},
		"taken in IPv6 alone":  {nil, lan("192.168.1.1/24", "fe80::1/64"), "ports6", 3, []string{"discovery4", "discovery6", "http 192.168.1.1:5000", "http [::]:5000", "ports4"}},
		"a LAN without any IP": {nil, lan(), "", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.change)
			r.sockets.fail = c.fail
			err := r.Open(t.Context(), []netif.LAN{c.lan})
			if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail+" is taken") {
				t.Errorf("error %v", err)
			}
			r.sockets.want(t, "opened", c.open, c.opened...)
			if err := r.Abandon(); err != nil {
				t.Error(err)
			}
			r.sockets.want(t, "abandoned", 0)
		})
	}
}

// TestServe: what is open is served until the end, when every socket is closed; a LAN that
// comes is served at once, one that goes no more.
func TestServe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		first := lan("192.168.1.1/24")
		if err := r.Open(t.Context(), []netif.LAN{first}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		r.Serve(ctx)
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		r.sockets.want(t, "served", 3, "discovery4", "http 192.168.1.1:5000", "ports4")
		follow := func(l ...netif.LAN) {
			t.Helper()
			if err := r.Follow(ctx, l); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		follow(lan("192.168.1.1/24", "192.168.2.1/24"))
		r.sockets.want(t, "another address came", 4, "http 192.168.2.1:5000")
		follow()
		r.sockets.want(t, "the LAN went", 0)
		follow(first)
		r.sockets.want(t, "the LAN is back", 3, "discovery4", "http 192.168.1.1:5000", "ports4")
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.sockets.want(t, "the end", 0)
		if len(r.failed) > 0 {
			t.Errorf("servers failed: %v", r.failed)
		}
	})
}

// TestEpochs: when epochs began is kept as soon as it is known, and again when one begins
// anew; the owner reads why.
func TestEpochs(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.Resume(began.Add(-10*time.Minute), began.Add(-20*time.Minute))
	prefix := lan("192.168.1.1/24", "2001:db8:1::1/64")
	r.warden.is("203.0.113.1", true, prefix)
	for _, c := range []struct {
		external string
		lan      netif.LAN
		four     bool
		six      bool
		kept     []string
	}{
		{"203.0.113.1", prefix, false, false, []string{"-10 -20"}},
		{"203.0.113.1", prefix, false, false, nil},
		{"203.0.113.2", prefix, true, false, []string{"0 -20"}},
		{"203.0.113.2", lan("192.168.1.1/24"), false, true, []string{"0 0"}},
		{"", lan("192.168.1.1/24"), false, false, nil},
	} {
		r.warden.is(c.external, true, c.lan)
		four, six := r.ports.follow()
		if four != c.four || six != c.six || !slices.Equal(r.warden.kept, c.kept) {
			t.Errorf("%s: announced %v, %v; kept %q, want %q", c.external, four, six, r.warden.kept, c.kept)
		}
		r.warden.kept = nil
	}
	for _, line := range []string{
		`msg="external address changed" was=203.0.113.1 is=203.0.113.2`, `msg="IPv6 network left the LAN" network=2001:db8:1::/64`,
	} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("the log has no %s\n%s", line, &r.log)
		}
	}
	newRig(t, func(c *Config) { c.NATPMP, c.PCP = false, false }).Resume(began, began) // nobody's epochs
}

// TestWANStatus: UPnP is told since when the connection is up, counters where there are
// some, and no address that cannot be reached.
func TestWANStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := new(warden)
		s := newWANStatus(&Config{Warden: w, Kernel: kernel{speed: 1e9, stats: map[string]netif.Stats{
			"wan0": {RxBytes: 1, TxBytes: 2, RxPackets: 3, TxPackets: 4, Up: true, Carrier: true},
		}}})
		want := func(when string, want igd.WANStatus) {
			t.Helper()
			if got := s.Status(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
		want("without a WAN", igd.WANStatus{})
		w.is("203.0.113.1", true)
		up := time.Now()
		all := igd.WANStatus{
			External: netip.MustParseAddr("203.0.113.1"), Up: true, Since: up, LinkUp: true, RateUp: 1e9, RateDown: 1e9,
			BytesReceived: 1, BytesSent: 2, PacketsReceived: 3, PacketsSent: 4,
		}
		want("when it is up", all)
		time.Sleep(time.Minute)
		want("a minute later", all)
		w.view.WANs[0].Private = true
		all.External = netip.Addr{}
		want("with an address that cannot be reached", all)
		w.is("", true)
		s.refresh()
		all.Up, all.Since = false, time.Now()
		want("when it is down", all)
		s.refresh() // nobody waits for it
		select {
		case <-s.changed:
		default:
			t.Error("subscribers are not told")
		}
		w.view.WANs[0].Name = "gone"
		want("without counters", igd.WANStatus{Since: all.Since, RateUp: 1e9, RateDown: 1e9})
		s.rateUp = 4e7
		want("with a rate that the owner tells", igd.WANStatus{Since: all.Since, RateUp: 4e7, RateDown: 1e9})
	})
}
