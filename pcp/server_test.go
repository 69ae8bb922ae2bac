package pcp_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/datagram"
	"portcullis/internal/slog"
	"portcullis/pcp"
	"portcullis/portmap"
)

// announcements lets a whole series pass and gives its datagrams.
func announcements(r *rig) []sent {
	time.Sleep(3 * time.Minute)
	var out []sent
	for _, s := range r.take() {
		if s.to == announced && s.from == gatewayAddr {
			out = append(out, s)
		}
	}
	return out
}

// TestAnnouncements: PMP-26, PCP-32, PCP-59. Ten copies in each protocol at their times,
// with the epoch of that moment.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := start(t, func(o *options) { o.age = 0 })
		defer r.stop()
		var got, want []string
		for _, s := range announcements(r) {
			got = append(got, fmt.Sprint(s.at.Sub(began), " ", words(s.bytes)))
		}
		for _, ms := range []int{0, 250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750} {
			at := time.Duration(ms) * time.Millisecond
			want = append(want,
				fmt.Sprintf("%v 00800000 %08x cb007107", at, ms/1000),
				fmt.Sprintf("%v 02800000 00000000 %08x 00000000 00000000 00000000", at, ms/1000))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestAddressChanges: PCP-53. A new address restarts the epoch and the series, and
// mappings are shown with it. While there is none, NAT-PMP announces nothing.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.asks(hostA, mapRequest(edits{}), mapReply(edits{}))
		time.Sleep(time.Second)
		r.take()
		r.world.setExternal(netip.Addr{})
		for _, s := range announcements(r) {
			if s.bytes[0] == 0 {
				t.Errorf("announced %s", words(s.bytes))
			}
		}
		r.world.setExternal(netip.MustParseAddr("203.0.113.8"))
		r.epoch.Restart(time.Now())
		r.server.Announce()
		first := r.take()
		if len(first) != 2 || !like(first[0].bytes, "00800000 00000000 cb007108") {
			t.Fatalf("announced %v", first)
		}
		r.asks(hostA, mapRequest(edits{}), "02810000 00000e10 00000000 00000000 00000000 00000000"+nonceA+"11000000 17701770 00000000 00000000 0000ffff cb007108")
		r.server.Announce() // begins anew while the first still runs
		if n := len(announcements(r)); n != 20 {
			t.Errorf("%d announcements of a new series", n)
		}
	})
}

// TestSilence: A2, A4, A6, E5, PCP-46, PMP-22. Who is not a host of the LAN that asks
// the gateway's LAN address gets no answer, and opens nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	from := func(s string) func(*datagram.Packet) {
		return func(p *datagram.Packet) { p.Source = netip.MustParseAddrPort(s) }
	}
	to := func(s string) func(*datagram.Packet) {
		return func(p *datagram.Packet) { p.Destination = netip.MustParseAddr(s) }
	}
	inBubble(t, nil, func(r *rig) {
		for name, edit := range map[string]func(*datagram.Packet){
			"PCP-46/another interface": func(p *datagram.Packet) { p.Ifindex = lanIndex + 1 },
			"A2/interface unknown":     func(p *datagram.Packet) { p.Ifindex = 0 },
			"PMP-22/to the external":   to("203.0.113.7"),
			"A4/to a group":            to("224.0.0.1"),
			"A4/to the broadcast":      to("192.168.1.255"),
			"A4/destination unknown":   func(p *datagram.Packet) { p.Destination = netip.Addr{} },
			"A6/off link":              from("10.9.9.9:40000"),
			"A6/from the Internet":     from("198.51.100.9:40000"),
			"A6/from the broadcast":    from("192.168.1.255:40000"),
			"A6/from the network":      from("192.168.1.0:40000"),
			"A6/from the gateway":      from("192.168.1.1:40000"),
			"A6/from loopback":         from("127.0.0.1:40000"),
			"A6/from a group":          from("224.0.0.1:40000"),
			"A6/from nowhere":          from("0.0.0.0:40000"),
			"E5/from the echo service": from("192.168.1.50:7"),
			"E5/from port 0":           from("192.168.1.50:0"),
			"E5/from the name server":  from("192.168.1.50:53"),
			"A8/IPv6":                  from("[fe80::1]:40000"),
		} {
			for _, request := range []string{"0000", mapUDP6000, mapRequest(edits{})} {
				r.take()
				r.give(hostA, octets(request), edit)
				if got := r.replies(); len(got) > 0 {
					t.Errorf("%s: answered %s", name, words(got[0].bytes))
				}
			}
		}
		r.holds()
		r.asks(hostA, mapUDP6000, "00810000 00000e10 17701770 00001c20")
	})
}

// TestNoView: a server that was never told an address is silent, and so are its
// announcements.
func TestNoView(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.take()
		r.server.SetAddresses(nil, nil)
		synctest.Wait()
		r.asks(hostA, "0000", "")
		if got := announcements(r); len(got) > 0 {
			t.Errorf("%d announcements without an address", len(got))
		}
	})
}

// TestUnknownHost: a host that the kernel has to ask for is answered when it is
// known, in order, and one that never is is not; too many do not pile up.
func TestUnknownHost(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) {
		r.world.macs[hostA.Addr()] = lateHost{portmap.MAC{2, 0, 0, 0, 0, 0x50}, 6}
		began := time.Now()
		r.asks(hostA, mapRequest(edits{}), "")
		r.asks(hostA, "0000", "") // what is sent to a host that may not be there is in the way of others
		time.Sleep(time.Second)
		got := r.replies()
		if len(got) != 2 || !like(got[0].bytes, mapReply(edits{})) || got[0].at.Sub(began) != 70*time.Millisecond ||
			!like(got[1].bytes, "00800000 00000e10 cb007107") || got[1].at != got[0].at {
			t.Fatalf("answered %v", got)
		}
		for m := range r.engine.Snapshot().All() {
			if m.Client.MAC == (portmap.MAC{}) {
				t.Errorf("%v has no MAC", &m)
			}
		}
		for i := range 100 {
			r.give(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(100 + i)}), 40000), octets(mapUDP6000))
		}
		r.asks(hostB, mapUDP6000, "00810000 00000e11 1770.... 00001c20")
		time.Sleep(time.Second)
		if got := r.replies(); len(got) > 0 {
			t.Errorf("nobody was answered: %v", got)
		}
	})
}

// TestRate: H9. One host's flood costs the others nothing, and each its own
// allowance only.
func TestRate(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(r *rig) { // 0: no limit
		r.take()
		for range 10_000 {
			r.give(hostA, octets("0000"))
		}
		if got := len(r.replies()); got != 10_000 {
			t.Errorf("%d answers without a limit", got)
		}
	})
	inBubble(t, func(o *options) { o.server.RequestsPerSecond = 50 }, func(r *rig) {
		r.take()
		for range 1000 {
			r.give(hostA, octets("0000"))
		}
		if got := len(r.replies()); got != 50 {
			t.Errorf("%d answers at once, want 50", got)
		}
		r.asks(hostB, "0000", "00800000 00000e10 cb007107")
		time.Sleep(time.Second)
		r.take()
		r.asks(hostA, "0000", "00800000 00000e11 cb007107")
	})
}

// panicker is a gate that is broken.
type panicker struct{}

func (panicker) MapSet(context.Context, portmap.Request, int) ([]portmap.Mapping, error) {
	panic("test")
}

func (panicker) Unmap(context.Context, portmap.Selector) ([]portmap.Mapping, error) { panic("test") }

// TestPanics: two are borne, the third ends the server.
func TestPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		conn := &fakeConn{in: make(chan arrival), closed: make(chan struct{})}
		var log strings.Builder
		s, err := pcp.New(pcp.Config{
			Logger: slog.New(slog.NewTextHandler(&log, nil)), Ifname: "lan0", Ifindex: lanIndex, NATPMP: true,
			Mapper: panicker{}, External: w.External, Identify: w.Identify, Seek: w.Seek, Epoch: pcp.NewEpoch(time.Now()),
		}, conn)
		if err != nil {
			t.Fatal(err)
		}
		s.SetAddresses([]netip.Addr{gatewayAddr}, []netip.Prefix{lanPrefix})
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		synctest.Wait()
		for i := range 3 {
			request := octets(fmt.Sprintf("00010000 %04x1770 00001c20", 6000+i))
			conn.in <- arrival{datagram.Packet{Source: hostA, Destination: gatewayAddr, Ifindex: lanIndex}, request}
		}
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "panicked") || strings.Count(log.String(), "after a panic") != 3 {
			t.Errorf("Run ended with %v\n%s", err, log.String())
		}
	})
}

// TestConfig: what a server cannot do without.
func TestConfig(t *testing.T) {
	t.Parallel()
	w := newWorld()
	good := pcp.Config{
		Logger: slog.New(slog.DiscardHandler), Ifname: "lan0", Ifindex: lanIndex, NATPMP: true,
		Mapper: panicker{}, External: w.External, Identify: w.Identify, Seek: w.Seek, Epoch: pcp.NewEpoch(time.Now()),
	}
	if _, err := pcp.New(good, &fakeConn{}); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*pcp.Config){
		"no logger":       func(c *pcp.Config) { c.Logger = nil },
		"no mapper":       func(c *pcp.Config) { c.Mapper = nil },
		"no address":      func(c *pcp.Config) { c.External = nil },
		"no identity":     func(c *pcp.Config) { c.Identify = nil },
		"no way to ask":   func(c *pcp.Config) { c.Seek = nil },
		"no epoch":        func(c *pcp.Config) { c.Epoch = nil },
		"no interface":    func(c *pcp.Config) { c.Ifindex = 0 },
		"no protocol":     func(c *pcp.Config) { c.NATPMP = false },
		"a negative rate": func(c *pcp.Config) { c.RequestsPerSecond = -1 },
	} {
		bad := good
		spoil(&bad)
		if _, err := pcp.New(bad, &fakeConn{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
