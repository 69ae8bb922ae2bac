package abuse

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// server is where NAT-PMP and PCP are spoken.
var server = netip.AddrPortFrom(lab.GatewayLAN, 5351)

// octets reads hex that is written with blanks for people.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// like compares a reply with hex in which a dot stands for any digit.
func like(b []byte, pattern string) bool {
	pattern = strings.ReplaceAll(pattern, " ", "")
	got := hex.EncodeToString(b)
	if len(got) != len(pattern) {
		return false
	}
	for i := range got {
		if pattern[i] != '.' && pattern[i] != got[i] {
			return false
		}
	}
	return true
}

// talker is a client of port 5351 that sends every request once.
type talker struct {
	host  *lab.Host
	conn  *net.UDPConn
	epoch uint32 // of the last reply
}

func (r *rig) talker(t *testing.T, host string) *talker { return talk(t, r.Host(host)) }

func talk(t *testing.T, h *lab.Host) *talker {
	t.Helper()
	conn, err := h.ListenPacket(hostPort(h.Addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &talker{host: h, conn: conn}
}

func (c *talker) send(t *testing.T, to netip.AddrPort, b []byte) {
	t.Helper()
	if _, err := c.conn.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram, which must come from the address and port
// that were asked (RFC 6886 section 3.1), and bear an epoch that does not run
// backwards (abuse case I19). nil is silence.
func (c *talker) receive(t *testing.T, patience time.Duration) []byte {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := c.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return nil
	}
	if from != server {
		t.Errorf("a reply came from %v", from)
	}
	b := buf[:n]
	if n < 8 || b[1]&0x80 == 0 || n > 1100 || b[0] == 2 && (n < 24 || n%4 != 0) {
		t.Fatalf("not a reply: % x", b)
	}
	epoch := binary.BigEndian.Uint32(b[4:])
	if b[0] == 2 {
		epoch = binary.BigEndian.Uint32(b[8:])
	}
	if epoch < c.epoch || epoch > c.epoch+600 {
		t.Errorf("I19: the epoch went from %d to %d", c.epoch, epoch)
	}
	c.epoch = epoch
	return b
}

// persist sends a request, again after two seconds and four, and gives what comes;
// nil is nothing. A gateway that does not know its sender yet may have to drop one.
func (c *talker) persist(t *testing.T, request []byte) []byte {
	t.Helper()
	for range 3 {
		c.send(t, server, request)
		if reply := c.receive(t, 2*time.Second); reply != nil {
			return reply
		}
	}
	return nil
}

// ask sends one request and gives the reply to it.
func (c *talker) ask(t *testing.T, request []byte) []byte {
	t.Helper()
	reply := c.persist(t, request)
	if reply == nil {
		t.Fatalf("nobody answered % x", request)
	}
	if len(request) > 1 && reply[1] != request[1]|0x80 {
		t.Fatalf("% x was answered by % x", request, reply)
	}
	return reply
}

// silent fails the test when one of the requests gets an answer: the answer to a
// later one must be the first that comes.
func (c *talker) silent(t *testing.T, requests ...[]byte) {
	t.Helper()
	for _, b := range requests {
		c.send(t, server, b)
	}
	c.nothing(t)
}

// nothing asks for what has its own reply, in whatever protocol is spoken, and
// fails the test when another comes first.
func (c *talker) nothing(t *testing.T) {
	t.Helper()
	switch reply := c.persist(t, []byte{0, 0x5a}); {
	case reply == nil:
		t.Fatal("the good request was not answered")
	case reply[1] != 0xda:
		t.Errorf("what must meet silence was answered: % x", reply)
		c.receive(t, 5*time.Second) // the good one's
	}
}

// pmp is a mapping request of NAT-PMP: op 1 is UDP, 2 TCP.
func pmp(op byte, internal, suggested uint16, lifetime uint32) []byte {
	b := []byte{0, op, 0, 0}
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, suggested)
	return binary.BigEndian.AppendUint32(b, lifetime)
}

// mapping asks by NAT-PMP and gives the result code and the external port.
func (c *talker) mapping(t *testing.T, op byte, internal, suggested uint16, lifetime uint32) (result, port uint16) {
	t.Helper()
	b := c.ask(t, pmp(op, internal, suggested, lifetime))
	if len(b) != 16 || binary.BigEndian.Uint16(b[8:]) != internal {
		t.Fatalf("not a reply to a mapping request: % x", b)
	}
	if told := binary.BigEndian.Uint32(b[12:]); told > lifetime {
		t.Errorf("more than was asked for: %d s", told)
	}
	return binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[10:])
}

// pcpMap is a MAP request; what is not set is as in a plain one of UDP port 6000
// from host a for an hour.
type pcpMap struct {
	nonce     string // twelve octets
	protocol  byte
	internal  uint16
	suggested uint16
	address   netip.Addr
	lifetime  uint32
	delete    bool // lifetime 0
	client    netip.Addr
	options   string // hex
}

const nonceOne, nonceTwo = "first-nonce!", "other-nonce?"

func (m pcpMap) octets(t testing.TB) []byte {
	t.Helper()
	m.nonce = or(m.nonce, nonceOne)
	m.protocol = or(m.protocol, 17)
	m.internal = or(m.internal, 6000)
	m.client = or(m.client, netip.MustParseAddr("192.168.77.10"))
	m.address = or(m.address, netip.IPv4Unspecified())
	if m.lifetime = or(m.lifetime, 3600); m.delete {
		m.lifetime = 0
	}
	b := []byte{2, 1, 0, 0}
	b = binary.BigEndian.AppendUint32(b, m.lifetime)
	client, address := m.client.As16(), m.address.As16()
	b = append(b, client[:]...)
	b = append(b, m.nonce...)
	b = append(b, m.protocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.internal)
	b = binary.BigEndian.AppendUint16(b, m.suggested)
	b = append(b, address[:]...)
	return append(b, octets(t, m.options)...)
}

func or[T comparable](a, b T) T {
	var zero T
	if a == zero {
		return b
	}
	return a
}

// preferFailure is the option: this external port or nothing.
const preferFailure = "02000000"

// filterOption is the option FILTER.
func filterOption(prefix string, port uint16) string {
	p := netip.MustParsePrefix(prefix)
	a := p.Addr().As16()
	b := []byte{3, 0, 0, 20, 0, byte(p.Bits() + 128 - p.Addr().BitLen())}
	return hex.EncodeToString(append(binary.BigEndian.AppendUint16(b, port), a[:]...))
}

// mapped is the answer to a MAP request.
type mapped struct {
	code     byte
	lifetime uint32
	external netip.AddrPort
}

// mapPCP asks by PCP, as the host the talker is on, and gives the answer.
func (c *talker) mapPCP(t *testing.T, m pcpMap) mapped {
	t.Helper()
	m.client = or(m.client, c.host.Addr)
	request := m.octets(t)
	b := c.ask(t, request)
	if len(b) < 60 || b[0] != 2 || string(b[24:36]) != string(request[24:36]) {
		t.Fatalf("not a reply to a MAP request: % x", b)
	}
	address, _ := netip.AddrFromSlice(b[44:60])
	return mapped{b[3], binary.BigEndian.Uint32(b[4:]), netip.AddrPortFrom(address.Unmap(), binary.BigEndian.Uint16(b[42:]))}
}

// tap sees what the gateway sends from port 5351 or to port 5350, on every
// interface.
type tap struct {
	file  *os.File
	names map[int]string
}

// frame is a datagram that left.
type frame struct {
	ifname   string
	from, to netip.AddrPort
	ttl      byte
	payload  []byte
}

func watch(t *testing.T, n *lab.Network) *tap {
	t.Helper()
	p := &tap{names: map[int]string{}}
	links, err := n.Gateway.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		p.names[l.Attrs().Index] = l.Attrs().Name
	}
	err = n.Gateway.Do(func() error {
		// Only a tap for all protocols sees what is sent.
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		p.file = os.NewFile(uintptr(fd), "tap")
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.file.Close() })
	return p
}

// sent returns what has left since the last call. The kernel hands a frame to the
// tap before it is on the wire, so that no answer can be seen before its frame.
func (p *tap) sent(t *testing.T) (frames []frame) {
	t.Helper()
	raw, err := p.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	err = raw.Control(func(fd uintptr) {
		for {
			n, from, err := unix.Recvfrom(int(fd), buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if f, udp := parseUDP(buf[:n]); ok && udp && link.Pkttype == unix.PACKET_OUTGOING && (f.from.Port() == 5351 || f.to.Port() == 5350) {
				f.ifname = p.names[link.Ifindex]
				frames = append(frames, f)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

func parseUDP(b []byte) (frame, bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP {
		return frame{}, false
	}
	head := int(b[0]&15) * 4
	if len(b) < head+8 {
		return frame{}, false
	}
	udp := b[head:]
	return frame{
		from:    netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(udp)),
		to:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(udp[2:])),
		ttl:     b[8],
		payload: slices.Clone(udp[8:]),
	}, true
}

// forge sends a datagram from a host with any source but 0.0.0.0, also with one
// that no socket can have.
func forge(t *testing.T, h *lab.Host, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	if err := tryForge(h, from, to, payload); err != nil {
		t.Fatal(err)
	}
}

func tryForge(h *lab.Host, from, to netip.AddrPort, payload []byte) error {
	src, dst := from.Addr().As4(), to.Addr().As4()
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0} // the kernel adds length and checksum
	b = append(append(b, src[:]...), dst[:]...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...) // 0: no checksum
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(fd, "eth0")); err != nil {
			return err
		}
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: dst})
	})
}

// forget makes the gateway forget which machine has an address.
func (r *rig) forget(t *testing.T, addr netip.Addr) {
	t.Helper()
	g := r.Gateway.Netlink()
	bridge, err := g.LinkByName(lab.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	err = g.NeighDel(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, IP: addr.AsSlice(), Family: unix.AF_INET})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
}

// internetHas returns the Internet host one more address.
func (r *rig) internetHas(prefix string) error {
	eth, err := r.Internet.Netlink().LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	return r.Internet.Netlink().AddrAdd(eth, addr)
}

// source sends a datagram to an external port of the gateway from an address of
// the Internet host.
type source struct {
	from   netip.AddrPort
	arrive bool
}

// filtered sends a datagram from each source in turn to an external port, and
// fails the test when others arrive at the host's port than should. The last
// must be one that does: it shows that nothing else is still on its way.
func (r *rig) filtered(t *testing.T, external uint16, host string, internal uint16, sources ...source) {
	t.Helper()
	h := r.Host(host)
	in, err := h.ListenPacket(hostPort(h.Addr, internal))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var want []netip.AddrPort
	for _, s := range sources {
		out, err := r.Internet.ListenPacket(s.from.String())
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := out.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(lab.GatewayWAN, external)); err != nil {
			t.Fatal(err)
		}
		if s.arrive {
			want = append(want, s.from)
		}
	}
	for _, w := range want {
		if err := in.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := in.ReadFromUDPAddrPort(make([]byte, 64)); err != nil || from != w {
			t.Errorf("from %v (%v), want %v", from, err, w)
			return
		}
	}
}

// knock sends one datagram and says what comes back: "answer", "refused" (an
// ICMP error) or "silence".
func knock(t *testing.T, h *lab.Host, to netip.AddrPort, payload []byte) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, "udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(payload); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	switch _, err := conn.Read(make([]byte, 2048)); {
	case err == nil:
		return "answer"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	}
	return "silence"
}
