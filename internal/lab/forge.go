package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Forger sends UDP datagrams that say they come from somebody else.
type Forger struct {
	MAC     net.HardwareAddr // of the frames' sender: the host's own, until it is changed
	gateway net.HardwareAddr
	file    *os.File
}

// Forger returns one that sends to a machine on the host's link.
func (h *Host) Forger(to net.HardwareAddr) (*Forger, error) {
	f := &Forger{MAC: h.MAC, gateway: to}
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f.file = os.NewFile(uintptr(fd), "forger")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: h.index})
	})
	if err != nil {
		return nil, fmt.Errorf("lab: forger on %s: %w", h.Name, err)
	}
	return f, nil
}

// Close ends it.
func (f *Forger) Close() error { return f.file.Close() }

// Send sends one datagram.
func (f *Forger) Send(from, to netip.AddrPort, payload []byte) error {
	target := f.gateway
	if to.Addr().IsMulticast() {
		target = groupMAC(to.Addr())
	}
	frame := slices.Concat(target, f.MAC)
	if from.Addr().Is4() {
		frame = append(binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP), Packet4(from, to, payload)...)
	} else {
		frame = append(binary.BigEndian.AppendUint16(frame, unix.ETH_P_IPV6), packet6(from, to, payload)...)
	}
	_, err := f.file.Write(frame)
	return err
}

// Claim asks by ARP who has an address of the link, and says to have another one
// (RFC 826). Who has the address learns from it.
func (f *Forger) Claim(own, asked netip.Addr) error {
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	nobody := make(net.HardwareAddr, len(f.MAC))
	frame := binary.BigEndian.AppendUint16(slices.Concat(broadcast, f.MAC), unix.ETH_P_ARP)
	frame = append(frame, 0, unix.ARPHRD_ETHER, 8, 0, 6, 4, 0, 1) // IPv4 by Ethernet, a request
	frame = slices.Concat(frame, f.MAC, own.AsSlice(), nobody, asked.AsSlice())
	_, err := f.file.Write(frame)
	return err
}

// Packet4 returns an IPv4 packet with a UDP datagram.
func Packet4(from, to netip.AddrPort, payload []byte) []byte {
	const header = 20
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	b = append(b, datagram(from, to, payload)...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[10:], checksum(b[:header]))
	return b
}

func packet6(from, to netip.AddrPort, payload []byte) []byte {
	udp := datagram(from, to, payload)
	b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(udp)))
	b = append(b, unix.IPPROTO_UDP, 64)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return append(b, udp...)
}

// datagram is UDP with its checksum (RFC 768; RFC 8200 section 8.1).
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	size := 8 + len(payload)
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, unix.IPPROTO_UDP, byte(size >> 8), byte(size)})
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(size))
	udp = append(append(udp, 0, 0), payload...)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	return udp
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i, octet := range b {
		sum += uint32(octet) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// groupMAC is where a group's frames go (RFC 1112 section 6.4, RFC 2464 section 7).
func groupMAC(group netip.Addr) net.HardwareAddr {
	a := group.AsSlice()
	if group.Is4() {
		return net.HardwareAddr{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	return net.HardwareAddr{0x33, 0x33, a[12], a[13], a[14], a[15]}
}
