package portmap

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// naive is the table as one would first write it: a list that is searched.
type naive struct {
	all   []Mapping
	holds []naiveHold
}

type naiveHold struct {
	tr     Transport
	port   uint16
	client ClientID
	until  time.Time
}

func (n *naive) verdict(r Request) Reason {
	o := r.Client.ID()
	verdict := NoReason
	for _, m := range n.all {
		mo := m.Client.ID()
		if m.ExternalPort == r.ExternalPort && m.Transport == r.Transport && mo == o &&
			o == natpmpClient && m.Internal.Port() != r.Internal.Port() {
			return PortTaken // its own, for another port
		}
		if m.ExternalPort != r.ExternalPort || mo == o {
			continue
		}
		switch {
		case m.Transport == r.Transport && mo.Addr == o.Addr && mo.Interface == o.Interface:
			return IdentityChanged
		case m.Transport == r.Transport:
			return PortTaken
		case m.Client.Via == ViaNATPMP:
			verdict = PortReserved
		}
	}
	for _, h := range n.holds {
		switch {
		case h.port != r.ExternalPort || h.tr != r.Transport || h.client == o:
		case h.client.Addr == o.Addr && h.client.Interface == o.Interface:
			return IdentityChanged
		default:
			verdict = PortReserved
		}
	}
	return verdict
}

// meant returns the request that a NAT-PMP client means: its port's mapping, if it
// has one.
func (n *naive) meant(r Request) Request {
	if r.Client.Via != ViaNATPMP {
		return r
	}
	for _, m := range n.all {
		if m.Client.ID() == r.Client.ID() && m.Transport == r.Transport && m.Internal.Port() == r.Internal.Port() {
			r.ExternalPort = m.ExternalPort
			return r
		}
	}
	return r
}

func (n *naive) add(now time.Time, r Request, lifetime time.Duration) {
	var holds []naiveHold
	for _, h := range n.holds {
		if h.port != r.ExternalPort || h.tr != r.Transport {
			holds = append(holds, h)
		}
	}
	n.holds = holds
	for i, m := range n.all {
		if m.ExternalPort == r.ExternalPort && m.Transport == r.Transport && len(m.Remotes) == len(r.Remotes) &&
			(len(m.Remotes) == 0 || m.Remotes[0] == r.Remotes[0]) {
			n.all[i].Internal, n.all[i].Expires = r.Internal, now.Add(lifetime)
			return
		}
	}
	n.all = append(n.all, Mapping{Client: r.Client, Transport: r.Transport, Internal: r.Internal,
		ExternalPort: r.ExternalPort, Remotes: r.Remotes, Created: now, Expires: now.Add(lifetime)})
}

func (n *naive) expire(now time.Time, hold time.Duration) {
	var live []Mapping
	for _, m := range n.all {
		if m.Expires.After(now) {
			live = append(live, m)
			continue
		}
		n.holds = append(n.holds, naiveHold{m.Transport, m.ExternalPort, m.Client.ID(), now.Add(hold)})
	}
	n.all = live
	var holds []naiveHold
	for _, h := range n.holds {
		if h.until.After(now) {
			holds = append(holds, h)
		}
	}
	n.holds = holds
}

func (n *naive) remove(s Selector) (removed int, foreign bool) {
	var live []Mapping
	for _, m := range n.all {
		switch {
		case !s.matches(&m):
			live = append(live, m)
		case !s.Anybody && m.Client.ID() != s.Client.ID():
			live, foreign = append(live, m), true
		default:
			removed++
		}
	}
	n.all = live
	return removed, foreign
}

var modelClients = []Client{
	{Addr: netip.MustParseAddr("192.168.1.10"), MAC: MAC{1}, Interface: "lan", Via: ViaUPnP},
	{Addr: netip.MustParseAddr("192.168.1.10"), MAC: MAC{9}, Interface: "lan", Via: ViaUPnP}, // the address has moved
	{Addr: netip.MustParseAddr("192.168.1.20"), MAC: MAC{2}, Interface: "lan", Via: ViaNATPMP},
	{Addr: netip.MustParseAddr("192.168.1.21"), MAC: MAC{2}, Interface: "lan", Via: ViaUPnP}, // a second address of one device
}

var natpmpClient = modelClients[2].ID()

// TestTableAgainstModel plays random requests, removals and passing time on a
// Table and on the naive list; after every step they must agree, and what must
// hold in any table holds. Ports are few, so that conflicts are many.
func TestTableAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		table, model := NewTable(), &naive{}
		const hold = 60 * time.Second
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			client := rapid.SampledFrom(modelClients).Draw(t, "client")
			tr := rapid.SampledFrom([]Transport{TCP, UDP}).Draw(t, "transport")
			port := rapid.Uint16Range(5000, 5003).Draw(t, "port")
			before, beforeLen := table, table.Len()
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				r := Request{Client: client, Transport: tr, ExternalPort: port,
					Internal: netip.AddrPortFrom(client.Addr, rapid.Uint16Range(1, 3).Draw(t, "internal"))}
				if client.Via == ViaUPnP && rapid.Bool().Draw(t, "remote") {
					r.Remotes = []Remote{{Prefix: netip.MustParsePrefix("198.51.100.7/32")}}
				}
				if client.Via == ViaNATPMP {
					r.Named, r.RemotesAre = ByInternal, RemotesUnsaid
				}
				lifetime := time.Duration(rapid.IntRange(1, 100).Draw(t, "lifetime")) * time.Second
				meant := model.meant(r)
				c, err := table.Plan(now, r, Decision{Action: Allow, Rule: "r"}, lifetime, 0)
				if got, want := ReasonOf(err), model.verdict(meant); got != want {
					t.Fatalf("plan %v for %v: %v, want %v", r.ExternalPort, client.Addr, got, want)
				}
				if err == nil {
					table = table.Commit(c)
					model.add(now, meant, lifetime)
				}
			case 2:
				s := Selector{Client: client, Transport: tr, FirstPort: port,
					LastPort: rapid.Uint16Range(port, 5003).Draw(t, "last")}
				if rapid.Bool().Draw(t, "owner") {
					s.Client.Via, s.Anybody = ViaOwner, true
				}
				changes, err := table.PlanRemoval(now, s)
				for _, c := range changes {
					table = table.Commit(c)
				}
				removed, foreign := model.remove(s)
				if len(changes) != removed {
					t.Fatalf("removed %d, want %d", len(changes), removed)
				}
				if removed == 0 && (ReasonOf(err) == NotOwner) != foreign {
					t.Fatalf("nothing removed: %v, foreign %v", err, foreign)
				}
			case 3:
				now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "passes")) * time.Second)
				for _, c := range table.expired(now, hold, 1000) {
					table = table.Commit(c)
				}
				table = table.tidy(now)
				model.expire(now, hold)
			}
			if before.Len() != beforeLen {
				t.Fatal("a published table changed")
			}
			compare(t, table, model)
		}
	})
}

func compare(t *rapid.T, table *Table, model *naive) {
	t.Helper()
	want := map[string]int{}
	clients, devices, lans := map[ClientID]int{}, map[Device]int{}, map[string]int{}
	for _, m := range model.all {
		want[line(m)]++
		clients[m.Client.ID()]++
		devices[m.Client.ID().Device()]++
		lans[m.Client.Interface]++
	}
	got := map[string]int{}
	for m := range table.All() {
		got[line(m)]++
		if found, ok := table.Find(m.Transport, m.ExternalPort, m.Remotes); !ok || found.ID != m.ID {
			t.Fatalf("cannot find %v", &m)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || table.Len() != len(model.all) {
		t.Fatalf("the table differs (-want +got):\n%s", diff)
	}
	for _, c := range modelClients {
		own := table.Of(c.ID())
		if own.Len() != clients[c.ID()] {
			t.Fatalf("%v has %d mappings, want %d", c.Addr, own.Len(), clients[c.ID()])
		}
		last := uint64(0)
		for i := range own.Len() {
			if m := own.At(i); m.ID <= last || m.Client.ID() != c.ID() {
				t.Fatalf("entry %d of %v is %v", i, c.Addr, &m)
			} else {
				last = m.ID
			}
		}
		compareInside(t, table, c.ID())
		f := table.Facts(time.Now(), Request{Client: c}, nil)
		if n := devices[c.ID().Device()]; f.ClientMappings != n || f.RuleMappings("r") != n {
			t.Fatalf("device of %v counts %d and %d, want %d", c.Addr, f.ClientMappings, f.RuleMappings("r"), n)
		}
		if n, of := lans[c.Interface], len(model.all); f.LANMappings != n || f.RuleTotal("r") != of {
			t.Fatalf("%s counts %d, the rule %d, want %d and %d", c.Interface, f.LANMappings, f.RuleTotal("r"), n, of)
		}
	}
	checkFree(t, table)
}

// compareInside looks for each of a client's mappings from its inside.
func compareInside(t *rapid.T, table *Table, o ClientID) {
	t.Helper()
	for _, tr := range []Transport{TCP, UDP} {
		want := map[uint16][]string{}
		for m := range table.Of(o).All() {
			if m.Transport == tr {
				want[m.Internal.Port()] = append(want[m.Internal.Port()], line(m))
			}
		}
		for port := range want {
			var got []string
			for m := range table.Inside(o, tr, port) {
				got = append(got, line(m))
			}
			if diff := cmp.Diff(want[port], got); diff != "" {
				t.Fatalf("what leads to %s port %d of %v (-want +got):\n%s", tr, port, o, diff)
			}
		}
	}
}

// TestIdleDevices: a device is remembered while its grant limiter matters, and
// forgotten soon after.
func TestIdleDevices(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := Mapping{ID: 1, Client: Client{MAC: MAC{2}, Interface: "lan"}, Transport: UDP, Created: now}
	table := NewTable().Commit(Change{Event: Granted, New: &m, grantReadyAt: now.Add(3 * time.Second)})
	table = table.Commit(Change{Event: Deleted, Old: &m})
	for after, want := range []int{1, 1, 1, 0} {
		table = table.tidy(now.Add(time.Duration(after) * time.Second))
		if got := table.devices.len(); got != want {
			t.Errorf("%d devices after %d s, want %d", got, after, want)
		}
	}
}

// checkFree compares the binary search for a free port with a plain search.
func checkFree(t *rapid.T, table *Table) {
	t.Helper()
	for start := 4998; start < 5006; start++ {
		want := start
		for {
			if _, used := table.ports.get(want); !used {
				break
			}
			want++
		}
		if got, ok := table.free(start); !ok || got != want {
			t.Fatalf("free(%d) = %d, %v, want %d", start, got, ok, want)
		}
	}
}

func line(m Mapping) string {
	return fmt.Sprintf("%v of %v until %v", &m, m.Client.ID(), m.Expires.UnixNano())
}

func TestFreeAtTheEnd(t *testing.T) {
	t.Parallel()
	table := NewTable()
	for port := 65530; port <= 65535; port++ {
		c, err := table.Plan(time.Now(), Request{Client: modelClients[0], Transport: TCP,
			Internal: netip.AddrPortFrom(modelClients[0].Addr, 5000), ExternalPort: uint16(port)}, Decision{}, time.Hour, 0)
		if err != nil {
			t.Fatal(err)
		}
		table = table.Commit(c)
	}
	if p, ok := table.free(65530); ok {
		t.Errorf("free(65530) = %d, but none is", p)
	}
	if p, ok := table.free(65520); !ok || p != 65520 {
		t.Errorf("free(65520) = %d, %v", p, ok)
	}
	if p, ok := table.free(65529); !ok || p != 65529 {
		t.Errorf("free(65529) = %d, %v", p, ok)
	}
}
