package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Probe sends a real packet (UDP) or opens a connection (TCP) from a host to an
// address, and says whether the receiver that listens at internal on the other
// host got it, and from whom. A false answer without an error means that
// nothing arrived before patience ran out, or that the sender was refused.
func Probe(ctx context.Context, protocol string, from *Host, to netip.AddrPort, receiver *Host, internal uint16, patience time.Duration) (bool, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at := fmt.Sprintf("0.0.0.0:%d", internal)
	switch protocol {
	case "UDP":
		return probeUDP(ctx, from, to, receiver, at)
	case "TCP":
		return probeTCP(ctx, from, to, receiver, at)
	}
	return false, netip.AddrPort{}, fmt.Errorf("lab: protocol %q", protocol)
}

func probeUDP(ctx context.Context, from *Host, to netip.AddrPort, receiver *Host, at string) (bool, netip.AddrPort, error) {
	in, err := receiver.ListenPacket(at)
	if err != nil {
		return false, netip.AddrPort{}, err
	}
	defer in.Close()
	out, err := from.Dial(ctx, "udp4", to.String())
	if err != nil {
		return false, netip.AddrPort{}, err
	}
	defer out.Close()
	token := []byte(rand.Text())
	// The first datagram may be lost while the neighbour is being resolved.
	deadline, _ := ctx.Deadline()
	buf := make([]byte, 64)
	for time.Now().Before(deadline) {
		if _, err := out.Write(token); err != nil {
			return false, netip.AddrPort{}, nil // an ICMP error came back: refused
		}
		step := time.Now().Add(100 * time.Millisecond)
		if step.After(deadline) {
			step = deadline
		}
		if err := in.SetReadDeadline(step); err != nil {
			return false, netip.AddrPort{}, err
		}
		for {
			n, src, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if bytes.Equal(buf[:n], token) {
				return true, src, nil
			}
		}
	}
	return false, netip.AddrPort{}, nil
}

func probeTCP(ctx context.Context, from *Host, to netip.AddrPort, receiver *Host, at string) (bool, netip.AddrPort, error) {
	l, err := receiver.Listen(at)
	if err != nil {
		return false, netip.AddrPort{}, err
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	conn, dialErr := from.Dial(ctx, "tcp4", to.String())
	if dialErr != nil {
		l.Close()
		if got := <-accepted; got != nil {
			got.Close()
		}
		var refused *net.OpError
		if errors.As(dialErr, &refused) {
			return false, netip.AddrPort{}, nil // timed out or reset
		}
		return false, netip.AddrPort{}, dialErr
	}
	defer conn.Close()
	defer l.Close()
	select {
	case got := <-accepted:
		if got == nil {
			return false, netip.AddrPort{}, nil
		}
		defer got.Close()
		src, err := netip.ParseAddrPort(got.RemoteAddr().String())
		return err == nil, src, err
	case <-ctx.Done():
		return false, netip.AddrPort{}, nil // somebody else answered
	}
}
