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

	"golang.org/x/sys/unix"
)

// Probe sends a real packet (UDP) or opens a connection (TCP) from a host to an
// address, and says whether the receiver that listens at internal on the other
// host, on every address of the family, got it, and from whom. A false answer
// without an error means that nothing arrived before patience ran out, or that
// the sender was refused.
func Probe(ctx context.Context, protocol string, from *Host, to netip.AddrPort, receiver *Host, internal uint16, patience time.Duration) (bool, netip.AddrPort, error) {
	at := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		at = netip.IPv6Unspecified()
	}
	k := Knock{Protocol: protocol, From: from, To: to, Receiver: receiver, At: netip.AddrPortFrom(at, internal), Patience: patience}
	got, err := k.Send(ctx)
	return got.Arrived, got.Source, err
}

// Knock is a real packet that one host sends and another one waits for.
type Knock struct {
	Protocol string // "TCP": a connection; "UDP": a datagram, again every 100 ms
	From     *Host
	Source   netip.AddrPort // of From; zero is any, and so is port 0
	To       netip.AddrPort
	Receiver *Host
	At       netip.AddrPort // where the receiver listens
	Patience time.Duration  // how long to wait until nothing arrives
	Answer   bool           // wait for an answer of the receiver, too
}

// Outcome is what a Knock did.
type Outcome struct {
	Arrived  bool
	Answered bool           // an answer came back to the sender, from where it had sent to
	Source   netip.AddrPort // who the receiver saw
}

// Send sends the packet. It waits for nothing more than it must know; an error is
// one of the lab, a sender that is refused is none.
func (k Knock) Send(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, k.Patience)
	defer cancel()
	switch k.Protocol {
	case "UDP":
		return k.udp(ctx)
	case "TCP":
		return k.tcp(ctx)
	}
	return Outcome{}, fmt.Errorf("lab: protocol %q", k.Protocol)
}

// udp sends again and again, because the first datagram may be lost while the
// neighbour is being resolved.
func (k Knock) udp(ctx context.Context) (got Outcome, err error) {
	in, err := k.Receiver.ListenPacket(k.At.String())
	if err != nil {
		return got, err
	}
	defer in.Close()
	out, err := k.From.DialFrom(ctx, k.Source, "udp", k.To.String())
	if err != nil && ctx.Err() != nil {
		return got, nil // no time was left to send anything
	}
	if err != nil {
		return got, err
	}
	defer out.Close()
	token := []byte(rand.Text())
	deadline, _ := ctx.Deadline()
	for time.Now().Before(deadline) {
		if _, err := out.Write(token); err != nil {
			return got, nil // an ICMP error came back: refused
		}
		step := time.Now().Add(100 * time.Millisecond)
		if step.After(deadline) {
			step = deadline
		}
		if err := errors.Join(in.SetReadDeadline(step), out.SetReadDeadline(step)); err != nil {
			return got, err
		}
		src, ok := awaitToken(in, token)
		if !ok {
			continue
		}
		got.Arrived, got.Source = true, plain(src)
		if !k.Answer {
			return got, nil
		}
		if _, err := in.WriteToUDPAddrPort(token, src); err != nil {
			return got, nil // no way back
		}
		buf := make([]byte, 64)
		if n, err := out.Read(buf); err == nil && bytes.Equal(buf[:n], token) {
			got.Answered = true
			return got, nil
		}
	}
	return got, nil
}

// awaitToken reads until the token comes, or until the deadline.
func awaitToken(in *net.UDPConn, token []byte) (netip.AddrPort, bool) {
	buf := make([]byte, 64)
	for {
		n, src, err := in.ReadFromUDPAddrPort(buf)
		if err != nil {
			return src, false
		}
		if bytes.Equal(buf[:n], token) {
			return src, true
		}
	}
}

func (k Knock) tcp(ctx context.Context) (got Outcome, err error) {
	l, err := k.Receiver.Listen(k.At.String())
	if err != nil {
		return got, err
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	conn, err := k.From.DialFrom(ctx, k.Source, "tcp", k.To.String())
	if err != nil {
		l.Close()
		if in := <-accepted; in != nil {
			in.Close()
		}
		var refused *net.OpError
		if errors.As(err, &refused) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return got, nil // timed out, reset, or there is no way
		}
		return got, err
	}
	defer conn.Close()
	select {
	case in := <-accepted:
		if in == nil {
			return got, nil
		}
		defer in.Close()
		src, err := netip.ParseAddrPort(in.RemoteAddr().String())
		if err != nil {
			return got, err
		}
		got.Arrived, got.Source = true, plain(src)
		got.Answered = k.Answer && answers(ctx, in, conn)
		return got, nil
	case <-ctx.Done():
		return got, nil // somebody else answered
	}
}

// answers reports whether what is written at one end is read at the other.
func answers(ctx context.Context, from, to net.Conn) bool {
	token := []byte(rand.Text())
	deadline, _ := ctx.Deadline()
	if to.SetReadDeadline(deadline) != nil {
		return false
	}
	if _, err := from.Write(token); err != nil {
		return false
	}
	buf := make([]byte, 64)
	n, err := to.Read(buf)
	return err == nil && bytes.Equal(buf[:n], token)
}
