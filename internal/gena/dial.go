package gena

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

var errNoInterface = errors.New("the subscriber's interface is not known")

// dialBound connects to a subscriber out of the interface it came in by, and
// from the address it talked to. So the routing table has no say: an address
// that is on the LAN now and behind the WAN a minute later is not followed there.
// The name must be known; there is no unbound connection.
func dialBound(ctx context.Context, sub Subscriber, to netip.AddrPort) (net.Conn, error) {
	if sub.Interface == "" {
		return nil, errNoInterface
	}
	d := net.Dialer{
		KeepAlive: -1, // the connection lives for seconds
		Control: func(_, _ string, c syscall.RawConn) error {
			var bind error
			if err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), sub.Interface) }); err != nil {
				return err
			}
			if bind != nil {
				return fmt.Errorf("bind to %s: %w", sub.Interface, bind)
			}
			return nil
		},
	}
	if sub.Local.IsValid() {
		// A link-local one needs no zone: the socket is bound to the interface first.
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(sub.Local, 0))
	}
	return d.DialContext(ctx, "tcp", to.String()) // a literal: nothing is looked up
}
