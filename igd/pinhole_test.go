package igd_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

// pinhole returns the arguments of AddPinhole for a host; pairs as in mapping.
func pinhole(h host, pairs ...string) []string {
	return with([]string{
		"RemoteHost", "", "RemotePort", "0", "InternalClient", h.client.Addr.String(), "InternalPort", "8443",
		"Protocol", "6", "LeaseTime", "3600",
	}, pairs...)
}

// open makes a pinhole of a host and gives its number.
func (l *lan) open(t testing.TB, h host, pairs ...string) string {
	t.Helper()
	r := l.call(h, six1, "AddPinhole", pinhole(h, pairs...)...)
	wantCode(t, r, 0)
	if _, err := strconv.ParseUint(r.Out["UniqueID"], 10, 16); err != nil {
		t.Fatalf("UniqueID %q", r.Out["UniqueID"])
	}
	return r.Out["UniqueID"]
}

// numbered returns the pinhole with a number.
func (l *lan) numbered(t testing.TB, number string) portmap.Mapping {
	t.Helper()
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	m, found := l.engine.Snapshot().Pinhole(uint16(n))
	if !found {
		t.Fatalf("there is no pinhole %s", number)
	}
	return m
}

// byNumber are the actions that name a pinhole by its number alone.
func byNumber(number string) map[string][]string {
	return map[string][]string{
		"UpdatePinhole": {"UniqueID", number, "NewLeaseTime", "7200"}, "DeletePinhole": {"UniqueID", number},
		"GetPinholePackets": {"UniqueID", number}, "CheckPinholeWorking": {"UniqueID", number},
	}
}

// free returns a number that no pinhole has.
func (l *lan) free() string {
	for n := uint16(0); ; n++ {
		if _, taken := l.engine.Snapshot().Pinhole(n); !taken {
			return strconv.Itoa(int(n))
		}
	}
}

func wantLeft(t testing.TB, m portmap.Mapping, want time.Duration) {
	t.Helper()
	if left := m.Left(time.Now()); left > want || left < want-5*time.Second {
		t.Errorf("%v is left of %v, want %v", left, &m, want)
	}
}

func (l *lan) wantTable(t testing.TB, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, l.table()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestPinholeAddAndExtend(t *testing.T) {
	t.Parallel()
	l := start(t)
	number := l.open(t, sixA)
	t.Run("SOAP-49/opened", func(t *testing.T) {
		wantLeft(t, l.numbered(t, number), time.Hour)
		l.wantTable(t, "tcp [2001:db8::50]:8443")
	})
	t.Run("SOAP-50/extended", func(t *testing.T) {
		if again := l.open(t, sixA, "LeaseTime", "7200"); again != number {
			t.Errorf("UniqueID %s, then %s", number, again)
		}
		wantLeft(t, l.numbered(t, number), 2*time.Hour)
		l.wantTable(t, "tcp [2001:db8::50]:8443")
	})
	t.Run("SOAP-50/by the same device's other address", func(t *testing.T) {
		for _, from := range []host{hostA, linkA, privacyA} {
			if r := l.call(from, six1, "AddPinhole", pinhole(sixA)...); r.Out["UniqueID"] != number {
				t.Errorf("%s: code %d, UniqueID %q, want %s", from.client.Addr, r.Code, r.Out["UniqueID"], number)
			}
		}
		l.wantTable(t, "tcp [2001:db8::50]:8443")
	})
	t.Run("SOAP-50/each of the five arguments tells them apart", func(t *testing.T) {
		seen := map[string]bool{number: true}
		for _, change := range [][]string{
			{"RemoteHost", "2001:db8:9::1"}, {"RemotePort", "5000"}, {"InternalPort", "8444"}, {"Protocol", "17"},
			{"RemoteHost", "2001:db8:9::1", "RemotePort", "5001"},
		} {
			n := l.open(t, sixA, change...)
			if seen[n] {
				t.Errorf("%q has a number that another one has", change)
			}
			seen[n] = true
		}
		if n := l.open(t, sixB); seen[n] {
			t.Error("another host's has the same number")
		}
		overlapping := pinhole(sixA, "RemoteHost", "2001:db8:9::1", "RemotePort", "5000") // anyone from that port is let in
		wantCode(t, l.call(sixA, six1, "AddPinhole", overlapping...), 501)
	})
}

// TestPinholeArguments: what AddPinhole refuses, whoever asks.
func TestPinholeArguments(t *testing.T) {
	t.Parallel()
	l := start(t)
	type row struct {
		id   string
		args []string
		code int
	}
	rows := []row{
		{"J3/no InternalClient", []string{"InternalClient", ""}, 708},
		{"J3/blank InternalClient", []string{"InternalClient", " "}, 708},
		{"J3/internal port 0", []string{"InternalPort", "0"}, 706},
		{"J3/protocol 65535", []string{"Protocol", "65535"}, 707},
		{"CHOICE-13/lease 0", []string{"LeaseTime", "0"}, 601},
		{"lease 86401", []string{"LeaseTime", "86401"}, 601},
		{"lease 2^32-1", []string{"LeaseTime", "4294967295"}, 601},
		{"lease 2^32", []string{"LeaseTime", "4294967296"}, 402},
		{"lease 2^32+60", []string{"LeaseTime", "4294967356"}, 402},
	}
	for _, p := range []string{"0", "1", "2", "33", "50", "58", "132", "136", "65534"} {
		rows = append(rows, row{"B7/protocol " + p, []string{"Protocol", p}, 705})
	}
	for _, p := range []string{"ICMP", "UDPLITE", "", "TCP ", "tcp6", "6/tcp", "0x6", "65536", "-1", "*"} {
		rows = append(rows, row{fmt.Sprintf("B7/protocol %q", p), []string{"Protocol", p}, 402})
	}
	for _, name := range []string{"RemotePort", "InternalPort"} {
		for _, p := range []string{"", "65536", "-1", "+8443", "8443x", "8443.0", "0x20fb", "1e4", "*", "٨٤٤٣"} {
			rows = append(rows, row{fmt.Sprintf("B6/%s %q", name, p), []string{name, p}, 402})
		}
	}
	for _, name := range []string{"RemoteHost", "RemotePort", "InternalClient", "InternalPort", "Protocol", "LeaseTime"} {
		rows = append(rows, row{"G3/no " + name, []string{name, "-"}, 402})
	}
	for _, p := range []string{"1", "22", "443", "1023"} {
		rows = append(rows, row{"J6/port " + p, []string{"InternalPort", p}, 606})
	}
	for _, r := range rows {
		t.Run(r.id, func(t *testing.T) { wantCode(t, l.call(sixA, six1, "AddPinhole", pinhole(sixA, r.args...)...), r.code) })
	}
	l.wantTable(t)
	for _, good := range [][]string{{"LeaseTime", "1"}, {"LeaseTime", "86400"}, {"LeaseTime", " 60 "}, {"InternalPort", "1024"}, {"InternalPort", "65535"}} {
		l.open(t, sixA, good...)
	}
}

// oddAddresses are no plain IPv6 addresses, in ways that parsers have fallen for.
var oddAddresses = []string{
	"localhost", "evil.example", "2001:db8::50.", "host-a.lan", "ip6-localhost", "0x20010db8",
	"2001:db8::50%lan", "fe80::50%br-lan", "fe80::50%1", "2001:db8::50%", "2001:db8::50/128", "2001:db8::/64", "::0/0",
	"[2001:db8::50]", "[2001:db8::50]:8443", "2001:db8::50 ", " 2001:db8::50", "2001:db8::50\n", "2001:db8::50,2001:db8::51",
	"192.168.1.50", "192.168.1.20", "0.0.0.0", "::ffff:192.168.1.50", "::ffff:c0a8:132", "::FFFF:c0a8:0114", "0:0:0:0:0:ffff:c0a8:132",
	"2001:db8::00050", "2001:db8::5g", "2001:db8:::50", "2001::db8::50", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7", ":", ":::", "*", "::/0", "50",
	"2001:db8::192.168.1.020", "2001:db8::192.168.1", "2001:db8::0x50", "２００１:db8::50", "2001.db8..50",
	strings.Repeat("0", 4096) + ":db8::50", strings.Repeat("2001:", 1000) + ":50", strings.Repeat("f", 12000),
	"2001:db8::50" + strings.Repeat("%", 100), "2001:db8::50%" + strings.Repeat("a", 4096), "%2e%2e", "2001:db8::50;reboot", "'or 1=1",
}

// foreignAddresses are plain, but no address of the caller's.
var foreignAddresses = []string{
	"::", "::1", "ff02::1", "ff02::c", "ff0e::1", "fe80::1", "fe80::50", "fec0::50", "fd00::50", "100::50",
	"2001:db8::1", "2001:db8::", "2001:db8::60", "2001:db8::51", "2001:db8:1::50", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
	"2002:c0a8:0114::", "2002:c0a8:132::50", "64:ff9b::c0a8:114", "64:ff9b:1::c0a8:132", "::192.168.1.20", "::192.168.1.50", "::c0a8:132",
	"2001:0:c0a8:132::50", "::ffff:0:192.168.1.50", "2001:db8::5efe:192.168.1.50", "2606:4700:4700::1111", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
}

func TestPinholeTargets(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, odd := range oddAddresses {
		t.Run(fmt.Sprintf("J2/%.40q", odd), func(t *testing.T) {
			for _, from := range []host{sixB, hostB} {
				wantCode(t, l.call(from, six1, "AddPinhole", pinhole(from, "InternalClient", odd)...), 402)
			}
		})
	}
	for _, foreign := range foreignAddresses {
		if foreign == sixB.client.Addr.String() {
			continue
		}
		t.Run("J1 J2 B12/"+foreign, func(t *testing.T) {
			for _, from := range []host{sixB, hostB, host6} {
				wantCode(t, l.call(from, six1, "AddPinhole", pinhole(from, "InternalClient", foreign)...), 606)
			}
		})
	}
	for id, c := range map[string]struct{ from, target host }{
		"J1/another host":                       {sixB, sixA},
		"J1/another host, from the owner's":     {sixA, sixB},
		"J1/its own other address, not allowed": {sixB, privacyB},
		"J1/by IPv4, not allowed":               {hostB, sixB},
		"A8/by IPv4, another host":              {hostA, sixB},
		"A8/link-local is not opened":           {linkA, linkA},
		"A8/link-local of the same device":      {sixA, linkA},
	} {
		t.Run(id, func(t *testing.T) {
			wantCode(t, l.call(c.from, six1, "AddPinhole", pinhole(c.target)...), 606)
		})
	}
	l.wantTable(t)
	for _, same := range []string{"2001:db8::50", "2001:DB8::50", "2001:0db8:0:0:0:0:0:0050", "2001:db8::0.0.0.80"} {
		l.open(t, sixA, "InternalClient", same)
	}
	l.wantTable(t, "tcp [2001:db8::50]:8443")
}

func TestPinholeRemotes(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, anybody := range []string{"", "*", " ", "::/0"} {
		t.Run(fmt.Sprintf("J3/remote host %q", anybody), func(t *testing.T) {
			l.open(t, sixA, "RemoteHost", anybody)
			l.wantTable(t, "tcp [2001:db8::50]:8443")
		})
	}
	for _, odd := range oddAddresses {
		switch strings.TrimSpace(odd) {
		case "*", "::/0", "2001:db8::50": // these are anybody, or an address with blanks
			continue
		}
		t.Run(fmt.Sprintf("B10/%.40q", odd), func(t *testing.T) {
			wantCode(t, l.call(sixA, six1, "AddPinhole", pinhole(sixA, "RemoteHost", odd)...), 402)
		})
	}
	l.wantTable(t, "tcp [2001:db8::50]:8443")
}

// TestPinholeRequest looks at what reaches the gate.
func TestPinholeRequest(t *testing.T) {
	t.Parallel()
	asks := make(chan portmap.Request, 1)
	l := &lan{t: t, wan: goodWAN()}
	l.serve(config(refuser{Reader: empty, err: &portmap.Error{Reason: portmap.Busy}, asks: asks}, l.wan))
	base := func(h host) portmap.Request {
		h.client.Via = portmap.ViaUPnP
		return portmap.Request{
			ZeroIsEndless: true,
			Kind:          portmap.Pinhole6, Client: h.client, Transport: portmap.TCP, Internal: addrPort(h, 8443),
			Lifetime: time.Hour, KeepDescription: true,
		}
	}
	remote := func(p string, port uint16) func(*portmap.Request) {
		return func(r *portmap.Request) { r.Remotes = []portmap.Remote{{Prefix: prefix(p), Port: port}} }
	}
	for id, c := range map[string]struct {
		from, target host
		change       []string
		want         func(*portmap.Request)
	}{
		"SOAP-49/as it is":       {sixA, sixA, nil, func(*portmap.Request) {}},
		"UDP":                    {sixA, sixA, []string{"Protocol", "17"}, func(r *portmap.Request) { r.Transport = portmap.UDP }},
		"protocol as a word":     {sixA, sixA, []string{"Protocol", "udp"}, func(r *portmap.Request) { r.Transport = portmap.UDP }},
		"protocol as a word TCP": {sixA, sixA, []string{"Protocol", "TCP"}, func(*portmap.Request) {}},
		"a day":                  {sixA, sixA, []string{"LeaseTime", "86400"}, func(r *portmap.Request) { r.Lifetime = 24 * time.Hour }},
		"B10/host":               {sixA, sixA, []string{"RemoteHost", "2001:DB8:9::1"}, remote("2001:db8:9::1/128", 0)},
		"B10/host and port": {sixA, sixA, []string{"RemoteHost", "2001:db8:9::1", "RemotePort", "65535"},
			remote("2001:db8:9::1/128", 65535)},
		"B10/port":                   {sixA, sixA, []string{"RemotePort", "1"}, remote("::/0", 1)},
		"B10/port and *":             {sixA, sixA, []string{"RemoteHost", "*", "RemotePort", "53"}, remote("::/0", 53)},
		"J1/same device":             {privacyA, sixA, nil, func(*portmap.Request) {}},
		"J1/same device, by IPv4":    {hostA, sixA, nil, func(*portmap.Request) {}},
		"J1/same device, link-local": {linkA, sixA, nil, func(*portmap.Request) {}},
		"J1/another device": {sixB, sixA, nil, func(r *portmap.Request) {
			r.Client = sixB.client
			r.Client.Via = portmap.ViaUPnP
		}},
		"J1/who has the address now": {heirOfA, heirOfA, nil, func(*portmap.Request) {}},
	} {
		t.Run(id, func(t *testing.T) {
			want := base(c.target)
			c.want(&want)
			wantCode(t, l.call(c.from, six1, "AddPinhole", pinhole(c.target, c.change...)...), 501)
			if diff := cmp.Diff(want, <-asks, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
				cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPinholeLying: what As gives counts only for the address it was asked for.
func TestPinholeLying(t *testing.T) {
	t.Parallel()
	l := &lan{t: t, engine: newEngine(t), wan: goodWAN()}
	cfg := config(l.engine, l.wan)
	cfg.As = func(portmap.Client, netip.Addr) (portmap.Client, error) { return sixA.client, nil }
	l.serve(cfg)
	number := l.open(t, sixB)
	wantCode(t, l.call(sixA, six1, "AddPinhole", pinhole(sixB)...), 606)
	wantCode(t, l.call(sixA, six1, "DeletePinhole", "UniqueID", number), 704)
	l.wantTable(t, "tcp [2001:db8::60]:8443")

	asks := make(chan portmap.Request, 1)
	cfg.Mapper = refuser{Reader: empty, err: &portmap.Error{Reason: portmap.NotRequester}, asks: asks}
	l.serve(cfg)
	wantCode(t, l.call(hostB, six1, "AddPinhole", pinhole(sixB)...), 606)
	if r := <-asks; r.Client.Addr != hostB.client.Addr {
		t.Errorf("asked in the name of %s", r.Client.Addr)
	}
}

// TestPinholesAreNoMappings: what WANIPConnection lists and deletes are IPv4
// mappings, and by IPv6 there are none (case A8).
func TestPinholesAreNoMappings(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.open(t, sixA, "Protocol", "17", "InternalPort", "6000")
	for _, from := range []host{sixA, linkA, hostA} {
		for _, service := range []string{ip1, ip2, ppp1} {
			wantCode(t, l.call(from, service, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0"), 713)
			wantCode(t, l.call(from, service, "GetSpecificPortMappingEntry", key("6000", "UDP")...), 714)
			wantCode(t, l.call(from, service, "DeletePortMapping", key("6000", "UDP")...), 714)
			entries := l.post(from, l.url(2, strings.Split(service, ":")[0], "control"), `"urn:schemas-upnp-org:control-1-0#QueryStateVariable"`,
				envelope("urn:schemas-upnp-org:control-1-0", "QueryStateVariable", "<varName>PortMappingNumberOfEntries</varName>"))
			if entries.Out["return"] != "0" {
				t.Errorf("%s by %s: %q entries", service, from.client.Addr, entries.Out["return"])
			}
		}
		wantCode(t, l.call(from, ip2, "GetListOfPortMappings", span("1", "65535")...), 730)
		wantCode(t, l.call(from, ip2, "DeletePortMappingRange", spanOnly("1", "65535")...), 730)
	}
	for _, from := range []host{sixA, linkA, host6} {
		for _, target := range []string{"", hostA.client.Addr.String(), from.client.Addr.String(), "203.0.113.7", "localhost", "::ffff:192.168.1.50"} {
			for _, service := range []string{ip1, ip2, ppp1} {
				wantCode(t, l.call(from, service, "AddPortMapping", mapping(hostA, "NewInternalClient", target)...), 606)
			}
			wantCode(t, l.call(from, ip2, "AddAnyPortMapping", mapping(hostA, "NewInternalClient", target)...), 606)
		}
	}
	l.wantTable(t, "udp [2001:db8::50]:6000")
	wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA)...), 0)
	for _, service := range []string{ip1, ip2} {
		wantCode(t, l.call(sixA, service, "GetSpecificPortMappingEntry", key("6000", "UDP")...), 714)
	}
	wantCode(t, l.call(sixA, ip1, "DeletePortMapping", key("6000", "UDP")...), 714)
	wantCode(t, l.call(sixA, ip2, "DeletePortMapping", key("6000", "UDP")...), 606)
	l.wantTable(t, "udp 6000 -> 192.168.1.50:6000", "udp [2001:db8::50]:6000")
}

func TestPinholeDispatch(t *testing.T) {
	t.Parallel()
	l := start(t)
	body, action := envelope(typePrefix+six1, "AddPinhole", argsXML(pinhole(sixA)...)), `"`+typePrefix+six1+`#AddPinhole"`
	for _, file := range []string{"control", "event", "scpd.xml"} {
		if resp := l.do(sixA, "POST", l.url(1, "WANIPv6FirewallControl", file), body, "SOAPACTION", action, "CONTENT-TYPE", "text/xml"); resp.StatusCode != 404 {
			t.Errorf("%s under version 1: %s", file, resp.Status)
		}
	}
	wantCode(t, l.post(sixA, l.url(2, "WANIPConnection", "control"), action, body), 401)
	for _, other := range []string{typePrefix + "WANIPv6FirewallControl:2", typePrefix + "WANIPv6FirewallControl:0", typePrefix + ip2} {
		wantCode(t, l.post(sixA, l.url(2, "WANIPv6FirewallControl", "control"), `"`+other+`#AddPinhole"`,
			envelope(other, "AddPinhole", argsXML(pinhole(sixA)...))), 401)
	}
	wantCode(t, l.call(sixA, six1, "AddPortMapping", mapping(hostA)...), 401)
	l.wantTable(t)
}

// TestWithoutPinholes: a gate that was not told how to open any has no trace of
// the service.
func TestWithoutPinholes(t *testing.T) {
	t.Parallel()
	l := &lan{t: t, engine: newEngine(t), wan: goodWAN()}
	cfg := config(l.engine, l.wan)
	cfg.As, cfg.Packets, cfg.OutboundTimeout, cfg.InboundAllowed = nil, nil, nil, nil
	l.serve(cfg)
	for _, version := range []int{1, 2} {
		path := fmt.Sprintf("/%s/%d/root.xml", testPath, version)
		if strings.Contains(l.get(path), "IPv6") {
			t.Errorf("version %d is described with it", version)
		}
	}
	for _, target := range l.device.Targets() {
		if strings.Contains(target.Type, "IPv6") {
			t.Errorf("discovery has %+v", target)
		}
	}
	if r := l.call(sixA, six1, "GetFirewallStatus"); r.Status != 404 {
		t.Errorf("HTTP %d", r.Status)
	}
}
