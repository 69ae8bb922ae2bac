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

// Dial connects to a subscriber out of the interface with this name, and from an address
// of ours there, any where local is zero. So the routing table has no say: an address
// that is on the LAN now and behind the WAN a minute later is not followed there. The
// name must be known; there is no unbound connection. A Notifier never calls it: whoever
// may open sockets does (Config.Dial).
func Dial(ctx context.Context, ifname string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	if ifname == "" {
		return nil, errNoInterface
	}
	d := net.Dialer{
		KeepAlive: -1, // the connection lives for seconds
		Control: func(_, _ string, c syscall.RawConn) error {
			var bind error
			if err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), ifname) }); err != nil {
				return err
			}
			if bind != nil {
				return fmt.Errorf("bind to %s: %w", ifname, bind)
			}
			return nil
		},
	}
	if local.IsValid() {
		// A link-local one needs no zone: the socket is bound to the interface first.
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", to.String()) // a literal: nothing is looked up
}
