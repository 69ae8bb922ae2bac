package ssdp_test

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ear hears all groups on a host, with what the header of each datagram said.
type ear struct {
	*endpoint
	read func([]byte) (n, hops int, to net.IP, from net.Addr, err error)
}

func newEar(t *testing.T, h *home, lan int) ear {
	t.Helper()
	e := ear{endpoint: bind(t, h.hosts[lan], "eth0", h.wildcard)}
	for _, group := range h.groups {
		e.join(h.hosts[lan], "eth0", group)
	}
	var err error
	if h.six {
		p := ipv6.NewPacketConn(e.udp)
		err = p.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true)
		e.read = func(b []byte) (int, int, net.IP, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			if err != nil {
				return 0, 0, nil, nil, err
			}
			return n, cm.HopLimit, cm.Dst, from, nil
		}
	} else {
		p := ipv4.NewPacketConn(e.udp)
		err = p.SetControlMessage(ipv4.FlagDst|ipv4.FlagTTL, true)
		e.read = func(b []byte) (int, int, net.IP, net.Addr, error) {
			n, cm, from, err := p.ReadFrom(b)
			if err != nil {
				return 0, 0, nil, nil, err
			}
			return n, cm.TTL, cm.Dst, from, nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// heard is what all notifications of one set have in common.
type heard struct {
	group          string
	from           string
	hops           int
	kind, location string
	boot           string
}

// times repeats a set.
func times(n int, h heard) []heard { return slices.Repeat([]heard{h}, n) }

// expect waits for whole sets. Those of one group come in order; how the groups
// take turns does not matter.
func (e ear) expect(sets ...[]heard) {
	e.t.Helper()
	want := map[string][]heard{}
	left := 0
	for _, h := range slices.Concat(sets...) {
		want[h.group] = append(want[h.group], h)
		left += len(announced())
	}
	got := map[string][]heard{}
	rows := map[string][]string{} // of the set that is on its way
	for ; left > 0; left-- {
		h, row := e.hear()
		if len(rows[h.group]) == 0 {
			got[h.group] = append(got[h.group], h)
		} else if first := got[h.group][len(got[h.group])-1]; h != first {
			e.t.Errorf("%+v in the set %+v", h, first)
		}
		if rows[h.group] = append(rows[h.group], row); len(rows[h.group]) < len(announced()) {
			continue
		}
		if diff := cmp.Diff(announced(), rows[h.group]); diff != "" {
			e.t.Errorf("%+v (-want +got):\n%s", h, diff)
		}
		rows[h.group] = nil
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(heard{})); diff != "" {
		e.t.Fatalf("sets (-want +got):\n%s", diff)
	}
}

// hear waits for one notification.
func (e ear) hear() (h heard, row string) {
	e.t.Helper()
	_ = e.udp.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	n, hops, to, from, err := e.read(buf)
	if err != nil {
		e.t.Fatal(err)
	}
	m := read(e.t, buf[:n])
	at := from.(*net.UDPAddr).AddrPort()
	h = heard{
		group: m.header.Get("HOST"), from: at.Addr().Unmap().WithZone("").String(), hops: hops,
		kind: m.header.Get("NTS"), location: located(m), boot: m.header.Get("BOOTID.UPNP.ORG"),
	}
	if sent := net.JoinHostPort(strings.ToUpper(to.String()), "1900"); sent != h.group || at.Port() != 1900 {
		e.t.Errorf("HOST %s, but sent to %s, from port %d", h.group, sent, at.Port())
	}
	return h, m.row()
}

// change is what happens to the addresses of the first LAN, and what is said then.
type change struct {
	old, next string // as the kernel has it
	locals    []netip.Addr
	want      [][]heard
}

// TestNetworkAnnouncements: SSDP-19, SSDP-21 and SSDP-23 as a host on the LAN hears
// them: each group from its own address, so many hops far, and the change of one scope
// unheard in the other. An address that is gone is taken back too.
func TestNetworkAnnouncements(t *testing.T) {
	t.Parallel()
	const four, link, site = "239.255.255.250:1900", "[FF02::C]:1900", "[FF05::C]:1900"
	const byebye, alive = "ssdp:byebye", "ssdp:alive"
	first := map[string][][]heard{"IPv4": {
		times(1, heard{four, "192.168.1.1", 2, byebye, "", "500"}),
		times(3, heard{four, "192.168.1.1", 2, alive, "192.168.1.1", "500"}),
	}, "IPv6": {
		times(1, heard{link, "fe80::1", 1, byebye, "", "500"}),
		times(3, heard{link, "fe80::1", 1, alive, "[fe80::1]", "500"}),
		times(1, heard{site, "2001:db8:77::1", 10, byebye, "", "500"}),
		times(3, heard{site, "2001:db8:77::1", 10, alive, "[2001:db8:77::1]", "500"}),
	}}
	changes := map[string][]change{"IPv4": {
		{"192.168.1.1/24", "192.168.1.2/24", []netip.Addr{netip.MustParseAddr("192.168.1.2")}, [][]heard{
			times(1, heard{four, "192.168.1.2", 2, byebye, "", "500"}),
			times(3, heard{four, "192.168.1.2", 2, alive, "192.168.1.2", "501"}),
		}},
	}, "IPv6": {
		{"2001:db8:77::1/64", "2001:db8:79::1/64", []netip.Addr{linkAddr, netip.MustParseAddr("2001:db8:79::1")}, [][]heard{
			times(1, heard{site, "2001:db8:79::1", 10, byebye, "", "500"}),
			times(3, heard{site, "2001:db8:79::1", 10, alive, "[2001:db8:79::1]", "501"}),
		}},
		{"2001:db8:79::1/64", "", []netip.Addr{linkAddr}, [][]heard{
			times(1, heard{site, "fe80::1", 10, byebye, "", "501"}),
		}},
	}}
	last := map[string][]heard{
		"IPv4": times(2, heard{four, "192.168.1.2", 2, byebye, "", "501"}),
		"IPv6": times(2, heard{link, "fe80::1", 1, byebye, "", "500"}),
	}
	inBoth(t, func(t *testing.T, h *home) {
		ear, deaf := newEar(t, h, 0), newEar(t, h, 1)
		cfg := h.config(0, newWatcher())
		cfg.NewBootID = func(last uint32) uint32 { return last + 1 }
		server, stop := h.serve(t, 0, cfg)
		ear.expect(first[h.name]...)
		for _, c := range changes[h.name] {
			h.renumber(c.old, c.next)
			server.SetAddresses(c.locals, h.segments[0].prefixes)
			ear.expect(c.want...)
		}
		stop()
		ear.expect(last[h.name])

		// E8: nothing of it on the other LAN. What was sent to it later is there.
		control := []byte("control")
		sender := bind(t, h.gateway, "lan1", netip.AddrPortFrom(h.segments[1].served(), 0).String())
		for _, group := range h.groups {
			sender.send(control, group)
			if b, from := deaf.next(); !bytes.Equal(b, control) {
				t.Errorf("the other LAN hears %q from %v", b, from)
			}
		}
	})
}

// TestConnSendsByItsInterface: the Conn itself names interface and source, also
// on a socket that is bound to neither.
func TestConnSendsByItsInterface(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, h *home) {
		ear := newEar(t, h, 1)
		conn, err := h.newConn(bind(t, h.gateway, "lan0", h.wildcard).udp, h.gateway.Index("lan1"))
		if err != nil {
			t.Fatal(err)
		}
		from, group := h.segments[1].served(), h.group()
		if err := conn.Send([]byte("NOTIFY * HTTP/1.1\r\n\r\n"), from, group); err != nil {
			t.Fatal(err)
		}
		if _, got := ear.receive(); got != netip.AddrPortFrom(from, group.Port()) {
			t.Errorf("from %v, want %v", got, from)
		}
	})
}
