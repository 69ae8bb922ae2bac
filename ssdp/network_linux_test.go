package ssdp_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"portcullis/datagram"
	"portcullis/ssdp"
)

var lanService = netip.MustParseAddrPort("192.168.1.1:1900")

// networkConfig is the configuration of a server on lan0 that is watched.
func (h *home) networkConfig(w slog.Handler) ssdp.Config {
	cfg := config()
	cfg.Ifname, cfg.Ifindex, cfg.Logger = "lan0", h.lan0, slog.New(w)
	return cfg
}

// TestNetworkSearch: real datagrams, one hop. Specific searches are answered
// within 50 ms whatever MX says, from the address and port asked.
func TestNetworkSearch(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	// As if another process had opened it: a copy of the descriptor.
	opened := listen(t, h.gateway, "lan0")
	file, err := opened.File()
	if err != nil {
		t.Fatal(err)
	}
	passed, err := net.FilePacketConn(file)
	if err := errors.Join(err, file.Close(), opened.Close()); err != nil {
		t.Fatal(err)
	}
	serve(t, passed.(*net.UDPConn), h.networkConfig(newWatcher()), "192.168.1.1", "192.168.1.0/24")
	client := bind(t, h.a, "eth0", "192.168.1.50:0")
	for _, c := range []struct {
		name   string
		packet []byte
		to     netip.AddrPort
		row    string
	}{
		{"D1/multicast", search(root, "MX: 2"), ssdp.Group, announced()[0]},
		{"D13/unicast", search(root), lanService, announced()[0]},
		{"D8/MX 5", search("uuid:"+uuidW, "MX: 5"), ssdp.Group, announced()[4]},
	} {
		t.Run(c.name, func(t *testing.T) {
			best := time.Hour
			for range 3 { // the first must resolve the neighbour, and the host may be busy
				began := time.Now()
				client.send(c.packet, c.to)
				m, from := client.receive()
				best = min(best, time.Since(began))
				if m.row() != c.row || from != lanService {
					t.Fatalf("%q from %v", m.row(), from)
				}
			}
			if best > 50*time.Millisecond {
				t.Errorf("answered after %v", best)
			}
		})
	}
	t.Run("D2/all", func(t *testing.T) {
		client.send(search("ssdp:all", "MX: 1"), ssdp.Group)
		var got []string
		for range announced() {
			m, from := client.receive()
			got = append(got, m.row())
			if from != lanService {
				t.Errorf("from %v", from)
			}
		}
		if diff := cmp.Diff(announced(), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestNetworkSilence: what comes from the wrong place, and proof that it came.
func TestNetworkSilence(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	logs := map[string]watcher{"lan0": newWatcher(), "lan1": newWatcher()}
	serve(t, listen(t, h.gateway, "lan0"), h.networkConfig(logs["lan0"]), "192.168.1.1", "192.168.1.0/24")
	cfg := h.networkConfig(logs["lan1"])
	cfg.Ifname, cfg.Ifindex = "lan1", h.lan1
	serve(t, listen(t, h.gateway, "lan1"), cfg, "192.168.2.1", "192.168.2.0/24")

	for _, c := range []struct {
		name   string
		host   *namespace
		source string
		to     string
		lan    string
		reason string
	}{
		{"D17/off link", h.a, "10.9.9.9:0", "239.255.255.250:1900", "lan0", "off link"},
		{"D17/off link, unicast", h.a, "10.9.9.9:0", "192.168.1.1:1900", "lan0", "off link"},
		{"A4/external address", h.a, "192.168.1.50:0", "203.0.113.5:1900", "lan0", "sent to another address"},
		{"A4/address of the other LAN", h.a, "192.168.1.50:0", "192.168.2.1:1900", "lan0", "sent to another address"},
		{"E5/port 19", h.a, "192.168.1.50:19", "239.255.255.250:1900", "lan0", "loop port"},
		{"E7/source of the first LAN on the second", h.b, "192.168.1.77:0", "239.255.255.250:1900", "lan1", "off link"},
		{"A4/LAN 1's address from LAN 2", h.b, "192.168.2.50:0", "192.168.1.1:1900", "lan1", "sent to another address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := bind(t, c.host, "eth0", c.source)
			client.send(search(root, "MX: 1"), netip.MustParseAddrPort(c.to))
			got := logs[c.lan].next(t)
			want := ignored{c.reason, client.udp.LocalAddr().String()}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			for name, w := range logs {
				if len(w.seen) != 0 {
					t.Errorf("%s saw a datagram too", name)
				}
			}
		})
	}

	t.Run("A4/another group does not even arrive", func(t *testing.T) {
		group := netip.MustParseAddrPort("239.1.1.1:1900")
		member := bind(t, h.gateway, "lan0", "239.1.1.1:1900", unix.SO_REUSEADDR)
		member.joinGroup(h.gateway, "lan0", group)
		client := bind(t, h.a, "eth0", "192.168.1.50:0")
		client.send(search("uuid:wrong", "MX: 1"), group)
		member.receive()
		client.send(search(root, "MX: 1"), ssdp.Group)
		client.receive()
		if n := len(logs["lan0"].seen); n != 0 {
			t.Errorf("%d datagrams came to the server", n)
		}
	})

	t.Run("A2/LAN address from the WAN", func(t *testing.T) {
		for _, to := range []string{"192.168.1.1:1900", "203.0.113.5:1900"} {
			client := bind(t, h.x, "eth0", "203.0.113.66:0")
			client.connect(h.x, netip.MustParseAddrPort(to))
			if err := refused(client, search(root)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %v", to, err)
			}
		}
	})

	t.Run("E8/each LAN has its own location", func(t *testing.T) {
		for host, want := range map[*namespace]string{h.a: "http://192.168.1.1:5000/", h.b: "http://192.168.2.1:5000/"} {
			source := map[*namespace]string{h.a: "192.168.1.50:0", h.b: "192.168.2.50:0"}[host]
			client := bind(t, host, "eth0", source)
			client.send(search(root, "MX: 1"), ssdp.Group)
			if m, _ := client.receive(); !strings.HasPrefix(m.header.Get("LOCATION"), want) {
				t.Errorf("location %q, want %s", m.header.Get("LOCATION"), want)
			}
		}
	})
}

// connect makes a socket hear the port unreachable that comes back, which says
// that a datagram came, and that no socket took it.
func (e *endpoint) connect(ns *namespace, to netip.AddrPort) {
	e.t.Helper()
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	ns.do(e.t, func() error {
		raw, err := e.udp.SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		err = raw.Control(func(fd uintptr) { failed = unix.Connect(int(fd), sa) })
		return errors.Join(err, failed)
	})
}

// refused sends on a connected socket and gives what the network says to it.
func refused(e *endpoint, b []byte) error {
	e.t.Helper()
	raw, err := e.udp.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Write(func(fd uintptr) bool {
		failed = unix.Send(int(fd), b, 0)
		return true
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if err := e.udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, _, err = e.udp.ReadFromUDPAddrPort(make([]byte, 2048))
	return err
}

// TestNetworkAnnouncements: D19, D23 and D21 as a host on the LAN hears them.
func TestNetworkAnnouncements(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	ear := bind(t, h.a, "eth0", "239.255.255.250:1900", unix.SO_REUSEADDR)
	ear.join(h.a, "eth0")
	deaf := bind(t, h.b, "eth0", "239.255.255.250:1900", unix.SO_REUSEADDR)
	deaf.join(h.b, "eth0")
	p := ipv4.NewPacketConn(ear.udp)
	if err := p.SetControlMessage(ipv4.FlagTTL, true); err != nil {
		t.Fatal(err)
	}
	// hear gives "kind bootid" of one whole set.
	hear := func(source string) string {
		t.Helper()
		var got []string
		var kind string
		for range announced() {
			if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2048)
			n, cm, from, err := p.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if cm.TTL != 2 {
				t.Errorf("TTL %d, want 2", cm.TTL)
			}
			if from.String() != source+":1900" {
				t.Errorf("from %v, want %s", from, source)
			}
			m := read(t, buf[:n])
			got = append(got, m.row())
			kind = m.header.Get("NTS") + " " + m.header.Get("BOOTID.UPNP.ORG")
			if l := m.header.Get("LOCATION"); l != "" && !strings.HasPrefix(l, "http://"+source+":5000/") {
				t.Errorf("location %s", l)
			}
		}
		if diff := cmp.Diff(announced(), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
		return kind
	}
	expect := func(source string, kinds ...string) {
		t.Helper()
		var got []string
		for range kinds {
			got = append(got, hear(source))
		}
		if diff := cmp.Diff(kinds, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}

	cfg := h.networkConfig(newWatcher())
	cfg.NewBootID = func(last uint32) uint32 { return last + 1 }
	server, stop := serve(t, listen(t, h.gateway, "lan0"), cfg, "192.168.1.1", "192.168.1.0/24")
	expect("192.168.1.1", "ssdp:byebye 500", "ssdp:alive 500", "ssdp:alive 500", "ssdp:alive 500")

	h.gateway.do(t, func() error { return renumber("lan0", "192.168.1.1/24", "192.168.1.2/24") })
	server.SetAddresses([]netip.Addr{netip.MustParseAddr("192.168.1.2")}, []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")})
	expect("192.168.1.2", "ssdp:byebye 500", "ssdp:alive 501", "ssdp:alive 501", "ssdp:alive 501")

	stop()
	expect("192.168.1.2", "ssdp:byebye 501", "ssdp:byebye 501")

	// E8: nothing of it on the other LAN. What was sent to it later is there.
	control := []byte("control")
	sender := bind(t, h.gateway, "lan1", "192.168.2.1:0")
	sender.send(control, ssdp.Group)
	if err := deaf.udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if n, _, err := deaf.udp.ReadFromUDPAddrPort(buf); err != nil || !bytes.Equal(buf[:n], control) {
		t.Errorf("the other LAN hears %q (%v)", buf[:n], err)
	}
}

// TestConnSendsByItsInterface: the Conn itself names interface and source, also
// on a socket that is bound to neither.
func TestConnSendsByItsInterface(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	ear := bind(t, h.b, "eth0", "239.255.255.250:1900")
	ear.join(h.b, "eth0")
	conn, err := datagram.NewConn(bind(t, h.gateway, "lan0", "0.0.0.0:1900").udp, h.lan1)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send([]byte("NOTIFY * HTTP/1.1\r\n\r\n"), netip.MustParseAddr("192.168.2.1"), ssdp.Group); err != nil {
		t.Fatal(err)
	}
	if _, from := ear.receive(); from != netip.MustParseAddrPort("192.168.2.1:1900") {
		t.Errorf("from %v", from)
	}
}

// renumber replaces the address of an interface; "" is none.
func renumber(ifname, old, next string) error {
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		return err
	}
	for _, change := range []struct {
		address string
		apply   func(netlink.Link, *netlink.Addr) error
	}{{old, netlink.AddrDel}, {next, netlink.AddrAdd}} {
		if change.address == "" {
			continue
		}
		addr, err := parseAddr(change.address)
		if err != nil {
			return err
		}
		if err := change.apply(link, addr); err != nil {
			return err
		}
	}
	return nil
}

// TestPortSharing: another discovery program on the gateway gets its copy of a
// multicast search and we get ours, whichever way it shares the port and whoever
// came first. Unicast searches come to us, but for the case that Listen names.
func TestPortSharing(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	client := bind(t, h.a, "eth0", "192.168.1.50:0")
	for _, c := range []struct {
		name    string
		address string
		options []int
	}{
		{"SO_REUSEADDR", "0.0.0.0:1900", []int{unix.SO_REUSEADDR}},
		{"SO_REUSEPORT", "0.0.0.0:1900", []int{unix.SO_REUSEPORT}},
		{"both", "0.0.0.0:1900", []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT}},
		{"SO_REUSEADDR on the group", "239.255.255.250:1900", []int{unix.SO_REUSEADDR}},
	} {
		for _, first := range []string{"they came first", "we came first"} {
			t.Run(c.name+"/"+first, func(t *testing.T) {
				var other *endpoint
				var udp *net.UDPConn
				theirs := func() {
					other = bind(t, h.gateway, "lan0", c.address, c.options...)
					other.join(h.gateway, "lan0")
				}
				ours := func() { udp = listen(t, h.gateway, "lan0") }
				steps := []func(){ours, theirs}
				if first == "they came first" {
					slices.Reverse(steps)
				}
				for _, step := range steps {
					step()
				}
				serve(t, udp, h.networkConfig(newWatcher()), "192.168.1.1", "192.168.1.0/24")

				client.send(search(root, "MX: 1"), ssdp.Group)
				if m, _ := other.receive(); m.line != "M-SEARCH * HTTP/1.1" {
					t.Errorf("they got %q", m.line)
				}
				if m, _ := client.receive(); m.row() != announced()[0] {
					t.Errorf("answer %q", m.row())
				}
				if slices.Contains(c.options, unix.SO_REUSEPORT) && first == "we came first" {
					return
				}
				client.send(search(root), lanService)
				if m, _ := client.receive(); m.row() != announced()[0] {
					t.Errorf("answer to unicast %q", m.row())
				}
			})
		}
	}

	t.Run("a second instance", func(t *testing.T) {
		for _, server := range []string{"Linux UPnP/1.1 One", "Linux UPnP/1.1 Two"} {
			cfg := h.networkConfig(newWatcher())
			cfg.Server = server
			serve(t, listen(t, h.gateway, "lan0"), cfg, "192.168.1.1", "192.168.1.0/24")
		}
		client.send(search(root, "MX: 1"), ssdp.Group)
		one, _ := client.receive()
		two, _ := client.receive()
		if one.header.Get("SERVER") == two.header.Get("SERVER") {
			t.Errorf("both answers are from %q", one.header.Get("SERVER"))
		}
		client.send(search(root), lanService) // to one of them
		client.receive()
		client.send(search("uuid:"+uuidR, "MX: 1"), ssdp.Group)
		if m, _ := client.receive(); m.row() != announced()[1] {
			t.Errorf("a unicast search was answered twice: %q", m.row())
		}
		client.receive()
	})
}

// TestListenRefused: what stands in the way is said in a sentence.
func TestListenRefused(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	try := func(ifname string) error {
		return h.gateway.try(func() error {
			udp, err := ssdp.Listen(t.Context(), ifname)
			if err == nil {
				err = udp.Close()
			}
			return err
		})
	}
	if err := try("nosuch0"); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("unknown interface: %v", err)
	}
	greedy := bind(t, h.gateway, "lan0", "0.0.0.0:1900")
	err := try("lan0")
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "held by a program that does not share it") {
		t.Errorf("port taken: %v", err)
	}
	if err := greedy.udp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := try("lan0"); err != nil {
		t.Errorf("port free again: %v", err)
	}
}
