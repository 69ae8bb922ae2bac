package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/datagram"
)

const (
	maxFrames = 1024            // remembered
	frameAge  = 5 * time.Second // and how long: a socket is read sooner
	udpHeader = 8
	ip4Header = 20
	ip6Header = 40
)

// packetConn is a Conn with a packet socket beside it. The kernel shows a frame
// there before the datagram reaches its own socket, so whoever has read a datagram
// finds its frame.
type packetConn struct {
	datagram.Conn
	file *os.File
	six  bool
	seed maphash.Seed
	buf  []byte
	seen []frame // the oldest first
}

// frame is what is remembered of one: what it carried, who sent it, and when it was
// read.
type frame struct {
	carried uint64
	mac     [6]byte
	at      time.Time
}

func newPacketConn(conn datagram.Conn, at Place) (*packetConn, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "packet socket")
	protocol, filter := uint16(unix.ETH_P_IP), filter4(at.Port)
	if at.IPv6 {
		protocol, filter = unix.ETH_P_IPV6, filter6(at.Port)
	}
	enlarge(file)
	// Until it is bound to a protocol it sees nothing, so the filter comes in time.
	err = attach(fd, filter)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: at.Ifindex})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket: %w", err), file.Close())
	}
	return &packetConn{Conn: conn, file: file, six: at.IPv6, seed: maphash.MakeSeed()}, nil
}

// packetSockets returns why there can be none.
func packetSockets() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Receive implements datagram.Conn. It is called by one goroutine.
func (c *packetConn) Receive(b []byte) (datagram.Packet, error) {
	p, err := c.Conn.Receive(b)
	if err == nil {
		c.drain(time.Now(), len(b))
		p.Sender = c.take(c.carried(p.Source, p.Destination, b[:p.Size]))
	}
	return p, err
}

// Close implements datagram.Conn.
func (c *packetConn) Close() error { return errors.Join(c.Conn.Close(), c.file.Close()) }

// maxDrain is how many frames are taken in one go: all that the socket's buffer can hold,
// and not what comes meanwhile, or a flood would never let go.
const maxDrain = 4096

// drain takes what the packet socket has seen. Of a datagram the UDP socket gives
// size octets at most.
func (c *packetConn) drain(now time.Time, size int) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return // closed
	}
	if c.buf == nil {
		c.buf = make([]byte, size+udpHeader+15*4)
	}
	_ = raw.Read(func(fd uintptr) bool {
		c.takeAll(now, size, func(b []byte) (int, unix.Sockaddr, error) { return unix.Recvfrom(int(fd), b, 0) })
		return true
	})
}

// takeAll remembers the frames that receive returns until there are no more.
func (c *packetConn) takeAll(now time.Time, size int, receive func([]byte) (int, unix.Sockaddr, error)) {
	for range maxDrain {
		n, from, err := receive(c.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // EAGAIN: that was all
			break
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype != unix.PACKET_OTHERHOST {
			c.remember(now, link, c.buf[:n], size)
		}
	}
	old := 0
	for old < len(c.seen) && (len(c.seen)-old > maxFrames || now.Sub(c.seen[old].at) > frameAge) {
		old++
	}
	c.seen = slices.Delete(c.seen, 0, old)
}

func (c *packetConn) remember(now time.Time, link *unix.SockaddrLinklayer, packet []byte, size int) {
	f := frame{at: now}
	if link.Hatype != unix.ARPHRD_ETHER || int(link.Halen) != len(f.mac) {
		return
	}
	copy(f.mac[:], link.Addr[:])
	source, destination, payload, ok := parse(packet, c.six)
	if ok {
		f.carried = c.carried(source, destination, payload[:min(len(payload), size)])
		c.seen = append(c.seen, f)
	}
}

// take returns who sent the first frame that carried this, and forgets it: what is
// in both sockets has the same order, and each frame is one datagram.
func (c *packetConn) take(carried uint64) datagram.Sender {
	i := slices.IndexFunc(c.seen, func(f frame) bool { return f.carried == carried })
	if i < 0 {
		return datagram.Sender{}
	}
	mac := c.seen[i].mac
	c.seen = slices.Delete(c.seen, i, i+1)
	return datagram.Sender{MAC: mac, Known: len(mac)}
}

// carried distinguishes datagrams: by who they say they are from, where they go, which
// may be through the gateway, and their octets.
func (c *packetConn) carried(source netip.AddrPort, destination netip.Addr, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, a := range [...]netip.Addr{source.Addr(), destination} {
		octets := a.As16()
		_, _ = h.Write(octets[:]) // never fails
	}
	_, _ = h.Write([]byte{byte(source.Port() >> 8), byte(source.Port())})
	_, _ = h.Write(payload)
	return h.Sum64()
}

// parse reads a packet that the filter has passed; what is cut short is not ok.
func parse(b []byte, six bool) (source netip.AddrPort, destination netip.Addr, payload []byte, ok bool) {
	header := ip6Header
	if !six {
		if len(b) < ip4Header {
			return source, destination, nil, false
		}
		header = int(b[0]&0xf) * 4
	}
	if len(b) < header+udpHeader {
		return source, destination, nil, false
	}
	from, to, udp := b[12:16], b[16:20], b[header:]
	if six {
		from, to = b[8:24], b[24:40]
	}
	a, _ := netip.AddrFromSlice(from)
	destination, _ = netip.AddrFromSlice(to)
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpHeader {
		return source, destination, nil, false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(udp)), destination, udp[udpHeader:min(size, len(udp))], true
}

// The filters pass whole UDP datagrams to a port. The packet begins at its network
// header (SOCK_DGRAM).
const (
	loadByte   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	loadHalf   = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	loadHalfAt = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
	headerLen  = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
	ifEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ifAnyBit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	pass       = unix.BPF_RET | unix.BPF_K
	fragment   = 0x3fff // of the IPv4 flags and offset: one of several
)

func filter4(port uint16) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadByte, K: 9},
		{Code: ifEqual, K: unix.IPPROTO_UDP, Jf: 6},
		{Code: loadHalf, K: 6},
		{Code: ifAnyBit, K: fragment, Jt: 4},
		{Code: headerLen, K: 0},
		{Code: loadHalfAt, K: 2},
		{Code: ifEqual, K: uint32(port), Jf: 1},
		{Code: pass, K: 1 << 16},
		{Code: pass, K: 0},
	}
}

func filter6(port uint16) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadByte, K: 6},
		{Code: ifEqual, K: unix.IPPROTO_UDP, Jf: 3},
		{Code: loadHalf, K: ip6Header + 2},
		{Code: ifEqual, K: uint32(port), Jf: 1},
		{Code: pass, K: 1 << 16},
		{Code: pass, K: 0},
	}
}
