package pcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"portcullis/internal/datagram"
)

// Port is where both protocols are served (RFC 6886 section 3.1, RFC 6887
// section 19.1).
const Port = 5351

// announcePort is where clients wait for announcements, which go to all hosts of
// the link (RFC 6886 section 3.2.1, RFC 6887 section 14.1.3).
const announcePort = 5350

// announceTo returns where the server with this address announces.
func announceTo(local netip.Addr) netip.AddrPort {
	if local.Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 1}), announcePort)
	}
	return netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes(), announcePort)
}

// Listen opens the IPv4 socket of one LAN interface: UDP port 5351 on all
// addresses, bound to the device. Not on the LAN address alone, because then the
// kernel would answer what a client sends to our external address with an ICMP
// error, where silence is asked for (RFC 6886 section 3). The port is not shared:
// of two servers on one machine one must lie.
//
// The interface must exist; kernels before 5.7 require CAP_NET_RAW. The error wraps
// the system's: unix.EADDRINUSE when another program has the port.
func Listen(ctx context.Context, ifname string) (*net.UDPConn, error) {
	udp, err := datagram.Listen(ctx, ifname, Port, datagram.MulticastOptions4(1))
	return udp, explain(err, ifname)
}

// Listen6 is Listen for IPv6 alone: its clients ask link-local addresses and
// others.
func Listen6(ctx context.Context, ifname string) (*net.UDPConn, error) {
	udp, err := datagram.Listen6(ctx, ifname, Port, datagram.MulticastOptions6(1))
	return udp, explain(err, ifname)
}

// explain returns in the operator's terms why the port could not be opened.
func explain(err error, ifname string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("pcp: UDP port %d on %s is held by another program "+
			"(is another NAT-PMP or PCP server running?); stop it, or set pcp.natpmp and pcp.pcp to false: %w", Port, ifname, err)
	}
	return fmt.Errorf("pcp: open UDP port %d on %s: %w", Port, ifname, err)
}
