package abuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// wire sends frames from a host's port, whatever they say.
type wire struct {
	fd      int
	index   int
	gateway net.HardwareAddr
}

func newWire(t *testing.T, r *rig, h *lab.Host) *wire {
	t.Helper()
	bridge, err := r.Gateway.Netlink().LinkByName(lab.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	eth, err := h.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{index: eth.Attrs().Index, gateway: bridge.Attrs().HardwareAddr}
	err = h.Do(func() error {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *wire) send(t *testing.T, to, from net.HardwareAddr, kind uint16, payload []byte) {
	t.Helper()
	f := binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from...), kind)
	err := unix.Sendto(w.fd, append(f, payload...), 0, &unix.SockaddrLinklayer{Ifindex: w.index})
	for errors.Is(err, unix.ENOBUFS) {
		err = unix.Sendto(w.fd, append(f, payload...), 0, &unix.SockaddrLinklayer{Ifindex: w.index})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// introduce asks who has the gateway's address, from which the gateway learns who
// says to be at addr.
func (w *wire) introduce(t *testing.T, mac net.HardwareAddr, addr netip.Addr) {
	t.Helper()
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac...)
	arp = append(append(arp, addr.AsSlice()...), 0, 0, 0, 0, 0, 0)
	w.send(t, net.HardwareAddr{255, 255, 255, 255, 255, 255}, mac, unix.ETH_P_ARP, append(arp, lab.GatewayLAN.AsSlice()...))
}

// datagram sends to port 5351 of the gateway.
func (w *wire) datagram(t *testing.T, mac net.HardwareAddr, addr netip.Addr, payload []byte) {
	t.Helper()
	b := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(28+len(payload)))
	b = append(append(b, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0), addr.AsSlice()...)
	b = append(b, lab.GatewayLAN.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum&0xffff+sum>>16))
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, 40000), 5351)
	b = append(binary.BigEndian.AppendUint16(b, uint16(8+len(payload))), 0, 0)
	w.send(t, w.gateway, mac, unix.ETH_P_IP, append(b, payload...))
}

// TestInventedHosts: issue 9 item 5, abuse case K1. One machine makes up hosts, with
// an address and a MAC each, that take all mappings there are. Others still get theirs,
// the owner is told, and who never answers the gateway has nothing left a moment later.
func TestInventedHosts(t *testing.T) {
	t.Parallel()
	r := start(t, "[limits]\nmappings = 128\nmappings_per_client = 32\ngrants_per_second = 0\nrequests_per_second = 0\n")
	if err := r.v2(t, "a").Add(t.Context(), udp(5999, 5999)); err != nil {
		t.Fatal(err)
	}
	w := newWire(t, r, r.Host("b"))
	most := 0
	for host := range byte(12) {
		mac, addr := net.HardwareAddr{2, 0xbb, 0, 0, 0, host}, netip.AddrFrom4([4]byte{192, 168, 77, 100 + host})
		w.introduce(t, mac, addr)
		for port := range uint16(32) {
			internal := 10000 + uint16(host)*100 + port
			w.datagram(t, mac, addr, pmp(1, internal, internal, 7200))
		}
		most = max(most, len(r.List(t)))
	}
	testrig.Eventually(t, soon, "they have what they can get", func() bool {
		most = max(most, len(r.List(t)))
		return most > 64
	})
	if most > 97 {
		t.Errorf("of 128 mappings %d are taken by nobody", most)
	}
	for port := uint16(6000); port < 6005; port++ {
		if err := r.v2(t, "b").Add(t.Context(), udp(port, port)); err != nil {
			t.Errorf("a host gets no mapping: %v", err)
		}
	}
	r.Logged(t, "mappings are running out")
	testrig.Eventually(t, time.Minute, "what nobody answers for is gone", func() bool { return len(r.List(t)) == 6 })
	r.Logged(t, fmt.Sprintf("why=%q", "nobody has ever answered for the host"))
	if !r.Passes(t, "UDP", 6000, r.Host("b"), 6000) || !r.Passes(t, "UDP", 5999, r.Host("a"), 5999) {
		t.Error("a mapping of a real host does not work")
	}
}
