package ssdp_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPortSharing: another discovery program on the gateway gets its copy of a
// multicast search and we get ours, whichever way it shares the port and whoever
// came first. Unicast searches come to us, but for the case that Listen and
// Listen6 name. The two families are nothing to each other (abuse case A8).
func TestPortSharing(t *testing.T) {
	t.Parallel()
	stolen := map[string]string{"IPv4": "we came first", "IPv6": "they came first"} // with SO_REUSEPORT
	inBoth(t, func(t *testing.T, h *home) {
		group := h.groups[0]
		client := bind(t, h.hosts[0], "eth0", map[string]string{"IPv4": "192.168.1.50:0", "IPv6": "[fe80::50]:0"}[h.name])
		unicast := netip.AddrPortFrom(h.segments[0].locals[0], group.Port())
		for _, c := range []struct {
			name    string
			address string
			options []int
		}{
			{"SO_REUSEADDR", h.wildcard, []int{unix.SO_REUSEADDR}},
			{"SO_REUSEPORT", h.wildcard, []int{unix.SO_REUSEPORT}},
			{"both", h.wildcard, []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT}},
			{"SO_REUSEADDR on the group", group.String(), []int{unix.SO_REUSEADDR}},
		} {
			for _, first := range []string{"they came first", "we came first"} {
				t.Run(c.name+"/"+first, func(t *testing.T) {
					var other *endpoint
					var udp *net.UDPConn
					steps := []func(){func() { udp = h.open(t, 0) }, func() {
						other = bind(t, h.gateway, "lan0", c.address, c.options...)
						other.join(h.gateway, "lan0", group)
					}}
					if first == "they came first" {
						slices.Reverse(steps)
					}
					for _, step := range steps {
						step()
					}
					h.serveOn(t, udp, 0, h.config(0, newWatcher()))
					client.send(search(root, "MX: 1"), group)
					if m, _ := other.receive(); m.line != "M-SEARCH * HTTP/1.1" {
						t.Errorf("they got %q", m.line)
					}
					if m, _ := client.receive(); m.row() != announced()[0] {
						t.Errorf("answer %q", m.row())
					}
					if slices.Contains(c.options, unix.SO_REUSEPORT) && first == stolen[h.name] {
						return
					}
					client.send(search(root), unicast)
					if m, _ := client.receive(); m.row() != announced()[0] {
						t.Errorf("answer to unicast %q", m.row())
					}
				})
			}
		}

		t.Run("a second instance", func(t *testing.T) {
			for _, server := range []string{"Linux UPnP/1.1 One", "Linux UPnP/1.1 Two"} {
				cfg := h.config(0, newWatcher())
				cfg.Server = server
				h.serve(t, 0, cfg)
			}
			client.send(search(root, "MX: 1"), group)
			one, _ := client.receive()
			two, _ := client.receive()
			if one.header.Get("SERVER") == two.header.Get("SERVER") {
				t.Errorf("both answers are from %q", one.header.Get("SERVER"))
			}
			client.send(search(root), unicast) // to one of them
			client.receive()
			client.send(search("uuid:"+uuidR, "MX: 1"), group)
			if m, _ := client.receive(); m.row() != announced()[1] {
				t.Errorf("a unicast search was answered twice: %q", m.row())
			}
			client.receive()
		})

		t.Run("A8/the other family alone has the port", func(t *testing.T) {
			bind(t, h.gateway, "lan0", map[string]string{"IPv4": ip6.wildcard, "IPv6": ip4.wildcard}[h.name])
			h.serve(t, 0, h.config(0, newWatcher()))
			client.send(search(root, "MX: 1"), group)
			client.receive()
		})
	})
}

// memberships counts the groups of discovery that lan0 is in.
func (h *home) memberships(t *testing.T) (n int) {
	t.Helper()
	var all []byte
	if err := h.gateway.In(func() (err error) {
		all, err = os.ReadFile("/proc/thread-self/net/" + map[string]string{"IPv4": "igmp", "IPv6": "igmp6"}[h.name])
		return err
	}); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(all)) {
		f := strings.Fields(line)
		// IPv4 has the group first, its octets in the order of the machine, and
		// the link in another line: no other link joins.
		if f[0] == "FAFFFFEF" || f[0] == "EFFFFFFA" ||
			len(f) > 2 && f[1] == "lan0" && strings.HasSuffix(f[2], "000000000000000c") {
			n++
		}
	}
	return n
}

// TestListenRefused: what stands in the way is said in a sentence; and what was
// opened leaves nothing behind.
func TestListenRefused(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, h *home) {
		try := func(ifname string) error {
			return h.gateway.In(func() error {
				udp, err := h.listen(t.Context(), ifname)
				if err != nil {
					return err
				}
				if n := h.memberships(t); n != len(h.groups) {
					t.Errorf("a member of %d groups, want %d", n, len(h.groups))
				}
				return udp.Close()
			})
		}
		if err := try("nosuch0"); err == nil || !strings.Contains(err.Error(), "nosuch0") {
			t.Errorf("unknown interface: %v", err)
		}
		greedy := bind(t, h.gateway, "lan0", h.wildcard)
		err := try("lan0")
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "held by a program that does not share it") {
			t.Errorf("port taken: %v", err)
		}
		if err := greedy.udp.Close(); err != nil {
			t.Fatal(err)
		}
		if err := try("lan0"); err != nil {
			t.Errorf("port free again: %v", err)
		}
		if n := h.memberships(t); n != 0 {
			t.Errorf("still a member of %d groups", n)
		}
	})
}
