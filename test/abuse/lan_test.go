package abuse

import (
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

// TestPrefixComes: a LAN that gains or loses a prefix (providers announce new
// IPv6 ones all day) goes on being served; nobody is shut out, and nothing is
// announced. Hosts of the new prefix are served, and no longer when it is gone.
func TestPrefixComes(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	gateway, host := netip.MustParsePrefix("192.168.88.1/24"), netip.MustParsePrefix("192.168.88.10/24")
	change := func(h *lab.Host, ifname string, p netip.Prefix, do func(*netlink.Handle, netlink.Link, *netlink.Addr) error) {
		t.Helper()
		l, err := h.Netlink().LinkByName(ifname)
		if err != nil {
			t.Fatal(err)
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
		if err := do(h.Netlink(), l, addr); err != nil {
			t.Fatal(err)
		}
	}
	add := func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error { return h.AddrAdd(l, a) }
	change(r.Host("a"), "eth0", host, add)
	change(r.Gateway, lab.Bridge, gateway, add)
	testrig.Eventually(t, soon, "the new prefix is served", func() bool { return r.askFrom(t, host.Addr()) == "404" })
	change(r.Gateway, lab.Bridge, gateway, func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error {
		if err := h.AddrDel(l, a); err != nil {
			return err
		}
		// Without a way back there would be silence in any case.
		return h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: host.Masked().Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}})
	})
	testrig.Eventually(t, soon, "the old prefix is not served", func() bool { return r.askFrom(t, host.Addr()) == "" })
	if s := r.askFrom(t, r.Host("a").Addr); s != "404" {
		t.Errorf("the host's own address gets %q", s)
	}
	log := r.Daemon.Log()
	for _, at := range []string{"family=4 address=192.168.77.1 ", "family=6 "} {
		if n := strings.Count(log, `msg="serving a LAN" interface=br-lan `+at); n != 1 {
			t.Errorf("the LAN was opened %d times for %s\n%s", n, at, log)
		}
	}
	if strings.Contains(log, "discovery withdrawn") || strings.Count(log, "discovery announced") != 3 { // IPv4, the link and the site
		t.Errorf("discovery was announced again\n%s", log)
	}
}

// askFrom asks for a page that is not there, from an address of host a, and
// gives the status; "" when the connection is closed without an answer.
func (r *rig) askFrom(t *testing.T, src netip.Addr) (answer string) {
	t.Helper()
	err := r.Host("a").Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: src.AsSlice()}, Timeout: time.Second}
		conn, err := d.Dial("tcp4", hostPort(lab.GatewayLAN, 5000))
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("GET /nothing HTTP/1.1\r\nHost: " + hostPort(lab.GatewayLAN, 5000) + "\r\n\r\n")); err != nil {
			return err
		}
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		answer = status(string(buf[:n]))
		return err
	})
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return "too late" // which says nothing
	}
	return answer
}
