package flows

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	ct "github.com/vishvananda/netlink"
	nsfd "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/firewall"
	"portcullis/internal/netns/netnstest"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// tracked is a kernel with flows in it, and a keeper at work there.
type tracked struct {
	*Keeper
	t      *testing.T
	space  *netnstest.Space
	kernel *ct.Handle
	state  *firewall.State
}

func track(t *testing.T) *tracked {
	t.Helper()
	n := netnstest.New(t, "gw")
	kernel, err := ct.NewHandleAt(nsfd.NsHandle(n.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kernel.Close)
	g := newGate(t)
	facts := firewall.Facts{WAN: []firewall.Uplink{{Interface: "wan0", Addrs: []netip.Addr{netip.MustParseAddr(wan)}}}}
	k := &tracked{t: t, space: n, kernel: kernel, state: g.state}
	k.Keeper = New(Config{
		Log: slog.New(slog.DiscardHandler), NetNS: n.FD(),
		Look:   func(f func(*firewall.State, firewall.Facts)) { f(k.state, facts) },
		Refuse: func([]Flow) error { return nil },
	})
	return k
}

// add puts a flow of UDP into the kernel.
func (k *tracked) add(f Flow) {
	k.t.Helper()
	tuple := func(from, to netip.AddrPort) ct.IPTuple {
		return ct.IPTuple{
			Protocol: unix.IPPROTO_UDP, SrcIP: net.IP(from.Addr().AsSlice()), SrcPort: from.Port(),
			DstIP: net.IP(to.Addr().AsSlice()), DstPort: to.Port(),
		}
	}
	err := k.kernel.ConntrackCreate(ct.ConntrackTable, unix.AF_INET, &ct.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 600, Forward: tuple(f.Src, f.Dst), Reverse: tuple(f.AnswersFrom, f.AnswersTo),
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *tracked) count() (n int) {
	k.t.Helper()
	kernel := conntrack{netns: k.kernelFD(), patience: patience}
	defer kernel.close()
	err := kernel.walk(query{family: unix.AF_INET}, func(found) error { n++; return nil })
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

func (k *tracked) kernelFD() int { return k.Keeper.kernel.netns }

// change commits one, as a backend does.
func (k *tracked) change(add, del []portmap.Mapping) *firewall.Delta {
	k.t.Helper()
	c, err := k.state.Plan(add, del)
	if err != nil {
		k.t.Fatal(err)
	}
	k.state.Commit(c)
	return c
}

// TestManyFlows: L4. However many flows the kernel has, a look at them takes no
// memory to speak of; what is ended is ended whatever its number.
func TestManyFlows(t *testing.T) {
	const others, through = 20_000, 3 * batch
	k := track(t)
	m := mapping(1, "5000", alice)
	k.change([]portmap.Mapping{m}, nil)
	for i := range others {
		peer := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 443)
		k.add(Flow{Src: at(bob), Dst: peer, AnswersFrom: peer, AnswersTo: at(wan + ":6000")})
	}
	for i := range through {
		k.add(flow(netip.AddrPortFrom(at(peer).Addr(), uint16(10000+i)).String(), wan+":5000", alice))
	}
	if got := k.count(); got != others+through {
		t.Fatalf("the kernel has %d flows", got)
	}

	j := newJob()
	j.change(k.change(nil, []portmap.Mapping{m}))
	j.lost[netip.MustParseAddr("203.0.113.99")] = true // so that all are listed
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ended, err := k.pass(j)
	runtime.ReadMemStats(&after)
	if err != nil || ended != through {
		t.Errorf("%d flows ended, want %d: %v", ended, through, err)
	}
	// All that was ever allocated on the way, garbage too: 50 octets for each flow.
	if took := after.TotalAlloc - before.TotalAlloc; took > 50*(others+through) {
		t.Errorf("%d octets for %d flows", took, others+through)
	}
	if got := k.count(); got != others {
		t.Errorf("%d flows are left, want %d", got, others)
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// out returns a flow that a host began, as the peer's port sees it at one of ours.
func out(src, seen string, port uint16) Flow {
	p := netip.AddrPortFrom(at(peer).Addr(), port)
	return Flow{Transport: portmap.UDP, Src: at(src), Dst: p, AnswersFrom: p, AnswersTo: at(wan + ":" + seen)}
}

// TestFree: what leaves from a port that is mapped now ends before the client is
// answered, and nothing else.
func TestFree(t *testing.T) {
	k := track(t)
	k.add(out(bob, "5000", 1))         // takes the port
	k.add(out(carol, "5000", 2))       // so does this one
	k.add(out(alice, "5000", 3))       // of the endpoint itself
	k.add(out(bob, "5001", 4))         // another port
	k.add(out(wan+":5000", "5000", 5)) // the gateway's own
	m := mapping(1, "5000", alice)
	host := at(alice).Addr()
	if !k.Held(portmap.UDP, 5000, host) || k.Held(portmap.UDP, 5002, host) || k.Held(portmap.TCP, 5000, host) {
		t.Error("who holds which port is not told right")
	}
	if k.Held(portmap.UDP, 5001, at(bob).Addr()) {
		t.Error("a host is in its own way")
	}
	k.quick.last = time.Time{} // on a busy machine the looks above may have been too many
	k.Free(k.change([]portmap.Mapping{m}, nil))
	if got := k.count(); got != 3 {
		t.Errorf("%d flows are left, want 3", got)
	}
	if err := k.Close(context.Background(), nil); err != nil {
		t.Error(err)
	}
}
