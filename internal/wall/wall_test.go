package wall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/datagram"
	"portcullis/internal/frames"
	"portcullis/internal/netif"
	"portcullis/portmap"
)

const long = 10 * time.Second // until what must come is given up

// decider is the other half, which remembers what it was asked.
type decider struct {
	mu    sync.Mutex // guards what follows
	asked []string
	lans  map[string]netif.LAN
	wan   portmap.WAN
	six   bool
	slow  chan struct{} // where set, MapSet waits for it, or for the end of the client's patience
	err   error         // of every question

	events chan portmap.Event
	began  chan struct{}      // holds one for each MapSet that waits
	gaveUp chan time.Duration // after how much of its patience
}

func newDecider() *decider {
	return &decider{
		lans: map[string]netif.LAN{"lo": {
			Name: "lo", Index: 1, Addr: loopback, Addrs: []netip.Addr{loopback, netip.IPv6LinkLocalAllNodes().WithZone("lo")},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		}},
		wan: portmap.WAN{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.1")}, six: true,
		events: make(chan portmap.Event, 1000), began: make(chan struct{}, MaxUnderWay), gaveUp: make(chan time.Duration, MaxUnderWay),
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// is has the warden be slow, or fail.
func (d *decider) is(slow chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow, d.err = slow, err
}

func (d *decider) waits() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slow
}

func (d *decider) note(format string, args ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
	return d.err
}

func (d *decider) taken() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = nil
	return asked
}

func (d *decider) MapSet(ctx context.Context, r portmap.Request, n int) ([]portmap.Mapping, error) {
	if slow := d.waits(); slow != nil {
		began := time.Now()
		d.began <- struct{}{}
		select {
		case <-slow:
		case <-ctx.Done():
			d.gaveUp <- time.Since(began)
			return nil, ctx.Err()
		}
	}
	err := d.note("map %d %v %v", n, r, r.Nonce != nil)
	var all []portmap.Mapping
	for i := range n {
		all = append(all, portmap.Mapping{ID: uint64(i + 1), Client: r.Client, Transport: r.Transport, Internal: r.Internal, ExternalPort: r.ExternalPort})
	}
	return all, err
}

func (d *decider) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	return nil, d.note("unmap %v %d-%d", s.Client, s.FirstPort, s.LastPort)
}

var shownOne = portmap.Mapping{ID: 9, Client: portmap.Client{Addr: four, MAC: asker.MAC, Interface: "br-lan"}, Transport: portmap.TCP, Internal: netip.AddrPortFrom(four, 80), ExternalPort: 8080}

func (d *decider) Own(_ context.Context, id portmap.ClientID, from, n int) (portmap.Page, error) {
	return portmap.Page{Mappings: []portmap.Mapping{shownOne}, Count: 5, Revision: 6}, d.note("own %v %d %d", id, from, n)
}

func (d *decider) OwnPorts(_ context.Context, id portmap.ClientID, tr portmap.Transport, ports portmap.PortRange, from, n int) (portmap.Page, error) {
	return portmap.Page{Count: 7}, d.note("own ports %v %v %v %d %d", id, tr, ports, from, n)
}

func (d *decider) External(_ context.Context, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return shownOne, d.note("external %v %d %v", tr, port, remotes)
}

func (d *decider) Internal(_ context.Context, id portmap.ClientID, tr portmap.Transport, port uint16, remotes []portmap.Remote) (portmap.Mapping, error) {
	return shownOne, d.note("internal %v %v %d %v", id, tr, port, remotes)
}

func (d *decider) Pinhole(_ context.Context, number uint16) (portmap.Mapping, error) {
	return shownOne, d.note("pinhole %d", number)
}

func (d *decider) Packets(_ context.Context, m portmap.Mapping) (uint64, error) {
	return 1 << 40, d.note("packets %d", m.ID)
}

func (d *decider) OutboundTimeout(tr portmap.Transport) (time.Duration, error) {
	return time.Hour, d.note("timeout %v", tr)
}

func (d *decider) Heard(mac portmap.MAC) bool     { return d.note("heard %v", mac) == nil }
func (d *decider) Suspect()                       { _ = d.note("suspect") }
func (d *decider) KeepEpochs(four, six time.Time) { _ = d.note("keep %d %d", four.Unix(), six.Unix()) }
func (d *decider) NextBootID(last uint32) uint32  { _ = d.note("boot %d", last); return last + 5 }
func (d *decider) Uplink() (portmap.WAN, bool)    { d.mu.Lock(); defer d.mu.Unlock(); return d.wan, d.six }
func (d *decider) LANs() map[string]netif.LAN     { d.mu.Lock(); defer d.mu.Unlock(); return d.lans }
func (d *decider) Events(ctx context.Context) <-chan portmap.Event {
	out := make(chan portmap.Event)
	go func() {
		defer close(out)
		for {
			select {
			case ev := <-d.events:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (d *decider) OpenDiscovery(_ context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	err := d.note("discovery %s %v", l.Name, six)
	if err != nil {
		return frames.Socket{}, err
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	return frames.Socket{UDP: udp, Marks: true}, err
}

// OpenPortControl has a pipe for a packet socket, of which nothing is read.
func (d *decider) OpenPortControl(_ context.Context, l netif.LAN, six bool) (frames.Socket, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		return frames.Socket{}, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return frames.Socket{}, err
	}
	_ = unix.Close(fds[1])
	return frames.Socket{UDP: udp, Packets: os.NewFile(uintptr(fds[0]), "frames")}, d.note("port control %s %v", l.Name, six)
}

func (d *decider) HTTP(_ context.Context, l netif.LAN, at netip.AddrPort) (net.Listener, error) {
	if err := d.note("http %s %v", l.Name, at); err != nil {
		return nil, err
	}
	return net.Listen("tcp4", "127.0.0.1:0")
}

// rig is both ends of a wall.
type rig struct {
	*Client
	decider *decider
	server  *Server
	log     bytes.Buffer
	ended   [2]chan error // of the server and the client
	stop    [2]context.CancelFunc
}

const httpPort = 5000

func build(t testing.TB) *rig {
	t.Helper()
	r := &rig{decider: newDecider()}
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if r.server, err = NewServer(a, ServerConfig{Warden: r.decider, Sockets: r.decider, HTTPPort: httpPort}); err != nil {
		t.Fatal(err)
	}
	if r.Client, err = Dial(b, slog.New(slog.NewTextHandler(&r.log, nil))); err != nil {
		t.Fatal(err)
	}
	for i, run := range []func(context.Context) error{r.server.Run, r.Client.Run} {
		ctx, stop := context.WithCancel(context.Background())
		r.stop[i], r.ended[i] = stop, make(chan error, 1)
		go func() { r.ended[i] <- run(ctx) }()
	}
	t.Cleanup(func() {
		for i := range r.stop {
			r.stop[i]()
		}
	})
	return r
}

// end waits for the end of one: 0 is the server, 1 the client.
func (r *rig) end(t *testing.T, i int) error {
	t.Helper()
	return within(t, r.ended[i])
}

func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(long):
		t.Fatal("nothing comes")
	}
	return v
}

// TestCalls: every question of the front reaches the warden as it was asked, and the
// answer comes back.
func TestCalls(t *testing.T) {
	t.Parallel()
	r := build(t)
	ctx, id := t.Context(), asker.ID()
	ask := wish
	ask.Client.Unheard = false
	want := func(asked string, got, want any, err error) {
		t.Helper()
		if taken := r.decider.taken(); err != nil || !reflect.DeepEqual(got, want) || len(taken) != 1 || taken[0] != asked {
			t.Errorf("asked %q, want %q\ngot %+v, %v; want %+v", taken, asked, got, err, want)
		}
	}
	m, err := r.Map(ctx, ask)
	want(fmt.Sprintf("map 1 %v true", ask), []any{m.ID, m.Client.ID(), m.ExternalPort}, []any{uint64(1), id, uint16(3074)}, err)
	set, err := r.MapSet(ctx, ask, 64)
	want(fmt.Sprintf("map 64 %v true", ask), len(set), 64, err)
	gone, err := r.Unmap(ctx, portmap.Selector{Client: asker, FirstPort: 1, LastPort: 2})
	want(fmt.Sprintf("unmap %v 1-2", asker), len(gone), 0, err)
	own, err := r.Own(ctx, id, 3, 1)
	want(fmt.Sprintf("own %v 3 1", id), []any{own.Count, own.Revision, len(own.Mappings)}, []any{5, uint64(6), 1}, err)
	if got := own.Mappings[0]; got.String() != shownOne.String() || got.Client.ID() != id {
		t.Errorf("the page has %+v", got)
	}
	own, err = r.OwnPorts(ctx, id, portmap.UDP, portmap.PortRange{First: 1, Last: 2}, 3, 1000)
	want(fmt.Sprintf("own ports %v udp 1-2 3 32", id), own.Count, 7, err)
	m, err = r.External(ctx, portmap.UDP, 5, only)
	want(fmt.Sprintf("external udp 5 %v", only), m.ID, uint64(9), err)
	m, err = r.Internal(ctx, id, portmap.UDP, 5, nil)
	want(fmt.Sprintf("internal %v udp 5 []", id), m.ID, uint64(9), err)
	m, err = r.Pinhole(ctx, 7)
	want("pinhole 7", m.ID, uint64(9), err)
	n, err := r.Packets(ctx, portmap.Mapping{ID: 8})
	want("packets 8", n, uint64(1<<40), err)
	d, err := r.OutboundTimeout(portmap.TCP)
	want("timeout tcp", d, time.Hour, err)
	want("heard 02:01:02:03:04:05", r.Heard(asker.MAC), true, nil)
	r.Suspect()
	want("suspect", nil, nil, nil)
	r.KeepEpochs(time.Unix(100, 0), time.Unix(200, 0))
	want("keep 100 200", nil, nil, nil)
	want("boot 7", r.NextBootID(7), uint32(12), nil)
	if r.log.Len() > 0 {
		t.Errorf("the log has %s", &r.log)
	}
}

// TestReasonsCross: a refusal is the same on both sides.
func TestReasonsCross(t *testing.T) {
	t.Parallel()
	r := build(t)
	for _, reason := range portmap.Reasons() {
		r.decider.is(nil, fmt.Errorf("engine: %w", &portmap.Error{
			Reason: reason, Detail: "the port is taken", Left: time.Minute, External: true, Err: errors.New("secret of the kernel"),
		}))
		_, err := r.Map(t.Context(), wish)
		var got *portmap.Error
		if !errors.As(err, &got) || *got != (portmap.Error{Reason: reason, Detail: "the port is taken", Left: time.Minute, External: true}) {
			t.Errorf("%v: %+v", reason, err)
		}
	}
	r.decider.is(nil, errors.New(string(bytes.Repeat([]byte("ö"), maxDetail))+"\xff"))
	if _, err := r.Own(t.Context(), asker.ID(), 0, 1); err == nil || portmap.ReasonOf(err) != portmap.FirewallFailed || len(err.Error()) != maxDetail {
		t.Errorf("another error is %v", err)
	}
	if r.Heard(asker.MAC) {
		t.Error("heard")
	}
}

// TestNetwork: the front knows the network from the start, and is told when it changes.
func TestNetwork(t *testing.T) {
	t.Parallel()
	r := build(t)
	within(t, r.Changed())
	wan, six := r.Uplink()
	l := r.LANs()["lo"]
	if wan != r.decider.wan || !six || l.Index != 1 || len(l.Addrs) != 2 || l.Addrs[1] != netip.IPv6LinkLocalAllNodes() {
		t.Errorf("%+v %v %+v", wan, six, l)
	}
	r.decider.mu.Lock()
	r.decider.wan, r.decider.six, r.decider.lans = portmap.WAN{}, false, map[string]netif.LAN{"br-lan": homeLAN}
	r.decider.mu.Unlock()
	if err := r.server.Follow(); err != nil {
		t.Fatal(err)
	}
	within(t, r.Changed())
	if wan, six := r.Uplink(); wan != (portmap.WAN{}) || six || !reflect.DeepEqual(r.LANs(), r.decider.lans) {
		t.Errorf("%+v %v %+v", wan, six, r.LANs())
	}
	if err := r.server.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-r.Stop(); open {
		t.Error("not stopped")
	}
}

// TestEvents: whose mappings changed is told in order; of what does not change one,
// nothing; and who does not keep up finds a Resync.
func TestEvents(t *testing.T) {
	t.Parallel()
	r := build(t)
	ctx, cancel := context.WithCancel(t.Context())
	events := r.Events(ctx)
	r.decider.events <- portmap.Event{Type: portmap.Denied, Mapping: shownOne}
	r.decider.events <- portmap.Event{Type: portmap.Granted, Mapping: shownOne}
	if ev := within(t, events); ev.Type != portmap.Granted || ev.Mapping.Client.ID() != asker.ID() || ev.Mapping.ID != 0 {
		t.Errorf("told %+v", ev)
	}
	for range eventBuffer + 10 {
		r.decider.events <- portmap.Event{Type: portmap.Renewed, Mapping: shownOne}
	}
	late := r.Events(t.Context())
	for ev := range late { // behind all the others
		if ev.Type == portmap.Expired {
			break
		}
		if len(r.decider.events) == 0 {
			r.decider.events <- portmap.Event{Type: portmap.Expired, Mapping: shownOne}
		}
	}
	for range eventBuffer {
		if ev := within(t, events); ev.Type != portmap.Renewed {
			t.Fatalf("told %+v", ev)
		}
	}
	if ev := within(t, events); ev.Type != portmap.Resync {
		t.Errorf("told %+v, want a resync", ev)
	}
	cancel()
	for range events { // until it is closed
	}
	r.stop[1]()
	for range late {
	}
	if _, open := <-r.Events(t.Context()); open {
		t.Error("events of a wall that is broken")
	}
}

// TestManyAtOnce: many ask at once, more than may be under way, and each has its own
// answer.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	r := build(t)
	var wait sync.WaitGroup
	for i := range 4 * MaxUnderWay {
		wait.Go(func() {
			for j := range 5 {
				ask := wish
				ask.ExternalPort = uint16(1 + i*5 + j)
				if m, err := r.Map(t.Context(), ask); err != nil || m.ExternalPort != ask.ExternalPort {
					t.Errorf("asked for %d: %d, %v", ask.ExternalPort, m.ExternalPort, err)
				}
			}
		})
	}
	wait.Wait()
}

// TestGivenUp: who gives up is told so at once, and so is the warden; the place is free
// again, and a later answer is nobody else's.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	r := build(t)
	slow := make(chan struct{})
	r.decider.is(slow, nil)
	why := errors.New("gone")
	for range 3 * MaxUnderWay {
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := r.Map(ctx, wish)
			failed <- err
		}()
		within(t, r.decider.began)
		cancel(why)
		if err := within(t, failed); !errors.Is(err, why) {
			t.Errorf("error %v", err)
		}
		within(t, r.decider.gaveUp)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Map(ctx, wish); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	<-r.decider.began
	if after := within(t, r.decider.gaveUp); after > long/2 {
		t.Errorf("the warden gave up after %v", after)
	}
	close(slow)
	if m, err := r.Map(t.Context(), wish); err != nil || m.ID != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestTurns: as many are under way as may be, and the next waits for its turn.
func TestTurns(t *testing.T) {
	t.Parallel()
	r := build(t)
	slow := make(chan struct{})
	r.decider.is(slow, nil)
	answers := make(chan error, MaxUnderWay+1)
	ask := func() {
		_, err := r.Map(t.Context(), wish)
		answers <- err
	}
	for range MaxUnderWay {
		go ask()
		within(t, r.decider.began)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Own(ctx, asker.ID(), 0, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	go ask()
	close(slow)
	for range MaxUnderWay + 1 {
		if err := within(t, answers); err != nil {
			t.Error(err)
		}
	}
}

// TestSockets: what the warden opens works on the other side; on no other LAN, address or
// port.
func TestSockets(t *testing.T) {
	t.Parallel()
	r := build(t)
	lo := r.LANs()["lo"]
	listener, err := r.HTTP(t.Context(), lo, netip.AddrPortFrom(loopback, httpPort))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, err = c.Write([]byte("hello"))
			err = errors.Join(err, c.Close())
		}
		accepted <- err
	}()
	c, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := make([]byte, 5)
	if _, err := c.Read(hello); err != nil || string(hello) != "hello" {
		t.Errorf("%q, %v", hello, err)
	}
	if err := within(t, accepted); err != nil {
		t.Error(err)
	}
	for name, open := range map[string]func(context.Context, netif.LAN, bool) (datagram.Conn, error){
		"discovery": r.Discovery, "port control": r.PortControl,
	} {
		conn, err := open(t.Context(), lo, false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		received := make(chan error, 1)
		go func() {
			p, err := conn.Receive(make([]byte, 100))
			if err == nil && (p.Size != 0 || p.Ifindex != 1) {
				err = fmt.Errorf("%+v", p)
			}
			received <- err
		}()
		if err := conn.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := within(t, received); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.decider.taken()
	lan := func(name string) netif.LAN { return netif.LAN{Name: name, Index: 1} }
	for name, at := range map[string]netip.AddrPort{
		"another port": netip.AddrPortFrom(loopback, 22), "another address": netip.MustParseAddrPort("203.0.113.1:5000"), "anywhere": netip.MustParseAddrPort("0.0.0.0:5000"),
	} {
		if _, err := r.HTTP(t.Context(), lo, at); err == nil {
			t.Errorf("%s is served", name)
		}
	}
	for _, name := range []string{"wan0", ""} {
		if _, err := r.Discovery(t.Context(), lan(name), false); err == nil {
			t.Errorf("%q is served", name)
		}
	}
	if asked := r.decider.taken(); len(asked) > 0 {
		t.Errorf("the warden opened %q", asked)
	}
	r.decider.is(nil, &portmap.Error{Reason: portmap.Busy, Detail: "not now"})
	if _, err := r.Discovery(t.Context(), lo, false); portmap.ReasonOf(err) != portmap.Busy {
		t.Errorf("error %v", err)
	}
}

// mute is an end of a wall whose other end the test plays.
func mute(t *testing.T) (end *os.File, other *conn) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if other, err = newConn(b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.close() })
	return a, other
}

// TestForgedFront: the warden ends a wall over which comes what no front of ours sends, and
// nothing that came with it stays open.
func TestForgedFront(t *testing.T) {
	open := descriptors(t)
	ok := encode(t, Message{Number: 1, Patience: time.Second, Body: &Own{asker.ID(), 0, 1}})
	slow := Message{Patience: time.Second, Body: &Map{wish, 1}}
	for name, c := range map[string]struct {
		send func(*conn) error
		want error
	}{
		"garbage":             {func(c *conn) error { return c.write([]byte("GET / HTTP/1.1")) }, errVersion},
		"an octet too much":   {func(c *conn) error { return c.write(append(ok, 0)) }, errTrailing},
		"an answer":           {func(c *conn) error { return c.send(Message{Number: 1, Body: new(Done)}) }, errNoAsk},
		"a network":           {func(c *conn) error { return c.send(Message{Body: new(Network)}) }, errNoAsk},
		"a descriptor":        {func(c *conn) error { return c.write(ok, 0) }, errPassed},
		"many descriptors":    {func(c *conn) error { return c.write(ok, 0, 0, 0, 0, 0, 0, 0, 0) }, errCut},
		"an answer with one":  {func(c *conn) error { return c.send(Message{Number: 1, Body: &Socket{ByMark}}, 0) }, errNoAsk},
		"more than any":       {func(c *conn) error { return c.write(make([]byte, MaxMessage+2)) }, errCut},
		"a number twice":      {func(c *conn) error { return many(c, slow, func(int) uint32 { return 1 }) }, errTwice},
		"a flood of requests": {func(c *conn) error { return many(c, slow, func(i int) uint32 { return uint32(i + 1) }) }, errTooMany},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecider()
			d.began = make(chan struct{}, 2*MaxUnderWay)
			d.is(make(chan struct{}), nil)
			end, front := mute(t)
			server, err := NewServer(end, ServerConfig{Warden: d, Sockets: d, HTTPPort: httpPort})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.Run(context.Background()) }()
			if err := c.send(front); err != nil {
				t.Fatal(err)
			}
			if err := within(t, ended); !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if n := len(server.underWay); n > 0 { // Run has ended
				t.Errorf("%d requests under way", n)
			}
			_ = front.close()
		})
	}
	leaks(t, open)
}

// many sends one request after another.
func many(c *conn, m Message, number func(int) uint32) error {
	for i := range MaxUnderWay + 1 {
		m.Number = number(i)
		if err := c.send(m); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			return err
		}
	}
	return nil
}

// TestForgedWarden: likewise at the other end, and whoever waits is told.
func TestForgedWarden(t *testing.T) {
	open := descriptors(t)
	for name, c := range map[string]struct {
		send func(*conn, uint32) error
		want error
	}{
		"garbage":           {func(c *conn, _ uint32) error { return c.write([]byte{1, 99}) }, errType},
		"a request":         {func(c *conn, n uint32) error { return c.send(Message{Number: n, Body: new(Suspect)}) }, errUnasked},
		"an answer to none": {func(c *conn, n uint32) error { return c.send(Message{Number: n + 1, Body: new(Done)}) }, errAnswer},
		"a socket to none": {func(c *conn, n uint32) error {
			return c.send(Message{Number: n + 1, Body: &Socket{ByPacketSocket}}, 0, 0)
		}, errAnswer},
		"a socket without": {func(c *conn, n uint32) error { return c.send(Message{Number: n, Body: &Socket{ByMark}}) }, errPassed},
		"its end":          {func(c *conn, _ uint32) error { return c.close() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			end, warden := mute(t)
			if err := warden.send(Message{Body: new(Network)}); err != nil {
				t.Fatal(err)
			}
			client, err := Dial(end, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- client.Run(context.Background()) }()
			asked := make(chan error, 1)
			go func() {
				_, err := client.Map(context.Background(), wish)
				asked <- err
			}()
			m, _, err := warden.receive()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.send(warden, m.Number); err != nil {
				t.Fatal(err)
			}
			if err := within(t, ended); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if err := within(t, asked); !errors.Is(err, errClosed) {
				t.Errorf("who asked is told %v", err)
			}
			if _, err := client.Own(context.Background(), asker.ID(), 0, 1); err == nil {
				t.Error("asked behind the end")
			}
			_ = warden.close()
		})
	}
	leaks(t, open)
}

// TestWrongAnswer: an answer of another type is an error, and what came with it is closed.
func TestWrongAnswer(t *testing.T) {
	open := descriptors(t)
	end, warden := mute(t)
	if err := warden.send(Message{Body: new(Network)}); err != nil {
		t.Fatal(err)
	}
	client, err := Dial(end, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- client.Run(ctx) }()
	go func() { // answers whatever it is asked with a socket
		for {
			m, _, err := warden.receive()
			if err != nil {
				return
			}
			_ = warden.send(Message{Number: m.Number, Body: &Socket{ByPacketSocket}}, 0, 0)
		}
	}()
	lo := netif.LAN{Name: "lo", Index: 1}
	_, one := client.Map(ctx, wish)
	_, two := client.HTTP(ctx, lo, netip.AddrPortFrom(loopback, httpPort))
	_, three := client.Discovery(ctx, lo, false) // of what is no socket
	for i, err := range []error{one, two, three} {
		if err == nil {
			t.Errorf("%d: no error", i)
		}
	}
	cancel()
	if err := within(t, ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = warden.close()
	leaks(t, open)
}

// TestEnds: the end of either half ends the other, in the middle of requests; nothing is
// left of them.
func TestEnds(t *testing.T) {
	open := descriptors(t)
	for i, name := range []string{"the warden", "the front"} {
		t.Run(name, func(t *testing.T) {
			r := build(t)
			slow := make(chan struct{})
			r.decider.is(slow, nil)
			lo := r.LANs()["lo"]
			conn, err := r.Discovery(t.Context(), lo, false)
			if err != nil {
				t.Fatal(err)
			}
			asked := make(chan error, 3)
			for range cap(asked) {
				go func() {
					_, err := r.Map(context.Background(), wish)
					asked <- err
				}()
				within(t, r.decider.began)
			}
			r.stop[i]()
			if err := r.end(t, i); !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v", err)
			}
			if err := r.end(t, 1-i); err == nil {
				t.Error("the other does not end")
			}
			for range cap(asked) {
				if err := within(t, asked); err == nil {
					t.Error("a request has an answer")
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	leaks(t, open)
}

// BenchmarkRoundTrip is what a question costs.
func BenchmarkRoundTrip(b *testing.B) {
	r := build(b)
	for b.Loop() {
		if _, err := r.Own(b.Context(), asker.ID(), 0, 1); err != nil {
			b.Fatal(err)
		}
		r.decider.taken()
	}
}

func encode(t *testing.T, m Message) []byte {
	t.Helper()
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open is what a process has open.
type open struct{ descriptors, goroutines int }

func descriptors(t *testing.T) open {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return open{len(all), runtime.NumGoroutine()}
}

// leaks waits until no more is open than before.
func leaks(t *testing.T, before open) {
	t.Helper()
	for began := time.Now(); ; runtime.Gosched() {
		now := descriptors(t)
		if now.descriptors <= before.descriptors && now.goroutines <= before.goroutines {
			return
		}
		if time.Since(began) > long {
			t.Fatalf("%+v are left, %+v were there", now, before)
		}
	}
}
