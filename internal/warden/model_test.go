package warden

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"portcullis/firewall"
	"portcullis/firewall/fwtest"
	"portcullis/internal/dhcp"
	"portcullis/internal/gateway"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
	"portcullis/internal/wall"
	"portcullis/policy"
	"portcullis/portmap"
)

// The world of the model: two LANs and a tunnel, which has no MAC addresses, hosts that are
// there and others, a device that a rule denies, one to which a rule gives more than to
// others, and ports of every kind.
var (
	modelLANs = netif.Roles{
		LAN: []netif.LAN{
			{Name: "lan0", Index: 2, MAC: [6]byte{2, 0, 0, 0, 0, 1}, Prefixes: prefixes("192.168.1.0/24", "2001:db8:1::/64"), Addr: netip.MustParseAddr("192.168.1.1"),
				Addrs: addrsOf("192.168.1.1", "2001:db8:1::1"), Direct: prefixes("192.168.1.0/24", "2001:db8:1::/64")},
			{Name: "iot0", Index: 3, MAC: [6]byte{2, 0, 0, 0, 0, 2}, Prefixes: prefixes("192.168.2.0/24"), Addr: netip.MustParseAddr("192.168.2.1"),
				Addrs: addrsOf("192.168.2.1"), Direct: prefixes("192.168.2.0/24")},
			{Name: "tun0", Index: 4, Prefixes: prefixes("10.30.0.0/24"), Addr: netip.MustParseAddr("10.30.0.1"),
				Addrs: addrsOf("10.30.0.1"), Direct: prefixes("10.30.0.0/24")},
		},
		WAN: netif.WAN{Uplink: netif.Uplink{Name: "wan0", Up: true}, External: netip.MustParseAddr("203.0.113.1")},
	}
	deniedMAC = portmap.MAC{2, 0, 0, 0, 0, 0x66}
	serverMAC = portmap.MAC{2, 0, 0, 0, 0, 0x11}
	modelMACs = map[netip.Addr]portmap.MAC{
		netip.MustParseAddr("192.168.1.10"): {2, 0, 0, 0, 0, 0x10}, netip.MustParseAddr("2001:db8:1::10"): {2, 0, 0, 0, 0, 0x10},
		netip.MustParseAddr("192.168.1.11"): serverMAC, netip.MustParseAddr("192.168.2.10"): {2, 0, 0, 0, 0, 0x20},
		netip.MustParseAddr("192.168.1.12"): deniedMAC,
	}
	modelHomes = map[netip.Addr]string{
		netip.MustParseAddr("192.168.1.10"): "lan0", netip.MustParseAddr("2001:db8:1::10"): "lan0", netip.MustParseAddr("192.168.1.11"): "lan0",
		netip.MustParseAddr("192.168.1.12"): "lan0", netip.MustParseAddr("192.168.2.10"): "iot0", netip.MustParseAddr("10.30.0.2"): "tun0", netip.MustParseAddr("10.30.0.3"): "tun0",
	}
	modelHosts = addrsOf("192.168.1.10", "192.168.1.11", "192.168.2.10", "10.30.0.2", "192.168.1.12", "10.30.0.3", "192.168.1.1", "203.0.113.1", "203.0.113.9", "8.8.8.8",
		"127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "2001:db8:1::10", "2001:db8:1::1", "2001:db8:9::9", "::1", "fe80::1", "2002:c0a8:101::1")
	genModelHost  = rapid.OneOf(rapid.SampledFrom(modelHosts[:4]), rapid.SampledFrom(modelHosts))
	genModelPort  = rapid.SampledFrom([]uint16{0, 1, 22, 80, 139, 445, 1024, 1900, 3074, 3074, 3075, 5000, 6000, 6001, 29184, 65535})
	genModelSpan  = rapid.SampledFrom([]time.Duration{0, time.Hour, 1<<63 - 1}) // none ends meanwhile
	genModelIface = rapid.SampledFrom([]string{"lan0", "lan0", "lan0", "iot0", "tun0", "tun0", "wan0", "lo", ""})
	genModelMAC   = rapid.SampledFrom([]portmap.MAC{{2, 0, 0, 0, 0, 0x10}, serverMAC, {2, 0, 0, 0, 0, 0x20}, deniedMAC, {}})
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addrsOf(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// genModelClient is one that asks; where it is honest, it is one that can be.
func genModelClient(t *rapid.T) portmap.Client {
	c := portmap.Client{
		Addr: genModelHost.Draw(t, "address"), Interface: genModelIface.Draw(t, "interface"), MAC: genModelMAC.Draw(t, "mac"),
		Via:     portmap.Via(rapid.SampledFrom([]int{int(portmap.ViaUPnP), int(portmap.ViaNATPMP), int(portmap.ViaPCP)}).Draw(t, "via")),
		Unheard: rapid.Bool().Draw(t, "unheard"),
	}
	if rapid.IntRange(0, 3).Draw(t, "as it is") > 0 {
		c.Interface = modelHomes[c.Addr]
		if mac, there := modelMACs[c.Addr]; there {
			c.MAC = mac
		}
	}
	return c
}

// modelClient is who a client is, whatever MAC address it says.
func modelClient(c portmap.Client) portmap.ClientID {
	return portmap.ClientID{Interface: c.Interface, Addr: c.Addr, MAC: modelMACs[c.Addr]}
}

func genModelRequest(t *rapid.T) portmap.Request {
	c := genModelClient(t)
	target := c.Addr
	if rapid.IntRange(0, 3).Draw(t, "for another") == 0 {
		target = genModelHost.Draw(t, "target")
	}
	r := portmap.Request{
		Client: c, Transport: portmap.Transport(rapid.SampledFrom([]uint8{6, 17, 6, 17, 0, 1, 132}).Draw(t, "transport")),
		Internal:     netip.AddrPortFrom(target, genModelPort.Draw(t, "internal port")),
		ExternalPort: genModelPort.Draw(t, "external port"), Lifetime: genModelSpan.Draw(t, "lifetime"),
		Exact: rapid.Bool().Draw(t, "exact"), Disabled: rapid.Bool().Draw(t, "disabled"), Description: "x",
		Named: portmap.Naming(rapid.IntRange(0, 1).Draw(t, "named")), RemotesAre: portmap.RemotesMode(rapid.IntRange(0, 3).Draw(t, "remotes are")),
		ZeroIsEndless: rapid.Bool().Draw(t, "zero is endless"), Floored: rapid.Bool().Draw(t, "floored"), Parity: rapid.Bool().Draw(t, "parity"),
	}
	if target.Is6() {
		r.Kind = portmap.Pinhole6
	}
	if rapid.Bool().Draw(t, "nonce") {
		r.Nonce = &portmap.Nonce{byte(rapid.IntRange(0, 2).Draw(t, "of whom"))}
	}
	if rapid.IntRange(0, 3).Draw(t, "restricted") == 0 {
		r.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.7/32")}}
	}
	return r
}

// model is a warden behind a wall, and the front that asks it.
type model struct {
	warden *Warden
	kernel *fwtest.Fake
	policy *policy.Policy
	front  *wall.Client
	asked  map[portmap.ClientID]bool // who was granted something
}

func newModel(t *rapid.T, stop *[]func()) *model {
	var log bytes.Buffer
	b := &backend{Fake: new(fwtest.Fake)}
	w := &Warden{log: slog.New(slog.NewTextHandler(&log, nil)), firewall: b, started: time.Now(), names: dhcp.New(dhcp.Config{}),
		kernel: neighbours{macs: modelMACs}}
	w.network = gateway.New(gateway.Config{
		Listening: func(context.Context) (netif.Ports, error) { return netif.NewPorts(nil), nil },
		Forwarded: func(context.Context) (*firewall.Forwards, error) { return &firewall.Forwards{}, nil },
	})
	w.Learn(netif.State{}, modelLANs)
	decide, err := policy.New(policy.Config{
		Default: portmap.Allow, MappingsPerClient: 4, Mappings: 8,
		Rules: []policy.Rule{
			{Name: "camera", Action: portmap.Deny, Clients: []policy.ClientMatch{{MAC: deniedMAC}}},
			{Name: "server", Action: portmap.Allow, Clients: []policy.ClientMatch{{MAC: serverMAC}},
				Internal: []portmap.PortRange{{First: 80, Last: 80}}, External: []portmap.PortRange{{First: 80, Last: 80}}},
		},
	})
	if err == nil {
		w.engine, err = portmap.NewEngine(portmap.EngineConfig{Policy: decide, Firewall: patient{b}, Gateway: w.network, LeaseMax: time.Hour, Hold: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Reader = w.engine.Reader
	near, far, err := wall.Pair()
	if err != nil {
		t.Fatal(err)
	}
	server, err := wall.NewServer(near, wall.ServerConfig{Warden: w, Sockets: w, Log: wall.NewLog(w.log), Failed: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.engine.Run(ctx) })
	running.Go(func() { _ = server.Run(ctx) })
	running.Go(func() { _ = server.Follow(ctx) })
	m := &model{warden: w, kernel: b.Fake, policy: decide, asked: map[portmap.ClientID]bool{}}
	if m.front, err = wall.Dial(far); err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = m.front.Run(ctx) })
	*stop = append(*stop, func() { cancel(); running.Wait() })
	return m
}

// ask asks for a mapping, or several in a row.
func (m *model) ask(t *rapid.T) {
	r := genModelRequest(t)
	n := rapid.SampledFrom([]int{1, 1, 1, 2, 5, 64}).Draw(t, "n")
	before := m.warden.engine.Snapshot().Revision()
	got, err := m.front.MapSet(t.Context(), r, n)
	if now := m.warden.engine.Snapshot().Revision(); err != nil && now != before {
		t.Fatalf("%v is refused, and the table has changed", r)
	}
	for _, g := range got {
		m.asked[g.Client.ID()] = true
		if g.Internal.Addr() != r.Client.Addr || g.Client.ID() != modelClient(r.Client) {
			t.Fatalf("%v is answered with %v of %v", r, g, g.Client)
		}
	}
}

// end ends mappings, and no other client's.
func (m *model) end(t *rapid.T) {
	s := portmap.Selector{
		Client: genModelClient(t), Transport: portmap.Transport(rapid.SampledFrom([]uint8{0, 6, 17}).Draw(t, "transport")),
		FirstPort: genModelPort.Draw(t, "first"), LastPort: genModelPort.Draw(t, "last"), Internal: genModelPort.Draw(t, "internal"),
		Only: portmap.Via(rapid.SampledFrom([]int{0, int(portmap.ViaUPnP), int(portmap.ViaPCP)}).Draw(t, "only")),
	}
	others := m.of(func(id portmap.ClientID) bool { return id != s.Client.ID() })
	_, err := m.front.Unmap(t.Context(), s)
	if err != nil && !errors.As(err, new(*portmap.Error)) {
		t.Fatal(err)
	}
	if now := m.of(func(id portmap.ClientID) bool { return id != s.Client.ID() }); !maps.Equal(now, others) {
		t.Fatalf("%+v ended others' mappings: %v, before %v", s, now, others)
	}
}

// of returns the mappings of some clients, by their IDs.
func (m *model) of(some func(portmap.ClientID) bool) map[uint64]string {
	all := map[uint64]string{}
	for x := range m.warden.engine.Snapshot().All() {
		if some(x.Client.ID()) {
			all[x.ID] = x.String()
		}
	}
	return all
}

// look compares what the wall says of a client's mappings with what there is.
func (m *model) look(t *rapid.T) {
	id := genModelClient(t).ID()
	page, err := m.front.Own(t.Context(), id, 0, portmap.MaxPage)
	direct, err2 := m.warden.Own(t.Context(), id, 0, portmap.MaxPage)
	if err != nil || err2 != nil || page.Count != direct.Count || page.Revision != direct.Revision || len(page.Mappings) != len(direct.Mappings) {
		t.Fatalf("%v: %+v, %v\nbehind the wall: %+v, %v", id, page, err, direct, err2)
	}
	for i, x := range page.Mappings {
		y := direct.Mappings[i]
		if x.Nonce != (portmap.Nonce{}) || x.Client.Name != "" || x.Rule != "" ||
			x.ID != y.ID || x.String() != y.String() || x.Client.ID() != y.Client.ID() || x.Claims != y.Claims || x.Endless != y.Endless ||
			x.Expires.Sub(y.Expires).Abs() > time.Minute {
			t.Fatalf("across the wall comes %+v, of %+v", x, y)
		}
	}
}

// holds compares every mapping with the policy, the walls and the kernel.
func (m *model) holds(t *rapid.T) {
	table, view := m.warden.engine.Snapshot(), m.warden.network.View()
	var want, have []string
	for x := range table.All() {
		if !m.asked[x.Client.ID()] || x.Client.ID() != modelClient(x.Client) || x.Claims.Has(portmap.ViaOwner) {
			t.Fatalf("nobody asked for %v of %v", x, x.Client)
		}
		r := portmap.Request{Client: x.Client, Kind: x.Kind, Transport: x.Transport, Internal: x.Internal, ExternalPort: x.ExternalPort,
			Remotes: x.Remotes, Lifetime: time.Minute, Exact: true}
		r.Client.Via = portmap.ViaUPnP
		if d := m.policy.Decide(r, portmap.Facts{Now: time.Now(), View: view, Renewal: true}); d.Action != portmap.Allow {
			t.Fatalf("%v of %v is there, and would be refused: %s", x, x.Client, d.Detail)
		}
		if left := x.Left(time.Now()); left > time.Hour || left < 0 && !x.Endless {
			t.Fatalf("%v ends in %v", x, left)
		}
		if !x.Disabled { // the kernel has no closed ones
			want = append(want, x.String())
		}
	}
	for _, x := range m.kernel.Mappings() {
		have = append(have, x.String())
	}
	slices.Sort(want)
	slices.Sort(have)
	if table.Len() > 8 || !slices.Equal(want, have) {
		t.Fatalf("the table has %d: %q\nthe kernel %q", table.Len(), want, have)
	}
}

// TestModel: K11. Whatever is said over the wall, the mappings are those that the policy
// allows to those who asked, the kernel has the same, nobody ends another's, and what comes
// back across is what there is.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var stop []func()
		defer func() {
			for _, f := range stop {
				f()
			}
		}()
		m := newModel(t, &stop)
		t.Repeat(map[string]func(*rapid.T){"ask": m.ask, "end": m.end, "look": m.look, "": m.holds})
	})
}
