package httpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Listen opens a TCP listener that only packets arriving by one interface can
// reach, whatever address they name (abuse cases A1, A2, A7): it is bound to the
// device. With the interface's own address it is bound to that too; with the
// unspecified IPv6 address it serves the addresses of IPv6, and Config.Accept must
// say which of them are meant.
func Listen(ctx context.Context, ifname string, addr netip.AddrPort) (net.Listener, error) {
	l, err := sockets.ListenTCP(ctx, addr, func(fd int) error { return unix.BindToDevice(fd, ifname) })
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
