package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens a TCP listener that only packets arriving by one interface can
// reach, whatever address they name (abuse cases A1, A2, A7): it is bound to the
// device. With the interface's own address it is bound to that too; with the
// unspecified IPv6 address it serves the addresses of IPv6, and Config.Accept must
// say which of them are meant.
func Listen(ctx context.Context, ifname string, addr netip.AddrPort) (net.Listener, error) {
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var sockErr error
		err := c.Control(func(fd uintptr) {
			sockErr = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifname)
			if sockErr == nil && network == "tcp6" {
				sockErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
			}
		})
		return errors.Join(err, sockErr)
	}}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, network, addr.String())
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("TCP port %d on %s is taken by another program; set upnp.http_port to a free one, or stop that program: %w",
			addr.Port(), ifname, err)
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("a socket cannot be bound to %s: CAP_NET_RAW is missing: %w", ifname, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s of %s: %w", addr, ifname, err)
	}
	return l, nil
}
