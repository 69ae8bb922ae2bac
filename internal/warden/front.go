package warden

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/frames"
	"portcullis/internal/httpd"
	"portcullis/internal/journal"
	"portcullis/internal/netif"
	"portcullis/pcp"
	"portcullis/portmap"
	"portcullis/ssdp"
)

// What follows is for the front: see front.Warden and front.Sockets.

// Map is portmap.Engine.Map, for a host that asks: the kernel has seen it do so. What the
// client is called is what its DHCP server says.
func (w *Warden) Map(ctx context.Context, r portmap.Request) (portmap.Mapping, error) {
	if err := w.asks(ctx, &r.Client); err != nil {
		return portmap.Mapping{}, err
	}
	r.Client.Name = w.host(&r.Client)
	defer w.timed(time.Now())
	return w.engine.Map(ctx, r)
}

func (w *Warden) timed(begun time.Time) { w.durations.Observe(time.Since(begun)) }

// MapSet is portmap.Engine.MapSet, likewise.
func (w *Warden) MapSet(ctx context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	if err := w.asks(ctx, &r.Client); err != nil {
		return nil, err
	}
	r.Client.Name = w.host(&r.Client)
	defer w.timed(time.Now())
	return w.engine.MapSet(ctx, r, n)
}

// Unmap is portmap.Engine.Unmap.
func (w *Warden) Unmap(ctx context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	return w.engine.Unmap(ctx, s)
}

// Events returns how the mappings change, until ctx ends.
func (w *Warden) Events(ctx context.Context) <-chan portmap.Event {
	watcher := w.engine.Watch(256)
	context.AfterFunc(ctx, watcher.Close)
	return watcher.C
}

// UUID returns the gateway's own for UPnP.
func (w *Warden) UUID() string { return w.identity.UUID() }

// Path returns the part of its URLs that nobody can guess.
func (w *Warden) Path() string { return w.identity.Path() }

// NextBootID returns a BOOTID.UPNP.ORG greater than last and every one before.
func (w *Warden) NextBootID(last uint32) uint32 { return w.identity.NextBootID(last) }

// KeepEpochs keeps for the next run when the epochs of IPv4 and IPv6 began.
func (w *Warden) KeepEpochs(four, six time.Time) {
	w.store.KeepEpochs(journal.Epochs{V4: four, V6: six})
}

// Uplink returns how the Internet reaches the gateway now: by IPv4, and whether by IPv6.
func (w *Warden) Uplink() (four portmap.WAN, six bool) {
	v := w.network.View()
	return v.WAN(), v.WAN6Up
}

// LANs returns the interfaces to serve, by name.
func (w *Warden) LANs() map[string]netif.LAN { return w.network.LANs() }

// Packets returns how many packets have come in by a mapping.
func (w *Warden) Packets(ctx context.Context, m portmap.Mapping) (uint64, error) {
	c, err := w.firewall.Counter(ctx, m.ID)
	return c.Packets, err
}

// OutboundTimeout returns how long answers come in after the last packet of what a host
// began itself.
func (w *Warden) OutboundTimeout(tr portmap.Transport) (time.Duration, error) {
	return w.firewall.OutboundTimeout(tr)
}

// Heard reports whether a device has answered the kernel in this run.
func (w *Warden) Heard(mac portmap.MAC) bool { return w.hosts.Heard(mac) }

// Suspect has the rules looked at by which senders are seen, where it is rules.
func (w *Warden) Suspect() {
	if w.witness == nil {
		return
	}
	if way, _ := w.witness.Way(); way != witness.PacketSocket {
		w.rules.Suspect()
	}
}

// SeesSenders reports whether it can be seen which machine sent a datagram.
func (w *Warden) SeesSenders() bool { return w.witness != nil }

// Discovery opens the socket of SSDP on a LAN.
func (w *Warden) Discovery(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error) {
	return connOf(w.OpenDiscovery, ctx, l, six)
}

// PortControl opens the socket of NAT-PMP and PCP on a LAN, where SeesSenders.
func (w *Warden) PortControl(ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error) {
	return connOf(w.OpenPortControl, ctx, l, six)
}

func connOf(open func(context.Context, netif.LAN, bool) (frames.Socket, error), ctx context.Context, l netif.LAN, six bool) (datagram.Conn, error) {
	s, err := open(ctx, l, six)
	if err != nil {
		return nil, err
	}
	return s.Conn(l.Index, six)
}

// made opens what the front gets, as the front's user: the firewall has it send to the LANs
// alone, though IP_PKTINFO names another interface than the socket is bound to (ip(7)). So
// many at once: each has a thread.
func made[T any](ctx context.Context, w *Warden, turns chan struct{}, open func() (T, error)) (t T, err error) {
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return t, context.Cause(ctx)
	}
	err = w.user.Make(func() (err error) {
		t, err = open()
		return err
	})
	return t, err
}

// OpenDiscovery is Discovery for a front that is another process.
func (w *Warden) OpenDiscovery(ctx context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	listen := ssdp.Listen
	if six {
		listen = ssdp.Listen6
	}
	udp, err := made(ctx, w, w.opening, func() (*net.UDPConn, error) { return listen(ctx, l.Name) })
	if err != nil || w.witness == nil {
		return frames.Socket{UDP: udp}, passing(l.Name, err)
	}
	return w.witness.Marked(udp)
}

// OpenPortControl is PortControl for a front that is another process.
func (w *Warden) OpenPortControl(ctx context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	if w.witness == nil {
		return frames.Socket{}, errNoWitness
	}
	listen := pcp.Listen
	if six {
		listen = pcp.Listen6
	}
	udp, err := made(ctx, w, w.opening, func() (*net.UDPConn, error) { return listen(ctx, l.Name) })
	if err != nil || l.MAC == [6]byte{} {
		return frames.Socket{UDP: udp}, passing(l.Name, err)
	}
	return w.witness.Ready(udp, witness.Place{Ifindex: l.Index, IPv6: six, Port: pcp.Port})
}

var errNoWitness = errors.New("it cannot be seen which machine sends a datagram")

// HTTP opens the socket of descriptions and actions on a LAN at an address of it.
func (w *Warden) HTTP(ctx context.Context, l netif.LAN, addr netip.AddrPort) (net.Listener, error) {
	listener, err := made(ctx, w, w.opening, func() (net.Listener, error) { return httpd.Listen(ctx, l.Name, addr) })
	return listener, passing(l.Name, err)
}

// passing joins netif.ErrGone to the error of a socket that only says that its interface
// or its address has just gone.
func passing(name string, err error) error {
	if err == nil {
		return nil
	}
	_, gone := net.InterfaceByName(name)
	if gone != nil || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", netif.ErrGone, err)
	}
	return err
}
