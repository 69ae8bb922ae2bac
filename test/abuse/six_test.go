package abuse

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// hour is a lease.
const hour = time.Hour

// six puts a control point on a host that speaks to an IPv6 address of the gateway
// from one of its own.
func (r *rig) six(t *testing.T, host string, source, gateway netip.Addr, service string) *lab.ControlPoint {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	four := lab.NewControlPoint(r.Host(host))
	found, err := four.Discover(ctx, lab.Search{Target: lab.IGD2})
	if err != nil {
		t.Fatal(err)
	}
	c := lab.NewControlPoint(r.Host(host))
	c.Source = source
	location := strings.Replace(found.Location(), lab.GatewayLAN.String(), "["+gateway.String()+"]", 1)
	if err := c.Read(ctx, location, service); err != nil {
		t.Fatal(err)
	}
	return c
}

// pinholes puts a control point for pinholes on a host, at its global address.
func (r *rig) pinholes(t *testing.T, host string) *lab.ControlPoint {
	t.Helper()
	return r.six(t, host, r.Host(host).Addr6, lab.GatewayLAN6, lab.WANIPv6FC1)
}

// in and out are what a packet from the Internet to a host's port does.
func (r *rig) in(t *testing.T, protocol, host string, port uint16) {
	t.Helper()
	h := r.Host(host)
	if !r.Reaches(t, protocol, lab.InternetOne6, netip.AddrPortFrom(h.Addr6, port), h, 3*time.Second) {
		t.Errorf("%s %d does not reach %s", protocol, port, host)
	}
}

func (r *rig) out(t *testing.T, protocol, host string, port uint16) {
	t.Helper()
	h := r.Host(host)
	if r.Reaches(t, protocol, lab.InternetOne6, netip.AddrPortFrom(h.Addr6, port), h, 300*time.Millisecond) {
		t.Errorf("%s %d reaches %s", protocol, port, host)
	}
}

// TestPinholeTraffic: abuse case J7, with packets from the WAN. A pinhole lets in one
// protocol to one port of one host, counts, and ends.
func TestPinholeTraffic(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	c := r.pinholes(t, "a")
	for _, protocol := range []string{"TCP", "UDP"} {
		r.out(t, protocol, "a", 9000)
	}
	id, err := c.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour})
	if err != nil {
		t.Fatal(err)
	}
	if works, err := c.PinholeWorks(t.Context(), id); code(err) != 709 {
		t.Errorf("before any packet: %v, %v", works, err)
	}
	r.in(t, "UDP", "a", 9000)
	r.out(t, "TCP", "a", 9000)
	r.out(t, "UDP", "a", 9001)
	r.out(t, "UDP", "b", 9000)
	if works, err := c.PinholeWorks(t.Context(), id); !works || err != nil {
		t.Errorf("after a packet: %v, %v", works, err)
	}
	before, err := c.PinholePackets(t.Context(), id)
	if err != nil || before == 0 {
		t.Errorf("%d packets, %v", before, err)
	}
	if again, err := c.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: 2 * hour}); again != id || err != nil {
		t.Errorf("the same again is %d, %v, want %d", again, err, id)
	}
	if err := c.UpdatePinhole(t.Context(), id, 3*hour); err != nil {
		t.Error(err)
	}
	if after, err := c.PinholePackets(t.Context(), id); err != nil || after < before {
		t.Errorf("a renewal lost packets: %d, then %d, %v", before, after, err)
	}
	list := r.List(t)
	if len(list) != 1 || list[0].Family != 6 || list[0].InternalIP != r.Host("a").Addr6.String() || list[0].ExternalPort != 9000 ||
		list[0].ExpiresIn < 10700 || list[0].Packets == 0 {
		t.Errorf("the owner sees %+v", list)
	}
	if s, err := r.Owner.Status(t.Context()); err != nil || s.Pinholes != 1 || s.Mappings != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if d, err := c.OutboundPinholeTimeout(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000}); err != nil || d <= 0 {
		t.Errorf("outbound timeout %v, %v", d, err)
	}
	if err := c.DeletePinhole(t.Context(), id); err != nil {
		t.Error(err)
	}
	r.out(t, "UDP", "a", 9000)
	if _, err := c.PinholePackets(t.Context(), id); code(err) != 704 {
		t.Errorf("after its end: %v", err)
	}
}

// TestPinholeRemote: J3 and RemoteHost. Anybody, or one host of the Internet.
func TestPinholeRemote(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	c := r.pinholes(t, "a")
	a := r.Host("a")
	for port, remote := range map[uint16]string{9000: "*", 9001: ""} {
		if _, err := c.AddPinhole(t.Context(), lab.Pinhole{Remote: remote, Protocol: "TCP", Port: port, Lease: hour}); err != nil {
			t.Fatalf("J3/%q: %v", remote, err)
		}
		r.in(t, "TCP", "a", port)
	}
	if _, err := c.AddPinhole(t.Context(), lab.Pinhole{Remote: lab.InternetTwo6.String(), Protocol: "TCP", Port: 9002, Lease: hour}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(a.Addr6, 9002)
	if !r.Reaches(t, "TCP", lab.InternetTwo6, to, a, 3*time.Second) {
		t.Error("the host that it is for does not reach it")
	}
	if r.Reaches(t, "TCP", lab.InternetOne6, to, a, 300*time.Millisecond) {
		t.Error("another host reaches it")
	}
}

// TestPinholeRefusals: section J, B12 and A8. What is refused changes nothing.
func TestPinholeRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	c := r.pinholes(t, "a")
	before := r.World(t)
	for _, x := range []struct {
		id   string
		p    lab.Pinhole
		want []int
	}{
		{"J1/another host's", lab.Pinhole{Client: r.Host("b").Addr6.String()}, []int{606}},
		{"J1/the gateway's", lab.Pinhole{Client: lab.GatewayLAN6.String()}, []int{606}},
		{"J1/its own link-local address", lab.Pinhole{Client: r.Host("a").LinkLocal.String()}, []int{606}},
		{"J1/nobody's on the LAN", lab.Pinhole{Client: "2001:db8:77::99"}, []int{606}},
		{"J1/the Internet's", lab.Pinhole{Client: lab.InternetOne6.String()}, []int{606}},
		{"J2/IPv4", lab.Pinhole{Client: "192.168.77.10"}, []int{402}},
		{"J2/a name", lab.Pinhole{Client: "localhost"}, []int{402}},
		{"J2/a zone", lab.Pinhole{Client: r.Host("a").Addr6.String() + "%eth0"}, []int{402}},
		{"J2/brackets", lab.Pinhole{Client: "[" + r.Host("a").Addr6.String() + "]"}, []int{402}},
		{"J2/loopback", lab.Pinhole{Client: "::1"}, []int{606}},
		{"J2/unspecified", lab.Pinhole{Client: "::"}, []int{606}},
		{"J2/multicast", lab.Pinhole{Client: "ff02::1"}, []int{606}},
		{"J2/over-long", lab.Pinhole{Client: strings.Repeat("2001:db8:77::10", 40)}, []int{402}},
		{"A8/mapped", lab.Pinhole{Client: "::ffff:192.168.77.10"}, []int{402}},
		{"B12/6to4", lab.Pinhole{Client: "2002:c0a8:0114::"}, []int{606}},
		{"B12/NAT64", lab.Pinhole{Client: "64:ff9b::c0a8:114"}, []int{606}},
		{"B12/compatible", lab.Pinhole{Client: "::192.168.1.20"}, []int{606}},
		{"J3/internal port 0", lab.Pinhole{Port: 0}, []int{706}},
		{"J3/all protocols", lab.Pinhole{Protocol: "65535"}, []int{707}},
		{"J7/ICMPv6", lab.Pinhole{Protocol: "58"}, []int{705}},
		{"J6/port 80", lab.Pinhole{Port: 80, Protocol: "TCP"}, []int{606}},
		{"J6/port 445", lab.Pinhole{Port: 445, Protocol: "TCP"}, []int{606}},
		{"J6/port 445 over UDP", lab.Pinhole{Port: 445}, []int{606}},
		{"remote IPv4", lab.Pinhole{Remote: "203.0.113.66"}, []int{402}},
	} {
		p := x.p
		if p.Protocol == "" {
			p.Protocol = "UDP"
		}
		if p.Port == 0 && !strings.HasPrefix(x.id, "J3/internal") {
			p.Port = 9000
		}
		p.Lease = hour
		if _, err := c.AddPinhole(t.Context(), p); !slices.Contains(x.want, code(err)) {
			t.Errorf("%s: answered %v, want %v", x.id, err, x.want)
		}
	}
	r.Unchanged(t, before, "A8", "B12", "J1", "J2", "J3", "J6", "J7")
	// A8 in the other protocol: an IPv4 mapping of an IPv4-mapped address, asked for by IPv6.
	four := r.six(t, "a", r.Host("a").Addr6, lab.GatewayLAN6, lab.WANIP2)
	for to, want := range map[string]int{"::ffff:192.168.77.10": 402, "192.168.77.10": 606, "192.168.77.20": 606, "::": 402} {
		m := udp(6000, 6000)
		m.Client = to
		if err := four.Add(t.Context(), m); code(err) != want && code(err) != 606 {
			t.Errorf("A8/%s by IPv6: %v, want %d", to, err, want)
		}
	}
	r.Unchanged(t, before, "A8")
}

// TestPinholeNumbers: J4. Who guesses UniqueIDs learns and ends nothing; numbers
// are random.
func TestPinholeNumbers(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a, b := r.pinholes(t, "a"), r.pinholes(t, "b")
	var ids []uint16
	for port := range uint16(4) {
		id, err := a.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000 + port, Lease: hour})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if ids[3]-ids[0] == 3 {
		t.Errorf("numbers in a row: %v", ids)
	}
	before := r.World(t)
	for _, id := range append([]uint16{0, 1, 65535, ids[0] + 1}, ids...) {
		for what, err := range map[string]error{
			"update": b.UpdatePinhole(t.Context(), id, hour), "delete": b.DeletePinhole(t.Context(), id),
			"packets": second(b.PinholePackets(t.Context(), id)), "check": second(b.PinholeWorks(t.Context(), id)),
		} {
			if code(err) != 704 {
				t.Errorf("%s of %d: %v, want 704", what, id, err)
			}
		}
	}
	r.Unchanged(t, before, "J4")
}

func second[T any](_ T, err error) error { return err }

// TestSameDevice: J1's exception. A device that its owner allows to may speak for
// its other addresses, and never for a neighbour's.
func TestSameDevice(t *testing.T) {
	t.Parallel()
	for allowed, want := range map[bool]int{true: 0, false: 606} {
		extra := noRates
		if allowed {
			extra += "[policy]\nsame_device = true\n"
		}
		r := start(t, extra)
		a := r.Host("a")
		c := r.six(t, "a", a.LinkLocal, lab.GatewayLinkLocal, lab.WANIPv6FC1)
		id, err := c.AddPinhole(t.Context(), lab.Pinhole{Client: a.Addr6.String(), Protocol: "UDP", Port: 9000, Lease: hour})
		if code(err) != want {
			t.Errorf("same_device %v: %v, want %d", allowed, err, want)
		}
		if _, err := c.AddPinhole(t.Context(), lab.Pinhole{Client: r.Host("b").Addr6.String(), Protocol: "UDP", Port: 9000, Lease: hour}); code(err) != 606 {
			t.Errorf("same_device %v, a neighbour's: %v", allowed, err)
		}
		if !allowed {
			continue
		}
		r.in(t, "UDP", "a", 9000)
		if m := r.List(t)[0]; m.ClientMAC != a.MAC.String() || m.InternalIP != a.Addr6.String() {
			t.Errorf("it belongs to %+v", m)
		}
		if err := c.DeletePinhole(t.Context(), id); err != nil {
			t.Errorf("its own: %v", err)
		}
	}
}

// TestOneClientBothFamilies: K2. A device's quota and the rules for its MAC hold for
// all its addresses, of both families.
func TestOneClientBothFamilies(t *testing.T) {
	t.Parallel()
	r := start(t, "[limits]\nmappings_per_client = 2\ngrants_per_second = 0\nrequests_per_second = 0\n[[rule]]\nname = \"b never\"\naction = \"deny\"\nclients = [\"02:00:00:4d:00:14\"]\n")
	a := r.Host("a")
	extra := netip.MustParseAddr("2001:db8:77::a1")
	if err := a.AddAddress(extra); err != nil {
		t.Fatal(err)
	}
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pinholes(t, "a").AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
		t.Fatal(err)
	}
	before := r.World(t)
	private := r.six(t, "a", extra, lab.GatewayLAN6, lab.WANIPv6FC1)
	if _, err := private.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9001, Lease: hour}); code(err) != 701 {
		t.Errorf("its third, from a privacy address: %v", err)
	}
	if _, err := mapBy(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: extra, Protocol: "UDP", Internal: 9001, Lease: hour}); refusal(err) != 10 {
		t.Errorf("its third, by PCP: %v", err)
	}
	if _, err := r.pinholes(t, "b").AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); code(err) != 606 {
		t.Errorf("the host that a rule forbids: %v", err)
	}
	r.Unchanged(t, before, "K2")
}

// mapBy asks by PCP.
func mapBy(t *testing.T, h *lab.Host, m lab.MapRequest) (lab.Granted, error) {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	return h.Map(ctx, m)
}

// refusal returns the number of a refusal by PCP, 0 for none, -1 for another error.
func refusal(err error) int {
	var no *lab.Refusal
	switch {
	case err == nil:
		return 0
	case errors.As(err, &no):
		return no.Code
	}
	return -1
}

// TestPCPPinholes: PCP over IPv6, from the addresses that clients use, with real
// packets; one nonce for both families, as Bitcoin Core has it.
func TestPCPPinholes(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.Host("a")
	nonce := [12]byte{1, 2, 3}
	four, err := mapBy(t, a, lab.MapRequest{Protocol: "TCP", Internal: 18333, Suggested: 18333, Lease: hour, Nonce: nonce})
	if err != nil || four.External != netip.AddrPortFrom(lab.GatewayWAN, 18333) {
		t.Errorf("by IPv4: %+v, %v", four, err)
	}
	for _, gateway := range []netip.Addr{lab.GatewayLinkLocal, lab.GatewayLAN6} {
		got, err := mapBy(t, a, lab.MapRequest{Gateway: gateway, Source: a.Addr6, Protocol: "TCP", Internal: 18333, Suggested: 18333, Lease: hour, Nonce: nonce})
		if err != nil || got.External != netip.AddrPortFrom(a.Addr6, 18333) || got.Lease > hour || got.Lease < hour-10*time.Second {
			t.Errorf("asked %s: %+v, %v", gateway, got, err)
		}
	}
	if n := len(r.List(t)); n != 2 {
		t.Errorf("%d mappings", n)
	}
	r.in(t, "TCP", "a", 18333)
	r.out(t, "TCP", "b", 18333)
	before := r.World(t)
	for id, x := range map[string]struct {
		m    lab.MapRequest
		want int
	}{
		"J1/another host's address":  {lab.MapRequest{Client: r.Host("b").Addr6}, 12},
		"J1/third party":             {lab.MapRequest{Options: lab.ThirdParty(r.Host("b").Addr6)}, 5},
		"link-local":                 {lab.MapRequest{Source: a.LinkLocal}, 2},
		"J1/for it, from link-local": {lab.MapRequest{Source: a.LinkLocal, Client: a.Addr6}, 12},
		"B12/6to4":                   {lab.MapRequest{Client: netip.MustParseAddr("2002:c0a8:0114::")}, 12},
		"A8/mapped":                  {lab.MapRequest{Client: hostA}, 12},
	} {
		m := x.m
		m.Gateway, m.Protocol, m.Internal, m.Lease = lab.GatewayLinkLocal, "UDP", 9000, hour
		if !m.Source.IsValid() {
			m.Source = a.Addr6
		}
		if _, err := mapBy(t, a, m); refusal(err) != x.want {
			t.Errorf("%s: %v, want %d", id, err, x.want)
		}
	}
	r.Unchanged(t, before, "A8", "B12", "J1")

	filter := lab.Filter(netip.PrefixFrom(lab.InternetTwo6, 128), 0)
	if _, err := mapBy(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: hour, Options: filter}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(a.Addr6, 9000)
	if !r.Reaches(t, "UDP", lab.InternetTwo6, to, a, 3*time.Second) || r.Reaches(t, "UDP", lab.InternetOne6, to, a, 300*time.Millisecond) {
		t.Error("the filter is not enforced")
	}
	if _, err := mapBy(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 18333, Nonce: nonce}); err != nil {
		t.Errorf("deletion: %v", err)
	}
	r.out(t, "TCP", "a", 18333)
}

// TestOutside6: A7. Nothing of the gate answers on any address of the gateway to
// who is on the WAN, though no firewall of the owner's stands before it.
func TestOutside6(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	r.pinholes(t, "a") // it answers inside
	before := r.World(t)
	request := []byte{2, 0, 0, 0, 0, 0, 0, 0}
	source := lab.InternetOne6.As16()
	request = append(append(request, source[:]...), make([]byte, 0)...)
	for _, gateway := range []netip.Addr{lab.GatewayWAN6, lab.GatewayLAN6} {
		conn, err := r.Internet.Dial(t.Context(), "tcp", netip.AddrPortFrom(gateway, 5000).String())
		if err == nil {
			conn.Close()
			t.Errorf("HTTP is open at %s", gateway)
		}
		ctx, cancel := contextFor(t, 500*time.Millisecond)
		if got, err := r.Internet.ExchangeFrom(ctx, lab.InternetOne6, gateway, request); err == nil {
			t.Errorf("PCP answers at %s: % x", gateway, got)
		}
		cancel()
		ctx, cancel = contextFor(t, 500*time.Millisecond)
		c := lab.NewControlPoint(r.Internet)
		if found, err := c.Discover(ctx, lab.Search{Target: lab.IGD2, To: netip.AddrPortFrom(gateway, 1900), Source: lab.InternetOne6}); err == nil {
			t.Errorf("discovery answers at %s: %v", gateway, found)
		}
		cancel()
	}
	// Its addresses outside are not for the LAN either (A4).
	a := r.Host("a")
	conn, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(lab.GatewayWAN6, 5000).String())
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: [" + lab.GatewayWAN6.String() + "]\r\n\r\n"))
		if n, err := conn.Read(make([]byte, 16)); err == nil {
			t.Errorf("HTTP answers at its address outside, %d octets", n)
		}
		conn.Close()
	}
	ctx, cancel := contextFor(t, 500*time.Millisecond)
	defer cancel()
	if got, err := a.ExchangeFrom(ctx, a.Addr6, lab.GatewayWAN6, request); err == nil {
		t.Errorf("PCP answers at its address outside: % x", got)
	}
	r.Unchanged(t, before, "A4", "A7")
}

// TestRenumbering: J5. With its network a pinhole goes; clients are told by an
// announcement with a new epoch, and ask again.
func TestRenumbering(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.Host("a")
	old := netip.AddrPortFrom(a.Addr6, 9000)
	if _, err := r.pinholes(t, "a").AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
		t.Fatal(err)
	}
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	ear, err := a.HearAnnouncements6()
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	if err := r.RenumberLAN6(lab.LANPrefix6, netip.MustParsePrefix("2001:db8:78::/64")); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, soon, "the pinhole is gone, and nothing else", func() bool {
		list := r.List(t)
		return len(list) == 1 && list[0].Family == 4
	})
	heard(t, ear, lab.GatewayLinkLocal)
	if strings.Contains(r.ruleset(t), old.Addr().String()) {
		t.Error("the kernel knows the old address")
	}
	if _, err := mapBy(t, a, lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: hour}); err != nil {
		t.Fatalf("asked again from %s: %v", a.Addr6, err)
	}
	r.in(t, "UDP", "a", 9000)
}

// heard waits for an announcement of a new epoch.
func heard(t *testing.T, ear *lab.AnnounceEar, from netip.Addr) {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	for {
		got, err := ear.Next(ctx)
		if err != nil {
			t.Errorf("no announcement: %v", err)
			return
		}
		if got.From != netip.AddrPortFrom(from, 5351) {
			t.Errorf("announced from %v", got.From)
		}
		if got.Epoch <= 1 {
			return
		}
	}
}

// TestTemporaryAddress: J5. A privacy address that its device gives up loses its
// pinholes; those of the device's other addresses stay.
func TestTemporaryAddress(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	a := r.Host("a")
	// The kernel asks sooner than after half a minute.
	for name, value := range map[string]string{"base_reachable_time_ms": "500", "delay_first_probe_time": "1", "retrans_time_ms": "100"} {
		if err := r.Gateway.SetSysctl("ipv6/neigh/br-lan/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	extra := netip.MustParseAddr("2001:db8:77::a1")
	if err := a.AddAddress(extra); err != nil {
		t.Fatal(err)
	}
	private := r.six(t, "a", extra, lab.GatewayLAN6, lab.WANIPv6FC1)
	if _, err := private.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
		t.Fatal(err)
	}
	stable := r.pinholes(t, "a")
	if _, err := stable.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(extra, 9000)
	if !r.Reaches(t, "UDP", lab.InternetOne6, to, a, 3*time.Second) {
		t.Error("the privacy address is not reached")
	}
	if err := a.RemoveAddress(extra); err != nil {
		t.Fatal(err)
	}
	testrig.Eventually(t, 30*time.Second, "the pinhole of the address that is gone is revoked", func() bool {
		r.Reaches(t, "UDP", lab.InternetOne6, to, a, 100*time.Millisecond)
		return len(r.List(t)) == 1
	})
	if m := r.List(t)[0]; m.InternalIP != a.Addr6.String() {
		t.Errorf("left is %+v", m)
	}
	r.in(t, "UDP", "a", 9000)
}

// TestIPv6Late: without IPv6 outside pinholes are refused by the codes for it, and when
// it comes they work, without a restart; it may go and come back.
func TestIPv6Late(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.RemoveWAN6(); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	a, c := r.Host("a"), r.pinholes(t, "a")
	allowed := func() bool {
		_, allowed, err := c.FirewallStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return allowed
	}
	ask := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "UDP", Internal: 9001, Lease: hour}
	for range 2 {
		if allowed() {
			t.Error("pinholes are said to be allowed")
		}
		if _, err := c.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); code(err) != 703 {
			t.Errorf("without IPv6: %v", err)
		}
		if _, err := mapBy(t, a, ask); refusal(err) != 7 {
			t.Errorf("without IPv6, by PCP: %v", err)
		}
		if err := n.AddWAN6(); err != nil {
			t.Fatal(err)
		}
		testrig.Eventually(t, soon, "pinholes are allowed", allowed)
		if _, err := c.AddPinhole(t.Context(), lab.Pinhole{Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
			t.Fatal(err)
		}
		if _, err := mapBy(t, a, ask); err != nil {
			t.Fatal(err)
		}
		r.in(t, "UDP", "a", 9000)
		r.in(t, "UDP", "a", 9001)
		if err := n.RemoveWAN6(); err != nil {
			t.Fatal(err)
		}
		testrig.Eventually(t, soon, "pinholes are not allowed", func() bool { return !allowed() })
	}
	if err := n.AddWAN6(); err != nil {
		t.Fatal(err)
	}
	// What was promised still holds.
	testrig.Eventually(t, soon, "the pinhole works again", func() bool {
		return r.Reaches(t, "UDP", lab.InternetOne6, netip.AddrPortFrom(a.Addr6, 9000), a, 300*time.Millisecond)
	})
}

// TestLAN6Late: a LAN that gets IPv6 after the start is served by it.
func TestLAN6Late(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.RemoveLAN6(lab.LANPrefix6); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	if err := n.AddLAN6(lab.LANPrefix6); err != nil {
		t.Fatal(err)
	}
	a := r.Host("a")
	testrig.Eventually(t, soon, "a pinhole is granted", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.Map(ctx, lab.MapRequest{Gateway: lab.GatewayLAN6, Source: a.Addr6, Protocol: "UDP", Internal: 9000, Lease: hour})
		return err == nil
	})
	r.in(t, "UDP", "a", 9000)
}

// TestUniqueLocalPinhole: L6, miniupnp#794. Nobody on the Internet can reach a unique local
// address (RFC 4193 section 4.3), so that a pinhole for one is refused in both
// protocols, unless the owner has such addresses routed.
func TestUniqueLocalPinhole(t *testing.T) {
	t.Parallel()
	for allowed, extra := range map[bool]string{false: "", true: "[policy]\nunique_local = true\n"} {
		n := testrig.Network(t, "a", "b")
		if err := n.AddLAN6(netip.MustParsePrefix("fd00:77::/64")); err != nil {
			t.Fatal(err)
		}
		r := startOn(t, n, noRates+extra)
		a, private, gateway := r.Host("a"), netip.MustParseAddr("fd00:77::10"), netip.MustParseAddr("fd00:77::1")
		before := r.World(t)
		ctx, cancel := contextFor(t, 10*time.Second)
		defer cancel()
		_, err := a.Map(ctx, lab.MapRequest{Gateway: gateway, Source: private, Protocol: "UDP", Internal: 9000, Lease: hour})
		var refusal *lab.Refusal
		if refused := errors.As(err, &refusal) && refusal.Code == 2; refused == allowed || allowed && err != nil { // NOT_AUTHORIZED
			t.Errorf("allowed %v: PCP answers %v", allowed, err)
		}
		c := r.six(t, "a", private, gateway, lab.WANIPv6FC1)
		_, err = c.AddPinhole(t.Context(), lab.Pinhole{Client: private.String(), Protocol: "UDP", Port: 9001, Lease: hour})
		if got := code(err); got != map[bool]int{false: 606, true: 0}[allowed] {
			t.Errorf("allowed %v: UPnP answers %v", allowed, err)
		}
		if !allowed {
			r.Unchanged(t, before, "L6")
			continue
		}
		for port := uint16(9000); port < 9002; port++ {
			if !r.Reaches(t, "UDP", lab.InternetOne6, netip.AddrPortFrom(private, port), a, 3*time.Second) {
				t.Errorf("nothing comes to port %d, from where there is a route", port)
			}
		}
	}
}

// TestBothKindsOfAddress: a LAN with a unique local network beside the global one.
// Who searches the site and lets the kernel choose its source opens a pinhole for
// its global address without anybody's leave.
func TestBothKindsOfAddress(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.AddLAN6(netip.MustParsePrefix("fd00:77::/64")); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	a := r.Host("a")
	c := lab.NewControlPoint(a)
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	if err := c.FindBy(ctx, lab.Search{Target: lab.IGD2, To: lab.Group6SiteLocal, Source: a.Addr6}, lab.WANIPv6FC1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddPinhole(ctx, lab.Pinhole{Client: a.Addr6.String(), Protocol: "UDP", Port: 9000, Lease: hour}); err != nil {
		t.Errorf("for its global address: %v", err)
	}
	r.in(t, "UDP", "a", 9000)
}
