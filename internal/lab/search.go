package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/ipv6"
)

// The groups of discovery (UDA 2.0 sections 1.1 and A).
var (
	Group4          = netip.MustParseAddrPort("239.255.255.250:1900")
	Group6LinkLocal = netip.MustParseAddrPort("[ff02::c]:1900")
	Group6SiteLocal = netip.MustParseAddrPort("[ff05::c]:1900")
)

// siteHops is the hop limit for the site-local group, which the standard
// proposes; the link's own is 1.
const siteHops = 10

// Search is an M-SEARCH.
type Search struct {
	Target string         // ST
	To     netip.AddrPort // zero is the IPv4 group
	Source netip.Addr     // zero: link-local towards a link-local address, else global
}

// Found is what a search is answered with.
type Found struct {
	From   netip.AddrPort
	Header http.Header
}

// Location is the URL of the device description.
func (f Found) Location() string { return f.Header.Get("Location") }

// Search sends an M-SEARCH and returns the LOCATION of the first answer. An
// invalid to means the IPv4 group.
func (c *ControlPoint) Search(ctx context.Context, target string, to netip.AddrPort) (string, error) {
	found, err := c.Discover(ctx, Search{Target: target, To: to})
	return found.Location(), err
}

// searchAgain is when a search without an answer is sent again: datagrams get lost,
// and whoever searches must reckon with it (UDA 2.0 section 1.3.2).
const searchAgain = time.Second

// Discover sends an M-SEARCH, again each second, and returns the first answer.
func (c *ControlPoint) Discover(ctx context.Context, s Search) (Found, error) {
	if !s.To.IsValid() {
		s.To = Group4
	}
	if !s.Source.IsValid() {
		s.Source = c.Host.facing(s.To.Addr())
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return Found{}, errors.New("lab: a search needs a deadline")
	}
	if !s.Source.IsValid() {
		return Found{}, fmt.Errorf("lab: %s has no address to search from", c.Host.Name)
	}
	conn, err := c.Host.ListenPacket(netip.AddrPortFrom(s.Source, 0).String())
	if err != nil {
		return Found{}, err
	}
	defer conn.Close()
	to := netip.AddrPortFrom(c.Host.Zoned(s.To.Addr()), s.To.Port())
	if to.Addr().Is6() && to.Addr().IsMulticast() {
		if err := c.Host.sendsTo(ipv6.NewPacketConn(conn), to.Addr()); err != nil {
			return Found{}, fmt.Errorf("lab: multicast: %w", err)
		}
	}
	buf := make([]byte, 2048)
	n, from, err := s.ask(conn, to, buf, deadline)
	if err != nil {
		return Found{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(buf[:n])), nil)
	if err != nil {
		return Found{}, fmt.Errorf("lab: search answer: %w", err)
	}
	defer resp.Body.Close()
	return Found{plain(from), resp.Header}, nil
}

// ask returns the first answer's size and sender.
func (s Search) ask(conn *net.UDPConn, to netip.AddrPort, buf []byte, deadline time.Time) (int, netip.AddrPort, error) {
	for {
		if _, err := conn.WriteToUDPAddrPort(s.message(), to); err != nil {
			return 0, netip.AddrPort{}, err
		}
		until := time.Now().Add(searchAgain)
		if until.After(deadline) {
			until = deadline
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return 0, netip.AddrPort{}, err
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err == nil {
			return n, from, nil
		}
		if !time.Now().Before(deadline) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, netip.AddrPort{}, ErrSilence
		}
	}
}

// message is the datagram. HOST names the group, in capitals as clients write it;
// a search that is sent to one address names that (UDA 1.1 section 1.3.2), but by
// IPv4 it names the group as many clients do.
func (s Search) message() []byte {
	host := s.To
	if host.Addr().Is4() {
		host = Group4
	}
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: " + strings.ToUpper(plain(host).String()) +
		"\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + s.Target + "\r\n\r\n")
}

// sendsTo sets a socket up for a group: the host's own interface, and as many
// hops as its scope has.
func (h *Host) sendsTo(conn *ipv6.PacketConn, group netip.Addr) error {
	hops := 1
	if !group.IsLinkLocalMulticast() {
		hops = siteHops
	}
	return errors.Join(conn.SetMulticastInterface(h.link()), conn.SetMulticastHopLimit(hops))
}
