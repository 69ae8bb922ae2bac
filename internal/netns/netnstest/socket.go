package netnstest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"
)

// family returns the network of an address and port for package net: "udp6".
func family(transport, addr string) string {
	if strings.HasPrefix(addr, "[") {
		return transport + "6"
	}
	return transport + "4"
}

// UDP binds a socket until the test ends. What was closed cannot be bound again at
// once: a program that another test just starts has a copy until it is loaded.
func (s *Space) UDP(addr string) *net.UDPConn {
	s.t.Helper()
	c, err := s.Space.UDP(netip.MustParseAddrPort(addr))
	s.must(err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Listen listens on a TCP port until the test ends.
func (s *Space) Listen(addr string) *net.TCPListener {
	s.t.Helper()
	var l *net.TCPListener
	s.Must(func() (err error) {
		l, err = net.ListenTCP(family("tcp", addr), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	s.t.Cleanup(func() { _ = l.Close() })
	return l
}

// Echo answers on a TCP port with what it gets, until the test ends.
func (s *Space) Echo(addr string) {
	s.t.Helper()
	l := s.Listen(addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

// Dial connects to a TCP port from an address of the namespace, with or without a
// port, and closes with the test.
func (s *Space) Dial(from, to string, within time.Duration) (net.Conn, error) {
	var c net.Conn
	err := s.In(func() (err error) {
		local, err := net.ResolveTCPAddr(family("tcp", to), from) // a literal
		if err != nil {
			local = &net.TCPAddr{IP: net.ParseIP(strings.Trim(from, "[]"))}
		}
		d := net.Dialer{LocalAddr: local, Timeout: within}
		c, err = d.DialContext(context.Background(), family("tcp", to), to)
		return err
	})
	if err == nil {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// Say sends a text over a connection and waits for its echo.
func Say(c net.Conn, text string, within time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	if err == nil && string(buf) != text {
		return errors.New("another echo: " + string(buf))
	}
	return err
}

// Probe sends to a UDP port and returns the error that comes back: that of ICMP, or
// of the deadline.
func (s *Space) Probe(to string, within time.Duration) error {
	s.t.Helper()
	var c *net.UDPConn
	s.Must(func() (err error) {
		c, err = net.DialUDP(family("udp", to), nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	})
	defer c.Close()
	if _, err := c.Write([]byte("probe")); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := c.Read(make([]byte, 10))
	return err
}

// Ping waits for the ICMPv6 answer of a host, "[2001:db8::1]".
func (s *Space) Ping(host string, within time.Duration) error {
	s.t.Helper()
	var c net.PacketConn
	s.Must(func() (err error) {
		c, err = net.ListenPacket("ip6:ipv6-icmp", "::")
		return err
	})
	defer c.Close()
	const request, reply = 128, 129
	id := rand.N[uint16](1 << 15)
	to := netip.MustParseAddr(strings.Trim(host, "[]"))
	if _, err := c.WriteTo([]byte{request, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	for buf := make([]byte, 100); ; {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if n > 6 && buf[0] == reply && buf[4] == byte(id>>8) && buf[5] == byte(id) && from.String() == to.String() {
			return nil
		}
	}
}
