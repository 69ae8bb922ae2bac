package lab_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
)

// TestHostFirewall: what the LAN starts passes, with its answers, and what the
// Internet starts does not; by IPv4 behind the gateway's address, by IPv6 as it
// is. What its forward chain accepts, passes.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	must(t, n.HostFirewall())
	laptop := n.Host("laptop")
	arrives(t, "out/IPv4", laptop, lab.InternetOne, n.Internet, lab.GatewayWAN)
	arrives(t, "out/IPv6", laptop, lab.InternetTwo6, n.Internet, laptop.Addr6)
	fails(t, "in/IPv4", n.Internet, laptop.Addr, laptop)
	fails(t, "in/IPv6", n.Internet, laptop.Addr6, laptop)
	arrives(t, "link-local", laptop, lab.GatewayLinkLocal, n.Gateway, laptop.LinkLocal)
	if !ping(t, n.Internet, laptop.Addr6, patience) {
		t.Error("RFC 4890: no echo")
	}
	letIn(t, n)
	arrives(t, "in/IPv4, let in", n.Internet, laptop.Addr, laptop, lab.InternetOne)
	arrives(t, "in/IPv6, let in", n.Internet, laptop.Addr6, laptop, lab.InternetOne6)
}

// letIn puts one rule at the top of the forward chain, where the
// daemon's jump will be.
func letIn(t *testing.T, n *lab.Network) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.Gateway.Namespace())))
	must(t, err)
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "hostfw"}
	conn.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: "forward"},
		Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
	must(t, conn.Flush())
}

// TestPacketTooBig: RFC 4890 section 4.3.1. A host outside learns that a packet
// of the LAN's was too big for a link on the way.
func TestPacketTooBig(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	must(t, n.HostFirewall())
	link, err := n.Gateway.Netlink().LinkByName(lab.WANInterface)
	must(t, err)
	must(t, n.Gateway.Netlink().LinkSetMTU(link, 1280))
	conn, err := n.Host("laptop").Dial(t.Context(), "udp", netip.AddrPortFrom(lab.InternetOne6, 8000).String())
	must(t, err)
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	}))
	must(t, err)
	for deadline := time.Now().Add(patience); ; {
		if _, err = conn.Write(make([]byte, 1400)); errors.Is(err, unix.EMSGSIZE) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the sender did not learn it: %v", err)
		}
	}
}

// TestHostFirewallInput: what the WAN starts does not reach the gateway, by either
// family, but the LAN does; neighbours are found.
func TestHostFirewallInput(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	must(t, n.HostFirewall())
	laptop := n.Host("laptop")
	outside := []netip.Addr{lab.GatewayWAN, lab.GatewayLAN, lab.GatewayWAN6, lab.GatewayLAN6, lab.GatewayWANLinkLocal}
	for _, to := range outside {
		arrives(t, to.String()+" without it", n.Internet, to, n.Gateway, netip.Addr{})
	}
	must(t, n.HostFirewallInput())
	for _, to := range outside {
		fails(t, to.String(), n.Internet, to, n.Gateway)
	}
	for _, to := range []netip.Addr{lab.GatewayLAN, lab.GatewayLAN6, lab.GatewayLinkLocal} {
		arrives(t, to.String(), laptop, to, n.Gateway, netip.Addr{})
	}
	arrives(t, "the gateway's own, answered", n.Gateway, lab.InternetOne6, n.Internet, lab.GatewayWAN6)
	for h, ifname := range map[*lab.Host]string{n.Internet: lab.HostPort, n.Gateway: lab.WANInterface} {
		forgetNeighbours(t, h, ifname)
	}
	if !ping(t, n.Internet, lab.GatewayWAN6, patience) {
		t.Error("RFC 4890: no echo from the gateway, or it cannot be found")
	}
}

// forgetNeighbours makes a host ask again who is there.
func forgetNeighbours(t *testing.T, h *lab.Host, ifname string) {
	t.Helper()
	l, err := h.Netlink().LinkByName(ifname)
	must(t, err)
	list, err := h.Netlink().NeighList(l.Attrs().Index, netlink.FAMILY_V6)
	must(t, err)
	for _, neighbour := range list {
		if err := h.Netlink().NeighDel(&neighbour); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
}

// ping reports whether an echo comes back.
func ping(t *testing.T, from *lab.Host, to netip.Addr, wait time.Duration) bool {
	t.Helper()
	var conn net.PacketConn
	must(t, from.Do(func() (err error) {
		conn, err = net.ListenPacket("ip6:ipv6-icmp", from.Addr6.String())
		return err
	}))
	defer conn.Close()
	token := []byte(rand.Text())
	request := slices.Concat([]byte{128, 0, 0, 0, 0, 77, 0, 1}, token) // the kernel adds the checksum
	_, err := conn.WriteTo(request, &net.IPAddr{IP: to.AsSlice()})
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(wait)))
	buf := make([]byte, 256)
	for {
		size, _, err := conn.ReadFrom(buf)
		if err != nil {
			return false
		}
		if buf[0] == 129 && bytes.Contains(buf[:size], token) {
			return true
		}
	}
}
