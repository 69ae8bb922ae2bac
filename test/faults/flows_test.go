package faults

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// dead wants nothing to arrive any more, in either direction, soon.
func (f *flow) dead(t *testing.T, why string) {
	t.Helper()
	testrig.Eventually(t, soon, why+": the flow ends", func() bool {
		for _, way := range [][2]net.Conn{{f.out, f.in}, {f.in, f.out}} {
			f.number++
			if _, err := way[0].Write([]byte{f.number}); err != nil {
				continue
			}
			// Longer than a busy machine, or a segment that is sent again, takes.
			_ = way[1].SetReadDeadline(time.Now().Add(time.Second))
			if n, _ := way[1].Read(make([]byte, 1)); n > 0 {
				return false
			}
		}
		return true
	})
}

// outbound is a flow that host a began itself.
func outbound(t *testing.T, r *testrig.Rig) *flow {
	t.Helper()
	l, err := r.Internet.Listen(netip.AddrPortFrom(lab.InternetOne, 7777).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f := &flow{t: t}
	if f.in, err = r.Host("a").Dial(ctx, "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.in.Close() })
	if f.out, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.out.Close() })
	return f
}

// TestFlowsEnd: what flows through a mapping ends with it, whoever ends it and why;
// what flows through others, and what the host began itself, goes on.
func TestFlowsEnd(t *testing.T) {
	t.Parallel()
	tcp := func(port uint16, lease time.Duration) lab.Mapping {
		return lab.Mapping{Protocol: "TCP", External: port, Internal: port, Lease: lease}
	}
	for name, end := range map[string]struct {
		lease time.Duration
		do    func(*testing.T, *testrig.Rig, *lab.ControlPoint)
	}{
		"deleted by its client": {time.Hour, func(t *testing.T, _ *testrig.Rig, c *lab.ControlPoint) {
			if err := c.Delete(t.Context(), 6001, "TCP"); err != nil {
				t.Fatal(err)
			}
		}},
		"deleted by the owner": {time.Hour, func(t *testing.T, r *testrig.Rig, _ *lab.ControlPoint) {
			for _, m := range r.List(t) {
				if m.ExternalPort != 6001 {
					continue
				}
				if _, err := r.Owner.Delete(t.Context(), control.Deletion{ID: m.ID}); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"expired": {time.Hour, func(t *testing.T, _ *testrig.Rig, c *lab.ControlPoint) {
			if err := c.Add(t.Context(), tcp(6001, 2*time.Second)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testrig.Start(t, testrig.Network(t, "a"), "")
			c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
			for _, m := range []lab.Mapping{tcp(6001, end.lease), tcp(6002, time.Hour)} {
				if err := c.Add(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			ended := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6001), 6001)
			other := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6002), 6002)
			own := outbound(t, r)
			ended.alive("before")
			end.do(t, r, c)
			ended.dead(t, name)
			other.alive("another mapping's flow")
			own.alive("the host's own flow")
		})
	}
}

// TestFlowsOfTheGone: the flow of a host whose address another device has now ends
// when its mapping is suspended, and the newcomer gets nothing of it.
func TestFlowsOfTheGone(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a", "b"), "")
	a := r.Host("a")
	if err := r.Point(t, "a", lab.IGD1, lab.WANIP1).Add(t.Context(), lab.Mapping{Protocol: "TCP", External: 6001, Internal: 6001, Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	through := begin(t, r, netip.AddrPortFrom(lab.GatewayWAN, 6001), 6001)
	through.alive("before")
	l, err := a.Netlink().LinkByName(lab.HostPort)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Netlink().LinkSetHardwareAddr(l, []byte{2, 0, 0, 77, 9, 9}); err != nil {
		t.Fatal(err)
	}
	through.dead(t, "another device")
	testrig.Eventually(t, soon, "the mapping is suspended", func() bool { return r.List(t)[0].Suspended })
}
