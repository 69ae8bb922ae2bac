package datagram

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Option is an integer option of a socket.
type Option struct {
	Level, Name, Value int
	Text               string // its name, for errors
}

// MulticastOptions4 returns the options that keep what a socket sends to a group
// within hops, and from coming back to us.
func MulticastOptions4(hops int) []Option {
	return []Option{
		{unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, hops, "IP_MULTICAST_TTL"},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0, "IP_MULTICAST_LOOP"},
	}
}

// MulticastOptions6 is MulticastOptions4 for IPv6.
func MulticastOptions6(hops int) []Option {
	return []Option{
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops, "IPV6_MULTICAST_HOPS"},
		{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0, "IPV6_MULTICAST_LOOP"},
	}
}

// Listen opens a UDP port for IPv4 on all addresses, bound to an interface, with
// options that are set before the port is taken. The interface must exist; kernels
// before 5.7 require CAP_NET_RAW. The error wraps the system's.
func Listen(ctx context.Context, ifname string, port uint16, options []Option) (*net.UDPConn, error) {
	return listen(ctx, netip.IPv4Unspecified(), port, ifname, options)
}

// Listen6 is Listen for IPv6 alone.
func Listen6(ctx context.Context, ifname string, port uint16, options []Option) (*net.UDPConn, error) {
	return listen(ctx, netip.IPv6Unspecified(), port, ifname, options)
}

func listen(ctx context.Context, at netip.Addr, port uint16, ifname string, options []Option) (*net.UDPConn, error) {
	return sockets.ListenUDP(ctx, netip.AddrPortFrom(at, port), func(fd int) error { return setOptions(fd, ifname, options) })
}

func setOptions(fd int, ifname string, options []Option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.Level, o.Name, o.Value); err != nil {
			return fmt.Errorf("set %s: %w", o.Text, err)
		}
	}
	switch err := unix.BindToDevice(fd, ifname); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("binding to a device needs CAP_NET_RAW on this kernel: %w", err)
	case err != nil:
		return fmt.Errorf("bind to the device: %w", err)
	}
	return nil
}
