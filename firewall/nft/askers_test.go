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
}

func newAsking(t testing.TB, most uint64) *asking {
	t.Helper()
	a := &asking{gate: netnstest.New(t, "gateway"), host: netnstest.New(t, "host")}
	netnstest.Cable(a.gate, "lan0 192.168.1.1/24 2001:db8::1/64", a.host, "eth0 192.168.1.10/24 2001:db8::10/64")
	netnstest.Cable(a.gate, "lan1 192.168.2.1/24", a.host, "eth1 192.168.2.10/24")
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
	if got, err := a.Silent(t.Context(), mac, netip.MustParseAddr("192.168.1.99")); got != silent || err != nil {
		t.Errorf("%s: silent is %v, want %v; error %v", when, got, silent, err)
	}
}

// forget has the kernel remember nobody, as it does after a while.
func (a *asking) forget(t testing.TB) {
	t.Helper()
	for _, set := range []string{"askers", "new_askers", "full_for", "web_askers", "web_askers6"} {
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
					if got, err := a.Silent(t.Context(), stranger, netip.MustParseAddr(host)); got != want || err != nil {
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
		fmt.Fprintf(&flood, "add element inet portcullis_frames new_askers { 02:01:00:00:%02x:%02x timeout 1h }\n", i>>8, i&255)
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
	do(b, a.gate, fmt.Sprintf("add element inet portcullis_frames askers { %s timeout 1h }", net.HardwareAddr(a.mac[:])))
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
