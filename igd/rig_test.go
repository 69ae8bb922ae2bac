package igd_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"portcullis/igd"
	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

const (
	baseUUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	testPath = "00112233445566778899aabb"
	lease168 = 168 * time.Hour

	// patience is how long a test waits for what must come.
	patience = 10 * time.Second
)

// host is a machine of the test's LAN: on the loopback it connects from one
// address, and Identify takes it for another.
type host struct {
	from   string
	client portmap.Client
}

func newHost(last byte) host {
	return host{
		from: fmt.Sprintf("127.0.0.%d", last),
		client: portmap.Client{
			Addr: netip.AddrFrom4([4]byte{192, 168, 1, last}), MAC: portmap.MAC{2, 0, 0, 0, 0, last}, Interface: "lan",
		},
	}
}

var (
	hostA   = newHost(50)
	hostB   = newHost(60)
	host6   = host{from: "127.0.0.70", client: portmap.Client{Addr: netip.MustParseAddr("2001:db8::70"), Interface: "lan"}}
	unknown = host{from: "127.0.0.99"}

	// The same devices by IPv6. A's owner lets it name its other addresses.
	sixA      = hostA.at("127.0.0.51", "2001:db8::50")
	privacyA  = hostA.at("127.0.0.52", "2001:db8::5a5a:1")
	linkA     = hostA.at("127.0.0.53", "fe80::50")
	sixB      = hostB.at("127.0.0.61", "2001:db8::60")
	privacyB  = hostB.at("127.0.0.62", "2001:db8::6b6b:1")
	heirOfA   = hostB.at("127.0.0.63", "2001:db8::50") // B has taken A's address
	neighbour = []host{hostA, hostB, host6, sixA, privacyA, linkA, sixB, privacyB, heirOfA}
)

// at returns the same device at another address.
func (h host) at(from, addr string) host {
	h.from, h.client.Addr = from, netip.MustParseAddr(addr)
	return h
}

// as is what Config.As does: same device, and its owner agrees.
func as(c portmap.Client, target netip.Addr) (portmap.Client, error) {
	for _, h := range neighbour {
		if h.client.Addr == target && h.client.MAC == c.MAC && c.MAC == hostA.client.MAC {
			return h.client, nil
		}
	}
	return portmap.Client{}, errNobody
}

var errNobody = errors.New("no such neighbour")

func identify(iface string, addr netip.Addr) (portmap.Client, error) {
	if iface != "lan" {
		return portmap.Client{}, errNobody
	}
	if addr == netip.MustParseAddr("127.0.0.1") { // libraries that cannot be told where to connect from
		return hostA.client, nil
	}
	for _, h := range neighbour {
		if h.from == addr.String() {
			return h.client, nil
		}
	}
	return portmap.Client{}, errNobody
}

// wan is a connection that the test switches.
type wan struct {
	mu      sync.Mutex
	status  igd.WANStatus
	no6     bool              // nothing can be opened by IPv6
	packets map[uint64]uint64 // by the ID of a pinhole
}

func (w *wan) inboundAllowed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.no6
}

func (w *wan) setInbound(allowed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.no6 = !allowed
}

func (w *wan) pinholePackets(_ context.Context, m portmap.Mapping) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.Internal.Port() == 9999 {
		return 0, errors.New("secret of the kernel")
	}
	return w.packets[m.ID], nil
}

func (w *wan) pass(id, packets uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets = map[uint64]uint64{id: packets}
}

func outboundTimeout(tr portmap.Transport) (time.Duration, error) {
	if tr == portmap.TCP {
		return 2*time.Hour + 4*time.Minute, nil
	}
	return 180*time.Second + 900*time.Millisecond, nil
}

func (w *wan) Status() igd.WANStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

func (w *wan) set(change func(*igd.WANStatus)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}

func goodWAN() *wan {
	return &wan{status: igd.WANStatus{
		External: netip.MustParseAddr("203.0.113.7"), Up: true, LinkUp: true, Since: time.Now().Add(-90 * time.Second),
		RateUp: 20_000_000, RateDown: 100_000_000,
		BytesSent: 1, BytesReceived: 1<<32 + 5, PacketsSent: 1<<32 - 1, PacketsReceived: 1 << 32,
	}}
}

// kernel is a firewall that agrees to everything.
type kernel struct{}

func (kernel) Apply(context.Context, []portmap.Mapping, []portmap.Mapping) error { return nil }
func (kernel) Replace(context.Context, []portmap.Mapping) error                  { return nil }

// gateway listens on TCP 7777.
type gateway struct{}

func (gateway) View() *portmap.View {
	return &portmap.View{InUse: []portmap.PortsInUse{
		{Transport: portmap.TCP, Ports: portmap.PortRange{First: 7777, Last: 7777}, By: "secretd listens"},
	}}
}

func (gateway) Look(context.Context) {}

// rules is as much of a policy as the vectors need.
type rules struct{}

func (rules) Decide(r portmap.Request, f portmap.Facts) portmap.Decision {
	deny := func(reason portmap.Reason, detail string) portmap.Decision {
		return portmap.Decision{Action: portmap.Deny, Reason: reason, Detail: detail}
	}
	own := netip.MustParsePrefix("192.168.1.0/24")
	target := r.Internal.Addr()
	switch {
	case r.Kind == portmap.Pinhole6 && target != r.Client.Addr:
		return deny(portmap.NotRequester, "a host may map to itself only")
	case r.Kind == portmap.Pinhole6 && target.IsLinkLocalUnicast():
		return deny(portmap.NotAHost, "the target is no host of the Internet")
	case r.Kind == portmap.Pinhole6 && r.Internal.Port() < 1024:
		return deny(portmap.PrivilegedPort, "ports below 1024 are the owner's")
	case r.Kind == portmap.Pinhole6:
		return portmap.Decision{Action: portmap.Allow}
	case target == netip.MustParseAddr("192.168.1.1"):
		return deny(portmap.GatewayTarget, "the gateway is not mapped")
	case target == netip.MustParseAddr("172.217.165.142"):
		return deny(portmap.NotRequester, "a host may map to itself only")
	case target != r.Client.Addr && own.Contains(target) && target != netip.MustParseAddr("192.168.1.255"):
		return deny(portmap.NotRequester, "a host may map to itself only")
	case target != r.Client.Addr:
		return deny(portmap.NotAHost, "the target is no host of the LAN")
	case r.Internal.Port() == 445:
		return deny(portmap.ForbiddenPort, "port 445 is Windows file sharing")
	case r.ExternalPort != 0 && r.ExternalPort < 1024:
		d := deny(portmap.PrivilegedPort, "ports below 1024 are the owner's")
		d.OverExternalPort = true
		return d
	case !f.Renewal && f.ClientMappings >= 200:
		return deny(portmap.ClientQuota, "too many mappings")
	}
	return portmap.Decision{Action: portmap.Allow}
}

func newEngine(t testing.TB) *portmap.Engine {
	t.Helper()
	e, err := portmap.NewEngine(portmap.EngineConfig{Policy: rules{}, Firewall: kernel{}, Gateway: gateway{}, LeaseMax: lease168})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return e
}

func config(m igd.Mapper, w *wan) igd.Config {
	return igd.Config{
		Mapper: m, WAN: w, Identify: identify, UUID: baseUUID, FriendlyName: "Portcullis",
		As: as, Packets: w.pinholePackets, OutboundTimeout: outboundTimeout, InboundAllowed: w.inboundAllowed,
		Path: testPath, Log: slog.New(slog.DiscardHandler),
	}
}

func newDevice(t testing.TB, cfg igd.Config) *igd.Device {
	t.Helper()
	d, err := igd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lan is a running gateway.
type lan struct {
	t      testing.TB
	device *igd.Device
	engine *portmap.Engine
	wan    *wan
	addr   string
	front  *igd.Handler
	peer   netip.Addr // what the other end of each connection is taken for; zero: what it is
}

func start(t testing.TB) *lan {
	t.Helper()
	l := &lan{t: t, engine: newEngine(t), wan: goodWAN()}
	l.serve(config(l.engine, l.wan))
	return l
}

// serve puts a device behind the real front, on the loopback.
func (l *lan) serve(cfg igd.Config) {
	l.t.Helper()
	if cfg.Notifier == nil {
		cfg.Notifier = &notifier{}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	l.device = newDevice(l.t, cfg)
	l.front = l.device.On("lan", netip.MustParseAddrPort(l.addr))
	var handler http1.Handler = l.front
	if l.peer.IsValid() {
		handler = http1.HandlerFunc(func(r *http1.Request) *http1.Response {
			r.Remote = netip.AddrPortFrom(l.peer, 50000)
			return l.front.ServeHTTP(r)
		})
	}
	server, err := httpd.New(httpd.Config{Logger: cfg.Log, Handler: handler, Server: "test UPnP/1.1 test/1", MaxConnsPerDevice: 64})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, listener) }()
	l.t.Cleanup(func() { cancel(); <-done })
}

func (l *lan) url(igdVersion int, service, file string) string {
	return fmt.Sprintf("/%s/%d/%s/%s", testPath, igdVersion, service, file)
}

// do sends one request from a host; header pairs follow the body.
func (l *lan) do(from host, method, path, body string, headers ...string) *http.Response {
	l.t.Helper()
	req, err := http.NewRequest(method, "http://"+l.addr+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header[headers[i]] = append(req.Header[headers[i]], headers[i+1])
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from.from)}}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true,
			ExpectContinueTimeout: patience, // of who asks before sending a body that may be refused
		},
		Timeout: patience,
	}
	resp, err := c.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(all))
	return resp
}

// reply is what came back from a control URL.
type reply struct {
	Status      int
	Code        int    // of a fault
	Description string // of a fault
	Name        string // of the response element, with its namespace in braces
	Names       []string
	Out         map[string]string
}

const (
	typePrefix = "urn:schemas-upnp-org:service:"
	ip1        = "WANIPConnection:1"
	ip2        = "WANIPConnection:2"
	ppp1       = "WANPPPConnection:1"
	common1    = "WANCommonInterfaceConfig:1"
	layer31    = "Layer3Forwarding:1"
	six1       = "WANIPv6FirewallControl:1"
)

func envelope(serviceType, action, args string) string {
	return `<?xml version="1.0"?>` +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:` + action + ` xmlns:u="` + serviceType + `">` + args + `</u:` + action + `></s:Body></s:Envelope>`
}

func argsXML(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString("<" + pairs[i] + ">")
		_ = xml.EscapeText(&b, []byte(pairs[i+1]))
		b.WriteString("</" + pairs[i] + ">")
	}
	return b.String()
}

// call performs an action of a service, "WANIPConnection:2", at the control URL
// that the description of the same version gives.
func (l *lan) call(from host, service, action string, args ...string) reply {
	l.t.Helper()
	name, version, _ := strings.Cut(service, ":")
	tree := int(version[0] - '0')
	if service == six1 { // it has a version 1, which gateways of version 1 do not have
		tree = 2
	}
	return l.post(from, l.url(tree, name, "control"),
		`"`+typePrefix+service+"#"+action+`"`, envelope(typePrefix+service, action, argsXML(args...)))
}

func (l *lan) post(from host, path, soapAction, body string) reply {
	l.t.Helper()
	resp := l.do(from, "POST", path, body, "SOAPACTION", soapAction, "CONTENT-TYPE", `text/xml; charset="utf-8"`)
	return parseReply(l.t, resp)
}

func parseReply(t testing.TB, resp *http.Response) reply {
	t.Helper()
	body, _ := io.ReadAll(resp.Body)
	r := reply{Status: resp.StatusCode, Out: map[string]string{}}
	if !strings.Contains(resp.Header.Get("Content-Type"), "xml") {
		return r
	}
	if len(body) > 64<<10 {
		t.Errorf("reply of %d bytes", len(body))
	}
	var e struct {
		Body struct {
			Any struct {
				XMLName xml.Name
				Args    []struct {
					XMLName xml.Name
					Value   string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
			Fault *struct {
				Code   string `xml:"faultcode"`
				String string `xml:"faultstring"`
				Detail struct {
					Error struct {
						Code        int    `xml:"urn:schemas-upnp-org:control-1-0 errorCode"`
						Description string `xml:"urn:schemas-upnp-org:control-1-0 errorDescription"`
					} `xml:"urn:schemas-upnp-org:control-1-0 UPnPError"`
				} `xml:"detail"`
			} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Fault"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	if err := xml.Unmarshal(body, &e); err != nil {
		t.Fatalf("reply is not well-formed: %v\n%s", err, body)
	}
	if f := e.Body.Fault; f != nil {
		if f.String != "UPnPError" || !strings.HasSuffix(f.Code, ":Client") {
			t.Errorf("fault %q %q", f.Code, f.String)
		}
		r.Code, r.Description = f.Detail.Error.Code, f.Detail.Error.Description
		return r
	}
	r.Name = "{" + e.Body.Any.XMLName.Space + "}" + e.Body.Any.XMLName.Local
	for _, a := range e.Body.Any.Args {
		if a.XMLName.Space != "" {
			t.Errorf("argument %s has namespace %q", a.XMLName.Local, a.XMLName.Space)
		}
		r.Names = append(r.Names, a.XMLName.Local)
		r.Out[a.XMLName.Local] = a.Value
	}
	return r
}

// mapping returns the eight arguments of an Add action; pairs replace some of
// them. A pair with the value "-" takes the argument away.
func mapping(h host, pairs ...string) []string {
	args := []string{
		"NewRemoteHost", "", "NewExternalPort", "6000", "NewProtocol", "UDP", "NewInternalPort", "6000",
		"NewInternalClient", h.client.Addr.String(), "NewEnabled", "1",
		"NewPortMappingDescription", "game", "NewLeaseDuration", "3600",
	}
	return with(args, pairs...)
}

func with(args []string, pairs ...string) []string {
	for p := 0; p < len(pairs); p += 2 {
		for i := 0; i < len(args); i += 2 {
			if args[i] != pairs[p] {
				continue
			}
			if pairs[p+1] == "-" {
				args = append(args[:i:i], args[i+2:]...)
			} else {
				args[i+1] = pairs[p+1]
			}
			break
		}
	}
	return args
}

func key(port, protocol string) []string {
	return []string{"NewRemoteHost", "", "NewExternalPort", port, "NewProtocol", protocol}
}

// wantCode fails unless the reply is this fault, or 0 for success.
func wantCode(t testing.TB, r reply, code int) {
	t.Helper()
	status := http.StatusOK
	if code != 0 {
		status = http.StatusInternalServerError
	}
	if r.Status != status || r.Code != code {
		t.Errorf("got HTTP %d, code %d (%s), want HTTP %d, code %d", r.Status, r.Code, r.Description, status, code)
	}
}

// table is the whole mapping table in words.
func (l *lan) table() []string {
	var all []string
	for m := range l.engine.Snapshot().All() {
		all = append(all, m.String())
	}
	return all
}

func addrPort(h host, port int) netip.AddrPort {
	return netip.AddrPortFrom(h.client.Addr, uint16(port))
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
