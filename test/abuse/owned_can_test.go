package abuse

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/policy"
	"portcullis/portmap"
	testrig "portcullis/test/rig"
)

// TestForgedAtRandom (M1): whatever the front asks, what is open satisfies the walls and the
// rules, and the kernel holds no more than the owner's list.
func TestForgedAtRandom(t *testing.T) {
	t.Parallel()
	r := startHouse(t)
	r.own(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- of a test
	hosts := []string{"a", "b", "c", "d", "camera"}
	port := func() uint16 {
		some := []uint16{0, 1, 22, 80, 139, 445, 1023, 1024, 3389, 5000, 5351, 8080, 41000, 46001, 65535}
		if random.IntN(2) == 0 {
			return some[random.IntN(len(some))]
		}
		return uint16(random.Uint32()) // #nosec G115 -- any
	}
	var all []wall.Body
	for range 1500 {
		who, whose := r.Host(hosts[random.IntN(len(hosts))]), r.Host(hosts[random.IntN(len(hosts))])
		if random.IntN(3) > 0 {
			whose = who
		}
		c := client(who, []string{lab.Bridge, lab.Bridge, lab.Bridge, "iot0", "wan0"}[random.IntN(5)])
		c.Via, c.Unheard = portmap.Via(1+random.IntN(3)), random.IntN(2) == 0
		q := portmap.Request{
			Client: c, Kind: portmap.NAT4, Transport: []portmap.Transport{portmap.TCP, portmap.UDP, 0, 132}[random.IntN(4)], Internal: netip.AddrPortFrom(whose.Addr, port()),
			ExternalPort: port(), Lifetime: time.Duration(random.Int64() >> random.IntN(63)), Exact: random.IntN(2) == 0, Disabled: random.IntN(9) == 0,
			ZeroIsEndless: random.IntN(2) == 0, Floored: random.IntN(2) == 0, Parity: random.IntN(2) == 0, Named: portmap.Naming(random.IntN(2)),
			RemotesAre: portmap.RemotesMode(random.IntN(4)), Description: strings.Repeat("x", random.IntN(9)),
		}
		for range random.IntN(3) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(random.IntN(256)), 1}), random.IntN(33)).Masked()
			q.Remotes = append(q.Remotes, portmap.Remote{Prefix: p, Port: port() * uint16(random.IntN(2))}) // #nosec G115 -- 0 or 1
		}
		all = append(all, &wall.Map{Request: q, N: 1 + random.IntN(4)*random.IntN(2)})
	}
	granted := 0
	for _, a := range r.front.asks(t, all) {
		if _, ok := a.body.(*wall.Mappings); ok {
			granted++
		}
	}
	list := r.List(t)
	for _, m := range list {
		if m.Family == 6 {
			continue
		}
		h, there := map[string]string{"192.168.77.10": "a", "192.168.77.20": "b"}[m.InternalIP]
		tr := map[string]portmap.Transport{"tcp": portmap.TCP, "udp": portmap.UDP}[m.Protocol]
		in, _ := policy.TierOf(policy.Internal, tr, m.InternalPort)
		out, _ := policy.TierOf(policy.External, tr, m.ExternalPort)
		if !there || m.ClientMAC != r.Host(h).MAC.String() || in != policy.Ordinary || out != policy.Ordinary || m.ExpiresIn < 0 || m.ExpiresIn > 7*24*3600 {
			t.Errorf("open: %+v", m)
		}
	}
	if granted == 0 || granted == len(all) {
		t.Errorf("%d of %d were granted: this proves little", granted, len(all))
	}
	t.Logf("%d of %d requests granted, %d mappings", granted, len(all), len(list))
}

// TestOwnedFrontFloods (M3): rates and quotas hold before a front that asks without end, and
// neither the log nor the journal grows without one.
func TestOwnedFrontFloods(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, "")
	r.talks(t, "a")
	p := r.own(t)
	began := time.Now()
	var all []wall.Body
	for i := range 500 {
		q := r.wish()
		q.Client.Via = portmap.Via(1 + i%3) // #nosec G115 -- 1 to 3
		q.Internal, q.ExternalPort = netip.AddrPortFrom(q.Internal.Addr(), 20000+uint16(i)), 20000+uint16(i)
		all = append(all, &wall.Map{Request: q, N: 1})
	}
	p.asks(t, all)
	if n, most := len(r.List(t)), min(32, 16+1+int(time.Since(began)/time.Second)); n == 0 || n > most {
		t.Errorf("%d mappings, want %d at most", n, most)
	}
	before := r.World(t)
	for i := range 2000 {
		p.tell(t, &wall.Record{Level: 8, Message: fmt.Sprint("flood ", i), Attrs: []wall.Attr{{Key: "x", Text: strings.Repeat("y", 1000)}}})
	}
	all = nil
	for i := range 300 {
		p.tell(t, &wall.Served{Turn: 0})
		p.tell(t, &wall.Failed{Problem: "no"})
		all = append(all, &wall.NextBootID{Last: math.MaxUint32 - uint32(i)}, &wall.KeepEpochs{Four: time.Unix(int64(i)+1, 0), Six: time.Unix(1<<40, 0)}, new(wall.Suspect))
	}
	p.asks(t, all)
	if n, most := strings.Count(r.Daemon.Log(), "flood "), 1000+50*(1+int(time.Since(began)/time.Second)); n == 0 || n > most {
		t.Errorf("%d lines of the front's in the log, want %d at most", n, most)
	}
	r.Unchanged(t, before, "M3")
	r.free(t)
	r.Unchanged(t, before, "M3")
}

// TestOwnedFrontCan (M4): what an owned front can do: open what the policy permits to a host that
// is there and talks, for as long as the policy permits, read, and delete.
func TestOwnedFrontCan(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	r.inhabit(t)
	r.talks(t, "a")
	p := r.own(t)
	q := r.wish()
	q.Lifetime = math.MaxInt64
	if a, ok := p.ask(t, &wall.Map{Request: q, N: 1}).body.(*wall.Mappings); !ok || len(a.Mappings) != 1 || a.Mappings[0].Left > 24*time.Hour*7 {
		t.Fatalf("answered %+v", a)
	}
	if !r.Passes(t, "TCP", 41000, r.Host("a"), 41000) {
		t.Error("it leads nowhere")
	}
	read, ok := p.ask(t, &wall.External{Transport: portmap.TCP, Port: 46001}).body.(*wall.Mappings)
	if !ok || len(read.Mappings) != 1 || read.Mappings[0].Internal != netip.AddrPortFrom(r.Host("b").Addr, 46001) {
		t.Fatalf("answered %+v", read)
	}
	list, before := r.List(t), r.World(t)
	stranger := client(r.Host("b"), lab.Bridge)
	stranger.MAC[5]++
	for _, c := range []portmap.Client{stranger, client(r.Host("a"), lab.Bridge), client(r.Host("b"), "wan0")} {
		p.ask(t, &wall.Unmap{Selector: portmap.Selector{Client: c, Transport: portmap.TCP, FirstPort: 46001, LastPort: 46001}})
	}
	r.Unchanged(t, before)
	p.ask(t, &wall.Unmap{Selector: portmap.Selector{Client: client(r.Host("b"), lab.Bridge), Transport: portmap.TCP, FirstPort: 46001, LastPort: 46001}})
	if n := len(r.List(t)); n != len(list)-1 {
		t.Errorf("%d mappings, %d were there", n, len(list))
	}
}

// TestOwnedFrontSilentHost (M1): for a host that is there and silent, and for one that is not
// there, an owned front opens nothing: the kernel has not seen it ask.
func TestOwnedFrontSilentHost(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	r.talks(t, "a")
	p := r.own(t)
	of := func(addr netip.Addr, mac portmap.MAC) portmap.Request {
		q := r.wish()
		q.Client.Addr, q.Client.MAC, q.Internal = addr, mac, netip.AddrPortFrom(addr, 41000)
		return q
	}
	a, b, nobody := r.Host("a"), r.Host("b"), netip.MustParseAddr("192.168.77.77")
	macA, macB := portmap.MAC(a.MAC), portmap.MAC(b.MAC)
	// What was sent before the rules were there nobody knows: for a while all are believed.
	testrig.Eventually(t, time.Minute, "the silent host is refused", func() bool {
		p.ask(t, &wall.Resolve{LAN: lab.Bridge, Addr: b.Addr})
		no, refused := p.ask(t, &wall.Map{Request: of(b.Addr, macB), N: 1}).body.(*wall.Refused)
		return refused && no.Reason == portmap.NotRequester
	})
	p.ask(t, &wall.Unmap{Selector: portmap.Selector{Client: of(b.Addr, macB).Client}})
	var all []wall.Body
	for _, q := range []portmap.Request{
		of(b.Addr, macB), of(b.Addr, macA), of(b.Addr, portmap.MAC{}), of(nobody, macA), of(nobody, macB), of(nobody, portmap.MAC{2, 6, 6, 6, 6, 6}), of(a.Addr, macB),
	} {
		all = append(all, inEachWay(q)...)
	}
	r.refuses(t, all)
	if _, ok := p.ask(t, &wall.Map{Request: r.wish(), N: 1}).body.(*wall.Mappings); !ok {
		t.Error("a host that talks is refused: the rest proves nothing")
	}
}
