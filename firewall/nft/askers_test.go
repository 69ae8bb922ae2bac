package nft_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
)

// asking is a gateway that remembers who sends to it, and a host on its LAN.
type asking struct {
	*nft.Frames
	gate, host *netnstest.Space
	mac        [6]byte // the host's
	lan0, lan1 int     // the indexes of the gateway's interfaces
}

func newAsking(t testing.TB, most uint64) *asking {
	t.Helper()
	a := &asking{gate: netnstest.New(t, "gateway"), host: netnstest.New(t, "host")}
	netnstest.Cable(a.gate, "lan0 192.168.1.1/24 2001:db8::1/64", a.host, "eth0 192.168.1.10/24 2001:db8::10/64")
	netnstest.Cable(a.gate, "lan1 192.168.2.1/24", a.host, "eth1 192.168.2.10/24")
	a.lan0, a.lan1 = a.gate.Index("lan0"), a.gate.Index("lan1")
	a.gate.Sysctl("net/ipv4/icmp_ratelimit", "0")
	a.gate.Sysctl("net/ipv6/icmp/ratelimit", "0")
	a.host.Links(func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err == nil {
			a.mac = [6]byte(l.Attrs().HardwareAddr)
		}
		return err
	})
	var err error
	if a.Frames, err = nft.OpenFrames(t.Context(), a.gate.FD(), most, 5000, 1900, 5351); err != nil {
		t.Fatal(err)
	}
	if err := a.Follow(t.Context(), []string{"lan0"}); err != nil {
		t.Fatal(err)
	}
	return a
}

// send has the host send a datagram, which has arrived when it returns.
func (a *asking) send(t testing.TB, to string) {
	t.Helper()
	if err := a.host.Probe(to, 10*time.Second); !errors.Is(err, unix.ECONNREFUSED) { // nobody listens there
		t.Fatal(err)
	}
}

func (a *asking) want(t testing.TB, when string, mac [6]byte, silent bool) {
	t.Helper()
	if got, err := a.Silent(t.Context(), a.lan0, mac, netip.MustParseAddr("192.168.1.99")); got != silent || err != nil {
		t.Errorf("%s: silent is %v, want %v; error %v", when, got, silent, err)
	}
}

// forget has the kernel remember nobody, as it does after a while.
func (a *asking) forget(t testing.TB) {
	t.Helper()
	for _, set := range []string{"askers", "new_askers", "full_for", "full_for_known", "web_askers", "web_askers6"} {
		do(t, a.gate, "flush set inet portcullis_frames "+set)
	}
	a.Age(0)
}

var stranger = [6]byte{2, 9, 9, 9, 9, 9}

// TestSilent: who has sent to a port of ours lately is known by MAC address, and who has
// not, whether the machine has answered before or is new.
func TestSilent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		most  uint64
		known bool
	}{"a known machine": {200, true}, "a new machine": {200, false}, "a machine without a limit": {0, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsking(t, c.most)
			if c.known {
				if err := a.Know(t.Context(), [][6]byte{a.mac}); err != nil {
					t.Fatal(err)
				}
			}
			a.want(t, "the table is new, and who sent before it is not known", a.mac, false)
			a.Age(time.Minute)
			a.want(t, "nobody has sent", a.mac, true)
			for _, to := range []string{"192.168.1.1:53", "192.168.2.1:1900"} {
				a.send(t, to)
				a.want(t, "after a datagram to "+to, a.mac, true)
			}
			for _, to := range []string{"192.168.1.1:1900", "192.168.1.1:5351", "[2001:db8::1]:5351", "[2001:db8::1]:1900"} {
				a.send(t, to)
				a.want(t, "after a datagram to "+to, a.mac, false)
				a.want(t, "another, after a datagram to "+to, stranger, true)
				a.forget(t)
				a.want(t, "long after a datagram to "+to, a.mac, true)
			}
			for _, to := range []string{"192.168.1.1:5000", "[2001:db8::1]:5000"} {
				conn, err := a.host.Dial(":0", to, 10*time.Second) // refused, which is an answer
				if err == nil {
					_ = conn.Close()
				}
				a.want(t, "after a connection to "+to, a.mac, false)
				own := map[bool]string{true: "192.168.1.10", false: "2001:db8::10"}[strings.HasPrefix(to, "192")]
				for host, want := range map[string]bool{own: false, "192.168.1.11": true, "2001:db8::11": true} {
					if got, err := a.Silent(t.Context(), a.lan0, stranger, netip.MustParseAddr(host)); got != want || err != nil {
						t.Errorf("after a connection to %s: %s by another machine is silent: %v, %v", to, host, got, err)
					}
				}
				a.forget(t)
			}
			if err := a.Follow(t.Context(), []string{"lan0", "lan1"}); err != nil {
				t.Fatal(err)
			}
			a.want(t, "the table is new again", a.mac, false)
		})
	}
}

// TestSilentInAFlood: where those that are invented leave no room, it is not certain that a
// machine is silent that is new; of those that are known it is.
func TestSilentInAFlood(t *testing.T) {
	t.Parallel()
	a := newAsking(t, 200)
	known := [6]byte{2, 8, 8, 8, 8, 8}
	if err := a.Know(t.Context(), [][6]byte{known}); err != nil {
		t.Fatal(err)
	}
	a.Age(time.Minute)
	var flood strings.Builder
	for i := range 4096 {
		fmt.Fprintf(&flood, "add element inet portcullis_frames new_askers { lan0 . 02:01:00:00:%02x:%02x timeout 1h }\n", i>>8, i&255)
	}
	do(t, a.gate, flood.String())
	a.want(t, "before the host has sent", a.mac, true)
	a.send(t, "192.168.1.1:1900")
	a.want(t, "there was no room for it", a.mac, false)
	a.want(t, "there would have been none for it", stranger, false)
	a.want(t, "for it there was", known, true)
	if err := a.Know(t.Context(), [][6]byte{known, a.mac, stranger}); err != nil {
		t.Fatal(err)
	}
	a.want(t, "it is known, but was not when it sent", a.mac, false)
	a.Age(time.Minute)
	a.want(t, "it has been known for long, and does not send", stranger, true)
	a.send(t, "192.168.1.1:1900")
	a.want(t, "it is known, and sends", a.mac, false)
}

// TestSilentElsewhere: A5. Who has sent on one LAN, by UDP or TCP, is silent on another,
// whatever address it has there, until its first packet there.
func TestSilentElsewhere(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"a known machine": true, "a new machine": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAsking(t, 200)
			mac := [6]byte{2, 5, 5, 5, 5, 5} // of the host on both, as one that roams
			for _, eth := range []string{"eth0", "eth1"} {
				a.host.Links(func(h *netlink.Handle) error {
					l, err := h.LinkByName(eth)
					if err == nil {
						err = h.LinkSetHardwareAddr(l, mac[:])
					}
					return err
				})
			}
			if err := a.Follow(t.Context(), []string{"lan0", "lan1"}); err != nil {
				t.Fatal(err)
			}
			if known {
				if err := a.Know(t.Context(), [][6]byte{mac}); err != nil {
					t.Fatal(err)
				}
			}
			silent := func(when string, ifindex int, mac [6]byte, host string, want bool) {
				t.Helper()
				if got, err := a.Silent(t.Context(), ifindex, mac, netip.MustParseAddr(host)); got != want || err != nil {
					t.Errorf("%s: silent is %v, want %v; error %v", when, got, want, err)
				}
			}
			a.Age(time.Minute)
			a.send(t, "192.168.1.1:1900")
			silent("on the LAN on which it sent", a.lan0, mac, "192.168.1.10", false)
			silent("on the other LAN", a.lan1, mac, "192.168.2.10", true)
			silent("on the other LAN, by its address on the first", a.lan1, mac, "192.168.1.10", true)
			a.send(t, "192.168.2.1:1900")
			silent("after its first packet there", a.lan1, mac, "192.168.2.10", false)
			a.forget(t)
			for _, to := range []string{"192.168.1.1:5000", "[2001:db8::1]:5000"} {
				if conn, err := a.host.Dial(":0", to, 10*time.Second); err == nil {
					_ = conn.Close()
				}
			}
			for _, own := range []string{"192.168.1.10", "2001:db8::10"} {
				silent("after a connection, "+own, a.lan0, stranger, own, false)
				silent("after a connection, on the other LAN, "+own, a.lan1, stranger, own, true)
			}
			silent("after a connection, its machine on the other LAN", a.lan1, mac, "192.168.2.10", true)
		})
	}
}

// TestSilentOnABridge: the interface is the bridge that the LAN is, and not its port.
func TestSilentOnABridge(t *testing.T) {
	t.Parallel()
	a := newAsking(t, 200)
	a.gate.Bridge("br-lan", nil, "lan0")
	a.gate.Address("br-lan", "192.168.3.1/24")
	a.host.Address("eth0", "192.168.3.10/24")
	if err := a.Follow(t.Context(), []string{"br-lan"}); err != nil {
		t.Fatal(err)
	}
	a.Age(time.Minute)
	a.send(t, "192.168.3.1:1900")
	for index, want := range map[int]bool{a.gate.Index("br-lan"): false, a.lan0: true} {
		if got, err := a.Silent(t.Context(), index, a.mac, netip.MustParseAddr("192.168.3.10")); got != want || err != nil {
			t.Errorf("on interface %d (the port is %d): silent is %v, %v", index, a.lan0, got, err)
		}
	}
}

// TestKnownAskersFull: where even known machines have no room, because they are forged on
// several LANs, none is certain to be silent.
func TestKnownAskersFull(t *testing.T) {
	t.Parallel()
	a := newAsking(t, 200)
	if err := a.Know(t.Context(), [][6]byte{a.mac, stranger}); err != nil {
		t.Fatal(err)
	}
	a.Age(time.Minute)
	var flood strings.Builder
	for i := range 4096 {
		fmt.Fprintf(&flood, "add element inet portcullis_frames new_askers { lan1 . 02:01:00:00:%02x:%02x timeout 1h }\n", i>>8, i&255)
		fmt.Fprintf(&flood, "add element inet portcullis_frames askers { lan1 . 02:01:00:00:%02x:%02x timeout 1h, lo . 02:01:00:00:%02x:%02x timeout 1h }\n", i>>8, i&255, i>>8, i&255)
	}
	do(t, a.gate, flood.String())
	a.want(t, "before the host has sent", a.mac, true)
	a.send(t, "192.168.1.1:1900")
	a.want(t, "there was no room for it", a.mac, false)
	a.want(t, "there would have been none for it", stranger, false)
}

// TestOlderAskers: what a daemon of an earlier version left behind, which knew machines
// without their LANs, is written anew.
func TestOlderAskers(t *testing.T) {
	t.Parallel()
	gate := netnstest.New(t, "gateway")
	do(t, gate, `table inet portcullis_frames {
	set lan_ifaces { type ifname; elements = { "lan0" } }
	set known { type ether_addr; size 4096; }
	set askers { type ether_addr; size 4096; flags dynamic,timeout; timeout 15s; elements = { 02:09:09:09:09:09 timeout 1h } }
	set new_askers { type ether_addr; size 4096; flags dynamic,timeout; timeout 15s; }
	set full_for { type inet_proto; size 2; flags dynamic,timeout; timeout 15s; }
	set web_askers { type ipv4_addr; size 4096; flags dynamic,timeout; timeout 15s; }
	set web_askers6 { type ipv6_addr; size 4096; flags dynamic,timeout; timeout 15s; }
	chain mark_frames {
		type filter hook input priority 250; policy accept;
		iifname @lan_ifaces iiftype ether udp dport 1900 jump remember_asker
	}
	chain remember_asker {
		iiftype ether ether saddr @known update @askers { ether saddr timeout 15s } return
		iiftype ether update @new_askers { ether saddr timeout 15s } return
		update @full_for { meta l4proto timeout 15s }
	}
}
`)
	f, err := nft.OpenFrames(t.Context(), gate.FD(), 200, 5000, 1900, 5351)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Follow(t.Context(), []string{"lo"}); err != nil {
		t.Fatal(err)
	}
	f.Age(time.Minute)
	if silent, err := f.Silent(t.Context(), gate.Index("lo"), stranger, netip.MustParseAddr("192.168.1.99")); !silent || err != nil {
		t.Errorf("a machine that the older table knew: silent is %v, %v", silent, err)
	}
	if text, err := gate.Run("list table inet portcullis_frames\n", "nft", "-f", "-"); err != nil || strings.Contains(text, "09:09") || strings.Count(text, "iface_index . ") != 4 {
		t.Errorf("the table is, %v:\n%s", err, text)
	}
	if drift, err := f.Audit(t.Context()); drift != "" || err != nil {
		t.Errorf("%q, %v", drift, err)
	}
}

// TestSilentAfterHarm: where others have changed the rules, nobody is certain to be silent,
// and what they were is remembered from then on.
func TestSilentAfterHarm(t *testing.T) {
	t.Parallel()
	a := newAsking(t, 200)
	for _, harm := range []string{
		"flush ruleset",
		"flush chain inet portcullis_frames remember_asker",
		"flush chain inet portcullis_frames mark_frames",
		"flush set inet portcullis_frames lan_ifaces",
		"add table inet portcullis_frames { flags dormant; }",
	} {
		a.Age(time.Minute)
		a.want(t, "before "+harm, a.mac, true)
		a.Age(0)
		do(t, a.gate, harm)
		a.want(t, "after "+harm, a.mac, false)
		if drift, err := a.Audit(t.Context()); drift == "" || err != nil {
			t.Errorf("after %s: %q, %v", harm, drift, err)
		}
		a.want(t, "after the repair of "+harm, a.mac, false)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	a.want(t, "after the end", a.mac, false)
}

// BenchmarkSilent is what a request pays.
func BenchmarkSilent(b *testing.B) {
	a := newAsking(b, 200)
	if err := a.Know(b.Context(), [][6]byte{a.mac}); err != nil {
		b.Fatal(err)
	}
	a.Age(time.Minute)
	do(b, a.gate, fmt.Sprintf("add element inet portcullis_frames askers { lan0 . %s timeout 1h }", net.HardwareAddr(a.mac[:])))
	b.Run("of one that has sent", func(b *testing.B) {
		for b.Loop() {
			a.Age(0)
			a.want(b, "", a.mac, false)
		}
	})
	b.Run("of one that has just sent", func(b *testing.B) {
		for b.Loop() {
			a.want(b, "", a.mac, false)
		}
	})
	b.Run("of one that is silent", func(b *testing.B) {
		for b.Loop() {
			a.want(b, "", stranger, true)
		}
	})
}
