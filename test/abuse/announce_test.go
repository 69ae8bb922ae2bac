package abuse

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// announced is where announcements go.
var announced = netip.MustParseAddrPort("224.0.0.1:5350")

// ear hears what is announced to a host.
type ear struct{ conn *net.UDPConn }

func listen(t *testing.T, h *lab.Host) ear {
	t.Helper()
	conn, err := h.ListenPacket("0.0.0.0:5350")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return ear{conn}
}

// hears waits until both protocols have announced the same, and NAT-PMP an
// external address, and gives the epoch that they tell.
func (e ear) hears(t *testing.T, external netip.Addr) (epoch uint32) {
	t.Helper()
	if err := e.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for natpmp := false; ; {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("%s was not announced in both protocols (NAT-PMP: %v)", external, natpmp)
		}
		b := buf[:n]
		if from != server {
			t.Errorf("announced from %v", from)
		}
		switch {
		case like(b, "00800000 ........ ........"):
			if told, _ := netip.AddrFromSlice(b[8:]); told == external {
				natpmp, epoch = true, binary.BigEndian.Uint32(b[4:])
			}
		case like(b, "02800000 00000000 ........ 00000000 00000000 00000000"):
			if natpmp { // it goes second
				if pcp := binary.BigEndian.Uint32(b[8:]); pcp != epoch {
					t.Errorf("epoch %d in NAT-PMP, %d in PCP", epoch, pcp)
				}
				return epoch
			}
		default:
			t.Errorf("announced: % x", b)
		}
	}
}

// move makes the WAN interface have these addresses, and a way to the Internet.
func move(t *testing.T, g *lab.Host, addrs ...string) {
	t.Helper()
	wan, err := g.Netlink().LinkByName(lab.WANInterface)
	if err != nil {
		t.Fatal(err)
	}
	old, err := g.Netlink().AddrList(wan, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range old {
		if err := g.Netlink().AddrDel(wan, &a); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range addrs {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		err = errors.Join(g.Netlink().AddrAdd(wan, addr),
			g.Netlink().RouteReplace(&netlink.Route{LinkIndex: wan.Attrs().Index, Dst: all, Gw: lab.InternetOne.AsSlice()}))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// aged waits until an epoch is some seconds old.
func (c *talker) aged(t *testing.T, seconds uint32) {
	t.Helper()
	testrig.Eventually(t, soon, "time passes", func() bool {
		c.ask(t, natpmpAddress)
		return c.epoch >= seconds
	})
}

// TestAnnounced: H11, PMP-26, PCP-32, PCP-53, I19. Another external address is told to
// the whole LAN, and to nobody else, and begins a new epoch; mappings follow it.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	leaves := watch(t, n)
	ears := []ear{listen(t, n.Host("a")), listen(t, n.Host("b"))}
	outside := listen(t, n.Internet)
	began := time.Now()
	r := startOn(t, n, noRates)
	a := r.talker(t, "a")
	told := func(external netip.Addr, since time.Time) {
		t.Helper()
		for _, e := range ears {
			epoch := e.hears(t, external)
			if most := uint32(time.Since(since)/time.Second) + 1; epoch > most {
				t.Errorf("the new epoch is %d, and it can be %d s old", epoch, most)
			}
		}
	}
	told(lab.GatewayWAN, began)
	grant(t, a, 1, 6000)
	a.aged(t, 2)

	moved := netip.MustParseAddr("203.0.113.9")
	began = time.Now()
	move(t, n.Gateway, "203.0.113.9/24")
	told(moved, began)
	a.epoch = 0
	if reply := a.ask(t, natpmpAddress); !like(reply, "00800000 ........ cb007109") {
		t.Errorf("answered % x", reply)
	}
	if m := a.mapPCP(t, pcpMap{internal: 6001, suggested: 6001}); m.external != netip.AddrPortFrom(moved, 6001) {
		t.Errorf("PCP-53: %+v", m)
	}
	grant(t, a, 1, 6000)
	for port := uint16(6000); port < 6002; port++ {
		arrived, _, err := lab.Probe(t.Context(), "UDP", r.Internet, netip.AddrPortFrom(moved, port), r.Host("a"), port, 3*time.Second)
		if err != nil || !arrived {
			t.Errorf("port %d at the new address: %v, %v", port, arrived, err)
		}
	}

	byInterface := map[string]int{}
	for _, f := range leaves.sent(t) {
		if f.to.Port() != 5350 {
			continue
		}
		byInterface[f.ifname]++
		if f.from != server || f.to != announced || f.ttl != 1 {
			t.Errorf("announced from %v to %v with TTL %d", f.from, f.to, f.ttl)
		}
	}
	for ifname, copies := range byInterface {
		if !strings.HasPrefix(ifname, "lan") && ifname != lab.Bridge {
			t.Errorf("H11: %d announcements by %s", copies, ifname)
		}
	}
	if byInterface["lan10"] < 4 || byInterface["lan20"] < 4 {
		t.Errorf("announcements by interface: %v", byInterface)
	}
	outside.nothing(t, n.Internet)
}

// nothing fails the test when something was announced here: what the host sends to
// itself later is the first that it hears.
func (e ear) nothing(t *testing.T, h *lab.Host) {
	t.Helper()
	conn, err := h.ListenPacket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort([]byte("control"), netip.MustParseAddrPort("127.0.0.1:5350")); err != nil {
		t.Fatal(err)
	}
	if err := e.conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if n, from, err := e.conn.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "control" {
		t.Errorf("H11: %d octets from %v, %v", n, from, err)
	}
}

// TestWithoutExternalAddress: PMP-2, PCP-45, I17. Without an external address nothing
// is granted, nor announced in NAT-PMP; the same address coming back is
// announced and ends no epoch, and what was mapped works again.
func TestWithoutExternalAddress(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	r := startOn(t, n, noRates)
	a := r.talker(t, "a")
	grant(t, a, 1, 6000)
	a.aged(t, 1)
	move(t, n.Gateway)
	testrig.Eventually(t, soon, "PMP-2: there is no address", func() bool {
		return like(a.ask(t, natpmpAddress), "00800003 ........ 00000000")
	})
	leaves := watch(t, n)
	before := r.World(t)
	for op := byte(1); op <= 2; op++ {
		if result, port := a.mapping(t, op, 6001, 6001, 3600); result != 3 || port != 0 {
			t.Errorf("PMP-3: result %d, port %d", result, port)
		}
	}
	for _, options := range []string{"", preferFailure} {
		if m := a.mapPCP(t, pcpMap{internal: 6001, suggested: 6001, options: options}); m.code != 7 || m.lifetime != 30 {
			t.Errorf("PCP-45: %+v", m)
		}
	}
	r.refused(t, r.v1(t, "a"), udp(6001, 6001), 501)
	r.Unchanged(t, before, "I17")
	if reply := a.ask(t, pcpMap{client: hostA, delete: true, internal: 6001}.octets(t)); reply[3] != 0 {
		t.Errorf("a deletion: % x", reply)
	}
	for _, f := range leaves.sent(t) {
		if f.to == announced && f.payload[0] == 0 {
			t.Errorf("announced without an address: % x", f.payload)
		}
	}

	lan := listen(t, n.Host("b"))
	move(t, n.Gateway, "203.0.113.5/24")
	if epoch := lan.hears(t, lab.GatewayWAN); epoch < a.epoch || epoch == 0 {
		t.Errorf("I19: the epoch went from %d to %d", a.epoch, epoch)
	}
	a.ask(t, natpmpAddress) // compares the epochs
	if !r.Passes(t, "UDP", 6000, r.Host("a"), 6000) {
		t.Error("the mapping does not work again")
	}
}

// TestPortControlRestart: PCP-59. A daemon that starts again has a new epoch, says
// so, and gives clients that renew the ports that they had.
func TestPortControlRestart(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	r := startOn(t, n, noRates)
	a := r.talker(t, "a")
	result, pmpPort := a.mapping(t, 1, 6000, 445, 3600)
	pcpPort := a.mapPCP(t, pcpMap{internal: 6001, suggested: 445}).external.Port()
	if result != 0 || pcpPort == 0 {
		t.Fatalf("granted: %d, %d", pmpPort, pcpPort)
	}
	a.aged(t, 2)
	if err := r.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	lan := listen(t, n.Host("b"))
	began := time.Now()
	r = startOn(t, n, noRates)
	a.epoch = 0
	epoch := lan.hears(t, lab.GatewayWAN)
	if most := uint32(time.Since(began)/time.Second) + 1; epoch > most {
		t.Errorf("announced with epoch %d, and it can be %d s old", epoch, most)
	}
	if result, port := a.mapping(t, 1, 6000, pmpPort, 3600); result != 0 || port != pmpPort {
		t.Errorf("NAT-PMP: result %d, port %d, epoch %d", result, port, a.epoch)
	}
	if m := a.mapPCP(t, pcpMap{internal: 6001, suggested: pcpPort}); m.code != 0 || m.external.Port() != pcpPort {
		t.Errorf("PCP: %+v", m)
	}
	for port, internal := range map[uint16]uint16{pmpPort: 6000, pcpPort: 6001} {
		if !r.Passes(t, "UDP", port, r.Host("a"), internal) {
			t.Errorf("port %d does not work", port)
		}
	}
}
