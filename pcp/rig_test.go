package pcp_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/firewall/fwtest"
	"portcullis/internal/datagram"
	"portcullis/internal/slog"
	"portcullis/pcp"
	"portcullis/policy"
	"portcullis/portmap"
)

// The network of the vectors in docs/protocol-notes.md.
var (
	gatewayAddr = netip.MustParseAddr("192.168.1.1")
	externalIP  = netip.MustParseAddr("203.0.113.7")
	lanPrefix   = netip.MustParsePrefix("192.168.1.0/24")
	hostA       = netip.MustParseAddrPort("192.168.1.50:40000")
	hostB       = netip.MustParseAddrPort("192.168.1.60:40000")
	announced   = netip.MustParseAddrPort("224.0.0.1:5350")
)

const (
	lanIndex = 3
	leaseMax = 7 * 24 * time.Hour
	leaseMin = 2 * time.Minute
)

// fakeConn is a socket in memory. Made inside a synctest bubble it lets time
// stand still.
type fakeConn struct {
	in     chan arrival
	closed chan struct{}

	mu   sync.Mutex
	sent []sent
}

type arrival struct {
	packet datagram.Packet
	bytes  []byte
}

// sent is one datagram that went out.
type sent struct {
	at    time.Time
	from  netip.Addr
	to    netip.AddrPort
	bytes []byte
}

func (c *fakeConn) Receive(b []byte) (datagram.Packet, error) {
	select {
	case a := <-c.in:
		a.packet.Size = copy(b, a.bytes)
		return a.packet, nil
	case <-c.closed:
		return datagram.Packet{}, net.ErrClosed
	}
}

func (c *fakeConn) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, sent{time.Now(), from, to, append([]byte(nil), b...)})
	return nil
}

func (c *fakeConn) Close() error {
	close(c.closed)
	return nil
}

// world is the gateway that the engine and the server see.
type world struct {
	mu   sync.Mutex
	view portmap.View            // guarded by mu
	macs map[netip.Addr]lateHost // guarded by mu
}

// lateHost is a host that is known after it was asked for a few times.
type lateHost struct {
	mac   portmap.MAC
	after int
}

func newWorld() *world {
	return &world{
		view: portmap.View{
			WANs:     []portmap.WAN{{Name: "wan0", Up: true, External: externalIP}},
			LAN:      map[string]portmap.LAN{"lan0": {Prefixes: []netip.Prefix{lanPrefix}, Addrs: []netip.Addr{gatewayAddr}}},
			Local:    map[netip.Addr]struct{}{gatewayAddr: {}, externalIP: {}},
			WANAddrs: []netip.Addr{externalIP},
		},
		macs: map[netip.Addr]lateHost{
			hostA.Addr(): {portmap.MAC{2, 0, 0, 0, 0, 0x50}, 0},
			hostB.Addr(): {portmap.MAC{2, 0, 0, 0, 0, 0x60}, 0},
		},
	}
}

func (w *world) View() *portmap.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.view
	return &v
}

// External is what a server is told of it.
func (w *world) External() netip.Addr { return w.View().WAN().External }

func (w *world) setExternal(a netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.WANs = []portmap.WAN{{Name: "wan0", Up: a.IsValid(), External: a}}
}

func (w *world) Look(context.Context) {}

func (w *world) Identify(p datagram.Packet) (portmap.Client, datagram.Account, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := p.Source.Addr()
	account := datagram.Account{Device: datagram.Device{Addr: a}}
	h, ok := w.macs[a]
	if !ok {
		account.Class = datagram.Stranger
		return portmap.Client{}, account, portmap.ErrUnknownHost
	}
	if h.after > 0 {
		h.after--
		w.macs[a] = h
		return portmap.Client{}, account, fmt.Errorf("asked: %w", portmap.ErrUnknownHost)
	}
	return portmap.Client{Addr: a, MAC: h.mac, Interface: "lan0"}, account, nil
}

// Seek does nothing: a lateHost is known after it was looked up a few times.
func (w *world) Seek(datagram.Packet) {}

// rig is a running server with a real engine and policy before a fake kernel.
type rig struct {
	t      *testing.T
	conn   *fakeConn
	world  *world
	kernel *fwtest.Fake
	engine *portmap.Engine
	epoch  *pcp.Epoch
	server *pcp.Server
	stop   func() // must be called inside the bubble
}

// options of a rig.
type options struct {
	policy policy.Config
	engine portmap.EngineConfig
	server pcp.Config
	age    time.Duration // of the epoch
}

// inBubble runs a test with a rig where time passes only when everybody waits.
func inBubble(t *testing.T, edit func(*options), test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, edit)
		defer r.stop()
		test(r)
	})
}

func start(t *testing.T, edit func(*options)) *rig {
	t.Helper()
	r := &rig{t: t, conn: &fakeConn{in: make(chan arrival), closed: make(chan struct{})}, world: newWorld(), kernel: new(fwtest.Fake)}
	o := options{
		policy: policy.Config{Default: portmap.Allow, Rules: []policy.Rule{{
			Name: "web servers", Action: portmap.Allow,
			External: []portmap.PortRange{{First: 80, Last: 80}, {First: 8080, Last: 8080}},
			Internal: []portmap.PortRange{{First: 80, Last: 80}, {First: 8080, Last: 8080}},
		}}},
		engine: portmap.EngineConfig{Firewall: r.kernel, Gateway: r.world, LeaseMax: leaseMax, LeaseMin: leaseMin},
		server: pcp.Config{
			Logger: slog.New(slog.DiscardHandler), Ifname: "lan0", Ifindex: lanIndex, NATPMP: true, PCP: true,
			External: r.world.External, Identify: r.world.Identify, Seek: r.world.Seek,
		},
		age: time.Hour,
	}
	if edit != nil {
		edit(&o)
	}
	decide, err := policy.New(o.policy)
	if err != nil {
		t.Fatal(err)
	}
	o.engine.Policy = decide
	if r.engine, err = portmap.NewEngine(o.engine); err != nil {
		t.Fatal(err)
	}
	r.epoch = pcp.NewEpoch(time.Now().Add(-o.age))
	o.server.Mapper, o.server.Epoch = r.engine, r.epoch
	if r.server, err = pcp.New(o.server, r.conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = r.engine.Run(ctx) })
	wait.Go(func() {
		if err := r.server.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = func() { cancel(); wait.Wait() }
	r.server.SetAddresses([]netip.Addr{gatewayAddr}, []netip.Prefix{lanPrefix})
	synctest.Wait()
	return r
}

// take returns what was sent since the last call, once everybody waits.
func (r *rig) take() []sent {
	synctest.Wait()
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	out := r.conn.sent
	r.conn.sent = nil
	return out
}

// replies returns what was sent to clients.
func (r *rig) replies() []sent {
	return slices.DeleteFunc(r.take(), func(s sent) bool { return s.to == announced || s.to == announced6 })
}

// give hands the server a datagram, as if it came to the gateway's address by
// its interface unless edit says otherwise.
func (r *rig) give(from netip.AddrPort, b []byte, edit ...func(*datagram.Packet)) {
	p := datagram.Packet{Source: from, Destination: gatewayAddr, Ifindex: lanIndex}
	for _, e := range edit {
		e(&p)
	}
	r.conn.in <- arrival{p, b}
}

// ask asks the gateway's address of IPv4.
func (r *rig) ask(from netip.AddrPort, b []byte) []byte {
	r.t.Helper()
	return r.askAt(gatewayAddr, from, b)
}

// askAt returns the one reply, or nil. It must come from the address that was asked
// and go to who asked.
func (r *rig) askAt(to netip.Addr, from netip.AddrPort, b []byte) []byte {
	r.t.Helper()
	r.take()
	r.give(from, b, func(p *datagram.Packet) { p.Destination = to })
	got := r.replies()
	switch {
	case len(got) == 0:
		return nil
	case len(got) > 1:
		r.t.Errorf("%d replies", len(got))
	case got[0].from != to || got[0].to != from:
		r.t.Errorf("a reply from %v to %v", got[0].from, got[0].to)
	}
	return got[0].bytes
}

// asks sends hex and wants hex back; ".." is an octet that may be anything, and
// "" silence.
func (r *rig) asks(from netip.AddrPort, request, want string) {
	r.t.Helper()
	r.asksAt(gatewayAddr, from, request, want)
}

func (r *rig) asksAt(to netip.Addr, from netip.AddrPort, request, want string) {
	r.t.Helper()
	if got := r.askAt(to, from, octets(request)); !like(got, want) {
		r.t.Errorf("asked  %s\nwanted %s\ngot    %s", words(octets(request)), want, words(got))
	}
}

// holds wants the mappings of the kernel to be these, as Entry.String has them,
// without those that only keep ports.
func (r *rig) holds(want ...string) {
	r.t.Helper()
	var got []string
	for _, e := range r.kernel.Entries() {
		if text := e.String(); strings.Contains(text, "->") {
			got = append(got, text)
		}
	}
	slices.Sort(got)
	if len(got) != len(want) || strings.Join(got, "; ") != strings.Join(want, "; ") {
		r.t.Errorf("the kernel holds %q, want %q", got, want)
	}
}

func octets(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err) // a vector is mistyped
	}
	return b
}

// words shows octets as the vectors have them, four to a word.
func words(b []byte) string {
	if b == nil {
		return "silence"
	}
	var out []string
	for len(b) > 4 {
		out, b = append(out, hex.EncodeToString(b[:4])), b[4:]
	}
	return strings.Join(append(out, hex.EncodeToString(b)), " ")
}

func like(got []byte, want string) bool {
	want = strings.Join(strings.Fields(want), "")
	if len(want) != 2*len(got) {
		return false
	}
	text := hex.EncodeToString(got)
	for i := range want {
		if want[i] != '.' && want[i] != text[i] {
			return false
		}
	}
	return true
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
