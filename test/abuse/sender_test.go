package abuse

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// gateways are those on which it must be seen who sends a datagram: with each
// backend, and where the kernel lends no marks.
var gateways = map[string]func(t *testing.T, settings string, hosts ...string) *rig{
	"nftables": func(t *testing.T, settings string, hosts ...string) *rig {
		return startOn(t, testrig.Network(t, hosts...), settings)
	},
	"iptables": func(t *testing.T, settings string, hosts ...string) *rig {
		n := testrig.Network(t, hosts...)
		return &rig{testrig.StartWith(t, n, strings.Replace(lab.Settings, "accept_chain = \""+lab.FirewallChain+"\"", `backend = "iptables"`, 1)+settings)}
	},
	"packet socket": func(t *testing.T, settings string, hosts ...string) *rig {
		n := testrig.Network(t, hosts...)
		withoutMarks(t, n)
		return startOn(t, n, settings)
	},
}

// withoutMarks keeps the daemon from writing the rules that mark frames: a program
// that stays owns the table by which it tries whether it can.
func withoutMarks(t *testing.T, n *lab.Network) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Gateway.Start(cmd); err != nil {
		t.Fatalf("nft: %v (test/install brings what is missing)", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.WriteString(in, "add table inet portcullis_frames_probe { flags owner; }\n"); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the table is owned", func() bool {
		return strings.Contains(testrig.On(t, n.Gateway, "nft", "list", "ruleset"), "portcullis_frames_probe")
	})
}

// forger is one on a host that sends to the gateway.
func (r *rig) forger(t *testing.T, host string) *lab.Forger {
	t.Helper()
	f, err := r.Host(host).Forger(r.Gateway.MAC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// forgery is a request in the name of another host.
type forgery struct {
	id       string
	from, to netip.AddrPort
	payload  []byte
}

// forgeries are requests in the name of host a, which has mapped 6000/udp by NAT-PMP
// and 6001/udp by PCP, and opened 9000/udp for its global address.
func (r *rig) forgeries(t *testing.T) (all []forgery) {
	t.Helper()
	a := r.Host("a")
	add := func(id string, client, gateway netip.Addr, payload []byte) {
		all = append(all, forgery{id, netip.AddrPortFrom(client, 40123), netip.AddrPortFrom(gateway, 5351), payload})
	}
	for id, b := range map[string][]byte{
		"map": pmp(1, 6100, 6100, 3600), "map TCP": pmp(2, 6100, 6100, 3600), "renew": pmp(1, 6000, 6000, 7000),
		"delete": pmp(1, 6000, 0, 0), "delete all": pmp(1, 0, 0, 0), "ask the address": {0, 0},
	} {
		add("NAT-PMP/"+id, a.Addr, lab.GatewayLAN, b)
	}
	wishes := map[string]pcpMap{
		"map": {internal: 6101, suggested: 6101, nonce: nonceTwo}, "set": {internal: 6102, options: "82000004 000a1776 00000000"},
		"renew": {internal: 6001, lifetime: 7000}, "delete": {internal: 6001, delete: true},
	}
	for id, m := range wishes {
		m.client = a.Addr
		add("PCP/"+id, a.Addr, lab.GatewayLAN, m.octets(t))
	}
	wishes["renew"], wishes["delete"] = pcpMap{internal: 9000, lifetime: 7000}, pcpMap{internal: 9000, delete: true}
	for _, gateway := range []netip.Addr{lab.GatewayLAN6, lab.GatewayLinkLocal} {
		for id, m := range wishes {
			m.client = a.Addr6
			add(fmt.Sprintf("PCP to %s/%s", gateway, id), a.Addr6, gateway, m.octets(t))
		}
	}
	return all
}

// TestForgedSource: C11, H9, CHOICE-21. A datagram with a neighbour's source address, from
// another machine, opens, renews and ends nothing, in both protocols and families,
// with either backend; it gets no answer, and the owner is told who sent it. The very
// same datagrams from the neighbour's MAC address do all of it.
func TestForgedSource(t *testing.T) {
	t.Parallel()
	for name, start := range gateways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, noRates, "a", "b")
			want := map[string]string{"packet socket": "packet socket"}[name]
			if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.Senders != or(want, "mark") {
				t.Errorf("the status is %+v, %v", s, err)
			}
			a, b, hostA := r.talker(t, "a"), r.talker(t, "b"), r.Host("a")
			grant(t, a, 1, 6000)
			if m := a.mapPCP(t, pcpMap{internal: 6001, suggested: 6001}); m.code != 0 {
				t.Fatalf("PCP: %+v", m)
			}
			six := lab.MapRequest{Gateway: lab.GatewayLAN6, Protocol: "UDP", Internal: 9000, Suggested: 9000, Lease: hour, Nonce: [12]byte([]byte(nonceOne))}
			if _, err := mapBy(t, hostA, six); err != nil {
				t.Fatalf("PCP over IPv6: %v", err)
			}
			grant(t, b, 1, 7000)
			before := r.World(t)
			forger, victim := r.forger(t, "b"), r.answers(t, "a")
			all := r.forgeries(t)
			for _, f := range all {
				if err := forger.Send(f.from, f.to, f.payload); err != nil {
					t.Fatal(err)
				}
				b.nothing(t) // what was sent before has been looked at
				r.sixLooked(t, f.to)
			}
			r.Unchanged(t, before, "C11", "H9")
			if n := victim(); n != 0 {
				t.Errorf("%d answers to the host whose address was used", n)
			}
			r.Logged(t, "forged request ignored")
			for _, line := range strings.Split(r.Daemon.Log(), "\n") {
				if strings.Contains(line, "forged request ignored") &&
					!(strings.Contains(line, "mac="+hostA.MAC.String()) && strings.Contains(line, "sender="+r.Host("b").MAC.String())) {
					t.Errorf("the report does not name both: %s", line)
				}
			}
			if n := strings.Count(r.Daemon.Log(), "forged request ignored"); n > 3 {
				t.Errorf("%d lines for %d forgeries", n, len(all))
			}

			// What a forged MAC address still can: everything that its host could.
			forger.MAC = hostA.MAC
			for _, f := range all {
				if strings.Contains(f.id, "/map") {
					if err := forger.Send(f.from, f.to, f.payload); err != nil {
						t.Fatal(err)
					}
				}
			}
			testrig.Eventually(t, soon, "the same datagrams from the neighbour's MAC address map", func() bool {
				return len(r.List(t)) == 4+2+1+1 // NAT-PMP, PCP, a pinhole
			})
		})
	}
}

// answers counts what comes to port 40123 of a host, in both families.
func (r *rig) answers(t *testing.T, host string) func() int {
	t.Helper()
	var conns []*net.UDPConn
	for _, a := range []netip.Addr{r.Host(host).Addr, r.Host(host).Addr6} {
		c, err := r.Host(host).ListenPacket(netip.AddrPortFrom(a, 40123).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return func() (n int) {
		for _, c := range conns {
			for {
				// What was sent is here: the sender was heard of since.
				if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := c.ReadFromUDPAddrPort(make([]byte, 2048)); err != nil {
					break
				}
				n++
			}
		}
		return n
	}
}

// sixLooked returns when what was sent to an IPv6 address of the gateway before has
// been looked at.
func (r *rig) sixLooked(t *testing.T, to netip.AddrPort) {
	t.Helper()
	if to.Addr().Is4() {
		return
	}
	ctx, cancel := contextFor(t, soon)
	defer cancel()
	if _, err := r.Host("b").Epoch(ctx, netip.Addr{}, to.Addr()); err != nil {
		t.Error(err)
	}
}

// TestForgedBehindRouter: C11 for extra_prefixes. A host behind an inner router is who
// that router's frames say; a neighbour is not, and neither is the router a host of
// the link.
func TestForgedBehindRouter(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "router", "b")
	inner, other := netip.MustParseAddr("10.9.9.7"), netip.MustParseAddr("10.9.8.7")
	router, g := n.Host("router"), n.Gateway
	routeTo(t, g, "10.9.9.0/24", router.Addr)
	routeTo(t, g, "10.9.8.0/24", lab.InternetOne) // not behind the LAN
	for _, a := range []netip.Addr{inner, other} {
		if err := router.AddAddress(a); err != nil {
			t.Fatal(err)
		}
	}
	settings := strings.Replace(lab.Settings, "[lan]\n", "[lan]\nextra_prefixes = [\"10.9.8.0/23\"]\n", 1)
	r := &rig{testrig.StartWith(t, n, settings+noRates)}
	behind, err := router.ListenPacket(netip.AddrPortFrom(inner, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	grant(t, &talker{host: router, conn: behind}, 1, 6000)
	b := r.talker(t, "b")
	before := r.World(t)
	forger := r.forger(t, "b")
	asRouter := r.forger(t, "router")
	for _, x := range []struct {
		by   *lab.Forger
		from netip.Addr
	}{{forger, inner}, {forger, router.Addr}, {asRouter, r.Host("b").Addr}, {asRouter, other}} {
		for _, payload := range [][]byte{pmp(1, 6100, 6100, 3600), pmp(1, 6000, 0, 0)} {
			if err := x.by.Send(netip.AddrPortFrom(x.from, 40123), server, payload); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.nothing(t)
	r.Unchanged(t, before, "C11")
}

func routeTo(t *testing.T, h *lab.Host, prefix string, via netip.Addr) {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	if err == nil {
		err = h.Netlink().RouteAdd(&netlink.Route{Dst: dst, Gw: via.AsSlice()})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestForgedWhileFlushed: C11. When somebody has taken our rules away nobody is
// believed, and hosts are served again when they ask again.
func TestForgedWhileFlushed(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.talker(t, "a"), r.talker(t, "b")
	grant(t, a, 1, 6000)
	grant(t, b, 1, 7000)
	forger := r.forger(t, "b")
	for range 3 {
		testrig.On(t, r.Gateway, "nft", "delete", "table", "inet", "portcullis_frames")
		for _, payload := range [][]byte{pmp(1, 6100, 6100, 3600), pmp(1, 6000, 0, 0)} {
			if err := forger.Send(netip.AddrPortFrom(hostA, 40123), server, payload); err != nil {
				t.Fatal(err)
			}
		}
		grant(t, a, 1, 6000)
	}
	r.Logged(t, "the rules that tell who sent a datagram were changed")
	want := []string{"udp 6000 -> 192.168.77.10:6000", "udp 7000 -> 192.168.77.20:7000"}
	if got := r.ports(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("mapped: %q", got)
	}
}

// TestNobodySeesSenders: C11. Where it cannot be seen who sends a datagram, NAT-PMP and
// PCP are not served, and the owner is told; UPnP is.
func TestNobodySeesSenders(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	withoutMarks(t, n)
	exe := filepath.Join(t.TempDir(), "portcullis")
	script := "#!/bin/sh\nexec setpriv --bounding-set=-net_raw " + testrig.Exe + " \"$@\"\n"
	if err := os.WriteFile(exe, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := n.StartDaemon(t.Context(), exe, noRates)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{&testrig.Rig{Network: n, Daemon: d, Owner: control.NewClient(d.Socket)}}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	r.Logged(t, "NAT-PMP and PCP are not served")
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Firewall.Senders != "" {
		t.Errorf("the status is %+v, %v", s, err)
	}
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Errorf("UPnP: %v", err)
	}
	a := r.talker(t, "a")
	a.send(t, server, pmp(1, 6001, 6001, 3600))
	if reply := a.receive(t, time.Second); reply != nil {
		t.Errorf("NAT-PMP: % x", reply)
	}
	if list := r.List(t); len(list) != 1 {
		t.Errorf("mapped: %+v", list)
	}
}
