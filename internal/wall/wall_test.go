package wall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

const long = 10 * time.Second // until what must come is given up

// rig is both ends of a wall.
type rig struct {
	*Client
	decider *decider
	server  *Server
	log     bytes.Buffer
	failed  chan error
	ended   [2]chan error // of the server and the client
	stop    [2]context.CancelFunc
}

const httpPort = 5000

func build(t testing.TB) *rig {
	t.Helper()
	return buildFor(t, newDecider())
}

func buildFor(t testing.TB, d *decider) *rig {
	t.Helper()
	r := &rig{decider: d, failed: make(chan error, 1)}
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if r.server, err = NewServer(a, r.decider.config(slog.New(slog.NewTextHandler(&r.log, nil)), r.failed)); err != nil {
		t.Fatal(err)
	}
	for i, ends := range []func(context.Context) error{r.server.Run, func(ctx context.Context) error { return r.Run(ctx) }} {
		ctx, stop := context.WithCancel(context.Background())
		r.stop[i], r.ended[i] = stop, make(chan error, 1)
		if i == 1 {
			followed := make(chan error, 1)
			go func() { followed <- r.server.Follow(ctx) }()
			if r.Client, err = Dial(b); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(r.Served(1, nil), <-followed); err != nil {
				t.Fatal(err)
			}
		}
		go func() { r.ended[i] <- ends(ctx) }()
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
	want("resolve lan0 fe80::1", nil, nil, r.Resolve("lan0", netip.MustParseAddr("fe80::1%lan0")))
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
	r.decider.is(nil, fmt.Errorf("listen: %w", netif.ErrGone))
	if _, err := r.Discovery(t.Context(), r.LANs()["lo"], false); !errors.Is(err, netif.ErrGone) || err.Error() != "listen: "+netif.ErrGone.Error() {
		t.Errorf("of an interface that has gone the error is %v", err)
	}
}

// TestNetwork: the front knows the network from the start, and is told when it changes;
// the warden hears what of it is not served, of the last that it told.
func TestNetwork(t *testing.T) {
	t.Parallel()
	r := build(t)
	within(t, r.Changed())
	wan, six := r.Uplink()
	l := r.LANs()["lo"]
	if wan != r.decider.wan || !six || l.Index != 1 || len(l.Addrs) != 2 || l.Addrs[1] != netip.IPv6LinkLocalAllNodes() {
		t.Errorf("%+v %v %+v", wan, six, l)
	}
	if !reflect.DeepEqual(r.Settings(), settings) {
		t.Errorf("the settings are %+v", r.Settings())
	}
	r.decider.mu.Lock()
	r.decider.wan, r.decider.six, r.decider.lans = portmap.WAN{}, false, map[string]netif.LAN{"br-lan": homeLAN}
	r.decider.mu.Unlock()
	followed := make(chan error, 1)
	go func() { followed <- r.server.Follow(t.Context()) }()
	within(t, r.Changed())
	if wan, six := r.Uplink(); wan != (portmap.WAN{}) || six || !reflect.DeepEqual(r.LANs(), r.decider.lans) {
		t.Errorf("%+v %v %+v", wan, six, r.LANs())
	}
	turn, lans := r.Network()
	if turn != 2 || len(lans) != 1 || lans[0].Name != "br-lan" {
		t.Errorf("turn %d is of %+v", turn, lans)
	}
	for _, said := range []struct {
		turn    uint32
		problem error
	}{{1, errors.New("late")}, {2, errors.New("port 5000 is taken")}, {2, errors.New("again")}} {
		if err := r.Served(said.turn, said.problem); err != nil {
			t.Fatal(err)
		}
	}
	if err := within(t, followed); err == nil || err.Error() != "port 5000 is taken" {
		t.Errorf("followed with %v", err)
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.server.Follow(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("who does not wait is told %v", err)
	}
	if err := r.Failed(errors.New("discovery has ended")); err != nil {
		t.Fatal(err)
	}
	if err := within(t, r.failed); err.Error() != "discovery has ended" {
		t.Errorf("failed: %v", err)
	}
	if err := r.server.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-r.Stop(); open {
		t.Error("not stopped")
	}
	r.stop[1]()
	_ = r.end(t, 0)
	if err := r.server.Follow(t.Context()); err == nil {
		t.Error("followed by nobody")
	}
}

// TestPing: the front is asked whether it serves, and the warden waits until it says so; what
// was not asked is no answer.
func TestPing(t *testing.T) {
	t.Parallel()
	r := build(t)
	for range 3 {
		answered := make(chan error, 1)
		go func() { answered <- r.server.Ping(t.Context()) }()
		within(t, r.Pinged())
		select {
		case err := <-answered:
			t.Fatalf("answered by nobody: %v", err)
		default:
		}
		if err := errors.Join(r.Pong(), within(t, answered)); err != nil {
			t.Fatal(err)
		}
	}
	// Urged, it hears that once more, and may answer both; who is not asked is not urged.
	answered := make(chan error, 1)
	go func() { answered <- r.server.Ping(t.Context()) }()
	within(t, r.Pinged())
	if err := r.server.Urge(); err != nil {
		t.Fatal(err)
	}
	within(t, r.Pinged())
	if err := errors.Join(r.Pong(), within(t, answered), r.Pong(), r.server.Urge()); err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancelCause(t.Context())
	cancel(errPatience)
	if err := r.server.Ping(impatient); !errors.Is(err, errPatience) {
		t.Errorf("who does not wait is told %v", err)
	}
	if err := errors.Join(r.Pong(), r.Pong()); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t, 0); !errors.Is(err, errPong) {
		t.Errorf("ended with %v", err)
	}
	if err := r.server.Ping(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("asked nobody: %v", err)
	}
}

// TestConfined: what the front's sandbox lacks is known as it is said, in one line each, once.
func TestConfined(t *testing.T) {
	t.Parallel()
	r := build(t)
	long := strings.Repeat("ö", maxDetail)
	lines := append([]string{"Landlock: none", "one\nanother\x1b", long}, make([]string, maxMissing)...)
	want := append([]string{"Landlock: none", "one?another?", long[:maxDetail]}, make([]string, maxMissing-3)...)
	if err := errors.Join(r.Confined(lines), r.Served(9, nil)); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t, 0); !errors.Is(err, errTurn) || !reflect.DeepEqual(r.server.Missing(), want) {
		t.Errorf("%v; missing: %q", err, r.server.Missing())
	}
	r = build(t)
	if err := errors.Join(r.Confined(nil), r.Confined(lines)); err != nil {
		t.Fatal(err)
	}
	if err := r.end(t, 0); !errors.Is(err, errAgain) || len(r.server.Missing()) > 0 {
		t.Errorf("said twice: %v; missing: %q", err, r.server.Missing())
	}
}

// TestServe: the front begins when it is let, with the epochs of the warden.
func TestServe(t *testing.T) {
	t.Parallel()
	r := build(t)
	want := Serve{Four: time.Unix(100, 0), Six: time.Unix(200, 0)}
	if err := r.server.Serve(want.Four, want.Six); err != nil {
		t.Fatal(err)
	}
	if got := within(t, r.Serve()); got != want {
		t.Errorf("serves with %v", got)
	}
}

// TestLog: what the front logs stands in the owner's log as it was, marked; what is too
// much is cut or counted.
func TestLog(t *testing.T) {
	t.Parallel()
	r := build(t)
	log := r.Log().With("subsystem", "ssdp")
	log.Debug("not asked for")
	log.Info("one", "text", "a b", "int", -1, "uint", uint64(1)<<63, "bool", true, "off", false, "span", time.Second, "err", errors.New("no"), "addr", four)
	log.Warn(strings.Repeat("ö", maxLine), strings.Repeat("k", 2*maxKey), strings.Repeat("ö", maxDetail))
	many := make([]any, 0, 40)
	for range cap(many) / 2 {
		many = append(many, "n", 1)
	}
	log.Error("many", many...)
	r.Suspect() // is answered behind them
	r.stop[0]()
	_ = r.end(t, 0)
	text := regexp.MustCompile(`time=\S+ `).ReplaceAllString(r.log.String(), "")
	want := "level=INFO msg=one subsystem=ssdp text=\"a b\" int=-1 uint=9223372036854775808 bool=true off=false span=1s err=no addr=" + four.String() + " from=front\n" +
		"level=WARN msg=" + strings.Repeat("ö", maxLine/2) + " subsystem=ssdp " + strings.Repeat("k", maxKey) + "=" + strings.Repeat("ö", maxDetail/2) + " from=front\n" +
		"level=ERROR msg=many subsystem=ssdp" + strings.Repeat(" n=1", maxAttrs-1) + " from=front\n"
	if text != want {
		t.Errorf("the log has\n%s\nwant\n%s", text, want)
	}
}

// TestLogFlood: a front that does nothing but log does not fill the owner's log, by lines or
// by their length, and what was left out is counted.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x01", maxDetail)
	largest := &Record{Message: "long", Attrs: slices.Repeat([]Attr{{Key: "k", Text: long}}, maxAttrs)}
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 2 * recordsAtOnce {
			log.write(&Record{Message: "x"})
		}
		time.Sleep(time.Second)
		log.write(&Record{Level: -4, Message: "debug"})
		log.write(&Record{Message: "behind"})
		log.write(&Record{Message: "last"})
		text := out.String()
		if n := strings.Count(text, "\n"); n != recordsAtOnce+2 || !strings.Contains(text, fmt.Sprintf("msg=behind from=front left_out=%d\n", recordsAtOnce)) ||
			!strings.HasSuffix(text, "msg=last from=front\n") {
			t.Errorf("%d lines; the last %s", n, text[max(0, len(text)-200):])
		}
		for name, handler := range map[string]func(io.Writer) slog.Handler{
			"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
			"JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		} {
			out.Reset()
			log = NewLog(slog.New(handler(&out)))
			for range 10 {
				for range recordsASecond {
					log.write(largest)
				}
				time.Sleep(time.Second)
			}
			if n, most := out.Len(), 2*(octetsAtOnce+10*octetsASecond); n < octetsAtOnce || n > most { // JSON escapes by six octets
				t.Errorf("%s: %d octets in ten seconds, want %d at most", name, n, most)
			}
		}
	})
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
	for i := range eventBuffer + 10 { // of many clients: what one does is gathered
		m := shownOne
		m.Client.Addr = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		r.decider.events <- portmap.Event{Type: portmap.Renewed, Mapping: m}
	}
	late := r.Events(t.Context())
	last := portmap.Event{Type: portmap.Expired, Mapping: shownOne} // behind all the others
	r.decider.events <- last
	for ev := within(t, late); ev.Type != last.Type; ev = within(t, late) {
		if ev.Type == portmap.Resync { // it is among what was lost
			r.decider.events <- last
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

// TestDial: a connection that the warden has made goes on here, and is closed here. One
// that it does not make is an error.
func TestDial(t *testing.T) {
	t.Parallel()
	r := build(t)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	to := netip.MustParseAddrPort(listener.Addr().String())
	conn, err := r.Dial(t.Context(), "lo", loopback, to)
	if err != nil {
		t.Fatal(err)
	}
	if asked, want := r.decider.taken(), fmt.Sprintf("dial lo 127.0.0.1 %v", to); len(asked) != 1 || asked[0] != want {
		t.Errorf("the warden was asked %q, want %q", asked, want)
	}
	other, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	_ = other.SetDeadline(time.Now().Add(long))
	if got, err := io.ReadAll(other); err != nil || string(got) != "hello" { // no copy is left open
		t.Errorf("%q, %v", got, err)
	}
	r.decider.is(nil, errors.New("not a host of this LAN"))
	if _, err := r.Dial(t.Context(), "lo", loopback, to); err == nil || !strings.Contains(err.Error(), "not a host of this LAN") {
		t.Errorf("error %v", err)
	}
	if err := r.Resolve("lo", loopback); err == nil {
		t.Error("no error")
	}
}

// TestLargeNetwork: of a network that has no room in a message the front serves what has,
// and the owner is told once.
func TestLargeNetwork(t *testing.T) {
	t.Parallel()
	many := make(map[string]netif.LAN)
	for i := range maxLANs + 1 {
		l := homeLAN
		l.Name = fmt.Sprintf("lan%02d", i)
		many[l.Name] = l
	}
	large := homeLAN
	large.Name, large.Addrs, large.Prefixes, large.Direct = "lan00", nil, nil, nil
	for i := range 3 * maxAddrs {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
		large.Addrs = append(large.Addrs, a)
		large.Prefixes = append(large.Prefixes, netip.PrefixFrom(a, 24).Masked())
	}
	large.Direct = large.Prefixes
	many["lan00"] = large
	var log bytes.Buffer
	d := newDecider()
	d.lans = many
	s, owner := &Server{warden: d}, NewLog(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		n := &Network{LANs: s.lans()}
		owner.tell(n.fit())
		b, err := Encode(Message{Body: n})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		got := m.Body.(*Network).LANs
		if len(got) != maxLANs || len(got[0].Addrs) != maxAddrs || len(got[0].Prefixes) != maxAddrs || !reflect.DeepEqual(got[1].Addrs, homeLAN.Addrs) {
			t.Errorf("%d LANs, of the first %d addresses", len(got), len(got[0].Addrs))
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 1 ||
		!strings.Contains(text, fmt.Sprintf(`msg="not all of the network is served" lans_left_out=1 addresses_left_out=%d`, 4*maxAddrs)) {
		t.Errorf("the log has %q", text)
	}
	if len(many["lan00"].Addrs) != 3*maxAddrs {
		t.Error("what the warden knows was changed")
	}
}

// TestFullNetwork: as many LANs as there may be, each as full as it may be, have no room in a
// message together: each keeps its share, and those that have little all of it.
func TestFullNetwork(t *testing.T) {
	t.Parallel()
	full := make(map[string]netif.LAN)
	for i := range maxLANs {
		l := netif.LAN{Name: fmt.Sprintf("a-long-name-%03d", i), Index: i + 1, MAC: [6]byte{2}, Addr: four}
		for n := range maxAddrs {
			a := netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 4: byte(i), 7: byte(n), 15: 1})
			l.Addrs = append(l.Addrs, a)
			l.Prefixes = append(l.Prefixes, netip.PrefixFrom(a, 64).Masked())
		}
		l.Direct = l.Prefixes
		full[l.Name] = l
	}
	small := homeLAN
	small.Name, small.Prefixes = "a-long-name-007", slices.Clone(full["a-long-name-000"].Prefixes[:10])
	full[small.Name] = small
	decider := newDecider()
	decider.lans = full
	n := &Network{LANs: (&Server{warden: decider}).lans()}
	n.fit()
	if _, err := Encode(Message{Body: n}); err != nil {
		t.Fatal(err) // no front would ever be told
	}
	r := buildFor(t, decider)
	got := r.LANs()
	least, total := maxAddrs, 0
	for name, l := range got {
		if name != small.Name {
			least = min(least, len(l.Addrs), len(l.Prefixes), len(l.Direct))
			if len(l.Addrs) != len(l.Prefixes) || !reflect.DeepEqual(l.Direct, l.Prefixes) || !reflect.DeepEqual(l.Prefixes, full[name].Prefixes[:len(l.Prefixes)]) {
				t.Errorf("%s has %d addresses, %d networks, and %d without a router between", name, len(l.Addrs), len(l.Prefixes), len(l.Direct))
			}
		}
		total += 17*len(l.Addrs) + 18*(len(l.Prefixes)+len(l.Direct))
	}
	if len(got) != maxLANs || !reflect.DeepEqual(got[small.Name].Prefixes, small.Prefixes) || least < 10 || total < MaxMessage*8/10 {
		t.Errorf("%d LANs, of one %d addresses, %d octets in all; of the small one %v", len(got), least, total, got[small.Name].Prefixes)
	}
	if n := strings.Count(r.log.String(), "not all of the network is served"); n != 1 {
		t.Errorf("the log has %q", &r.log)
	}
}
