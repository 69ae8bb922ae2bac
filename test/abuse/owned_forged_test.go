package abuse

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/wall"
	"portcullis/portmap"
	"portcullis/test/owned"
	testrig "portcullis/test/rig"
)

// house is where the forged requests are made: hosts c and d are denied by address and by
// MAC address, and all that is on the second LAN by that. a and b have sent of late.
const house = noRates + `
[[rule]]
name = "not c"
action = "deny"
clients = ["192.168.77.30"]
[[rule]]
name = "not d"
action = "deny"
clients = ["02:00:00:4d:00:28"]
[[rule]]
name = "not the cameras"
action = "deny"
clients = ["iface:iot0"]
`

func startHouse(t *testing.T) *ownedRig {
	t.Helper()
	n := testrig.Network(t, "a", "b", "c", "d")
	if err := n.AddInterface("iot0", "camera", netip.MustParsePrefix("192.168.99.0/24")); err != nil {
		t.Fatal(err)
	}
	// A program of the gateway's own. It is there before the daemon, which may be a second
	// behind (gateway.listenersAge): a quiet machine is quicker than that.
	own, err := n.Gateway.Listen("0.0.0.0:48333")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	r := startOwnableOn(t, n, strings.Replace(lab.Settings, `["br-lan"]`, `["br-lan", "iot0"]`, 1)+house)
	r.inhabit(t)
	for _, name := range []string{"a", "b", "c", "d", "camera"} {
		r.talks(t, name)
	}
	return r
}

// talks has a host send to a port of ours again and again, until the test ends.
func (r *ownedRig) talks(t *testing.T, name string) {
	t.Helper()
	conn, err := r.Host(name).ListenPacket(hostPort(r.Host(name).Addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	gateway := server
	if name == "camera" {
		gateway = netip.MustParseAddrPort("192.168.99.1:5351")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Second); ; <-tick.C {
			if _, err := conn.WriteToUDPAddrPort([]byte{0, 0}, gateway); err != nil {
				return // it is closed
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

// client is a host as the front says it is.
func client(h *lab.Host, lan string) portmap.Client {
	return portmap.Client{Addr: h.Addr, MAC: portmap.MAC(h.MAC), Interface: lan, Via: portmap.ViaUPnP}
}

// wish is a request of host a that the policy grants.
func (r *ownedRig) wish() portmap.Request {
	a := client(r.Host("a"), lab.Bridge)
	return portmap.Request{
		Client: a, Kind: portmap.NAT4, Transport: portmap.TCP, Internal: netip.AddrPortFrom(a.Addr, 41000), ExternalPort: 41000,
		Lifetime: time.Hour, Exact: true,
	}
}

// inEachWay says a request by each protocol, for TCP and UDP.
func inEachWay(request portmap.Request) (all []wall.Body) {
	for via := portmap.ViaUPnP; via <= portmap.ViaPCP; via++ {
		for _, transport := range []portmap.Transport{portmap.TCP, portmap.UDP} {
			request.Client.Via, request.Transport = via, transport
			all = append(all, &wall.Map{Request: request, N: 1})
		}
	}
	return all
}

// refuses has all be asked, none be done, and proves that nothing changed, for cases.
func (r *ownedRig) refuses(t *testing.T, all []wall.Body, cases ...string) {
	t.Helper()
	before := r.World(t)
	for i, a := range r.front.asks(t, all) {
		if b, refused := a.body.(*wall.Refused); !refused || b.Reason == portmap.NoReason && b.Detail == "" || len(a.fds) > 0 {
			t.Errorf("%+v was answered %+v, %d descriptors", all[i], a.body, len(a.fds))
		}
	}
	r.Unchanged(t, before, cases...)
}

// TestForgedRequests (M1): no wall and no rule moves for an owned front.
func TestForgedRequests(t *testing.T) {
	t.Parallel()
	r := startHouse(t)
	r.own(t)
	kind := func(name string, all ...[]wall.Body) {
		t.Run(name, func(t *testing.T) {
			var bodies []wall.Body
			for _, some := range all {
				bodies = append(bodies, some...)
			}
			r.refuses(t, bodies)
		})
	}
	internal := func(q *portmap.Request, p uint16) { q.Internal = netip.AddrPortFrom(q.Internal.Addr(), p) }
	external := func(q *portmap.Request, p uint16) { q.ExternalPort = p }

	var others []wall.Body
	for i := 2; i < 255; i++ {
		if i != 10 {
			others = append(others, &wall.Map{Request: changedTo(r.wish(), netip.AddrFrom4([4]byte{192, 168, 77, byte(i)})), N: 1})
		}
	}
	kind("B2/other hosts", others)
	kind("B3/the gateway", r.targets("192.168.77.1", "203.0.113.5", "192.168.99.1", "127.0.0.1", "127.0.0.53", "::1", "2001:db8:77::1"))
	kind("B1/the Internet", r.targets("8.8.8.8", "203.0.113.66", "203.0.113.67", "198.51.100.7", "10.0.0.1", "172.16.0.1"))
	kind("B4/nobody's", r.targets("0.0.0.0", "192.168.77.0", "192.168.77.255", "255.255.255.255", "224.0.0.1", "239.255.255.250", "169.254.1.1", "100.64.0.1", "240.0.0.1"))
	kind("A5/another LAN", r.changed(func(q *portmap.Request) { q.Internal = netip.MustParseAddrPort("192.168.99.10:41000") }),
		r.changed(func(q *portmap.Request) { q.Client.Interface = "iot0" }), r.changed(func(q *portmap.Request) { q.Client.Interface = "wan0" }),
		r.changed(func(q *portmap.Request) { q.Client.Interface = "lo" }), r.changed(func(q *portmap.Request) { q.Client.Interface = "" }),
		r.changed(func(q *portmap.Request) { q.Client.Interface = "lan10" }))
	kind("B2/ports that are never opened", r.ports(internal, 23, 135, 137, 138, 139, 445, 161, 1900, 5355), r.ports(external, 23, 135, 137, 138, 139, 445, 161, 1900, 5355))
	kind("J6/ports that need a rule", r.ports(internal, 1, 22, 53, 80, 443, 1023, 3389, 5900, 8443), r.ports(external, 1, 22, 53, 80, 443, 1023),
		[]wall.Body{&wall.Map{Request: withInternal(r.wish(), 8080), N: 1}}) // by TCP alone, as its service
	kind("B8/a port of the gateway", []wall.Body{&wall.Map{Request: withExternal(r.wish(), 48333), N: 1}})
	kind("C1/another's port", []wall.Body{&wall.Map{Request: withExternal(r.wish(), 46001), N: 1}})
	kind("B7/protocols", otherProtocols(r.wish()))
	for name, host := range map[string]string{"by address": "c", "by MAC address": "d", "by interface": "camera"} {
		lan := lab.Bridge
		if host == "camera" {
			lan = "iot0"
		}
		kind("M1/denied "+name, r.changed(func(q *portmap.Request) {
			q.Client = client(r.Host(host), lan)
			q.Internal = netip.AddrPortFrom(q.Client.Addr, 41000)
		}))
	}
	kind("M1/sets", sets(r.wish()))
	if r.HasIPv6() {
		kind("J1/pinholes", pinholes(r))
	}
	kind("M1/sockets", r.otherSockets())
	t.Run("M1/what is allowed", func(t *testing.T) {
		if a := r.front.ask(t, &wall.Map{Request: r.wish(), N: 1}); len(a.fds) > 0 || fmt.Sprintf("%T", a.body) != "*wall.Mappings" {
			t.Errorf("the unspoilt request: %+v: the cases above prove nothing", a.body)
		}
	})
}

// TestOwnedFrontDefaultDeny (M1): where nothing opens without a rule, an owned front opens what
// the rules name, to whom they name, and nothing else.
func TestOwnedFrontDefaultDeny(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates+`
[policy]
default = "deny"
[[rule]]
name = "a game"
action = "allow"
clients = ["192.168.77.10"]
protocols = ["tcp"]
internal_ports = ["41000-41010"]
external_ports = ["41000-41010"]
`)
	r.talks(t, "a")
	r.talks(t, "b")
	r.own(t)
	if a := r.front.ask(t, &wall.Map{Request: r.wish(), N: 1}); fmt.Sprintf("%T", a.body) != "*wall.Mappings" {
		t.Fatalf("what the rule allows: %+v", a.body)
	}
	bodies := slices.Concat(
		r.ports(func(q *portmap.Request, p uint16) { q.Internal = netip.AddrPortFrom(q.Internal.Addr(), p) }, 40999, 41011, 50000, 65535),
		r.ports(func(q *portmap.Request, p uint16) { q.ExternalPort = p }, 40999, 41011, 50000, 65535),
		r.changed(func(q *portmap.Request) {
			q.Client = client(r.Host("b"), lab.Bridge)
			q.Internal = netip.AddrPortFrom(q.Client.Addr, 41001)
		}),
		r.changed(func(q *portmap.Request) {
			q.Client.Addr = r.Host("b").Addr
			q.Internal = netip.AddrPortFrom(q.Client.Addr, 41001)
		}),
	)
	for _, body := range r.changed(func(q *portmap.Request) {
		q.Internal, q.ExternalPort = netip.AddrPortFrom(q.Internal.Addr(), 41002), 41002
	}) {
		if body.(*wall.Map).Request.Transport == portmap.UDP {
			bodies = append(bodies, body)
		}
	}
	for first := uint16(41008); first < 41012; first++ { // sets that begin inside, and end outside
		q := r.wish()
		q.Internal, q.ExternalPort = netip.AddrPortFrom(q.Internal.Addr(), first), 0
		bodies = append(bodies, &wall.Map{Request: q, N: 64})
	}
	if r.HasIPv6() {
		bodies = append(bodies, pinholes(r)...)
		q := r.wish()
		q.Kind, q.ExternalPort, q.Client.Addr = portmap.Pinhole6, 0, r.Host("a").Addr6
		q.Internal = netip.AddrPortFrom(q.Client.Addr, 41000)
		bodies = append(bodies, &wall.Map{Request: q, N: 1})
	}
	r.refuses(t, bodies)
}

// changed says a request of host a that is changed, in each way.
func (r *ownedRig) changed(f func(*portmap.Request)) []wall.Body {
	request := r.wish()
	f(&request)
	return inEachWay(request)
}

// targets asks for these addresses, as a, and as who has them.
func (r *ownedRig) targets(all ...string) (bodies []wall.Body) {
	for _, a := range all {
		at := netip.AddrPortFrom(netip.MustParseAddr(a), 41000)
		bodies = append(bodies, r.changed(func(q *portmap.Request) { q.Internal = at })...)
		bodies = append(bodies, r.changed(func(q *portmap.Request) { q.Client.Addr, q.Internal = at.Addr(), at })...)
	}
	return bodies
}

// ports asks for these, which f puts into a request.
func (r *ownedRig) ports(f func(*portmap.Request, uint16), all ...uint16) (bodies []wall.Body) {
	for _, p := range all {
		bodies = append(bodies, r.changed(func(q *portmap.Request) { f(q, p) })...)
	}
	return bodies
}

func changedTo(q portmap.Request, a netip.Addr) portmap.Request {
	q.Internal = netip.AddrPortFrom(a, 41000)
	return q
}

func withInternal(q portmap.Request, p uint16) portmap.Request {
	q.Internal = netip.AddrPortFrom(q.Internal.Addr(), p)
	return q
}

func withExternal(q portmap.Request, p uint16) portmap.Request {
	q.ExternalPort = p
	return q
}

func otherProtocols(q portmap.Request) (all []wall.Body) {
	for tr := range 256 {
		if q.Transport = portmap.Transport(tr); q.Transport != portmap.TCP && q.Transport != portmap.UDP {
			all = append(all, &wall.Map{Request: q, N: 1})
		}
	}
	return all
}

// sets are several ports in a row, of which one is none of a host's.
func sets(q portmap.Request) (all []wall.Body) {
	for _, first := range []uint16{430, 1000, 65520, 65535, 3380} {
		q.Internal, q.ExternalPort = netip.AddrPortFrom(q.Internal.Addr(), first), 0
		all = append(all, &wall.Map{Request: q, N: 64})
	}
	return all
}

// pinholes are for addresses that are not those of who asks, nor anybody's.
func pinholes(r *ownedRig) (all []wall.Body) {
	q := r.wish()
	q.Kind, q.ExternalPort = portmap.Pinhole6, 0
	q.Client.Addr = r.Host("a").Addr6
	for _, a := range []netip.Addr{
		r.Host("b").Addr6, r.Host("a").LinkLocal, netip.MustParseAddr("2001:db8:77::1"), netip.MustParseAddr("2001:db8:ffff::10"),
		netip.MustParseAddr("fd00::10"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("::1"), netip.MustParseAddr("64:ff9b::c0a8:4d0a"), r.Host("a").Addr,
	} {
		q.Internal = netip.AddrPortFrom(a, 41000)
		all = append(all, &wall.Map{Request: q, N: 1})
	}
	q.Internal = netip.AddrPortFrom(r.Host("a").Addr6, 445)
	return append(all, &wall.Map{Request: q, N: 1})
}

// otherSockets are those that nobody gets: elsewhere, on other addresses and ports, and
// connections to whom no events go.
func (r *ownedRig) otherSockets() (all []wall.Body) {
	for _, lan := range []string{"wan0", "lo", "", "lan10", "br-la", "br-lan.1", "iot1"} {
		for kind := wall.Discovery; kind <= wall.PortControl; kind++ {
			all = append(all, &wall.Open{Kind: kind, LAN: lan}, &wall.Open{Kind: kind, LAN: lan, Six: true})
		}
		all = append(all, &wall.Open{Kind: wall.HTTP, LAN: lan, Addr: netip.AddrPortFrom(lab.GatewayLAN, 5000)},
			&wall.Connect{LAN: lan, Local: lab.GatewayLAN, To: netip.AddrPortFrom(r.Host("a").Addr, 4000)},
			&wall.Resolve{LAN: lan, Addr: r.Host("a").Addr})
	}
	for _, at := range []string{"203.0.113.5:5000", "0.0.0.0:5000", "127.0.0.1:5000", "192.168.99.1:5000", "192.168.77.1:80", "192.168.77.1:5001", "192.168.77.10:5000", "[::1]:5000"} {
		all = append(all, &wall.Open{Kind: wall.HTTP, LAN: lab.Bridge, Addr: netip.MustParseAddrPort(at)})
	}
	for _, to := range []string{
		"192.168.77.10:22", "192.168.77.10:80", "192.168.77.10:1023", "192.168.77.1:5000", "192.168.77.1:22", "203.0.113.5:4000", "203.0.113.66:4000", "127.0.0.1:4000",
		"192.168.77.255:4000", "192.168.77.0:4000", "255.255.255.255:4000", "239.255.255.250:4000", "192.168.99.10:4000", "192.168.99.1:4000", "8.8.8.8:4000", "[2001:db8:77::10]:4000",
	} {
		all = append(all, &wall.Connect{LAN: lab.Bridge, Local: lab.GatewayLAN, To: netip.MustParseAddrPort(to)},
			&wall.Resolve{LAN: lab.Bridge, Addr: elsewhere(netip.MustParseAddrPort(to).Addr())})
	}
	for _, local := range []string{"192.168.77.10", "203.0.113.5", "127.0.0.1", "0.0.0.0", "192.168.99.1", "2001:db8:77::1"} {
		all = append(all, &wall.Connect{LAN: lab.Bridge, Local: netip.MustParseAddr(local), To: netip.AddrPortFrom(r.Host("a").Addr, 4000)})
	}
	return all
}

// elsewhere is an address that is no host's of the LAN: where it is, another one.
func elsewhere(a netip.Addr) netip.Addr {
	if lab.LANPrefix.Contains(a) || a.Is6() {
		return lab.GatewayLAN
	}
	return a
}

// TestForgedOctets (M2): what is no message of a front's ends the front; the alert is in the
// log and in the status, another front serves, and nothing has changed.
func TestForgedOctets(t *testing.T) {
	t.Parallel()
	r := startOwnable(t, noRates)
	r.inhabit(t)
	r.talks(t, "a")
	r.own(t)
	request := r.wish()
	request.Description, request.Lifetime = "recognised", 0x0123456789abcdef
	good := encoded(wall.Message{Number: 77, Patience: time.Second, Body: &wall.Map{Request: request, N: 1}})
	unmap := encoded(wall.Message{Number: 77, Patience: time.Second, Body: &wall.Unmap{Selector: portmap.Selector{Client: request.Client}}})
	instead := func(b []byte, old, new string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("no %q in % x", old, b)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
	mac := string(request.Client.MAC[:])
	all := map[string][]byte{
		"garbage": []byte("GET / HTTP/1.1\r\n\r\n"), "one octet": {1}, "an octet too much": append(bytes.Clone(good), 0), "another version": append([]byte{2}, good[1:]...),
		"the owner": instead(good, mac+"\x01", mac+"\x04"), "no protocol": instead(good, mac+"\x01", mac+"\x00"), "the owner removes": instead(unmap, mac+"\x01", mac+"\x04"),
		"a path": instead(good, "br-lan", "br/lan"), "a line": instead(good, "br-lan", "br\nlan"), "not UTF-8": instead(good, "recognised", "recog\xff\xfeised"),
		"before its beginning": instead(good, "\x01\x23\x45\x67\x89\xab\xcd\xef", "\xff\xff\xff\xff\xff\xff\xff\xff"), "longer than any": make([]byte, wall.MaxMessage+1),
		"number 0": append(append([]byte{good[0], good[1]}, 0, 0, 0, 0), good[6:]...), "a turn to come": encoded(wall.Message{Body: &wall.Served{Turn: math.MaxUint32}}),
		"an answer": encoded(wall.Message{Number: 1, Body: new(wall.Done)}), "settings": encoded(wall.Message{Body: &wall.Settings{HTTPPort: 22}}),
		"a network": encoded(wall.Message{Body: new(wall.Network)}), "to begin": encoded(wall.Message{Body: new(wall.Serve)}), "the end": encoded(wall.Message{Body: new(wall.Stop)}),
	}
	for _, kind := range []byte{0, 18, 63, 70, 127, 133, 191, 195, 255} {
		all[fmt.Sprint("type ", kind)] = append([]byte{good[0], kind}, good[2:]...)
	}
	for n := 2; n < len(good); n += 17 {
		all[fmt.Sprintf("cut at %d", n)] = good[:n]
	}
	before, ends := r.World(t), ended(t, r)
	for name, b := range all {
		r.front.raw(t, b)
		r.front.wait(t, name+": the front ends", r.front.ended)
		r.next(t)
		ends++
		if n := ended(t, r); n != ends {
			t.Errorf("%s: %d fronts have ended, want %d", name, n, ends)
		}
	}
	r.front.do(t, owned.Order{Wall: good, Passed: 1})
	r.front.wait(t, "a descriptor: the front ends", r.front.ended)
	r.next(t)
	r.Unchanged(t, before, "M2")
	r.Logged(t, `msg="front ended"`)
	r.free(t)
	r.Unchanged(t, before, "M2")
}

// ended returns how many fronts have ended that should not have.
func ended(t *testing.T, r *ownedRig) int {
	t.Helper()
	s, err := r.Owner.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Sandbox.Front.Ended > 0 && s.Sandbox.Front.LastEnd == "" {
		t.Error("the status does not say why")
	}
	return s.Sandbox.Front.Ended
}
