package netif_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"portcullis/internal/netif"
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

// listen opens a socket in the namespace until the test ends; device may be "".
func (s *space) listen(network, address, device string, v6only int) {
	s.t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) {
			if device != "" {
				err = unix.BindToDevice(int(fd), device)
			}
			if v6only >= 0 {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only))
			}
		})
		return errors.Join(e, err)
	}}
	s.Must(func() error {
		if strings.HasPrefix(network, "tcp") {
			l, err := config.Listen(context.Background(), network, address)
			if err == nil {
				s.t.Cleanup(func() { _ = l.Close() })
			}
			return err
		}
		c, err := config.ListenPacket(context.Background(), network, address)
		if err == nil {
			s.t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
}

// spaceWithServices has one of each kind of socket.
func spaceWithServices(t *testing.T) *space {
	s := spaceWithUplinks(t)
	s.veth("lan0", "host0", 5)
	s.Up("lan0", "host0")
	s.Address("lan0", "192.168.1.1/24")
	s.listen("tcp4", "0.0.0.0:22", "", -1)
	s.listen("tcp4", "127.0.0.1:631", "", -1)
	s.listen("tcp4", "192.168.1.1:80", "", -1)
	s.listen("tcp4", "203.0.113.5:8080", "", -1)
	s.listen("tcp6", "[::]:443", "", 0)
	s.listen("tcp6", "[::]:444", "", 1)
	s.listen("tcp6", "[2001:db8:1::5]:445", "", 1)
	s.listen("udp4", "0.0.0.0:51820", "", -1)
	s.listen("udp4", "0.0.0.0:1900", "lan0", -1)
	s.listen("udp4", "0.0.0.0:68", "wan0", -1)
	s.Must(func() error { // package net makes an IPv4 socket of a mapped address
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrInet6{Port: 500, Addr: netip.MustParseAddr("::ffff:203.0.113.5").As16()})
	})
	s.listen("udp4", "127.0.0.1:9999", "", -1)
	s.Must(func() error { // neither a connection nor a connected UDP socket is a listener
		a, err := net.Dial("tcp4", "127.0.0.1:631")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = a.Close() })
		b, err := net.DialUDP("udp4", &net.UDPAddr{Port: 7777}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9999})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = b.Close() })
		return nil
	})
	return s
}

func TestListening(t *testing.T) {
	t.Parallel()
	s := spaceWithServices(t)
	ports, err := s.k.Listening(context.Background())
	s.must(err)
	a := netip.MustParseAddr
	want := []netif.Listener{
		{Transport: tcp, Port: 22, Addr: a("0.0.0.0")},
		{Transport: tcp, Port: 80, Addr: a("192.168.1.1")},
		{Transport: tcp, Port: 443, Addr: a("::")},
		{Transport: tcp, Port: 444, Addr: a("::"), V6Only: true},
		{Transport: tcp, Port: 445, Addr: a("2001:db8:1::5")},
		{Transport: tcp, Port: 631, Addr: a("127.0.0.1")},
		{Transport: tcp, Port: 8080, Addr: a("203.0.113.5")},
		{Transport: udp, Port: 68, Addr: a("0.0.0.0"), Index: s.Index("wan0")},
		{Transport: udp, Port: 500, Addr: a("203.0.113.5")},
		{Transport: udp, Port: 1900, Addr: a("0.0.0.0"), Index: s.Index("lan0")},
		{Transport: udp, Port: 9999, Addr: a("127.0.0.1")},
		{Transport: udp, Port: 51820, Addr: a("0.0.0.0")},
	}
	if diff := cmp.Diff(want, withoutInodes(t, ports), compareAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// Without inet_diag, what /proc does not tell is missing and nothing else.
	netif.WithoutDiag(s.k)
	ports, err = s.k.Listening(context.Background())
	s.must(err)
	for i := range want {
		want[i].V6Only, want[i].Index = false, 0
	}
	if diff := cmp.Diff(want, withoutInodes(t, ports), compareAddrs); diff != "" {
		t.Errorf("from /proc (-want +got):\n%s", diff)
	}
}

// withoutInodes checks that each listener's socket is one of this process, whose inode
// nobody can tell before.
func withoutInodes(t *testing.T, p netif.Ports) []netif.Listener {
	t.Helper()
	ours := map[string]bool{}
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	for _, d := range descriptors {
		to, _ := os.Readlink(d) // may be closed meanwhile
		ours[to] = true
	}
	all := p.All()
	for i, l := range all {
		if err != nil || !ours[fmt.Sprintf("socket:[%d]", l.Inode)] {
			t.Errorf("%+v: not the inode of a socket of ours (%v)", l, err)
		}
		all[i].Inode = 0
	}
	return all
}

func TestListeningEnds(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.k.Listening(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// B8: the gateway's own services are not to be taken over.
// conflicts returns the first reachable listener on a port.
func conflicts(p netif.Ports, transport uint8, port uint16, w netif.WAN) (netif.Listener, bool) {
	for _, l := range p.Reachable(w) {
		if l.Transport == transport && l.Port == port {
			return l, true
		}
	}
	return netif.Listener{}, false
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr
	const wanIndex, lanIndex, vrfIndex = 2, 3, 9
	ports := netif.NewPorts([]netif.Listener{
		{Transport: tcp, Port: 22, Addr: a("0.0.0.0")},
		{Transport: tcp, Port: 23, Addr: a("0.0.0.0"), Index: lanIndex},
		{Transport: tcp, Port: 24, Addr: a("0.0.0.0"), Index: wanIndex},
		{Transport: tcp, Port: 25, Addr: a("127.0.0.1")},
		{Transport: tcp, Port: 26, Addr: a("192.168.1.1")},
		{Transport: tcp, Port: 27, Addr: a("203.0.113.5")},
		{Transport: tcp, Port: 28, Addr: a("::")},
		{Transport: tcp, Port: 29, Addr: a("::"), V6Only: true},
		{Transport: tcp, Port: 30, Addr: a("2001:db8::5")},
		{Transport: tcp, Port: 31, Addr: a("0.0.0.0"), Index: vrfIndex},
		{Transport: tcp, Port: 32, Addr: a("127.0.0.1")},
		{Transport: tcp, Port: 32, Addr: a("203.0.113.6")},
		{Transport: tcp, Port: 33, Addr: a("203.0.113.5"), Index: lanIndex},
		{Transport: udp, Port: 51820, Addr: a("0.0.0.0")},
		{Transport: udp, Port: 1900, Addr: a("239.255.255.250")},
	})
	up := netif.WAN{
		Uplink: netif.Uplink{Name: "wan0", Index: wanIndex, Up: true, Addrs: addrs("203.0.113.5", "203.0.113.6", "2001:db8::5")},
		Master: vrfIndex,
	}
	down := netif.WAN{Uplink: netif.Uplink{Name: "wan0"}}
	for _, tc := range []struct {
		name        string
		transport   uint8
		port        uint16
		up, whenOff bool
	}{
		{"wildcard", tcp, 22, true, true},
		{"same port, other transport", udp, 22, false, false},
		{"bound to a LAN device", tcp, 23, false, true},
		{"bound to the WAN device", tcp, 24, true, true},
		{"loopback only", tcp, 25, false, false},
		{"LAN address only", tcp, 26, false, false},
		{"WAN address", tcp, 27, true, false},
		{"IPv6 wildcard that takes IPv4", tcp, 28, true, true},
		{"IPv6 wildcard only", tcp, 29, false, false},
		{"IPv6 address", tcp, 30, false, false},
		{"bound to the VRF of the WAN", tcp, 31, true, true},
		{"second socket on the port", tcp, 32, true, false},
		{"WAN address on a LAN device", tcp, 33, false, false},
		{"UDP wildcard", udp, 51820, true, true},
		{"multicast", udp, 1900, false, false},
		{"nobody there", udp, 1, false, false},
		{"after the last", udp, 65535, false, false},
	} {
		t.Run("B8/"+tc.name, func(t *testing.T) {
			t.Parallel()
			for _, w := range []struct {
				wan  netif.WAN
				want bool
			}{{up, tc.up}, {down, tc.whenOff}} {
				l, got := conflicts(ports, tc.transport, tc.port, w.wan)
				if got != w.want {
					t.Errorf("WAN index %d: conflict %v, want %v", w.wan.Index, got, w.want)
				}
				if got && (l.Port != tc.port || l.Transport != tc.transport) || !got && l != (netif.Listener{}) {
					t.Errorf("names %+v", l)
				}
			}
		})
	}
	if _, yes := conflicts(netif.Ports{}, tcp, 22, up); yes {
		t.Error("the zero value has a conflict")
	}
}

func TestNewPortsKeepsNothing(t *testing.T) {
	t.Parallel()
	list := []netif.Listener{
		{Transport: udp, Port: 2, Addr: netip.IPv4Unspecified()},
		{Transport: udp, Port: 1, Addr: netip.IPv4Unspecified()},
		{Transport: udp, Port: 2, Addr: netip.IPv4Unspecified()}, // SO_REUSEPORT
	}
	p := netif.NewPorts(list)
	if list[0].Port != 2 {
		t.Error("the caller's list was sorted")
	}
	list[0].Port = 99
	p.All()[0].Port = 98
	if all := p.All(); len(all) != 2 || all[0].Port != 1 || all[1].Port != 2 {
		t.Errorf("%+v", all)
	}
}

// An inet_diag message of a TCP socket that listens on [::]:443 on interface 7.
var diagMessage = unhex("0a 0a 00 00 01bb 0000" + strings.Repeat("00", 16) + strings.Repeat("00", 16) +
	"07000000 0100000000000000" + "00000000 00000000 05000000 00000000 34120000" +
	"05000b00 01000000")

func TestParseDiag(t *testing.T) {
	t.Parallel()
	if !littleEndian() {
		t.Skip("the example is of a little-endian machine")
	}
	want := netif.Listener{Transport: tcp, Port: 443, Addr: netip.IPv6Unspecified(), V6Only: true, Index: 7, Inode: 0x1234}
	if got, ok := netif.ParseDiag(tcp, diagMessage); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := netif.ParseDiag(udp, diagMessage); ok {
		t.Error("accepted state LISTEN for UDP")
	}
	for n := range 72 {
		if _, ok := netif.ParseDiag(tcp, diagMessage[:n]); ok {
			t.Errorf("accepted when cut at %d", n)
		}
	}
	noPort := slices.Clone(diagMessage)
	noPort[4], noPort[5] = 0, 0
	if _, ok := netif.ParseDiag(tcp, noPort); ok {
		t.Error("accepted port 0")
	}
	odd := slices.Clone(diagMessage)
	odd[0] = unix.AF_UNIX
	if _, ok := netif.ParseDiag(tcp, odd); ok {
		t.Error("accepted another family")
	}
}

func FuzzDiag(f *testing.F) {
	f.Add(diagMessage, true)
	f.Add(diagMessage[:60], false)
	f.Fuzz(func(t *testing.T, m []byte, isTCP bool) {
		transport := uint8(udp)
		if isTCP {
			transport = tcp
		}
		if l, ok := netif.ParseDiag(transport, m); ok && (l.Port == 0 || !l.Addr.IsValid() || l.Addr.Is4In6()) {
			t.Errorf("accepted %+v", l)
		}
	})
}

// The lines are as a little-endian kernel prints them.
const procTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0101A8C0:01BB 0A01A8C0:C000 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 00000000:0000 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0 0
   4: 0000000000000000FFFF00000571CB:0017 0:0 0A
   5: 0000000000000000FFFF0000057100CB:0018 00000000000000000000000000000000:0000 0A 0
   6: zz
`

func TestParseProc(t *testing.T) {
	t.Parallel()
	if !littleEndian() {
		t.Skip("the example is of a little-endian machine")
	}
	got, err := netif.ParseProc(tcp, strings.NewReader(procTable))
	a := netip.MustParseAddr
	want := []netif.Listener{
		{Transport: tcp, Port: 631, Addr: a("127.0.0.1"), Inode: 4711},
		{Transport: tcp, Port: 22, Addr: a("::")},
		{Transport: tcp, Port: 24, Addr: a("203.0.113.5")},
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if _, err := netif.ParseProc(tcp, strings.NewReader(strings.Repeat("x", 1<<17))); err == nil {
		t.Error("a line without end is no error")
	}
	broken := io.MultiReader(strings.NewReader(procTable), errReader{})
	if _, err := netif.ParseProc(tcp, broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a read error is lost: %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

func FuzzProc(f *testing.F) {
	f.Add([]byte(procTable))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, _ := netif.ParseProc(udp, bytes.NewReader(text))
		for _, l := range list {
			if l.Port == 0 || !l.Addr.IsValid() || l.Addr.Is4In6() {
				t.Errorf("accepted %+v", l)
			}
		}
	})
}
