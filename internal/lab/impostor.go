package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// impostor is the malware, which writes the laptop's address into its datagrams. Its
// frames are its own.
func (s *story) impostor(ctx context.Context) {
	if s.err != nil {
		return
	}
	laptop := s.net.Host("laptop")
	forger, err := s.net.Host("malware").Forger(s.net.Gateway.MAC)
	if err != nil {
		s.err = err
		return
	}
	defer forger.Close()
	for _, x := range []struct {
		asks     string
		port     uint16
		lifetime uint32
		arrives  bool
	}{
		{"the laptop's 22001/tcp", 22001, 3600, false},
		{"the laptop's 22000/tcp to be closed", 22000, 0, true},
	} {
		request := binary.BigEndian.AppendUint16([]byte{0, 2, 0, 0}, x.port)
		request = binary.BigEndian.AppendUint16(request, x.port)
		request = binary.BigEndian.AppendUint32(request, x.lifetime)
		answered, err := s.asLaptop(ctx, forger, request)
		if err != nil {
			s.err = fmt.Errorf("lab: forged request: %w", err)
			return
		}
		wait := doubt
		if x.arrives {
			wait = patience
		}
		arrived := s.knock(ctx, "TCP", netip.AddrPortFrom(GatewayWAN, x.port), laptop, x.port, wait)
		s.tell(Step{Who: "malware, as laptop", Asks: x.asks, Answer: silence(answered), Packet: packetWord(arrived),
			OK: errors.Is(answered, ErrSilence) && arrived == x.arrives})
	}
}

// asLaptop sends a request in the laptop's name, and gives ErrSilence where the laptop
// gets no answer to it. The gateway has looked at it when it answers what the malware
// asks in its own name.
func (s *story) asLaptop(ctx context.Context, forger *Forger, request []byte) (answered, err error) {
	laptop := s.net.Host("laptop")
	conn, err := laptop.ListenPacket(netip.AddrPortFrom(laptop.Addr, 0).String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := forger.Send(from, netip.AddrPortFrom(GatewayLAN, portControl), request); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	if _, err := s.net.Host("malware").Exchange(ctx, GatewayLAN, []byte{0, 0}); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(doubt / 4)); err != nil {
		return nil, err
	}
	if _, _, err := conn.ReadFromUDPAddrPort(make([]byte, 2048)); err != nil {
		return ErrSilence, nil
	}
	return nil, nil
}
