package igd_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/igd"
	"portcullis/internal/gena"
	"portcullis/internal/http1"
	"portcullis/portmap"
)

// told is one event that a subscriber got.
type told struct {
	Service string
	To      string
	Values  []gena.Property
}

// notifier keeps subscribers and writes down what they are told.
type notifier struct {
	mu   sync.Mutex
	subs []subscriber
	log  []told
}

type subscriber struct {
	service string
	sub     gena.Subscriber
	initial func() []gena.Property
}

func (n *notifier) Handle(_ *http1.Request, service string, sub gena.Subscriber, initial func() []gena.Property) *http1.Response {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subs = append(n.subs, subscriber{service, sub, initial})
	return http1.Empty(http1.OK)
}

func (n *notifier) PublishEach(service string, changed func(gena.Subscriber) []gena.Property) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.subs {
		if s.service != service {
			continue
		}
		if p := changed(s.sub); len(p) > 0 {
			n.log = append(n.log, told{service, s.sub.Addr.String(), p})
		}
	}
}

// taken returns what was told since the last time.
func (n *notifier) taken() []told {
	n.mu.Lock()
	defer n.mu.Unlock()
	log := n.log
	n.log = nil
	return log
}

// bed is a device in a synctest bubble, without a network.
type bed struct {
	t        *testing.T
	notifier *notifier
	engine   *portmap.Engine
	wan      *wan
	changed  chan struct{}
	front    *igd.Handler
	fake     chan portmap.Event
}

// lie makes the bed. The device watches the engine, or reads the fake events that
// the test writes.
func lie(t *testing.T, fake bool) *bed {
	t.Helper()
	b := &bed{t: t, notifier: &notifier{}, engine: newEngine(t), wan: goodWAN(), changed: make(chan struct{})}
	cfg := config(b.engine, b.wan)
	cfg.Notifier = b.notifier
	cfg.Identify = func(iface string, addr netip.Addr) (portmap.Client, error) {
		for _, h := range neighbour {
			if h.client.Addr == addr {
				return h.client, nil
			}
		}
		return portmap.Client{}, errNobody
	}
	d := newDevice(t, cfg)
	b.front = d.On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	events := b.engine.Watch(8).C
	if fake {
		b.fake = make(chan portmap.Event)
		events = b.fake
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx, events, b.changed) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// inBed runs a test in the bubble of a bed.
func inBed(t *testing.T, fake bool, test func(*testing.T, *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, lie(t, fake)) })
}

// subscribe returns the values of the first event.
func (b *bed) subscribe(h host, path string) []gena.Property {
	b.t.Helper()
	before := len(b.notifier.subs)
	b.front.ServeHTTP(&http1.Request{Method: "SUBSCRIBE", Target: path, Remote: addrPort(h, 50000), Local: netip.MustParseAddrPort("192.168.1.1:5000")})
	if len(b.notifier.subs) != before+1 {
		b.t.Fatalf("%s: not handed to the notifier", path)
	}
	return b.notifier.subs[before].initial()
}

// subscribeBoth subscribes hosts to both versions of the mappings' service.
func (b *bed) subscribeBoth(hosts ...host) {
	b.t.Helper()
	for _, h := range hosts {
		b.subscribe(h, b.url("1", "WANIPConnection"))
		b.subscribe(h, b.url("2", "WANIPConnection"))
	}
}

// open makes a pinhole.
func (b *bed) open(h host, port int) {
	b.t.Helper()
	b.mapped(h, portmap.Request{Kind: portmap.Pinhole6, Internal: addrPort(h, port)})
}

func (b *bed) add(h host, port int) {
	b.t.Helper()
	b.mapped(h, portmap.Request{Exact: true, Internal: addrPort(h, 5000), ExternalPort: uint16(port)})
}

// mapped has the engine grant what a control point asks for, for an hour.
func (b *bed) mapped(h host, r portmap.Request) {
	b.t.Helper()
	r.Client, r.Transport, r.Lifetime = h.client, portmap.UDP, time.Hour
	r.Client.Via = portmap.ViaUPnP
	if _, err := b.engine.Map(b.t.Context(), r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) want(id string, want ...told) {
	b.t.Helper()
	synctest.Wait()
	time.Sleep(time.Second) // in the bubble: until all that was gathered is told
	synctest.Wait()
	got := b.notifier.taken()
	slices.SortStableFunc(got, func(x, y told) int { return cmpTold(x, y) })
	slices.SortStableFunc(want, func(x, y told) int { return cmpTold(x, y) })
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", id, diff)
	}
}

func cmpTold(x, y told) int {
	switch {
	case x.Service+x.To < y.Service+y.To:
		return -1
	case x.Service+x.To > y.Service+y.To:
		return 1
	}
	return 0
}

func (b *bed) url(version, service string) string {
	return "/" + testPath + "/" + version + "/" + service + "/event"
}

const (
	eventIP1 = "1/WANIPConnection"
	eventIP2 = "2/WANIPConnection"
	addrA    = "192.168.1.50"
	addrB    = "192.168.1.60"
)

func props(pairs ...string) []gena.Property {
	var all []gena.Property
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, gena.Property{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}

func entries(n string) []gena.Property { return props("PortMappingNumberOfEntries", n) }
func both(n, id string) []gena.Property {
	return props("PortMappingNumberOfEntries", n, "SystemUpdateID", id)
}

func TestInitialEvents(t *testing.T) {
	t.Parallel()
	inBed(t, false, func(t *testing.T, b *bed) {
		b.add(hostA, 6000)
		b.add(hostB, 6001)
		b.add(hostB, 6002)
		connection := func(n string) []gena.Property {
			return props("PossibleConnectionTypes", "IP_Routed", "ConnectionStatus", "Connected",
				"ExternalIPAddress", "203.0.113.7", "PortMappingNumberOfEntries", n)
		}
		id := props("SystemUpdateID", "3")
		for path, want := range map[string][]gena.Property{
			b.url("1", "WANIPConnection"):          connection("1"),
			b.url("2", "WANIPConnection"):          append(connection("1"), id...),
			b.url("1", "WANPPPConnection"):         connection("1"),
			b.url("2", "WANPPPConnection"):         connection("1"),
			b.url("1", "WANCommonInterfaceConfig"): props("PhysicalLinkStatus", "Up"),
			b.url("2", "WANCommonInterfaceConfig"): props("PhysicalLinkStatus", "Up"),
		} {
			if diff := cmp.Diff(want, b.subscribe(hostA, path)); diff != "" {
				t.Errorf("GENA-1/%s (-want +got):\n%s", path, diff)
			}
		}
		if diff := cmp.Diff(append(connection("2"), id...), b.subscribe(hostB, b.url("2", "WANIPConnection"))); diff != "" {
			t.Errorf("K7/B's own view (-want +got):\n%s", diff)
		}
		for _, version := range []string{"1", "2"} {
			got := b.subscribe(hostA, b.url(version, "Layer3Forwarding"))
			if len(got) != 1 || got[0].Name != "DefaultConnectionService" {
				t.Errorf("GENA-1/Layer3Forwarding: %v", got)
			}
		}
	})
}

func TestMappingEvents(t *testing.T) {
	t.Parallel()
	inBed(t, false, func(t *testing.T, b *bed) {
		b.subscribeBoth(hostA, hostB)
		b.subscribe(hostA, b.url("1", "WANCommonInterfaceConfig"))
		b.want("nothing yet")

		b.add(hostA, 6000)
		b.want("GENA-2/granted", told{eventIP1, addrA, entries("1")}, told{eventIP2, addrA, both("1", "1")})
		b.add(hostB, 6001)
		b.want("K7/B's", told{eventIP1, addrB, entries("1")}, told{eventIP2, addrB, both("1", "2")})
		b.add(hostA, 6000)
		b.want("renewed", told{eventIP2, addrA, props("SystemUpdateID", "3")})

		for port := 6010; port < 6014; port++ { // a burst is one event
			b.add(hostA, port)
		}
		b.want("burst", told{eventIP1, addrA, entries("5")}, told{eventIP2, addrA, both("5", "7")})
		c := hostA.client
		if _, err := b.engine.Unmap(t.Context(), portmap.Selector{Client: c, FirstPort: 6010, LastPort: 6013}); err != nil {
			t.Fatal(err)
		}
		b.want("a range is one event", told{eventIP1, addrA, entries("1")}, told{eventIP2, addrA, both("1", "11")})

		time.Sleep(time.Hour)
		b.want("SOAP-23/expired", told{eventIP1, addrA, entries("0")}, told{eventIP2, addrA, both("0", "13")},
			told{eventIP1, addrB, entries("0")}, told{eventIP2, addrB, both("0", "12")}) // B's ended first

		r := portmap.Request{Client: c, Transport: portmap.UDP, Exact: true, Internal: addrPort(hostB, 1), ExternalPort: 7000}
		if _, err := b.engine.Map(t.Context(), r); err == nil {
			t.Fatal("mapped to another host")
		}
		b.want("a refusal is no event")
	})
}

func TestWANEvents(t *testing.T) {
	t.Parallel()
	inBed(t, false, func(t *testing.T, b *bed) {
		b.subscribe(hostA, b.url("1", "WANIPConnection"))
		b.subscribe(hostB, b.url("2", "WANIPConnection"))
		b.subscribe(hostB, b.url("2", "WANPPPConnection"))
		b.subscribe(hostB, b.url("1", "WANCommonInterfaceConfig"))
		b.subscribe(hostB, b.url("1", "Layer3Forwarding"))
		connection := func(p []gena.Property) []told {
			return []told{{eventIP1, addrA, p}, {eventIP2, addrB, p}, {"2/WANPPPConnection", addrB, p}}
		}
		synctest.Wait()

		b.changed <- struct{}{}
		b.want("nothing is different")
		b.wan.set(func(s *igd.WANStatus) { s.BytesSent++; s.Since = time.Now() })
		b.changed <- struct{}{}
		b.want("nothing evented is different")
		b.wan.set(func(s *igd.WANStatus) { s.External = netip.MustParseAddr("203.0.113.8") })
		b.changed <- struct{}{}
		b.want("another address", connection(props("ExternalIPAddress", "203.0.113.8"))...)
		b.wan.set(func(s *igd.WANStatus) { *s = igd.WANStatus{} })
		b.changed <- struct{}{}
		b.want("down", append(connection(props("ConnectionStatus", "Disconnected", "ExternalIPAddress", "")),
			told{"1/WANCommonInterfaceConfig", addrB, props("PhysicalLinkStatus", "Down")})...)
		close(b.changed)
		b.add(hostA, 6000)
		b.want("goes on after the signals ended", told{eventIP1, addrA, entries("1")})
	})
}

// TestFirewallEvents: a pinhole changes nothing that is evented, of either family.
func TestFirewallEvents(t *testing.T) {
	t.Parallel()
	inBed(t, false, func(t *testing.T, b *bed) {
		path := b.url("2", "WANIPv6FirewallControl")
		if diff := cmp.Diff(props("FirewallEnabled", "1", "InboundPinholeAllowed", "1"), b.subscribe(hostA, path)); diff != "" {
			t.Errorf("initial (-want +got):\n%s", diff)
		}
		b.subscribe(sixA, path)
		b.subscribeBoth(hostA, sixA)
		b.open(sixA, 6000)
		b.open(sixA, 6000)
		b.want("pinholes are not told")
		allowed := func(v string) []told {
			p := props("InboundPinholeAllowed", v)
			return []told{{"2/WANIPv6FirewallControl", addrA, p}, {"2/WANIPv6FirewallControl", "2001:db8::50", p}}
		}
		b.changed <- struct{}{}
		b.want("nothing is different")
		b.wan.setInbound(false)
		b.changed <- struct{}{}
		b.want("IPv6 is gone", allowed("0")...)
		if diff := cmp.Diff(props("FirewallEnabled", "1", "InboundPinholeAllowed", "0"), b.subscribe(hostB, path)); diff != "" {
			t.Errorf("initial, later (-want +got):\n%s", diff)
		}
		b.notifier.subs = b.notifier.subs[:len(b.notifier.subs)-1]
		b.changed <- struct{}{}
		b.want("told once")
		b.wan.setInbound(true)
		b.changed <- struct{}{}
		b.want("it is back", allowed("1")...)
		time.Sleep(2 * time.Hour)
		b.want("nor is their end")
	})
}

// TestPinholesAndResync: a pinhole is nobody's mapping when all are told anew.
func TestPinholesAndResync(t *testing.T) {
	t.Parallel()
	inBed(t, true, func(t *testing.T, b *bed) {
		b.subscribe(sixA, b.url("1", "WANIPConnection"))
		b.subscribe(hostA, b.url("1", "WANIPConnection"))
		b.open(sixA, 6000)
		b.add(hostA, 6000)
		b.fake <- portmap.Event{Type: portmap.Resync}
		b.want("resync", told{eventIP1, addrA, entries("1")}, told{eventIP1, "2001:db8::50", entries("0")})
	})
}

// TestSubscriberAddresses: a subscriber on a link keeps the zone that its
// connection has, and is told from the address that it connected to.
func TestSubscriberAddresses(t *testing.T) {
	t.Parallel()
	var asked []netip.Addr
	n := &notifier{}
	cfg := config(newEngine(t), goodWAN())
	cfg.Notifier = n
	cfg.Identify = func(_ string, addr netip.Addr) (portmap.Client, error) {
		asked = append(asked, addr)
		return linkA.client, nil
	}
	front := newDevice(t, cfg).On("lan", netip.MustParseAddrPort("[::]:5000"))
	for local, want := range map[string]string{"[fe80::1%lan]:5000": "fe80::1%lan", "[2001:db8::1]:5000": "2001:db8::1"} {
		path := "/" + testPath + "/2/WANIPv6FirewallControl/event"
		front.ServeHTTP(&http1.Request{
			Method: "SUBSCRIBE", Target: path, Remote: netip.MustParseAddrPort("[fe80::50%lan]:50000"), Local: netip.MustParseAddrPort(local),
		})
		sub := n.subs[len(n.subs)-1].sub
		if sub.Addr.String() != "fe80::50%lan" || sub.Local.String() != want || sub.Interface != "lan" {
			t.Errorf("by %q: %+v", local, sub)
		}
	}
	for _, a := range asked {
		if a != linkA.client.Addr {
			t.Errorf("Identify was asked for %s", a)
		}
	}
}

func TestResync(t *testing.T) {
	t.Parallel()
	inBed(t, true, func(t *testing.T, b *bed) {
		b.subscribe(hostA, b.url("2", "WANIPConnection"))
		b.subscribe(hostB, b.url("1", "WANIPConnection"))
		b.add(hostA, 6000)
		b.add(hostA, 6001)
		b.want("not reported yet")
		b.fake <- portmap.Event{Type: portmap.Resync}
		b.want("resync", told{eventIP2, addrA, both("2", "2")}, told{eventIP1, addrB, entries("0")})
		for _, e := range []portmap.EventType{portmap.Denied, portmap.Pending, portmap.Drift} {
			b.fake <- portmap.Event{Type: e, Mapping: portmap.Mapping{Client: hostA.client}}
		}
		b.want("of no interest")
		b.fake <- portmap.Event{Type: portmap.RevokedEvent, Mapping: portmap.Mapping{Client: hostA.client}}
		b.fake <- portmap.Event{Type: portmap.Renewed, Mapping: portmap.Mapping{Client: hostA.client}}
		b.want("revoked and renewed", told{eventIP2, addrA, both("2", "2")})
		close(b.fake)
		b.want("the engine has stopped")
	})
}

func TestWithoutEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, config(newEngine(t), goodWAN()))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx, nil, nil) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
	})
}
