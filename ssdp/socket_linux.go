package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"portcullis/internal/datagram"
)

// How far notifications may travel (UDA 2.0 section 1.1.1). Over IPv6 each datagram
// has its own limit.
const (
	multicastTTL = 2
	linkHops     = 1
)

// Listen opens the discovery socket of one LAN interface for IPv4: UDP port 1900
// on all addresses, because a socket bound to 192.168.1.1 never sees a datagram to the
// group; bound to the device, and a member of 239.255.255.250 there. Other
// programs may hold the port too if they share it (minidlna, minissdpd, another
// Portcullis): each gets its own copy of every multicast search. A unicast search
// that comes in by this interface goes to one socket only: this one, because it
// is bound to the device, but not if a program that set SO_REUSEPORT bound the
// port later. Linux ends its search for the best socket at the first such one,
// newest first (measured on 6.18). Only a socket bound to the LAN address itself
// could prevent that; clients search by multicast as well.
//
// The interface must exist; kernels before 5.7 require CAP_NET_RAW. The error wraps
// the system's: unix.EADDRINUSE when a program holds the port without sharing it.
func Listen(ctx context.Context, ifname string) (*net.UDPConn, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("ssdp: interface %s: %w", ifname, err)
	}
	// Only groups this very socket joined, on the interface it joined them.
	own := datagram.Option{Level: unix.IPPROTO_IP, Name: unix.IP_MULTICAST_ALL, Text: "IP_MULTICAST_ALL"}
	options := append(datagram.MulticastOptions4(multicastTTL), own)
	udp, err := datagram.Listen(ctx, ifname, Group.Port(), append(options, sharing...))
	if err != nil {
		return nil, explain(err, ifname)
	}
	return joined(udp, ifi, Group)
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
	own := datagram.Option{Level: unix.IPPROTO_IPV6, Name: unix.IPV6_MULTICAST_ALL, Text: "IPV6_MULTICAST_ALL"}
	options := append(datagram.MulticastOptions6(linkHops), own)
	udp, err := datagram.Listen6(ctx, ifname, Group.Port(), append(options, sharing...))
	if err != nil {
		return nil, explain(err, ifname)
	}
	return joined(udp, ifi, GroupLink, GroupSite)
}

// sharing is what decides about sharing the port. Linux lets two sockets have a
// UDP port when both set SO_REUSEADDR, or when both set SO_REUSEPORT and have
// one owner; other programs use the one or the other, so we set both. A group
// that divides unicast among its members (SO_REUSEPORT) only forms between
// sockets bound to the same device: two of ours, for the moment of a restart.
var sharing = []datagram.Option{
	{Level: unix.SOL_SOCKET, Name: unix.SO_REUSEADDR, Value: 1, Text: "SO_REUSEADDR"},
	{Level: unix.SOL_SOCKET, Name: unix.SO_REUSEPORT, Value: 1, Text: "SO_REUSEPORT"},
}

// joined returns the socket as a member of groups, or closes it.
func joined(udp *net.UDPConn, ifi *net.Interface, groups ...netip.AddrPort) (*net.UDPConn, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	for _, group := range groups {
		var refused error
		err := raw.Control(func(fd uintptr) { refused = join(int(fd), ifi.Index, group.Addr()) })
		if err = errors.Join(err, refused); err != nil {
			err = fmt.Errorf("ssdp: join %s on %s: %w", group.Addr(), ifi.Name, err)
			return nil, errors.Join(err, udp.Close())
		}
	}
	return udp, nil
}

func join(fd, ifindex int, group netip.Addr) error {
	if group.Is4() {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(ifindex)})
	}
	return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
		&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(ifindex)})
}

// explain returns in the operator's terms why the port could not be opened.
func explain(err error, ifname string) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("ssdp: UDP port %d on %s is held by a program that does not share it "+
			"(neither SO_REUSEADDR nor SO_REUSEPORT); stop it or give it another interface: %w",
			Group.Port(), ifname, err)
	}
	return fmt.Errorf("ssdp: open UDP port %d on %s: %w", Group.Port(), ifname, err)
}
