package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
// from that very address (RFC 6886 section 3.1: after 250 ms, then doubling). It
// is sent from the host's address of the same kind.
func (h *Host) Exchange(ctx context.Context, to netip.Addr, request []byte) ([]byte, error) {
	return h.ExchangeFrom(ctx, h.facing(to), to, request)
}

// ExchangeFrom is Exchange from one address of the host.
func (h *Host) ExchangeFrom(ctx context.Context, from, to netip.Addr, request []byte) ([]byte, error) {
	if !from.IsValid() {
		return nil, fmt.Errorf("lab: %s has no address to ask %s from", h.Name, to)
	}
	conn, err := h.ListenPacket(netip.AddrPortFrom(from, 0).String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("lab: an exchange needs a deadline")
	}
	// Who gives up waits no longer.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	server := netip.AddrPortFrom(h.Zoned(to), portControl)
	buf := make([]byte, 2048)
	for wait := 250 * time.Millisecond; ctx.Err() == nil && time.Now().Before(deadline); wait *= 2 {
		if _, err := conn.WriteToUDPAddrPort(request, server); err != nil {
			return nil, ErrSilence // an ICMP error for the one before
		}
		until := time.Now().Add(wait)
		if until.After(deadline) {
			until = deadline
		}
		if err := conn.SetReadDeadline(until); err != nil {
			if ctx.Err() != nil {
				break // it has just been closed, which is no answer
			}
			return nil, err
		}
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err == nil && plain(from) == plain(server) {
			return buf[:n], nil
		}
	}
	return nil, ErrSilence
}

// facing is the host's own address of the same kind: IPv4, link-local, or global.
func (h *Host) facing(to netip.Addr) netip.Addr {
	switch {
	case to.Is4():
		return h.Addr
	case to.IsLinkLocalUnicast(), to.IsLinkLocalMulticast():
		return h.LinkLocal
	}
	return h.Addr6
}

// MapNATPMP asks for a mapping by NAT-PMP and returns the external port.
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
