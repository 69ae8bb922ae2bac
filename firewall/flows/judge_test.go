package flows

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

const (
	wan   = "203.0.113.5"
	alice = "192.168.1.10:6000"
	bob   = "192.168.1.20:6000"
	carol = "192.168.1.30:6000"
	pin   = "[2001:db8:77::10]:80"
	peer  = "203.0.113.66:7000"
	peer6 = "[2001:db8:5::66]:7000"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// mapping returns one of UDP, "5000" for an external port, or a pinhole for "".
func mapping(id uint64, external, internal string, remotes ...string) portmap.Mapping {
	m := portmap.Mapping{ID: id, Transport: portmap.UDP, Internal: at(internal), Expires: time.Unix(1<<40, 0)}
	if m.ExternalPort = m.Internal.Port(); external == "" {
		m.Kind = portmap.Pinhole6
	} else {
		m.ExternalPort = at(wan + ":" + external).Port()
	}
	for _, r := range remotes {
		m.Remotes = append(m.Remotes, portmap.Remote{Prefix: netip.MustParsePrefix(r)})
	}
	return m
}

// gate is the backend of a test: what it holds, and a keeper that asks it.
type gate struct {
	*Keeper
	t     *testing.T
	state *firewall.State
}

func newGate(t *testing.T, open ...portmap.Mapping) *gate {
	t.Helper()
	g := &gate{t: t, state: firewall.NewState()}
	facts := firewall.Facts{
		WAN:         []firewall.Uplink{{Interface: "wan0", Addrs: []netip.Addr{netip.MustParseAddr(wan)}}},
		LANPrefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8:77::/64")},
	}
	g.Keeper = &Keeper{look: func(f func(table)) { f(table{g.state, facts}) }}
	g.change(open, nil)
	return g
}

// change makes a change and gives the job that it leaves.
func (g *gate) change(add, del []portmap.Mapping) *job {
	g.t.Helper()
	c, err := g.state.Plan(add, del)
	if err != nil {
		g.t.Fatal(err)
	}
	g.state.Commit(c)
	j := newJob()
	j.change(c)
	return j
}

// flow returns one from src to dst, whose answers come from another endpoint.
func flow(src, dst, answersFrom string) Flow {
	return Flow{Transport: portmap.UDP, Src: at(src), Dst: at(dst), AnswersFrom: at(answersFrom), AnswersTo: at(src)}
}

func TestOver(t *testing.T) {
	one, other := mapping(1, "5000", alice), mapping(2, "5001", bob)
	limited := mapping(1, "5000", alice, "203.0.113.67/32")
	six, six2 := mapping(3, "", pin), mapping(4, "", "[2001:db8:77::20]:80")
	limited6 := mapping(3, "", pin, "2001:db8:5::67/128")
	all := []portmap.Mapping{one, other, six, six2}
	through, other5001 := flow(peer, wan+":5000", alice), flow(peer, wan+":5001", bob)
	through6, other6 := flow(peer6, pin, pin), flow(peer6, "[2001:db8:77::20]:80", "[2001:db8:77::20]:80")
	for _, tc := range []struct {
		name     string
		open     []portmap.Mapping
		add, del []portmap.Mapping
		end      []portmap.Mapping // forced
		over     []Flow
		goOn     []Flow
	}{
		{
			name: "deleted", open: all, del: []portmap.Mapping{one, six}, over: []Flow{through, through6},
			goOn: []Flow{
				other5001, other6,
				flow(peer, wan+":5000", carol),             // somebody else's translation of the port
				flow(peer, "203.0.113.9:5000", alice),      // to an address that is not ours
				flow("192.168.1.10:6000", peer, peer),      // what the host began
				flow("[2001:db8:77::10]:80", peer6, peer6), // the same
				flow("[2001:db8:77::20]:7000", pin, pin),   // from inside
				flow("[fe80::1]:7000", pin, pin),           // from the link
				flow(peer6, "[2001:db8:77::10]:81", pin),   // another port
				{Transport: portmap.TCP, Src: at(peer), Dst: at(wan + ":5000"), AnswersFrom: at(alice), AnswersTo: at(peer)},
			},
		},
		{
			name: "renewed", open: all, add: []portmap.Mapping{one, six}, del: []portmap.Mapping{one, six},
			goOn: []Flow{through, through6, other5001, other6},
		},
		{
			name: "taken over", open: all, add: []portmap.Mapping{mapping(9, "5000", bob)}, del: []portmap.Mapping{one},
			over: []Flow{through}, goOn: []Flow{flow(peer, wan+":5000", bob), other5001},
		},
		{
			name: "narrowed", open: all, add: []portmap.Mapping{limited, limited6},
			over: []Flow{through, through6},
			goOn: []Flow{flow("203.0.113.67:7000", wan+":5000", alice), flow("[2001:db8:5::67]:7000", pin, pin)},
		},
		{
			name: "opened: what was not translated is looked up again", add: all,
			over: []Flow{flow(peer, wan+":5000", wan+":5000")},
			goOn: []Flow{through, through6, flow(peer, wan+":5002", wan+":5002"), flow(peer, wan+":5000", carol)},
		},
		{
			name: "forced, though it is open", open: all, end: []portmap.Mapping{one, six},
			over: []Flow{through, through6}, goOn: []Flow{other5001, other6, flow(peer, wan+":5000", bob)},
		},
		{
			name: "forced, one remote host", open: []portmap.Mapping{limited, limited6}, end: []portmap.Mapping{limited, limited6},
			goOn: []Flow{through, through6},
			over: []Flow{flow("203.0.113.67:7000", wan+":5000", alice), flow("[2001:db8:5::67]:7000", pin, pin)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGate(t, tc.open...)
			j := g.change(tc.add, tc.del)
			j.endAll(tc.end)
			for _, f := range tc.over {
				if !g.over(j, f) {
					t.Errorf("goes on: %+v", f)
				}
			}
			for _, f := range tc.goOn {
				if g.over(j, f) {
					t.Errorf("ends: %+v", f)
				}
			}
		})
	}
}

// An address that is gone takes our flows with it, both ways, and nobody else's.
func TestLostAddress(t *testing.T) {
	g := newGate(t, mapping(1, "5000", alice))
	uplink := func(addrs ...netip.Addr) firewall.Facts {
		return firewall.Facts{WAN: []firewall.Uplink{{Interface: "wan0", Addrs: addrs}}}
	}
	j := newJob()
	j.lose(uplink(netip.MustParseAddr(wan)), uplink(netip.MustParseAddr("203.0.113.9")))
	kept := Flow{Transport: portmap.UDP, Src: at(alice), Dst: at(peer), AnswersFrom: at(peer), AnswersTo: at(wan + ":5000")}
	masqueraded := kept
	masqueraded.AnswersTo = at(wan + ":40000")
	for f, want := range map[Flow]bool{
		flow(peer, wan+":5000", alice): true, kept: true, masqueraded: false,
		flow(peer, wan+":5000", carol): false, flow(peer, "203.0.113.9:5000", alice): false,
	} {
		if got := g.over(j, f); got != want {
			t.Errorf("over %v, want %v: %+v", got, want, f)
		}
	}
	same := newJob()
	same.lose(uplink(netip.MustParseAddr(wan)), uplink(netip.MustParseAddr(wan)))
	if !same.empty() {
		t.Errorf("the same facts leave a job: %+v", same)
	}
}

// Whose host can carry a flow on is told to end it.
func TestCarriedOn(t *testing.T) {
	tcp := func(f Flow) Flow { f.Transport = portmap.TCP; return f }
	hairpin := tcp(flow("192.168.1.20:7000", wan+":5000", alice))
	hairpin.AnswersTo = at(wan + ":6000")
	for f, want := range map[Flow]bool{
		tcp(flow(peer, wan+":5000", alice)):       true,
		flow(peer, wan+":5000", alice):            false,
		tcp(flow(peer, wan+":5000", wan+":5000")): false,
		hairpin:                    false,
		tcp(flow(peer6, pin, pin)): true,
		flow(peer6, pin, pin):      true,
	} {
		if got := f.carriedOn(); got != want {
			t.Errorf("carried on %v, want %v: %+v", got, want, f)
		}
	}
}

// A kernel that cannot end flows is asked three times and told of once; what is
// waiting at the end is tried once more, and its error given.
func TestWithoutConntrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		k := New(Config{
			Log: slog.New(slog.NewTextHandler(&log, nil)), NetNS: 1 << 20, // no such descriptor
			Look: func(func(*firewall.State, firewall.Facts)) { t.Error("asked about a flow") }, Refuse: nil,
		})
		g := newGate(t, mapping(1, "5000", alice))
		c, err := g.state.Plan(nil, []portmap.Mapping{mapping(1, "5000", alice)})
		if err != nil {
			t.Fatal(err)
		}
		k.Changed(c)
		time.Sleep(10 * failRest)
		synctest.Wait()
		if got := strings.Count(log.String(), "cannot end connections"); got != 1 {
			t.Errorf("told of %d times:\n%s", got, &log)
		}
		if j := k.take(); !j.empty() {
			t.Errorf("still waiting: %+v", j)
		}
		if err := k.Close(context.Background(), []portmap.Mapping{mapping(1, "5000", alice)}); err == nil {
			t.Error("Close says that the flows are ended")
		}
	})
}
