package ssdp

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

// multicastTTL is how far notifications may travel (UDA 2.0 section 1.1.1).
const multicastTTL = 2

// Listen opens the discovery socket of one LAN interface for IPv4: UDP port 1900
// on all addresses, bound to the device, a member of 239.255.255.250 there. Other
// programs may hold the port too if they share it (minidlna, minissdpd, another
// Portcullis): each gets its own copy of every multicast search. A unicast search
// that comes in by this interface goes to one socket only: this one, because it
// is bound to the device, but not if a program that set SO_REUSEPORT bound the
// port later. Linux ends its search for the best socket at the first such one,
// newest first (measured on 6.18). Only a socket bound to the LAN address itself
// could prevent that; clients search by multicast as well.
//
// It needs the interface to exist, and CAP_NET_RAW on kernels before 5.7. The
// error says what is wrong in a sentence and wraps the system's:
// unix.EADDRINUSE when a program holds the port without sharing it.
func Listen(ctx context.Context, ifname string) (*net.UDPConn, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("ssdp: interface %s: %w", ifname, err)
	}
	// Only groups this very socket joined, on the interface it joined them.
	own := option{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL"}
	udp, err := listen(ctx, ifname, "udp4", "0.0.0.0", own)
	if err != nil {
		return nil, err
	}
	if err := join(udp, ifi); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return udp, nil
}

// Listen6 is Listen for IPv6 alone, a member of FF02::C and FF05::C. Among IPv6
// sockets Linux looks at those that set SO_REUSEPORT oldest first (measured on
// 6.18): the program that takes unicast searches from us is one that bound the
// port before.
func Listen6(ctx context.Context, ifname string) (*net.UDPConn, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("ssdp: interface %s: %w", ifname, err)
	}
	own := option{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0, "IPV6_MULTICAST_ALL"}
	udp, err := listen(ctx, ifname, "udp6", "[::]", own) // "udp6" is V6ONLY
	if err != nil {
		return nil, err
	}
	if err := join6(udp, ifi); err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return udp, nil
}

// listen opens port 1900 on the wildcard address, because a socket bound to
// 192.168.1.1 never sees a datagram to the group. The device and Server's checks
// keep strangers out.
func listen(ctx context.Context, ifname, network, host string, own option) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = setBeforeBind(int(fd), ifname, own) })
		return errors.Join(err, failed)
	}}
	pc, err := lc.ListenPacket(ctx, network, fmt.Sprintf("%s:%d", host, Group.Port()))
	if err != nil {
		return nil, explain(err, ifname)
	}
	return pc.(*net.UDPConn), nil // what these networks give, by contract of package net
}

// option is a socket option.
type option struct {
	level, name, value int
	what               string
}

// setBeforeBind sets what decides about sharing. Linux lets two sockets have a
// UDP port when both set SO_REUSEADDR, or when both set SO_REUSEPORT and have
// one owner; other programs use the one or the other, so we set both. A group
// that divides unicast among its members (SO_REUSEPORT) only forms between
// sockets bound to the same device: two of ours, for the moment of a restart.
func setBeforeBind(fd int, ifname string, own option) error {
	for _, o := range []option{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		own,
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.what, err)
		}
	}
	if err := unix.BindToDevice(fd, ifname); err != nil {
		return fmt.Errorf("bind to the device: %w", err)
	}
	return nil
}

// join makes the socket hear the group on its interface and speak to it in the
// way UDA wants. By which interface it speaks, the device it is bound to says.
func join(udp *net.UDPConn, ifi *net.Interface) error {
	p := ipv4.NewPacketConn(udp)
	group := net.UDPAddrFromAddrPort(Group)
	if err := p.JoinGroup(ifi, group); err != nil {
		return fmt.Errorf("ssdp: join %s on %s: %w", Group.Addr(), ifi.Name, err)
	}
	if err := p.SetMulticastTTL(multicastTTL); err != nil {
		return fmt.Errorf("ssdp: multicast TTL: %w", err)
	}
	// Off: what we announce is for the LAN, and need not come back to us.
	if err := p.SetMulticastLoopback(false); err != nil {
		return fmt.Errorf("ssdp: multicast loop: %w", err)
	}
	return nil
}

// join6 is join for both groups. How far a notification may travel, the datagram
// itself says.
func join6(udp *net.UDPConn, ifi *net.Interface) error {
	p := ipv6.NewPacketConn(udp)
	for _, group := range []netip.AddrPort{GroupLink, GroupSite} {
		if err := p.JoinGroup(ifi, net.UDPAddrFromAddrPort(group)); err != nil {
			return fmt.Errorf("ssdp: join %s on %s: %w", group.Addr(), ifi.Name, err)
		}
	}
	if err := p.SetMulticastLoopback(false); err != nil {
		return fmt.Errorf("ssdp: multicast loop: %w", err)
	}
	return nil
}

// explain says in the operator's terms why the port could not be had.
func explain(err error, ifname string) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("ssdp: UDP port %d on %s is held by a program that does not share it "+
			"(neither SO_REUSEADDR nor SO_REUSEPORT); stop it or give it another interface: %w",
			Group.Port(), ifname, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("ssdp: UDP port %d on %s may not be opened: "+
			"binding to a device needs CAP_NET_RAW on this kernel: %w", Group.Port(), ifname, err)
	}
	return fmt.Errorf("ssdp: open UDP port %d on %s: %w", Group.Port(), ifname, err)
}
