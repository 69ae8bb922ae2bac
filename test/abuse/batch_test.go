package abuse

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// generation is the number of the gateway's ruleset: each transaction counts it up.
func generation(t *testing.T, h *lab.Host) uint32 {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(h.Namespace())})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4), // struct nfgenmsg
	})
	if err != nil || len(answers) != 1 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	ad, err := netlink.NewAttributeDecoder(answers[0].Data[4:])
	if err != nil {
		t.Fatal(err)
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_GEN_ID {
			return ad.Uint32()
		}
	}
	t.Fatal("the kernel tells no generation")
	return 0
}

// TestRequestsShareTransactions: NAT-PMP requests of 30 hosts that come while the
// engine is held up, here by 5,000 rules of the owner's that have to be looked
// through, share a kernel transaction or two, as UPnP's do.
func TestRequestsShareTransactions(t *testing.T) {
	t.Parallel()
	const hosts = 30
	n := testrig.Network(t, "a", "b")
	var rules strings.Builder
	rules.WriteString("table ip forwards {\n chain prerouting {\n type nat hook prerouting priority dstnat;\n")
	for i := range 5_000 {
		fmt.Fprintf(&rules, " iifname \"wan0\" tcp dport %d dnat to 192.168.77.20\n", 20_000+i)
	}
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(rules.String() + " }\n}\n")
	if err := n.Gateway.Start(load); err != nil {
		t.Fatal(err)
	}
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, "[limits]\ngrants_per_second = 0\nrequests_per_second = 0\n")
	talkers := r.aliases(t, hosts)
	before := generation(t, r.Gateway)
	request := pmp(1, 6000, 0, 3600)
	for _, c := range talkers {
		if _, err := c.WriteToUDPAddrPort(request, server); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range talkers {
		if err := c.SetReadDeadline(time.Now().Add(2 * soon)); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 100)
		if n, _, err := c.ReadFromUDPAddrPort(reply); err != nil || !like(reply[:n], "00810000 ........ 1770.... 00000e..") {
			t.Fatalf("host %d got % x, %v", i, reply[:n], err)
		}
	}
	if made := generation(t, r.Gateway) - before; made == 0 || made > hosts/4 {
		t.Errorf("%d mappings took %d transactions", hosts, made)
	}
}

// aliases gives host a so many addresses that the gateway knows, and a socket at each.
func (r *rig) aliases(t *testing.T, n int) (conns []*net.UDPConn) {
	t.Helper()
	for i := range n {
		a := netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + i)})
		if err := r.Host("a").AddAddress(a); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t, soon)
		_, err := r.Host("a").ExchangeFrom(ctx, a, lab.GatewayLAN, natpmpAddress)
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		c, err := r.Host("a").ListenPacket(hostPort(a, 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}
