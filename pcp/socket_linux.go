package pcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Port is where both languages are spoken (RFC 6886 section 3.1, RFC 6887
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
// of two gates on one machine one must lie.
//
// It needs the interface to exist, and CAP_NET_RAW on kernels before 5.7. The
// error says what is wrong in a sentence and wraps the system's:
// unix.EADDRINUSE when another program has the port.
func Listen(ctx context.Context, ifname string) (*net.UDPConn, error) {
	return listen(ctx, ifname, "udp4", "0.0.0.0", func(udp *net.UDPConn) error {
		p := ipv4.NewPacketConn(udp)
		return errors.Join(p.SetMulticastTTL(1), p.SetMulticastLoopback(false))
	})
}

// Listen6 is Listen for IPv6 alone: its clients ask link-local addresses and
// others.
func Listen6(ctx context.Context, ifname string) (*net.UDPConn, error) {
	return listen(ctx, ifname, "udp6", "[::]", func(udp *net.UDPConn) error {
		p := ipv6.NewPacketConn(udp)
		return errors.Join(p.SetMulticastHopLimit(1), p.SetMulticastLoopback(false))
	})
}

// listen opens a socket; multicast makes what it announces stay on the link, and
// not come back to us.
func listen(ctx context.Context, ifname, network, host string, multicast func(*net.UDPConn) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
		return errors.Join(err, failed)
	}}
	pc, err := lc.ListenPacket(ctx, network, fmt.Sprintf("%s:%d", host, Port)) // "udp6" is V6ONLY
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("pcp: UDP port %d on %s is held by another program "+
			"(is another NAT-PMP or PCP server running?); stop it, or set pcp.natpmp and pcp.pcp to false: %w", Port, ifname, err)
	case err != nil:
		return nil, fmt.Errorf("pcp: open UDP port %d on %s: %w", Port, ifname, err)
	}
	udp := pc.(*net.UDPConn) // what these networks give, by contract of package net
	if err := multicast(udp); err != nil {
		return nil, errors.Join(fmt.Errorf("pcp: multicast on %s: %w", ifname, err), udp.Close())
	}
	return udp, nil
}
