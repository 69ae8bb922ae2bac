package gena

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
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
	return sockets.DialTCP(ctx, local, to, func(fd int) error {
		if err := unix.BindToDevice(fd, ifname); err != nil {
			return fmt.Errorf("bind to %s: %w", ifname, err)
		}
		return nil
	})
}
