package pcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Port is where both languages are spoken (RFC 6886 section 3.1, RFC 6887
// section 19.1).
const Port = 5351

// announceTo is where announcements go: all hosts of the link (RFC 6886 section
// 3.2.1, RFC 6887 section 14.1.3).
var announceTo = netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 1}), 5350)

// Listen opens the socket of one LAN interface: UDP port 5351 on all addresses,
// bound to the device. Not on the LAN address alone, because then the kernel
// would answer what a client sends to our external address with an ICMP error,
// where silence is asked for (RFC 6886 section 3). The port is not shared: of two
// gates on one machine one must lie.
//
// It needs the interface to exist, and CAP_NET_RAW on kernels before 5.7. The
// error says what is wrong in a sentence and wraps the system's:
// unix.EADDRINUSE when another program has the port.
func Listen(ctx context.Context, ifname string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
		return errors.Join(err, failed)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", Port))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("pcp: UDP port %d on %s is held by another program "+
			"(is another NAT-PMP or PCP server running?); stop it, or set pcp.natpmp and pcp.pcp to false: %w", Port, ifname, err)
	case err != nil:
		return nil, fmt.Errorf("pcp: open UDP port %d on %s: %w", Port, ifname, err)
	}
	udp := pc.(*net.UDPConn) // what "udp4" gives, by contract of package net
	p := ipv4.NewPacketConn(udp)
	// Announcements are for the link (224.0.0.1 goes no further anyhow), and need
	// not come back to us.
	if err := errors.Join(p.SetMulticastTTL(1), p.SetMulticastLoopback(false)); err != nil {
		return nil, errors.Join(fmt.Errorf("pcp: multicast on %s: %w", ifname, err), udp.Close())
	}
	return udp, nil
}
