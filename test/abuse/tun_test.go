package abuse

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// tunnel is an interface of the gateway without MAC addresses, and its far end.
type tunnel struct{ far *os.File }

// The tunnel's ends.
var (
	tunHere = netip.MustParsePrefix("10.30.0.1/24")
	tunFar  = netip.MustParseAddrPort("10.30.0.2:40123")
)

func openTunnel(t *testing.T, n *lab.Network) *tunnel {
	t.Helper()
	x := new(tunnel)
	err := n.Gateway.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		x.far = os.NewFile(uintptr(fd), "tun0")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.far.Close() })
	testrig.On(t, n.Gateway, "ip", "address", "add", tunHere.String(), "dev", "tun0")
	testrig.On(t, n.Gateway, "ip", "link", "set", "tun0", "up")
	return x
}

// ask sends a datagram from the far end and returns the payload of what comes back
// to its port; nil is silence.
func (x *tunnel) ask(t *testing.T, from, to netip.AddrPort, payload []byte, patience time.Duration) []byte {
	t.Helper()
	if _, err := x.far.Write(lab.Packet4(from, to, payload)); err != nil {
		t.Fatal(err)
	}
	if err := x.far.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 2048); ; {
		n, err := x.far.Read(buf)
		if err != nil {
			return nil
		}
		if f, ok := parseUDP(buf[:n]); ok && f.to == from {
			return f.payload
		}
	}
}

// TestTunnelLAN: C11 on a LAN without MAC addresses. There the interface is who asks:
// its hosts are served, and no datagram by another interface speaks for them.
func TestTunnelLAN(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	x := openTunnel(t, n)
	settings := strings.Replace(lab.Settings, `interfaces = ["br-lan"]`, `interfaces = ["br-lan", "tun0"]`, 1)
	r := &rig{testrig.StartWith(t, n, settings+noRates)}
	gateway := netip.AddrPortFrom(tunHere.Addr(), 5351)
	reply := x.ask(t, tunFar, gateway, pmp(1, 6000, 6000, 3600), soon)
	if len(reply) != 16 || binary.BigEndian.Uint16(reply[2:]) != 0 {
		t.Fatalf("a host of the tunnel got % x", reply)
	}
	a, b := r.talker(t, "a"), r.talker(t, "b")
	grant(t, a, 1, 6001)
	before := r.World(t)
	forger := r.forger(t, "b")
	for _, to := range []netip.AddrPort{server, gateway} {
		for _, payload := range [][]byte{pmp(1, 6100, 6100, 3600), pmp(1, 6000, 0, 0)} {
			if err := forger.Send(tunFar, to, payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.nothing(t)
	for _, payload := range [][]byte{pmp(1, 6100, 6100, 3600), pmp(1, 6001, 0, 0)} {
		if reply := x.ask(t, netip.AddrPortFrom(hostA, 40123), server, payload, 200*time.Millisecond); reply != nil {
			t.Errorf("the tunnel speaks for a host of the LAN: % x", reply)
		}
	}
	a.nothing(t)
	r.Unchanged(t, before)
	if reply := x.ask(t, tunFar, gateway, pmp(1, 6000, 0, 0), soon); len(reply) != 16 || len(r.List(t)) != 1 {
		t.Errorf("the host of the tunnel cannot delete: % x", reply)
	}
}
