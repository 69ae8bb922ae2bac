package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects from the host. The address must be a literal. A link-local one
// without a zone is on the host's own link.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.DialFrom(ctx, netip.AddrPort{}, network, addr)
}

// DialFrom is Dial from one address of the host. Port 0 is any port, and the
// zero value any address.
func (h *Host) DialFrom(ctx context.Context, source netip.AddrPort, network, addr string) (net.Conn, error) {
	addr, err := h.literal(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	if source.IsValid() {
		source = netip.AddrPortFrom(h.Zoned(source.Addr()), source.Port())
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = net.UDPAddrFromAddrPort(source)
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(source)
		}
	}
	// A TCP handshake may take long; opening and connecting are one call in
	// package net, so each dial gets a thread of its own in the namespace.
	var conn net.Conn
	err = h.space.In(func() (err error) {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen opens a TCP listener on the host, for the family of the address.
func (h *Host) Listen(addr string) (l net.Listener, err error) {
	if addr, err = h.literal(addr); err != nil {
		return nil, err
	}
	err = h.bound(func() error {
		l, err = net.Listen("tcp"+family(addr), addr)
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket on the host, for the family of the address.
func (h *Host) ListenPacket(addr string) (c *net.UDPConn, err error) {
	if addr, err = h.literal(addr); err != nil {
		return nil, err
	}
	err = h.bound(func() error {
		pc, err := net.ListenPacket("udp"+family(addr), addr)
		if err == nil {
			c = pc.(*net.UDPConn)
		}
		return err
	})
	return c, err
}

// bound opens a socket on the host. One that was closed a moment ago may still be
// there: a program that is being started elsewhere in this process has it until it
// has become itself (fork, then exec).
func (h *Host) bound(open func() error) error {
	const tries, pause = 100, 10 * time.Millisecond
	for n := 1; ; n++ {
		err := h.Do(open)
		if n == tries || !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		time.Sleep(pause)
	}
}

// family is what package net writes behind the protocol. IPv6 sockets are for
// IPv6 alone.
func family(addr string) string {
	if strings.HasPrefix(addr, "[") {
		return "6"
	}
	return "4"
}

// Zoned returns an address as a socket of the host needs it: one that means
// nothing without a link gets the zone of the host's own interface.
//
// The zone is a number. Package net keeps one table of names for the whole
// process, and our hosts have an eth0 each.
func (h *Host) Zoned(a netip.Addr) netip.Addr {
	if a.Is6() && a.Zone() == "" && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast()) {
		return a.WithZone(strconv.Itoa(h.index))
	}
	return a
}

// literal puts the right zone into host:port; the zone may be there as a name.
func (h *Host) literal(addr string) (string, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		if strings.HasPrefix(addr, ":") {
			return addr, nil // every IPv4 address
		}
		return "", fmt.Errorf("lab: %w", err)
	}
	a := ap.Addr()
	if zone := a.Zone(); zone != "" && strings.Trim(zone, "0123456789") != "" {
		index, err := h.space.Index(zone)
		if err != nil {
			return "", fmt.Errorf("lab: zone %s: %w", zone, err)
		}
		a = a.WithZone(strconv.Itoa(index))
	}
	return netip.AddrPortFrom(h.Zoned(a), ap.Port()).String(), nil
}

// learnIndex looks up the number of the host's own interface.
func (h *Host) learnIndex() (err error) {
	h.index, err = h.space.Index(h.ifname)
	return err
}

// plain is an endpoint as the house has them: no zone, and IPv4 as IPv4.
func plain(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().WithZone("").Unmap(), ap.Port())
}
