package ssdp_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/datagram"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
	"portcullis/ssdp"
)

// family is what is not the same in the two kinds of IP.
type family struct {
	name     string
	six      bool
	listen   func(context.Context, string) (*net.UDPConn, error)
	newConn  func(*net.UDPConn, int) (datagram.Conn, error)
	groups   []netip.AddrPort
	wildcard string // port 1900 of all addresses
	segments [2]segment
	wan      segment
}

// segment is a link of the gateway and the host at its other end.
type segment struct {
	link     string // in the gateway; a host's is eth0
	ends     [2]string
	via      string // the host's router
	host     string // where the host's proper searches come from
	location string // of the answers to them
	locals   []netip.Addr
	prefixes []netip.Prefix
}

// On lan0 the served address is not the one the kernel would choose to send from.
var ip4 = family{
	name: "IPv4", listen: ssdp.Listen, newConn: datagram.NewConn,
	groups: []netip.AddrPort{ssdp.Group}, wildcard: "0.0.0.0:1900",
	segments: [2]segment{{
		link: "lan0", ends: [2]string{"192.168.1.254/24 192.168.1.1/24", "192.168.1.50/24 10.9.9.9/32"},
		via: "192.168.1.1", host: "192.168.1.50:0", location: "192.168.1.1",
		locals: []netip.Addr{gateway}, prefixes: []netip.Prefix{lan},
	}, {
		link: "lan1", ends: [2]string{"192.168.2.1/24", "192.168.2.50/24 192.168.1.77/32"},
		via: "192.168.2.1", host: "192.168.2.50:0", location: "192.168.2.1",
		locals:   []netip.Addr{netip.MustParseAddr("192.168.2.1")},
		prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.2.0/24")},
	}},
	wan: segment{link: "wan0", ends: [2]string{"203.0.113.5/24", "203.0.113.66/24"}, via: "203.0.113.5"},
}

// Both LANs have the same link-local address of the gateway.
var ip6 = family{
	name: "IPv6", six: true, listen: ssdp.Listen6, newConn: datagram.NewConn6,
	groups: []netip.AddrPort{ssdp.GroupLink, ssdp.GroupSite}, wildcard: "[::]:1900",
	segments: [2]segment{{
		link: "lan0", ends: [2]string{"fe80::1/64 2001:db8:77::1/64", "fe80::50/64 2001:db8:77::50/64 2001:db8:9::9/128"},
		via: "fe80::1%eth0", host: "[2001:db8:77::50]:0", location: "[2001:db8:77::1]",
		locals: []netip.Addr{linkAddr, globalAddr}, prefixes: prefixes6,
	}, {
		link: "lan1", ends: [2]string{"fe80::1/64 2001:db8:78::1/64", "fe80::60/64 2001:db8:78::60/64 2001:db8:77::99/128"},
		via: "fe80::1%eth0", host: "[2001:db8:78::60]:0", location: "[2001:db8:78::1]",
		locals:   []netip.Addr{linkAddr, netip.MustParseAddr("2001:db8:78::1")},
		prefixes: []netip.Prefix{netip.MustParsePrefix("fe80::/64"), netip.MustParsePrefix("2001:db8:78::/64")},
	}},
	wan: segment{link: "wan0", ends: [2]string{"fe80::5/64 2001:db8:5::5/64", "fe80::66/64 2001:db8:5::66/64"}, via: "fe80::5%eth0"},
}

// served is the address of ours that is told to host.
func (s segment) served() netip.Addr { return s.locals[len(s.locals)-1] }

// home is a gateway with two LANs and a WAN, and a host on each.
type home struct {
	family
	gateway *netnstest.Space
	hosts   [2]*netnstest.Space
	x       *netnstest.Space // on the WAN
}

func newHome(t *testing.T, f family) *home {
	t.Helper()
	h := &home{family: f, gateway: netnstest.New(t, "gateway"), x: netnstest.New(t, "x")}
	connect := func(s segment, host *netnstest.Space) *netnstest.Space {
		netnstest.Cable(h.gateway, s.link+" "+s.ends[0], host, "eth0 "+s.ends[1])
		host.Route("", s.via)
		return host
	}
	connect(f.wan, h.x)
	for i, s := range f.segments {
		h.hosts[i] = connect(s, netnstest.New(t, "host"))
	}
	return h
}

// group is the one that reaches farthest.
func (h *home) group() netip.AddrPort { return h.groups[len(h.groups)-1] }

// inBoth runs a test in a home of each family.
func inBoth(t *testing.T, f func(*testing.T, *home)) {
	t.Helper()
	for _, fam := range []family{ip4, ip6} {
		t.Run(fam.name, func(t *testing.T) {
			t.Parallel()
			f(t, newHome(t, fam))
		})
	}
}

// open opens the discovery socket of a LAN.
func (h *home) open(t *testing.T, lan int) *net.UDPConn {
	t.Helper()
	var udp *net.UDPConn
	if err := h.gateway.In(func() (err error) {
		udp, err = h.listen(t.Context(), h.segments[lan].link)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	return udp
}

// config is that of a server on a LAN that is watched.
func (h *home) config(lan int, w slog.Handler) ssdp.Config {
	cfg := config()
	cfg.IPv6, cfg.Logger, cfg.Ifname = h.six, slog.New(w), h.segments[lan].link
	cfg.Ifindex = h.gateway.Index(cfg.Ifname)
	return cfg
}

// serve runs a server on a LAN until the test ends or stop is called. It returns
// once the server has its addresses: Describe is asked in the same turn.
func (h *home) serve(t *testing.T, lan int, cfg ssdp.Config) (s *ssdp.Server, stop func()) {
	t.Helper()
	return h.serveOn(t, h.open(t, lan), lan, cfg)
}

// serveOn is serve on a socket that is open.
func (h *home) serveOn(t *testing.T, udp *net.UDPConn, lan int, cfg ssdp.Config) (s *ssdp.Server, stop func()) {
	t.Helper()
	conn, err := h.newConn(udp, cfg.Ifindex)
	if err != nil {
		t.Fatal(err)
	}
	adopted := make(chan struct{})
	var once sync.Once
	describe := cfg.Describe
	cfg.Describe = func(version int, local netip.Addr) ssdp.Description {
		once.Do(func() { close(adopted) })
		return describe(version, local)
	}
	if s, err = ssdp.New(cfg, conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error("Run:", err)
		}
	}()
	s.SetAddresses(h.segments[lan].locals, h.segments[lan].prefixes)
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	select {
	case <-adopted:
	case <-time.After(patience):
		t.Fatal("the server does not take its address")
	}
	return s, stop
}

// client opens a socket of a LAN's host.
func (h *home) client(t *testing.T, lan int) *endpoint {
	t.Helper()
	return bind(t, h.hosts[lan], "eth0", h.segments[lan].host)
}

// renumber replaces an address on the first LAN; "" is none.
func (h *home) renumber(old, next string) {
	h.gateway.Links(func(handle *netlink.Handle) error {
		link, err := handle.LinkByName("lan0")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(old)
		if err != nil {
			return err
		}
		return handle.AddrDel(link, addr)
	})
	if next != "" {
		h.gateway.Address("lan0", next)
	}
}
