package warden

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"portcullis/firewall"
	"portcullis/internal/gateway"
	"portcullis/internal/netif"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/presence"
	"portcullis/internal/slog"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// long is until what must come is given up.
const long = 10 * time.Second

// home is a gateway with two LANs, a host on the first, and one on the Internet.
type home struct {
	*Warden
	gate, host, outside *netnstest.Space
	log                 bytes.Buffer
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := &home{gate: netnstest.New(t, "gate"), host: netnstest.New(t, "host"), outside: netnstest.New(t, "outside")}
	netnstest.Cable(h.gate, "lan0 192.168.77.1/24 2001:db8:77::1/64 fe80::1/64", h.host, "eth0 192.168.77.10/24 192.168.77.11/24 2001:db8:77::10/64 fe80::10/64")
	netnstest.Cable(h.gate, "lan1 10.0.0.1/24", netnstest.New(t, "other"), "eth0 10.0.0.10/24 10.0.0.2/24")
	h.gate.Route("10.9.0.0/24", "10.0.0.2") // a router of the owner's
	netnstest.Cable(h.gate, "wan0 203.0.113.1/24", h.outside, "eth0 203.0.113.9/24")
	h.gate.Route("0.0.0.0/0", "203.0.113.9")
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	kernel, err := netif.OpenAt(log, h.gate.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kernel.Close)
	state, err := kernel.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roles, err := netif.Choose(state, netif.Settings{LAN: []string{"lan0", "lan1"}, ExtraPrefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}, ExternalIP: netip.MustParseAddr("198.51.100.1")})
	if err != nil || len(roles.LAN) != 2 {
		t.Fatal(roles.Why, err)
	}
	h.Warden = &Warden{log: log, kernel: kernel, hosts: presence.New(presence.Config{}), dials: newDials(), dialing: make(chan struct{}, dialAtOnce), opening: make(chan struct{}, 1), network: gateway.New(gateway.Config{
		Listening: func(context.Context) (netif.Ports, error) { return netif.NewPorts(nil), nil },
		Forwarded: func(context.Context) (*firewall.Forwards, error) { return &firewall.Forwards{}, nil },
	})}
	h.Learn(state, roles)
	for _, lan := range []string{"lan0", "lan1"} {
		for _, addr := range map[string][]string{"lan0": {"192.168.77.10", "192.168.77.11", "2001:db8:77::10", "fe80::10"}, "lan1": {"10.0.0.10", "10.0.0.2"}}[lan] {
			h.meet(t, lan, netip.MustParseAddr(addr))
		}
	}
	return h
}

// meet has the kernel know a host.
func (h *home) meet(t *testing.T, lan string, addr netip.Addr) {
	t.Helper()
	for began := time.Now(); ; runtime.Gosched() {
		if err := h.Resolve(lan, addr); err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		_, known, err := h.kernel.Sight(h.LANs()[lan].Index, addr)
		switch {
		case err != nil:
			t.Fatal(err)
		case known:
			return
		case time.Since(began) > long:
			t.Fatalf("%s is not found", addr)
		}
	}
}

// connect is Dial on the gateway.
func (h *home) connect(ctx context.Context, lan, local, to string) (conn net.Conn, err error) {
	err = h.gate.In(func() (err error) {
		conn, err = h.Dial(ctx, lan, netip.MustParseAddr(local), netip.MustParseAddrPort(to))
		return err
	})
	return conn, err
}

// TestDial: F1. The warden connects to a host of a LAN, from the gateway's address there;
// whoever owns the front gets no connection to anywhere else.
func TestDial(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for _, c := range []struct{ local, to string }{
		{"192.168.77.1", "192.168.77.10:49152"}, {"2001:db8:77::1", "[2001:db8:77::10]:1024"}, {"fe80::1%lan0", "[fe80::10%lan0]:49153"},
	} {
		to := netip.MustParseAddrPort(c.to)
		at := netip.IPv6Unspecified()
		if to.Addr().Is4() {
			at = netip.IPv4Unspecified()
		}
		l := h.host.Listen(netip.AddrPortFrom(at, to.Port()).String())
		conn, err := h.connect(t.Context(), "lan0", c.local, c.to)
		if err != nil {
			t.Errorf("%s: %v", c.to, err)
			continue
		}
		_ = l.SetDeadline(time.Now().Add(long))
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := netip.MustParseAddrPort(other.RemoteAddr().String()).Addr().WithZone(""); got != netip.MustParseAddr(c.local).WithZone("") {
			t.Errorf("%s is connected to from %s, want %s", c.to, got, c.local)
		}
		_, _ = conn.Close(), other.Close()
	}
	for _, all := range []*netnstest.Space{h.gate, h.outside} { // so that it is not for want of a listener
		all.Listen("0.0.0.0:49152")
		all.Listen("[::]:49153")
	}
	h.host.Listen("0.0.0.0:22")
	for name, c := range map[string]struct {
		lan, local, to string
		want           error
	}{
		"a LAN that is not served":    {"wan0", "203.0.113.1", "203.0.113.9:49152", errNotServed},
		"no LAN":                      {"", "192.168.77.1", "192.168.77.10:49152", errNotServed},
		"out of loopback":             {"lo", "127.0.0.1", "127.0.0.1:49152", errNotServed},
		"a host on the Internet":      {"lan0", "192.168.77.1", "203.0.113.9:49152", errNotHost},
		"a host of the other LAN":     {"lan0", "192.168.77.1", "10.0.0.10:49152", errNotHost},
		"another prefix":              {"lan0", "192.168.77.1", "192.168.78.10:49152", errNotHost},
		"the gateway":                 {"lan0", "192.168.77.1", "192.168.77.1:49152", errNotHost},
		"the gateway by IPv6":         {"lan0", "fe80::1", "[fe80::1]:49153", errNotHost},
		"the gateway on another LAN":  {"lan0", "192.168.77.1", "10.0.0.1:49152", errNotHost},
		"the gateway on the Internet": {"lan0", "192.168.77.1", "203.0.113.1:49152", errNotHost},
		"its external address":        {"lan0", "192.168.77.1", "198.51.100.1:49152", errNotHost},
		"loopback":                    {"lan0", "192.168.77.1", "127.0.0.1:49152", errNotHost},
		"a group":                     {"lan0", "192.168.77.1", "224.0.0.1:49152", errNotHost},
		"a group of IPv6":             {"lan0", "fe80::1", "[ff02::1]:49153", errNotHost},
		"everybody":                   {"lan0", "192.168.77.1", "192.168.77.255:49152", errNotHost},
		"the network":                 {"lan0", "192.168.77.1", "192.168.77.0:49152", errNotHost},
		"all routers of the link":     {"lan0", "fe80::1", "[fe80::]:49153", errNotHost},
		"all routers of a network":    {"lan0", "2001:db8:77::1", "[2001:db8:77::]:49153", errNotHost},
		"nobody":                      {"lan0", "192.168.77.1", "0.0.0.0:49152", errNotHost},
		"a host within IPv6":          {"lan0", "192.168.77.1", "[::ffff:192.168.77.10]:49152", errNotHost},
		"the other family":            {"lan0", "fe80::1", "192.168.77.10:49152", errNotHost},
		"from another host":           {"lan0", "192.168.77.11", "192.168.77.10:49152", errNotLocal},
		"from the Internet":           {"lan0", "203.0.113.1", "192.168.77.10:49152", errNotLocal},
		"from the other LAN":          {"lan0", "10.0.0.1", "192.168.77.10:49152", errNotLocal},
		"from anywhere":               {"lan0", "0.0.0.0", "192.168.77.10:49152", errNotLocal},
		"a service":                   {"lan0", "192.168.77.1", "192.168.77.10:22", errService},
		"the last port of services":   {"lan0", "192.168.77.1", "192.168.77.10:1023", errService},
		"no port":                     {"lan0", "192.168.77.1", "192.168.77.10:0", errService},
	} {
		if conn, err := h.connect(t.Context(), c.lan, c.local, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
			if err == nil {
				_ = conn.Close()
			}
		}
	}
}

// TestDialIsBounded: nobody searches a LAN for open ports by it; who waits for his turn
// gives up with his context.
func TestDialIsBounded(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.dials = rate.NewLimiter(rate.Every(time.Hour), 2) // as it is, but slower
	for range 2 {
		if _, err := h.connect(t.Context(), "lan0", "192.168.77.1", "192.168.77.10:49152"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("error %v", err)
		}
	}
	h.host.Listen("192.168.77.10:49152")
	if _, err := h.connect(t.Context(), "lan0", "192.168.77.1", "192.168.77.10:49152"); err == nil {
		t.Error("connected beyond the rate")
	}
	if most := newDials(); most.Burst() > 64 || most.Limit() > 64 {
		t.Errorf("%v at once, %v a second", most.Burst(), most.Limit())
	}
}

// TestResolve: the kernel asks for hosts of a LAN, and of nothing else.
func TestResolve(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for _, host := range []string{"192.168.77.10", "2001:db8:77::10", "fe80::10%lan0"} {
		h.meet(t, "lan0", netip.MustParseAddr(host))
	}
	for name, c := range map[string]struct {
		lan, addr string
		want      error
	}{
		"the Internet":       {"wan0", "203.0.113.9", errNotServed},
		"no LAN":             {"", "192.168.77.10", errNotServed},
		"another network":    {"lan0", "203.0.113.9", errNotHost},
		"another LAN's":      {"lan0", "10.0.0.10", errNotHost},
		"the gateway":        {"lan0", "192.168.77.1", errNotHost},
		"a group":            {"lan0", "ff02::1", errNotHost},
		"all of a network":   {"lan0", "192.168.77.255", errNotHost},
		"IPv4 within IPv6":   {"lan0", "::ffff:192.168.77.10", errNotHost},
		"all of its routers": {"lan0", "2001:db8:77::", errNotHost},
	} {
		if err := h.Resolve(c.lan, netip.MustParseAddr(c.addr)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestPassing: that a socket cannot be opened because its interface or address has just
// gone is no fault; that its port is taken is.
func TestPassing(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.gate.Listen("192.168.77.1:5000")
	l := h.LANs()["lan0"]
	for name, c := range map[string]struct {
		lan, at string
		gone    bool
	}{
		"no interface": {"lan7", "192.168.77.1:5001", true}, "no address": {"lan0", "192.168.77.2:5001", true}, "a port that is taken": {"lan0", "192.168.77.1:5000", false},
	} {
		err := h.gate.In(func() error {
			l.Name = c.lan
			listener, err := h.HTTP(t.Context(), l, netip.MustParseAddrPort(c.at))
			if err == nil {
				_ = listener.Close()
			}
			return err
		})
		if err == nil || errors.Is(err, netif.ErrGone) != c.gone {
			t.Errorf("%s: %v", name, err)
		}
	}
	l.Name = "lan7"
	_, one := h.OpenDiscovery(t.Context(), l, false)
	_, six := h.OpenDiscovery(t.Context(), l, true)
	if !errors.Is(one, netif.ErrGone) || !errors.Is(six, netif.ErrGone) {
		t.Errorf("%v, %v", one, six)
	}
}
