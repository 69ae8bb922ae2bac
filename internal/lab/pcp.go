package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// PCP's opcodes that a client here uses, and the lengths of its messages
// (RFC 6887 sections 7 and 11).
const (
	opAnnounce = 0
	opMap      = 1
	headerLen  = 24
	mapLen     = 60
)

// MapRequest asks for a mapping or a pinhole (RFC 6887 section 11.1).
type MapRequest struct {
	Gateway netip.Addr // whom to ask; zero is its IPv4 address on the LAN
	Source  netip.Addr // of the datagram; zero is the host's Addr, LinkLocal or Addr6, as the gateway's is
	Client  netip.Addr // that the header claims; zero is Source

	Protocol            string // "TCP" or "UDP"
	Internal, Suggested uint16
	External            netip.Addr    // suggested; zero is none
	Lease               time.Duration // whole seconds; 0 ends it
	Nonce               [12]byte      // zero is a fresh one
	Options             []byte        // as Option makes them
}

// Granted is what a MapRequest got.
type Granted struct {
	External netip.AddrPort
	Lease    time.Duration
	Epoch    uint32
	Nonce    [12]byte // for the renewal
	Options  []byte   // those that the gateway obeyed
}

// MapPCP asks by IPv4 for a mapping by PCP and returns the external endpoint.
func (h *Host) MapPCP(ctx context.Context, protocol string, internal, suggested uint16, lease time.Duration) (netip.AddrPort, error) {
	got, err := h.Map(ctx, MapRequest{Protocol: protocol, Internal: internal, Suggested: suggested, Lease: lease})
	return got.External, err
}

// MapThirdParty asks by PCP for a mapping to another host.
func (h *Host) MapThirdParty(ctx context.Context, victim netip.Addr, protocol string, internal, suggested uint16, lease time.Duration) error {
	_, err := h.Map(ctx, MapRequest{Protocol: protocol, Internal: internal, Suggested: suggested, Lease: lease, Options: ThirdParty(victim)})
	return err
}

// Map asks once, and again until there is an answer. A refusal is a *Refusal,
// silence is ErrSilence.
func (h *Host) Map(ctx context.Context, r MapRequest) (Granted, error) {
	if !r.Gateway.IsValid() {
		r.Gateway = GatewayLAN
	}
	if !r.Source.IsValid() {
		r.Source = h.facing(r.Gateway)
	}
	if !r.Client.IsValid() {
		r.Client = r.Source
	}
	if r.Nonce == [12]byte{} {
		_, _ = rand.Read(r.Nonce[:]) // never fails, by its documentation
	}
	answer, err := h.askPCP(ctx, r.Source, r.Gateway, r.message())
	if err != nil {
		return Granted{}, err
	}
	if len(answer) < mapLen || !bytes.Equal(answer[headerLen:36], r.Nonce[:]) || answer[36] != r.protocol() || binary.BigEndian.Uint16(answer[40:]) != r.Internal {
		return Granted{}, fmt.Errorf("lab: not an answer: % x", answer)
	}
	return Granted{
		External: netip.AddrPortFrom(netip.AddrFrom16([16]byte(answer[44:60])).Unmap(), binary.BigEndian.Uint16(answer[42:])),
		Lease:    time.Duration(binary.BigEndian.Uint32(answer[4:])) * time.Second,
		Epoch:    binary.BigEndian.Uint32(answer[8:]),
		Nonce:    r.Nonce,
		Options:  answer[mapLen:],
	}, nil
}

// Epoch asks the gateway for its age in seconds, by ANNOUNCE (RFC 6887 section
// 14.1). A zero source is the host's address of the gateway's kind.
func (h *Host) Epoch(ctx context.Context, source, gateway netip.Addr) (uint32, error) {
	if !source.IsValid() {
		source = h.facing(gateway)
	}
	answer, err := h.askPCP(ctx, source, gateway, header(opAnnounce, 0, source))
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(answer[8:]), nil
}

// askPCP returns the answer to a request, or the refusal that it is.
func (h *Host) askPCP(ctx context.Context, source, gateway netip.Addr, request []byte) ([]byte, error) {
	answer, err := h.ExchangeFrom(ctx, source, gateway, request)
	if err != nil {
		return nil, err
	}
	if len(answer) < headerLen || len(answer)%4 != 0 || answer[0] != 2 || answer[1] != request[1]|0x80 {
		return nil, fmt.Errorf("lab: not an answer: % x", answer)
	}
	if code := answer[3]; code != 0 {
		return nil, &Refusal{"PCP", int(code)}
	}
	return answer, nil
}

func (r MapRequest) message() []byte {
	external := netip.IPv6Unspecified().As16()
	switch {
	case r.External.IsValid():
		external = r.External.As16()
	case r.Client.Is4():
		external = netip.IPv4Unspecified().As16()
	}
	m := header(opMap, r.Lease, r.Client)
	m = append(m, r.Nonce[:]...)
	m = append(m, r.protocol(), 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, r.Internal)
	m = binary.BigEndian.AppendUint16(m, r.Suggested)
	m = append(m, external[:]...)
	return append(m, r.Options...)
}

func (r MapRequest) protocol() byte {
	if r.Protocol == "TCP" {
		return 6
	}
	return 17
}

// header is a request's (RFC 6887 section 7.1). IPv4 addresses are mapped.
func header(op byte, lease time.Duration, client netip.Addr) []byte {
	claimed := client.As16()
	m := binary.BigEndian.AppendUint32([]byte{2, op, 0, 0}, uint32(lease.Seconds()))
	return append(m, claimed[:]...)
}

// Option is one option of a request (RFC 6887 section 7.3).
func Option(code byte, data ...byte) []byte {
	o := binary.BigEndian.AppendUint16([]byte{code, 0}, uint16(len(data)))
	o = append(o, data...)
	return append(o, make([]byte, (4-len(data)%4)%4)...)
}

// ThirdParty names another host (RFC 6887 section 13.1).
func ThirdParty(victim netip.Addr) []byte {
	a := victim.As16()
	return Option(1, a[:]...)
}

// PreferFailure wants the suggestion or nothing (RFC 6887 section 13.2).
func PreferFailure() []byte { return Option(2) }

// Filter lets only a remote prefix in, from one port of it or, with 0, from all
// (RFC 6887 section 13.3).
func Filter(remote netip.Prefix, port uint16) []byte {
	bits := remote.Bits()
	if remote.Addr().Is4() {
		bits += 96
	}
	a := remote.Addr().As16()
	data := binary.BigEndian.AppendUint16([]byte{0, byte(bits)}, port)
	return Option(3, append(data, a[:]...)...)
}
