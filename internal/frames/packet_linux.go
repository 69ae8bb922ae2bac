package frames

import (
	"encoding/binary"
	"errors"
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

// Packets returns a Conn that says of each packet who sent it, by a packet socket that sees
// the frames of the same port, of IPv6 or of IPv4. Both are closed with it.
func Packets(conn datagram.Conn, file *os.File, six bool) datagram.Conn {
	return &packetConn{Conn: conn, file: file, six: six, seed: maphash.MakeSeed()}
}

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

// Remembered returns how many frames are remembered.
func (c *packetConn) Remembered() int { return len(c.seen) }

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
