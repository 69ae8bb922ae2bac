package witness_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"portcullis/firewall/witness"
	"portcullis/internal/datagram"
	"portcullis/internal/frames"
	"portcullis/internal/netns/netnstest"
)

const (
	port     = 5351
	most     = 100 // datagrams a second of one machine
	largest  = 1100
	patience = 10 * time.Second
)

// The addresses of the two ends.
var (
	gateway4 = netip.MustParseAddrPort("192.168.1.1:5351")
	gateway6 = netip.MustParseAddrPort("[2001:db8::1]:5351")
	group    = netip.MustParseAddrPort("239.255.255.250:5351")
)

// wires are the kinds of LAN, with the gateway's interface and the host's.
var wires = map[string]func(g, h *netnstest.Space) (lan, own string){
	"cable": func(g, h *netnstest.Space) (string, string) { return "lan0", "eth0" },
	"bridge": func(g, h *netnstest.Space) (string, string) {
		g.Bridge("br-lan", nil, "lan0")
		return "br-lan", "eth0"
	},
	"VLAN": func(g, h *netnstest.Space) (string, string) { return vlan(g, "lan0"), vlan(h, "eth0") },
	"VLAN on a bridge": func(g, h *netnstest.Space) (string, string) {
		g.Bridge("br-lan", nil, "lan0")
		return vlan(g, "br-lan"), vlan(h, "eth0")
	},
	"bridge of a VLAN": func(g, h *netnstest.Space) (string, string) {
		g.Bridge("br-lan", nil, vlan(g, "lan0"))
		return "br-lan", vlan(h, "eth0")
	},
}

func vlan(s *netnstest.Space, parent string) string {
	index := s.Index(parent)
	s.Links(func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: parent + ".7", ParentIndex: index}, VlanId: 7})
	})
	s.Up(parent + ".7")
	return parent + ".7"
}

// hasVLANs reports whether the kernel has them, which is a fact of the machine.
func hasVLANs(t *testing.T) bool {
	t.Helper()
	has := true
	netnstest.New(t, "probe").Links(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		err = h.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "v7", ParentIndex: lo.Attrs().Index}, VlanId: 7})
		has = !errors.Is(err, unix.EOPNOTSUPP)
		return nil
	})
	if !has {
		t.Log("this kernel has no VLANs")
	}
	return has
}

// home is a gateway with a witness, and a host.
type home struct {
	gateway, host *netnstest.Space
	lan, own      string
	witness       *witness.Witness
	known         int // octets of a sender
}

func build(t *testing.T, wire string, way witness.Way) *home {
	t.Helper()
	h := &home{gateway: netnstest.New(t, "gateway"), host: netnstest.New(t, "host"), known: 6}
	netnstest.Cable(h.gateway, "lan0", h.host, "eth0")
	h.lan, h.own = wires[wire](h.gateway, h.host)
	h.gateway.Address(h.lan, "192.168.1.1/24", "2001:db8::1/64")
	h.host.Address(h.own, "192.168.1.10/24", "192.168.1.11/24", "2001:db8::10/64")
	if h.witness = witness.Packets(); way == witness.Mark {
		h.known = 4
		h.gateway.Must(func() (err error) {
			h.witness, err = witness.Open(t.Context(), most, 0, port)
			return err
		})
	}
	h.follow(t, h.lan)
	t.Cleanup(func() {
		h.gateway.Must(func() error { return h.witness.Close(context.Background()) })
	})
	return h
}

func (h *home) follow(t *testing.T, lans ...string) {
	t.Helper()
	h.gateway.Must(func() error { return h.witness.Follow(t.Context(), lans) })
}

// serve opens the gateway's socket.
func (h *home) serve(t *testing.T, six bool) datagram.Conn {
	t.Helper()
	addr := "0.0.0.0:5351"
	if six {
		addr = "[::]:5351"
	}
	udp := h.gateway.UDP(addr)
	if err := udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var conn datagram.Conn
	h.gateway.Must(func() error {
		index := h.gateway.Index(h.lan)
		s, err := h.witness.Ready(udp, witness.Place{Ifindex: index, IPv6: six, Port: port})
		if err == nil {
			conn, err = s.Conn(index, six)
		}
		return err
	})
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (h *home) mac(t *testing.T) (mac [6]byte) {
	t.Helper()
	h.host.Links(func(k *netlink.Handle) error {
		link, err := k.LinkByName(h.own)
		if err == nil {
			copy(mac[:], link.Attrs().HardwareAddr)
		}
		return err
	})
	return mac
}

// become gives the host another MAC address.
func (h *home) become(mac [6]byte) {
	h.host.Links(func(k *netlink.Handle) error {
		link, err := k.LinkByName(h.own)
		if err != nil {
			return err
		}
		return k.LinkSetHardwareAddr(link, mac[:])
	})
}

func (h *home) send(t *testing.T, to netip.AddrPort, b []byte) {
	t.Helper()
	from := "192.168.1.10:0"
	if to.Addr().Is6() {
		from = "[2001:db8::10]:0"
	}
	if _, err := h.host.UDP(from).WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

// sender sends one datagram and returns whom the gateway takes for its sender.
func (h *home) sender(t *testing.T, conn datagram.Conn, to netip.AddrPort, b []byte) datagram.Sender {
	t.Helper()
	h.send(t, to, b)
	p, err := conn.Receive(make([]byte, largest+1))
	if err != nil {
		t.Fatal(err)
	}
	if p.Size != min(len(b), largest+1) {
		t.Errorf("%d octets, want %d", p.Size, len(b))
	}
	return p.Sender
}

var bothWays = []witness.Way{witness.Mark, witness.PacketSocket}

// TestSenders: C11, H9. On every kind of LAN a datagram bears who sent its frame.
func TestSenders(t *testing.T) {
	t.Parallel()
	vlans := hasVLANs(t)
	for wire := range wires {
		if strings.Contains(wire, "VLAN") && !vlans {
			continue
		}
		for _, way := range bothWays {
			t.Run(wire+", "+string(way), func(t *testing.T) {
				t.Parallel()
				h := build(t, wire, way)
				mac := h.mac(t)
				four, six := h.serve(t, false), h.serve(t, true)
				for i, b := range [][]byte{{0, 0}, slices.Repeat([]byte{7}, largest), slices.Repeat([]byte{8}, largest+300), {0, 0}} {
					for _, got := range []datagram.Sender{h.sender(t, four, gateway4, b), h.sender(t, six, gateway6, b)} {
						if !got.Is(mac) || got.Known != h.known {
							t.Errorf("datagram %d comes from %v, want %x", i, got, mac)
						}
					}
				}
			})
		}
	}
}

// TestFragments: a request in fragments is nobody's, or its sender's.
func TestFragments(t *testing.T) {
	t.Parallel()
	for _, way := range bothWays {
		h := build(t, "bridge", way)
		b := slices.Repeat([]byte{9}, 4000)
		for to, conn := range map[netip.AddrPort]datagram.Conn{gateway4: h.serve(t, false), gateway6: h.serve(t, true)} {
			if got := h.sender(t, conn, to, b); got.Seen() && !got.Is(h.mac(t)) || got.Seen() != (way == witness.Mark) {
				t.Errorf("%s: fragments to %v come from %v", way, to, got)
			}
		}
	}
}

// TestUnseen: without the rule, and on an interface that is no LAN, a datagram has
// no sender, until the rule is back.
func TestUnseen(t *testing.T) {
	t.Parallel()
	h := build(t, "bridge", witness.Mark)
	conn := h.serve(t, false)
	if _, err := h.gateway.Run("flush ruleset\n", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if got := h.sender(t, conn, gateway4, []byte("after a flush")); got.Seen() {
		t.Errorf("without the rule a datagram comes from %v", got)
	}
	h.gateway.Must(func() error {
		drift, err := h.witness.Audit(t.Context())
		if drift == "" {
			t.Error("the audit finds nothing")
		}
		return err
	})
	if got := h.sender(t, conn, gateway4, []byte("after the repair")); !got.Is(h.mac(t)) {
		t.Errorf("after the repair a datagram comes from %v", got)
	}
	h.follow(t, "another")
	if got := h.sender(t, conn, gateway4, []byte("no LAN")); got.Seen() {
		t.Errorf("on an interface that is no LAN a datagram comes from %v", got)
	}
}

// TestUnseeable: C11. A machine whose address gives the mark of a frame that was not
// seen, or of one too many, is nobody by marks, and is seen by a packet socket.
func TestUnseeable(t *testing.T) {
	t.Parallel()
	flood := [6]byte{0: 2, 1: 7}
	binary.NativeEndian.PutUint32(flood[2:], ^uint32(frames.FloodMark))
	for _, way := range bothWays {
		for _, mac := range [][6]byte{{2, 7, 255, 255, 255, 255}, flood} {
			t.Run(fmt.Sprintf("%s, %x", way, mac), func(t *testing.T) {
				t.Parallel()
				h := build(t, "bridge", way)
				h.become(mac)
				conn := h.serve(t, false)
				h.send(t, gateway4, []byte("from nobody"))
				if way == witness.Mark && mac == flood { // the socket takes none: the next to come is another's
					other := [6]byte{2, 7, 0, 0, 0, 9}
					h.become(other)
					if got := h.sender(t, conn, gateway4, []byte("somebody")); !got.Is(other) {
						t.Errorf("taken is what %v sent", got)
					}
					return
				}
				p, err := conn.Receive(make([]byte, largest+1))
				if err != nil || p.Sender.Seen() != (way == witness.PacketSocket) || p.Sender.Seen() && !p.Sender.Is(mac) {
					t.Errorf("it comes from %v, %v", p.Sender, err)
				}
			})
		}
	}
}

// TestPacketSocketForgets: what was sent long before is not remembered without
// bounds, and one frame is one datagram.
func TestPacketSocketForgets(t *testing.T) {
	t.Parallel()
	h := build(t, "cable", witness.PacketSocket)
	conn := h.serve(t, false)
	from := h.host.UDP("192.168.1.10:40000")
	same := []byte("the same")
	for range 2 {
		if _, err := from.WriteToUDPAddrPort(same, gateway4); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		p, err := conn.Receive(make([]byte, largest+1))
		if err != nil || !p.Sender.Is(h.mac(t)) {
			t.Errorf("datagram %d comes from %v, %v", i, p.Sender, err)
		}
	}
	// A flood that is not for the socket beside it: its frames are seen and dropped.
	other := h.host.UDP("192.168.1.11:40000")
	if _, err := h.gateway.Run("add table ip owner\nadd chain ip owner input { type filter hook input priority 0; }\n"+
		"add rule ip owner input ip saddr 192.168.1.11 drop\n", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if _, err := other.WriteToUDPAddrPort([]byte{byte(i), byte(i >> 8)}, gateway4); err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 {
			if got := h.sender(t, conn, gateway4, []byte{1, byte(i / 500)}); !got.Is(h.mac(t)) {
				t.Errorf("beside a flood a datagram comes from %v", got)
			}
		}
	}
	if n := witness.Remembered(conn); n > 1024 {
		t.Errorf("%d frames remembered", n)
	}
}

// TestFloods: of what one machine sends too much of the socket takes none, so
// that its buffer has room for the others.
func TestFloods(t *testing.T) {
	t.Parallel()
	h := build(t, "bridge", witness.Mark)
	udp := h.gateway.UDP("0.0.0.0:5351")
	index := h.gateway.Index(h.lan)
	var conn datagram.Conn
	h.gateway.Must(func() error {
		s, err := h.witness.Ready(udp, witness.Place{Ifindex: index, Port: port})
		if err == nil {
			conn, err = s.Conn(index, false)
		}
		return err
	})
	from := h.host.UDP("192.168.1.10:40000")
	began := time.Now()
	for i := range 1000 {
		if _, err := from.WriteToUDPAddrPort([]byte{byte(i), byte(i >> 8)}, gateway4); err != nil {
			t.Fatal(err)
		}
	}
	limit := most + int(time.Since(began).Seconds()*most) + 1
	if err := udp.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil { // all have come
		t.Fatal(err)
	}
	taken := 0
	for {
		p, err := conn.Receive(make([]byte, largest+1))
		if err != nil {
			break
		}
		if !p.Sender.Is(h.mac(t)) {
			t.Errorf("a datagram comes from %v", p.Sender)
		}
		taken++
	}
	if taken == 0 || taken > limit {
		t.Errorf("%d of 1000 datagrams were taken, want at most %d", taken, limit)
	}
}

// TestMulticast: a search to a group has a sender too.
func TestMulticast(t *testing.T) {
	t.Parallel()
	for _, way := range bothWays {
		h := build(t, "bridge", way)
		udp := h.gateway.UDP("0.0.0.0:5351")
		var conn datagram.Conn
		h.gateway.Must(func() error {
			index := h.gateway.Index(h.lan)
			if err := join(udp, index); err != nil {
				return err
			}
			s, err := h.witness.Ready(udp, witness.Place{Ifindex: index, Port: port})
			if err == nil {
				conn, err = s.Conn(index, false)
			}
			return err
		})
		t.Cleanup(func() { _ = conn.Close() })
		if err := udp.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		h.host.Route("", "192.168.1.1")
		if got := h.sender(t, conn, group, []byte("search")); !got.Is(h.mac(t)) {
			t.Errorf("%s: a search comes from %v", way, got)
		}
	}
}

func join(udp *net.UDPConn, index int) error {
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return err
	}
	return ipv4.NewPacketConn(udp).JoinGroup(ifi, net.UDPAddrFromAddrPort(group))
}
