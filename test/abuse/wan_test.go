package abuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// pcpAnnounce and natpmpAddress are the shortest requests of port 5351.
var (
	pcpAnnounce   = []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 66}
	natpmpAddress = []byte{0, 0}
)

// TestOutsideMeetsSilence: A1, A2 and E1. Nobody on the WAN side gets an answer,
// whichever address of the gateway it names.
func TestOutsideMeetsSilence(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	found := r.v1(t, "a")
	post := "POST " + mustURL(t, found.Control).Path + " HTTP/1.1\r\nHost: %s\r\nSOAPAction: \"x#y\"\r\nContent-Length: 0\r\n\r\n"
	before := r.World(t)
	for id, to := range map[string]netip.Addr{"A1": lab.GatewayWAN, "A2": lab.GatewayLAN} {
		t.Run(id, func(t *testing.T) {
			for _, st := range []string{"ssdp:all", "upnp:rootdevice", lab.IGD1} {
				if hears(t, r.Internet, netip.AddrPortFrom(to, 1900), search(st)) {
					t.Errorf("a search for %s was answered", st)
				}
			}
			for _, payload := range [][]byte{pcpAnnounce, natpmpAddress} {
				if hears(t, r.Internet, netip.AddrPortFrom(to, 5351), payload) {
					t.Errorf("% x was answered on port 5351", payload)
				}
			}
			at := hostPort(to, 5000)
			if answer := raw(t, r.Internet, at, fmt.Sprintf(post, at)); status(answer) != "" {
				t.Errorf("SOAP-43: a POST was answered: %.80q", answer)
			}
		})
	}
	r.Unchanged(t, before, "A1", "A2")
}

// TestMulticastFromWAN: SSDP-17. The group's packets on the WAN are nobody's
// business.
func TestMulticastFromWAN(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	c := lab.NewControlPoint(r.Internet)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // MX 1, and more
	defer cancel()
	if _, err := c.Search(ctx, lab.IGD1, netip.AddrPort{}); !errors.Is(err, lab.ErrSilence) {
		t.Errorf("answered: %v", err)
	}
}

// TestSpoofedFromWAN: A3. A search that comes in by the WAN with the source of a
// LAN host is not answered to that host.
func TestSpoofedFromWAN(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	victim := r.Host("a")
	ear, err := victim.ListenPacket(hostPort(victim.Addr, 40000))
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	before := r.World(t)
	for _, to := range []netip.Addr{lab.GatewayLAN, lab.GatewayWAN} {
		spoof(t, r.Internet, netip.AddrPortFrom(victim.Addr, 40000), netip.AddrPortFrom(to, 1900), search(lab.IGD1))
	}
	if err := ear.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := ear.ReadFromUDPAddrPort(make([]byte, 2048)); err == nil {
		t.Errorf("%d bytes from %v reached the host whose address was used", n, from)
	}
	r.Unchanged(t, before, "A3")
}

// spoof sends a datagram with any source (IP_TRANSPARENT).
func spoof(t *testing.T, h *lab.Host, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()}); err != nil {
			return err
		}
		return unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestExternalAddressFromLAN: A4. The LAN finds nobody at the external address.
func TestExternalAddressFromLAN(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	r.inhabit(t)
	before := r.World(t)
	a := r.Host("a")
	for port, payload := range map[uint16][]byte{1900: search(lab.IGD1), 5351: natpmpAddress} {
		if hears(t, a, netip.AddrPortFrom(lab.GatewayWAN, port), payload) {
			t.Errorf("port %d of the external address answers", port)
		}
	}
	if got := status(raw(t, a, hostPort(lab.GatewayWAN, 5000), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")); got != "" {
		t.Errorf("HTTP at the external address answers %s", got)
	}
	r.Unchanged(t, before, "A4")
}

// TestGuest: A5. An interface that is not named is not served.
func TestGuest(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if err := errors.Join(n.HostFirewall(), n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.50.0/24"))); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, "")
	r.inhabit(t)
	before := r.World(t)
	guest := r.Host("guest")
	for _, to := range []string{"192.168.50.1:1900", "192.168.77.1:1900", "239.255.255.250:1900"} {
		if hears(t, guest, netip.MustParseAddrPort(to), search("ssdp:all")) {
			t.Errorf("a guest's search at %s was answered", to)
		}
	}
	for _, to := range []netip.Addr{netip.MustParseAddr("192.168.50.1"), lab.GatewayLAN} {
		if got := status(raw(t, guest, hostPort(to, 5000), "GET / HTTP/1.1\r\nHost: "+to.String()+"\r\n\r\n")); got != "" {
			t.Errorf("HTTP at %s answered %s", to, got)
		}
	}
	r.refused(t, r.v1(t, "a"), lab.Mapping{External: 6000, Internal: 6000, Protocol: "UDP", Client: "192.168.50.10"}, 606)
	r.Unchanged(t, before, "A5")
	if r.hairpins(t, guest, 500*time.Millisecond) { // where the LAN is served: TestTwoLANs
		t.Error("a guest gets through a mapping of the LAN")
	}
}

// TestOwnersServices: L3. What the owner serves on an interface that is not ours,
// on the ports that are ours on the LAN, is reached; by IPv6 too, and on the WAN.
func TestOwnersServices(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	if err := n.AddInterface("guest0", "guest", netip.MustParsePrefix("192.168.50.0/24")); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, "")
	for _, at := range []struct {
		who   *lab.Host
		iface string
		addrs []string
	}{
		{n.Host("guest"), "guest0", []string{"192.168.50.1", "2001:db8:50::1"}},
		{n.Internet, "wan0", []string{lab.GatewayWAN.String(), lab.GatewayWAN6.String()}},
	} {
		for _, addr := range at.addrs {
			to := netip.MustParseAddr(addr)
			if to.Is6() && !n.HasIPv6() {
				continue
			}
			serve(t, n.Gateway, at.iface, to)
			for network, port := range map[string]uint16{"tcp": 5000, "udp": 1900} {
				if err := echoes(t, at.who, network, hostPort(to, port)); err != nil {
					t.Errorf("the owner's service at %s %s port %d: %v", network, to, port, err)
				}
			}
		}
	}
	r.v1(t, "a") // the LAN is served as ever
}

// serve sends back what comes to TCP port 5000 and UDP port 1900 by one interface.
func serve(t *testing.T, h *lab.Host, iface string, at netip.Addr) {
	t.Helper()
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), iface) }), err)
	}}
	var l net.Listener
	var c net.PacketConn
	err := h.Do(func() (err error) {
		if l, err = listen.Listen(t.Context(), "tcp", hostPort(at, 5000)); err != nil {
			return err
		}
		c, err = listen.ListenPacket(t.Context(), "udp", hostPort(at, 1900))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); c.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_, _ = io.CopyN(conn, conn, 5)
			conn.Close()
		}
	}()
	go func() {
		buf := make([]byte, 512)
		for size, from, err := c.ReadFrom(buf); err == nil; size, from, err = c.ReadFrom(buf) {
			_, _ = c.WriteTo(buf[:size], from)
		}
	}()
}

// echoes sends a word and waits for it to come back.
func echoes(t *testing.T, h *lab.Host, network, to string) error {
	ctx, cancel := contextFor(t, 5*time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, network, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	buf := make([]byte, 5)
	if err = conn.SetDeadline(deadline); err == nil {
		if _, err = conn.Write([]byte("hello")); err == nil {
			_, err = io.ReadFull(conn, buf)
		}
	}
	return err
}

// TestClosedPortsAreTheKernels: A1, L3. To the WAN a port of ours is closed as any
// other is, by IPv6 to the last bit of the answer that a scan could look at.
func TestClosedPortsAreTheKernels(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	if !r.HasIPv6() {
		t.Skip("this kernel has no IPv6")
	}
	for _, to := range []netip.Addr{lab.GatewayWAN6, lab.GatewayLAN6} {
		ours, other := resetBy(t, r.Internet, to, 5000), resetBy(t, r.Internet, to, 5001)
		if ours != other {
			t.Errorf("%s resets port 5000 with %s, and 5001 with %s", to, ours, other)
		}
	}
}

// resetBy connects to a closed port and gives what a scan sees of the answer: whether
// it has a flow label, its hop limit and the TCP header's flags and window.
func resetBy(t *testing.T, h *lab.Host, to netip.Addr, port uint16) string {
	t.Helper()
	fd, seen := -1, ""
	err := h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IPV6))))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if conn, err := h.Dial(ctx, "tcp", netip.AddrPortFrom(to, port).String()); err == nil {
		conn.Close()
		t.Fatalf("%s port %d is open", to, port)
	}
	for buf := make([]byte, 2048); seen == ""; {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("no answer of %s port %d was seen: %v", to, port, err)
		}
		const header, tcp = 40, 6
		p := buf[:size]
		if size < header+20 || p[6] != tcp || netip.AddrFrom16([16]byte(p[8:])) != to || binary.BigEndian.Uint16(p[header:]) != port {
			continue
		}
		label := binary.BigEndian.Uint32(p) & 0xfffff
		seen = fmt.Sprintf("label=%v hops=%d flags=%#x window=%d", label != 0, p[7], p[header+13], binary.BigEndian.Uint16(p[header+14:]))
	}
	return seen
}

// TestOffLink: A6. A source outside the interface's networks is not answered,
// unless the owner has named its network.
func TestOffLink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, extra string
		want        bool
	}{
		{"strict", "", false},
		{"extra_prefixes", "10.9.9.0/24", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, host := startRouted(t, c.extra, "")
			cp := lab.NewControlPoint(host)
			search := lab.Search{Target: lab.IGD1, To: netip.AddrPortFrom(lab.GatewayLAN, 1900)}
			if c.want {
				testrig.Found(t, cp, search)
			} else {
				ctx, cancel := contextFor(t, time.Second)
				defer cancel()
				if _, err := cp.Discover(ctx, search); !errors.Is(err, lab.ErrSilence) {
					t.Errorf("a search from %s: %v", host.Addr, err)
				}
			}
			answer := rawFrom(t, r.Host("a"), host.Addr, hostPort(lab.GatewayLAN, 5000), "GET / HTTP/1.1\r\nHost: 192.168.77.1\r\n\r\n")
			if (status(answer) == "404") != c.want {
				t.Errorf("HTTP from %s: %.80q", host.Addr, answer)
			}
		})
	}
}

// startRouted is start where host a has an address of a routed network, too, which
// is served when the owner has named it. The host that it gives speaks from there.
func startRouted(t *testing.T, extraPrefix, extra string) (*rig, *lab.Host) {
	t.Helper()
	n := testrig.Network(t, "a")
	host := *n.Host("a")
	host.Addr = netip.MustParseAddr("10.9.9.9")
	route(t, n, host.Addr)
	settings := lab.Settings
	if extraPrefix != "" {
		settings = strings.Replace(settings, "[lan]\n", fmt.Sprintf("[lan]\nextra_prefixes = [%q]\n", extraPrefix), 1)
	}
	return &rig{testrig.StartWith(t, n, settings+extra)}, &host
}

// route gives host a a second address that the gateway knows a way to.
func route(t *testing.T, n *lab.Network, addr netip.Addr) {
	t.Helper()
	single := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	a, g := n.Host("a"), n.Gateway
	eth, err := a.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := g.Netlink().LinkByName(lab.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		a.Netlink().AddrAdd(eth, &netlink.Addr{IPNet: single}),
		g.Netlink().RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: single, Gw: a.Addr.AsSlice()}),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// rawFrom is raw with a source address.
func rawFrom(t *testing.T, h *lab.Host, from netip.Addr, to, request string) string {
	t.Helper()
	var conn net.Conn
	err := h.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 3 * time.Second}
		conn, err = d.Dial("tcp4", to)
		return err
	})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte(request))
	buf := make([]byte, 4096)
	got, _ := conn.Read(buf)
	return string(buf[:got])
}

// setTTL says how far the datagrams of a socket may go.
func setTTL(t *testing.T, conn *net.UDPConn, ttl int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, ttl) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

// TestTTLDoesNotMatter: A10. There is no GTSM rule in SSDP.
func TestTTLDoesNotMatter(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	a := r.Host("a")
	for _, ttl := range []int{1, 2, 4, 64, 128, 255} {
		conn, err := a.ListenPacket(hostPort(a.Addr, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		setTTL(t, conn, ttl)
		if _, err := conn.WriteToUDPAddrPort(search(lab.IGD1), netip.AddrPortFrom(lab.GatewayLAN, 1900)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.ReadFromUDPAddrPort(make([]byte, 2048)); err != nil {
			t.Errorf("TTL %d: %v", ttl, err)
		}
	}
}

// TestScanFindsNothing: A1. From the WAN side every port of the gateway, TCP and
// UDP, looks exactly as it does without the daemon.
func TestScanFindsNothing(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	// The kernel's own limit on ICMP errors would hide most ports.
	if err := errors.Join(n.Gateway.SetSysctl("ipv4/icmp_ratelimit", "0"), n.Gateway.SetSysctl("ipv4/icmp_ratemask", "0")); err != nil {
		t.Fatal(err)
	}
	// Something that is open in both scans, to show that a scan sees.
	open, err := n.Gateway.Listen(hostPort(lab.GatewayWAN, 22))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, to := range []netip.Addr{lab.GatewayWAN, lab.GatewayLAN} {
		without := scan(t, n.Internet, to)
		r := startOn(t, n, "")
		if err := r.v1(t, "a").Add(t.Context(), lab.Mapping{External: 40000, Internal: 40000, Protocol: "TCP", Lease: time.Hour}); err != nil {
			t.Fatal(err)
		}
		with := scan(t, n.Internet, to)
		if to == lab.GatewayWAN {
			// What was mapped is the host's, who does not listen: closed too.
			if without[portKey{"tcp", 22}] != "open" || len(without) != 1 {
				t.Errorf("the scan without the daemon sees %v", without)
			}
		}
		if diff := cmp.Diff(without, with); diff != "" {
			t.Errorf("the scan of %s differs (-without +with):\n%s", to, diff)
		}
		if err := r.Daemon.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

type portKey struct {
	protocol string
	port     int
}

// scan tries every port and gives those that are not plainly closed.
func scan(t *testing.T, from *lab.Host, to netip.Addr) map[portKey]string {
	t.Helper()
	found := map[portKey]string{}
	err := from.Do(func() error {
		for port := 1; port <= 65535; port++ {
			for protocol, kind := range map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM} {
				state, err := try(kind, to, port, 200*time.Millisecond)
				for tries := 0; errors.Is(err, unix.EINTR) || state == "silent" && tries < 2; tries++ {
					// The Go runtime interrupts threads; and a busy machine may take
					// longer to refuse one of so many.
					state, err = try(kind, to, port, time.Second)
				}
				if err != nil {
					return err
				}
				if state != "closed" {
					found[portKey{protocol, port}] = state
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// try connects (TCP), or sends a datagram and waits for the ICMP error (UDP).
func try(kind int, to netip.Addr, port int, within time.Duration) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(within))
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)); err != nil {
		return "", err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: to.As4()})
	if kind == unix.SOCK_DGRAM && err == nil {
		if err = unix.Send(fd, []byte("hello"), 0); err == nil {
			_, err = unix.Read(fd, make([]byte, 64))
		}
	}
	switch {
	case err == nil:
		return "open", nil
	case errors.Is(err, unix.ECONNREFUSED):
		return "closed", nil
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EAGAIN):
		return "silent", nil
	}
	return "", err
}
