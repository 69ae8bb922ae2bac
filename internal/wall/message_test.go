package wall

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"portcullis/internal/netif"
	"portcullis/portmap"
)

var (
	four  = netip.MustParseAddr("192.168.1.10")
	six   = netip.MustParseAddr("2001:db8::10")
	asker = portmap.Client{Addr: four, MAC: portmap.MAC{2, 1, 2, 3, 4, 5}, Interface: "br-lan", Via: portmap.ViaPCP, Unheard: true}
	only  = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Prefix: netip.MustParsePrefix("203.0.113.7/32"), Port: 53}}
	nonce = &portmap.Nonce{1, 2, 3}
	wish  = portmap.Request{
		Client: asker, Kind: portmap.NAT4, Transport: portmap.UDP, Internal: netip.AddrPortFrom(four, 3074), ExternalPort: 3074,
		Remotes: only, Lifetime: time.Hour, Exact: true, Disabled: true, Description: "Spiel ö", Named: portmap.ByInternal,
		RemotesAre: portmap.RemotesReplace, ZeroIsEndless: true, Floored: true, Nonce: nonce, KeepDescription: true, Parity: true,
	}
	hole = Mapping{
		ID: portmap.MaxID, Client: asker.ID(), Kind: portmap.Pinhole6, Transport: portmap.TCP, Internal: netip.AddrPortFrom(six, 8443),
		ExternalPort: 8443, Number: 7, Disabled: true, Endless: true, Description: "x", Claims: portmap.Vias(0).With(portmap.ViaPCP),
		Left: -1, UPnP: time.Hour, NATPMP: 0, PCP: time.Second,
	}
	homeLAN = netif.LAN{
		Name: "br-lan", Index: 3, MAC: [6]byte{2}, Addr: netip.MustParseAddr("192.168.1.1"),
		Addrs:    []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("fe80::1")},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fe80::/64")},
		Direct:   []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
	}
)

// samples are one of each type, and some more.
func samples() []Message {
	plain := wish
	plain.Nonce, plain.Remotes, plain.Description = nil, nil, ""
	return []Message{
		{Number: 1, Patience: time.Second, Body: &Map{wish, 64}},
		{Number: 1<<32 - 1, Patience: maxPatience, Body: &Map{plain, 1}},
		{Number: 2, Body: &Unmap{portmap.Selector{
			Client: asker, ID: 9, Transport: portmap.TCP, FirstPort: 1, LastPort: 65535, Internal: 2, LastInternal: 3,
			Remotes: only, ExactRemotes: true, Only: portmap.ViaUPnP, Nonce: nonce,
		}}},
		{Number: 3, Body: &Own{asker.ID(), 65535, 32}},
		{Number: 4, Body: &OwnPorts{Own{asker.ID(), 0, 1}, portmap.UDP, portmap.PortRange{First: 1, Last: 2}}},
		{Number: 5, Body: &External{portmap.UDP, 3074, only}},
		{Number: 6, Body: &Internal{asker.ID(), External{portmap.UDP, 3074, nil}}},
		{Number: 7, Body: &Pinhole{7}},
		{Number: 8, Body: &Packets{portmap.MaxID}},
		{Number: 9, Body: &OutboundTimeout{portmap.TCP}},
		{Number: 10, Body: &Heard{asker.MAC}},
		{Number: 11, Body: &NextBootID{1 << 31}},
		{Number: 12, Body: &Suspect{}},
		{Number: 13, Body: &KeepEpochs{time.Unix(0, 1), time.Time{}}},
		{Number: 14, Body: &Open{Kind: Discovery, LAN: "br-lan", Six: true}},
		{Number: 15, Body: &Open{Kind: HTTP, LAN: "br-lan", Addr: netip.MustParseAddrPort("[::]:5000")}},
		{Number: 16, Body: &Forget{}},
		{Number: 16, Body: &Resolve{"br-lan", six}},
		{Number: 16, Body: &Connect{"br-lan", four, netip.AddrPortFrom(four, 49152)}},
		{Number: 17, Body: &Done{}},
		{Number: 18, Body: &Mappings{[]Mapping{hole, hole}}},
		{Number: 18, Body: &Mappings{}},
		{Number: 19, Body: &Page{[]Mapping{hole}, 40, 1 << 63}},
		{Number: 20, Body: &Value{1<<64 - 1}},
		{Number: 21, Body: &Refused{portmap.PortTaken, "it is taken", time.Second, true, false}},
		{Number: 21, Body: &Refused{Detail: "it has gone", Gone: true}},
		{Number: 22, Body: &Socket{ByPacketSocket}},
		{Body: &Event{portmap.Granted, portmap.NAT4, asker.ID()}},
		{Body: &Event{Type: portmap.Resync}},
		{Body: &settings},
		{Body: &Settings{LogLevel: -4}},
		{Body: &Serve{time.Unix(0, 1), time.Time{}}},
		{Body: &Served{7, "port 5000 is taken"}},
		{Body: &Failed{"discovery has ended"}},
		{Body: &Record{-4, "serving a LAN", []Attr{{Key: "text", Text: "ö"}, {Key: "n", Kind: DurationAttr, Number: 1<<64 - 1}, {Key: "yes", Kind: BoolAttr, Number: 1}}}},
		{Body: &Network{3, portmap.WAN{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.1"), Private: true}, true, []netif.LAN{homeLAN}}},
		{Body: &Network{}},
		{Body: &Stop{}},
		{Body: &Ping{}},
		{Body: &Pong{}},
		{Body: &Confined{}},
		{Body: &Confined{[]string{"Landlock: not supported", "ö"}}},
	}
}

// TestMessages: what is written is read as it was, every octet of it and no more; what is
// read of other octets could have been written; and there is a sample of each type.
func TestMessages(t *testing.T) {
	t.Parallel()
	seen := map[uint8]bool{}
	for _, m := range samples() {
		seen[typeOf(m.Body)] = true
		b, err := Encode(m)
		if err != nil {
			t.Errorf("%T: %v", m.Body, err)
			continue
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T: %v\n%+v, want\n%+v", m.Body, err, got.Body, m.Body)
		}
		for n := range b {
			if _, err := Decode(b[:n]); err == nil {
				t.Errorf("%T: %d of %d octets are a message", m.Body, n, len(b))
			}
		}
		for i := range b {
			for _, octet := range []byte{0, 1, 2, 3, 4, 16, 0x7f, 0x80, 0xff} {
				changed := bytes.Clone(b)
				changed[i] = octet
				faithful(t, changed)
			}
		}
		if _, err := Decode(append(b, 0)); err == nil {
			t.Errorf("%T: is a message with an octet more", m.Body)
		}
	}
	for kind, body := range bodies {
		if !seen[kind] || typeOf(body()) != kind {
			t.Errorf("type %d: %T", kind, body())
		}
	}
	if _, err := Decode(make([]byte, MaxMessage+1)); err != errLong {
		t.Errorf("a message that is too long: %v", err)
	}
}

// TestBounds: what no front and no warden of ours says is not written, and not read.
func TestBounds(t *testing.T) {
	t.Parallel()
	ask := func(change func(*portmap.Request)) Message {
		r := wish
		change(&r)
		return Message{Number: 1, Body: &Map{r, 1}}
	}
	show := func(change func(*Mapping)) Message {
		m := hole
		change(&m)
		return Message{Number: 1, Body: &Mappings{[]Mapping{m}}}
	}
	mapped := netip.MustParseAddr("::ffff:192.168.1.10")
	for name, m := range map[string]Message{
		"the owner asks":            ask(func(r *portmap.Request) { r.Client.Via = portmap.ViaOwner }),
		"nobody asks":               ask(func(r *portmap.Request) { r.Client.Via = 0 }),
		"a host that has a name":    ask(func(r *portmap.Request) { r.Client.Name = "console" }),
		"no address":                ask(func(r *portmap.Request) { r.Client.Addr = netip.Addr{} }),
		"an address with a zone":    ask(func(r *portmap.Request) { r.Client.Addr = netip.MustParseAddr("fe80::1%lan0") }),
		"IPv4 within IPv6":          ask(func(r *portmap.Request) { r.Client.Addr = mapped }),
		"a target within IPv6":      ask(func(r *portmap.Request) { r.Internal = netip.AddrPortFrom(mapped, 1) }),
		"a path for an interface":   ask(func(r *portmap.Request) { r.Client.Interface = "../lan" }),
		"a long interface":          ask(func(r *portmap.Request) { r.Client.Interface = strings.Repeat("x", 16) }),
		"a kind that is none":       ask(func(r *portmap.Request) { r.Kind = 2 }),
		"a naming that is none":     ask(func(r *portmap.Request) { r.Named = 2 }),
		"a mode that is none":       ask(func(r *portmap.Request) { r.RemotesAre = 4 }),
		"a lease of less than none": ask(func(r *portmap.Request) { r.Lifetime = -1 }),
		"a long description":        ask(func(r *portmap.Request) { r.Description = strings.Repeat("x", portmap.MaxDescription+1) }),
		"a description of octets":   ask(func(r *portmap.Request) { r.Description = "\xff" }),
		"a network with a host": ask(func(r *portmap.Request) {
			r.Remotes = []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.7/24")}}
		}),
		"no network":                ask(func(r *portmap.Request) { r.Remotes = make([]portmap.Remote, 1) }),
		"too many networks":         ask(func(r *portmap.Request) { r.Remotes = make([]portmap.Remote, maxRemotes+1) }),
		"a set of none":             {Number: 1, Body: &Map{wish, 0}},
		"a set of less than none":   {Number: 1, Body: &Map{wish, -1}},
		"a large set":               {Number: 1, Body: &Map{wish, maxSet + 1}},
		"anybody's mappings":        {Number: 1, Body: &Unmap{portmap.Selector{Client: asker, Anybody: true}}},
		"the owner's mappings":      {Number: 1, Body: &Unmap{portmap.Selector{Client: asker, Only: portmap.ViaOwner}}},
		"a large page":              {Number: 1, Body: &Own{asker.ID(), 0, portmap.MaxPage + 1}},
		"behind every page":         {Number: 1, Body: &Own{asker.ID(), 1 << 16, 1}},
		"an ID that is none":        {Number: 1, Body: &Packets{portmap.MaxID + 1}},
		"a socket of no kind":       {Number: 1, Body: &Open{Kind: 3, LAN: "lan0"}},
		"HTTP nowhere":              {Number: 1, Body: &Open{Kind: HTTP, LAN: "lan0"}},
		"discovery somewhere":       {Number: 1, Body: &Open{LAN: "lan0", Addr: netip.MustParseAddrPort("192.168.1.1:1900")}},
		"nobody to look for":        {Number: 1, Body: &Resolve{LAN: "lan0"}},
		"a zone to look in":         {Number: 1, Body: &Resolve{"lan0", netip.MustParseAddr("fe80::1%wan0")}},
		"a connection to nobody":    {Number: 1, Body: &Connect{LAN: "lan0", Local: four}},
		"a connection from nobody":  {Number: 1, Body: &Connect{LAN: "lan0", To: netip.AddrPortFrom(four, 49152)}},
		"a connection to a zone":    {Number: 1, Body: &Connect{"lan0", four, netip.MustParseAddrPort("[fe80::1%wan0]:49152")}},
		"a connection by a path":    {Number: 1, Body: &Connect{"../lan", four, netip.AddrPortFrom(four, 49152)}},
		"a request without number":  {Body: &Suspect{}},
		"an answer without number":  {Body: &Done{}},
		"an event with a number":    {Number: 1, Body: &Stop{}},
		"a line for a terminal":     {Body: &Confined{[]string{"\x1b[2J"}}},
		"two lines in one":          {Body: &Confined{[]string{"one\ntwo"}}},
		"more lines than there are": {Body: &Confined{make([]string, maxMissing+1)}},
		"a line that does not end":  {Body: &Confined{[]string{strings.Repeat("x", maxDetail+1)}}},
		"endless patience":          {Number: 1, Patience: maxPatience + 1, Body: &Suspect{}},
		"less than no patience":     {Number: 1, Patience: -1, Body: &Suspect{}},
		"a patient answer":          {Number: 1, Patience: 1, Body: &Done{}},
		"a reason that is none":     {Number: 1, Body: &Refused{Reason: portmap.Reason(len(portmap.Reasons()) + 1)}},
		"a refusal of what is gone": {Number: 1, Body: &Refused{Reason: portmap.PortTaken, Gone: true}},
		"a way that is none":        {Number: 1, Body: &Socket{3}},
		"an event that is none":     {Body: &Event{Type: portmap.Resync + 1}},
		"an event of nothing":       {Body: &Event{}},
		"a LAN without a name":      {Body: &Network{LANs: []netif.LAN{{Index: 1}}}},
		"a LAN without an index":    {Body: &Network{LANs: []netif.LAN{{Name: "lan0"}}}},
		"too many LANs":             {Body: &Network{LANs: make([]netif.LAN, maxLANs+1)}},
		"a long setting":            {Body: &Settings{Path: strings.Repeat("x", maxSetting+1)}},
		"a long problem":            {Body: &Served{1, strings.Repeat("x", maxDetail+1)}},
		"a long line":               {Body: &Record{Message: strings.Repeat("x", maxLine+1)}},
		"too many attributes":       {Body: &Record{Attrs: make([]Attr, maxAttrs+1)}},
		"an attribute of no kind":   {Body: &Record{Attrs: []Attr{{Kind: DurationAttr + 1}}}},
		"true and more":             {Body: &Record{Attrs: []Attr{{Kind: BoolAttr, Number: 2}}}},
		"a record with a number":    {Number: 1, Body: new(Record)},
		"many restrictions":         show(func(m *Mapping) { m.Remotes = make([]portmap.Remote, portmap.MaxRemotes+1) }),
		"an end before the start":   show(func(m *Mapping) { m.Left = -2 }),
		"an ID that is too high":    show(func(m *Mapping) { m.ID = portmap.MaxID + 1 }),
		"nothing":                   {},
	} {
		b, err := Encode(m)
		if err == nil {
			t.Errorf("%s is written", name)
			continue
		}
		// What was written before the fault stands there; and a fault of one octet ends it.
		if _, err := Decode(b); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": {}, "another version": {2, firstTold, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "no type": {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a later type": {1, firstAnswered - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a flag of 2":  append([]byte{1, firstTold + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0),
	} {
		if m, err := Decode(b); err == nil {
			t.Errorf("%s is read: %+v", name, m)
		}
	}
}

// TestFull: the largest answers have room.
func TestFull(t *testing.T) {
	t.Parallel()
	m := hole
	m.Description = strings.Repeat("x", portmap.MaxDescription)
	m.Client.Interface = strings.Repeat("i", maxName)
	for range portmap.MaxRemotes {
		m.Remotes = append(m.Remotes, portmap.Remote{Prefix: netip.PrefixFrom(six, 128), Port: 1})
	}
	set := Mappings{make([]Mapping, maxSet)}
	for i := range set.Mappings {
		set.Mappings[i] = m
	}
	if b, err := Encode(Message{Number: 1, Body: &set}); err != nil {
		t.Errorf("%d octets: %v", len(b), err)
	}
}

// TestShowing: what crosses of a mapping is what clients are told, its leases to the second.
func TestShowing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m := portmap.Mapping{
		ID: 5, Client: asker, Kind: portmap.NAT4, Transport: portmap.UDP, Internal: netip.AddrPortFrom(four, 1), ExternalPort: 2, Remotes: only,
		Description: "game", Rule: "secret rule", Nonce: *nonce, WAN: "wan0",
		Claims: portmap.Vias(0).With(portmap.ViaUPnP).With(portmap.ViaPCP), Expires: now.Add(time.Hour), Endless: true,
	}
	m.Leases.Set(portmap.ViaPCP, portmap.Lease{Ends: now.Add(time.Minute)})
	crossed := showing(&m, now)
	got := crossed.mapping(now)
	for _, via := range []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP} {
		if got.LeaseLeft(via, now) != m.LeaseLeft(via, now) {
			t.Errorf("%s: %v, want %v", via, got.LeaseLeft(via, now), m.LeaseLeft(via, now))
		}
	}
	if got.Left(now) != time.Hour || got.Client.ID() != asker.ID() || got.String() != m.String() || !got.Endless || got.Claims != m.Claims {
		t.Errorf("%+v", got)
	}
	if got.Rule != "" || got.Nonce != (portmap.Nonce{}) || got.WAN != "" {
		t.Errorf("secrets crossed: %+v", got)
	}
	m.Expires = time.Time{}
	crossed = showing(&m, now)
	if got := crossed.mapping(now); got.Left(now) != -1 || got.LeaseLeft(portmap.ViaPCP, now) != time.Minute {
		t.Errorf("without an end: %+v", got)
	}
}

// FuzzDecode: whatever the octets are, they are refused, or are the ones that Encode makes
// of what was read.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		faithful(t, b)
	})
}

// faithful: what is read can be written, in the same octets.
func faithful(t *testing.T, b []byte) {
	t.Helper()
	m, err := Decode(b)
	if err != nil {
		return
	}
	again, err := Encode(m)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x was read as %+v and written as %x, %v", b, m.Body, again, err)
	}
}

// FuzzMap: a request is read as it was written, or is not written.
func FuzzMap(f *testing.F) {
	f.Add(uint32(1), uint16(3074), uint16(1), int64(3600), "game", "br-lan", []byte{192, 168, 1, 10}, []byte{198, 51, 100, 0, 24}, uint16(1))
	f.Add(uint32(0), uint16(0), uint16(65), int64(-1), "\xff", "a/b", bytes.Repeat([]byte{1}, 16), []byte(nil), uint16(1<<15))
	f.Fuzz(func(t *testing.T, number uint32, port, n uint16, lease int64, text, name string, addr, prefix []byte, bits uint16) {
		r := portmap.Request{
			Client: asker, Transport: portmap.Transport(bits), Lifetime: time.Duration(lease), Description: text, ExternalPort: port,
			Exact: bits&256 != 0, Disabled: bits&512 != 0, Floored: bits&1024 != 0, Named: portmap.Naming(bits & 3), RemotesAre: portmap.RemotesMode(bits >> 2 & 7),
		}
		r.Client.Interface = name
		r.Client.Addr, _ = netip.AddrFromSlice(addr)
		r.Internal = netip.AddrPortFrom(r.Client.Addr, port)
		if len(prefix) > 0 {
			to, _ := netip.AddrFromSlice(prefix[:len(prefix)-1])
			r.Remotes = []portmap.Remote{{Prefix: netip.PrefixFrom(to, int(prefix[len(prefix)-1])), Port: n}}
		}
		m := Message{Number: number, Patience: time.Second, Body: &Map{r, int(n)}}
		b, err := Encode(m)
		if err != nil {
			return
		}
		if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	})
}
