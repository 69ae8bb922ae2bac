package lab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// portControl is where NAT-PMP and PCP are spoken.
const portControl = 5351

// Refusal is a result code of NAT-PMP (RFC 6886 section 3.5) or PCP (RFC 6887
// section 7.4).
type Refusal struct {
	Protocol string
	Code     int
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused (%s %d)", r.Protocol, r.Code) }

// Exchange sends a datagram to port 5351 of the gateway until an answer comes
// from that very address (RFC 6886 section 3.1: after 250 ms, then doubling).
func (h *Host) Exchange(ctx context.Context, to netip.Addr, request []byte) ([]byte, error) {
	conn, err := h.ListenPacket(net.JoinHostPort(h.Addr.String(), "0"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("lab: an exchange needs a deadline")
	}
	server := netip.AddrPortFrom(to, portControl)
	buf := make([]byte, 2048)
	for wait := 250 * time.Millisecond; time.Now().Before(deadline); wait *= 2 {
		if _, err := conn.WriteToUDPAddrPort(request, server); err != nil {
			return nil, ErrSilence // an ICMP error for the one before
		}
		until := time.Now().Add(wait)
		if until.After(deadline) {
			until = deadline
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return nil, err
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err == nil && from == server {
			return buf[:n], nil
		}
	}
	return nil, ErrSilence
}

// MapNATPMP asks for a mapping by NAT-PMP and gives the external port.
func (h *Host) MapNATPMP(ctx context.Context, protocol string, internal, suggested uint16, lease time.Duration) (uint16, error) {
	op := byte(1)
	if protocol == "TCP" {
		op = 2
	}
	request := []byte{0, op, 0, 0}
	request = binary.BigEndian.AppendUint16(request, internal)
	request = binary.BigEndian.AppendUint16(request, suggested)
	request = binary.BigEndian.AppendUint32(request, uint32(lease.Seconds()))
	answer, err := h.Exchange(ctx, GatewayLAN, request)
	if err != nil {
		return 0, err
	}
	if len(answer) != 16 || answer[1] != op|0x80 {
		return 0, fmt.Errorf("lab: not an answer: % x", answer)
	}
	if code := binary.BigEndian.Uint16(answer[2:]); code != 0 {
		return 0, &Refusal{"NAT-PMP", int(code)}
	}
	return binary.BigEndian.Uint16(answer[10:]), nil
}

// MapPCP asks for a mapping by PCP and gives the external endpoint.
func (h *Host) MapPCP(ctx context.Context, protocol string, internal, suggested uint16, lease time.Duration) (netip.AddrPort, error) {
	answer, err := h.exchangePCP(ctx, h.requestPCP(protocol, internal, suggested, lease))
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(answer) != 60 {
		return netip.AddrPort{}, fmt.Errorf("lab: not an answer: % x", answer)
	}
	external, _ := netip.AddrFromSlice(answer[44:60])
	return netip.AddrPortFrom(external.Unmap(), binary.BigEndian.Uint16(answer[42:])), nil
}

// MapThirdParty asks by PCP for a mapping to another host, with the option
// THIRD_PARTY (RFC 6887 section 13.1).
func (h *Host) MapThirdParty(ctx context.Context, victim netip.Addr, protocol string, internal, suggested uint16, lease time.Duration) error {
	named := victim.As16()
	request := append(h.requestPCP(protocol, internal, suggested, lease), 1, 0, 0, 16)
	_, err := h.exchangePCP(ctx, append(request, named[:]...))
	return err
}

// exchangePCP gives the answer to a MAP request, or the refusal that it is.
func (h *Host) exchangePCP(ctx context.Context, request []byte) ([]byte, error) {
	answer, err := h.Exchange(ctx, GatewayLAN, request)
	if err != nil {
		return nil, err
	}
	if len(answer) < 60 || answer[0] != 2 || answer[1] != 0x81 {
		return nil, fmt.Errorf("lab: not an answer: % x", answer)
	}
	if code := answer[3]; code != 0 {
		return nil, &Refusal{"PCP", int(code)}
	}
	return answer, nil
}

// requestPCP is a MAP request (RFC 6887 section 11.1) with a nonce of its own.
func (h *Host) requestPCP(protocol string, internal, suggested uint16, lease time.Duration) []byte {
	request := []byte{2, 1, 0, 0}
	request = binary.BigEndian.AppendUint32(request, uint32(lease.Seconds()))
	mapped := netip.AddrFrom16(h.Addr.As16()).As16()
	request = append(request, mapped[:]...)
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce) // never fails, by its documentation
	request = append(request, nonce...)
	number := byte(17)
	if protocol == "TCP" {
		number = 6
	}
	request = append(request, number, 0, 0, 0)
	request = binary.BigEndian.AppendUint16(request, internal)
	request = binary.BigEndian.AppendUint16(request, suggested)
	return append(request, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0)
}
