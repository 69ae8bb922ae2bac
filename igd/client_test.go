package igd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"

	"portcullis/internal/gena"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

func (l *lan) location(version int) *url.URL {
	l.t.Helper()
	u, err := url.Parse(l.front.Location(version))
	if err != nil {
		l.t.Fatal(err)
	}
	return u
}

// faultCode returns the number that a goupnp client would branch on.
func faultCode(err error) int {
	var f *soap.SOAPFaultError
	if errors.As(err, &f) {
		return f.Detail.UPnPError.Errorcode
	}
	return 0
}

// TestLibraryClient drives both versions with a library that many programs use.
func TestLibraryClient(t *testing.T) {
	t.Parallel()
	l := start(t)
	self := hostA.client.Addr.String()

	v2, err := internetgateway2.NewWANIPConnection2ClientsByURLCtx(t.Context(), l.location(2))
	if err != nil || len(v2) != 1 {
		t.Fatalf("%d clients, %v", len(v2), err)
	}
	port, err := v2[0].AddAnyPortMapping("", 6000, "TCP", 22000, self, true, "sync", 0)
	if err != nil || port != 6000 {
		t.Fatalf("AddAnyPortMapping: %d, %v", port, err)
	}
	if _, err := v2[0].GetListOfPortMappings(1, 65535, "TCP", false, 0); err != nil {
		t.Error(err)
	}
	if err := v2[0].DeletePortMappingRange(7000, 6000, "TCP", false); faultCode(err) != 733 {
		t.Errorf("DeletePortMappingRange: %v", err)
	}

	v1, err := internetgateway2.NewWANIPConnection1ClientsByURLCtx(t.Context(), l.location(1))
	if err != nil || len(v1) != 1 {
		t.Fatalf("%d clients, %v", len(v1), err)
	}
	remote, ext, proto, inner, client, enabled, text, lease, err := v1[0].GetGenericPortMappingEntry(0)
	if err != nil || lease != 0 { // SOAP-10: version 1 shows the 0 that was asked for
		t.Errorf("lease %d, %v", lease, err)
	}
	got := []any{remote, ext, proto, inner, client, enabled, text}
	want := []any{"", uint16(6000), "TCP", uint16(22000), self, true, "sync"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if err := v1[0].AddPortMapping("", 6001, "TCP", 22000, "192.168.1.60", true, "", 3600); faultCode(err) != 606 {
		t.Errorf("SOAP-17: %v", err)
	}
	if err := v1[0].DeletePortMapping("", 6000, "TCP"); err != nil {
		t.Error(err)
	}
	if err := v1[0].DeletePortMapping("", 6000, "TCP"); faultCode(err) != 714 {
		t.Errorf("second delete: %v", err)
	}

	ppp, err := internetgateway2.NewWANPPPConnection1ClientsByURLCtx(t.Context(), l.location(1))
	if err != nil || len(ppp) != 1 {
		t.Fatalf("%d clients, %v", len(ppp), err)
	}
	if addr, err := ppp[0].GetExternalIPAddress(); err != nil || addr != "203.0.113.7" {
		t.Errorf("%q, %v", addr, err)
	}
	common, err := internetgateway2.NewWANCommonInterfaceConfig1ClientsByURLCtx(t.Context(), l.location(1))
	if err != nil || len(common) != 1 {
		t.Fatalf("%d clients, %v", len(common), err)
	}
	if _, up, down, link, err := common[0].GetCommonLinkProperties(); err != nil || up != 20_000_000 || down != 100_000_000 || link != "Up" {
		t.Errorf("%d, %d, %q, %v", up, down, link, err)
	}
	libraryPinholes(t, l)
	root, err := goupnp.DeviceByURLCtx(t.Context(), l.location(2))
	if err != nil || root.Device.UDN != "uuid:"+baseUUID {
		t.Errorf("%v, %v", root, err)
	}
}

// libraryPinholes connects by IPv4, from a device whose owner lets it open its
// IPv6 address.
func libraryPinholes(t *testing.T, l *lan) {
	t.Helper()
	six, err := internetgateway2.NewWANIPv6FirewallControl1ClientsByURLCtx(t.Context(), l.location(2))
	if err != nil || len(six) != 1 {
		t.Fatalf("%d clients, %v", len(six), err)
	}
	if none, err := internetgateway2.NewWANIPv6FirewallControl1ClientsByURLCtx(t.Context(), l.location(1)); err == nil {
		t.Errorf("version 1 has %d", len(none))
	}
	if firewall, inbound, err := six[0].GetFirewallStatus(); err != nil || !firewall || !inbound {
		t.Errorf("GetFirewallStatus: %v, %v, %v", firewall, inbound, err)
	}
	if seconds, err := six[0].GetOutboundPinholeTimeout("", 0, "2001:db8::50", 8443, 17); err != nil || seconds != 180 {
		t.Errorf("GetOutboundPinholeTimeout: %d, %v", seconds, err)
	}
	number, err := six[0].AddPinhole("", 0, "2001:db8::50", 8443, 6, 3600)
	if err != nil {
		t.Fatal(err)
	}
	if err := six[0].UpdatePinhole(number, 7200); err != nil {
		t.Error(err)
	}
	if again, err := six[0].AddPinhole("", 0, "2001:db8::50", 8443, 6, 60); err != nil || again != number {
		t.Errorf("SOAP-50: %d, then %d, %v", number, again, err)
	}
	if packets, err := six[0].GetPinholePackets(number); err != nil || packets != 0 {
		t.Errorf("GetPinholePackets: %d, %v", packets, err)
	}
	if _, err := six[0].CheckPinholeWorking(number); faultCode(err) != 709 {
		t.Errorf("SOAP-53: %v", err)
	}
	if _, err := six[0].AddPinhole("", 0, "2001:db8::60", 8443, 6, 3600); faultCode(err) != 606 {
		t.Errorf("J1: %v", err)
	}
	if err := six[0].DeletePinhole(number); err != nil {
		t.Error(err)
	}
	if err := six[0].DeletePinhole(number); faultCode(err) != 704 {
		t.Errorf("SOAP-52: %v", err)
	}
}

// TestSubscription runs the real notifier over the loopback.
func TestSubscription(t *testing.T) {
	t.Parallel()
	h := hostA
	events := make(chan *http.Request, 4)
	bodies := make(chan string, 4)
	listener, err := net.Listen("tcp4", h.from+":0")
	if err != nil {
		t.Fatal(err)
	}
	subscriber := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		_, _ = io.Copy(&b, r.Body)
		events <- r
		bodies <- b.String()
	})}
	go func() { _ = subscriber.Serve(listener) }()
	t.Cleanup(func() { _ = subscriber.Close() })

	n := gena.New(gena.Config{
		Logger: slog.New(slog.DiscardHandler), MinInterval: time.Millisecond,
		Dial: func(ctx context.Context, _ gena.Subscriber, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp4", netip.AddrPortFrom(netip.MustParseAddr(h.from), to.Port()).String())
		},
	})
	callback := netip.AddrPortFrom(h.client.Addr, netip.MustParseAddrPort(listener.Addr().String()).Port())
	l := &lan{t: t, engine: newEngine(t), wan: goodWAN(), peer: h.client.Addr}
	cfg := config(l.engine, l.wan)
	cfg.Notifier = n
	cfg.Identify = func(string, netip.Addr) (portmap.Client, error) { return h.client, nil }
	l.serve(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = n.Run(ctx); done <- struct{}{} }()
	go func() { _ = l.device.Run(ctx, l.engine.Watch(8).C, nil); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })

	path := l.url(2, "WANIPConnection", "event")
	resp := l.do(h, "SUBSCRIBE", path, "", "CALLBACK", "<http://"+callback.String()+"/cb>", "NT", "upnp:event", "TIMEOUT", "Second-300")
	sid := resp.Header.Get("SID")
	if resp.StatusCode != 200 || sid == "" {
		t.Fatalf("GENA-1/SUBSCRIBE: %s, SID %q", resp.Status, sid)
	}
	next := func(id, seq string, want ...string) {
		t.Helper()
		select {
		case r := <-events:
			if r.Method != "NOTIFY" || r.Header.Get("SEQ") != seq || r.Header.Get("SID") != sid {
				t.Errorf("%s: %s, SEQ %q", id, r.Method, r.Header.Get("SEQ"))
			}
			body := <-bodies
			for _, w := range want {
				if !strings.Contains(body, w) {
					t.Errorf("%s: no %s in %s", id, w, body)
				}
			}
		case <-time.After(patience):
			t.Fatalf("%s: no event", id)
		}
	}
	next("GENA-1", "0", "<PortMappingNumberOfEntries>0<", "<SystemUpdateID>0<", "<ConnectionStatus>Connected<",
		"<ExternalIPAddress>203.0.113.7<", "<PossibleConnectionTypes>IP_Routed<")
	c := h.client
	c.Via = portmap.ViaUPnP
	r := portmap.Request{
		Client: c, Transport: portmap.UDP, Exact: true, Lifetime: time.Hour,
		Internal: netip.AddrPortFrom(c.Addr, 5000), ExternalPort: 6000,
	}
	if _, err := l.engine.Map(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	next("GENA-2", "1", "<PortMappingNumberOfEntries>1<", "<SystemUpdateID>1<")
	wantCode(t, l.call(h, ip2, "DeletePortMapping", key("6000", "UDP")...), 0)
	next("SOAP-22", "2", "<PortMappingNumberOfEntries>0<", "<SystemUpdateID>2<")
	for i, want := range []int{200, 412} {
		if resp := l.do(h, "UNSUBSCRIBE", path, "", "SID", sid); resp.StatusCode != want {
			t.Errorf("GENA-4/UNSUBSCRIBE %d: %s", i, resp.Status)
		}
	}
	if resp := l.do(h, "SUBSCRIBE", l.url(1, "WANIPConnection", "event"), "", "CALLBACK", "<http://198.51.100.9/>", "NT", "upnp:event"); resp.StatusCode != 412 {
		t.Errorf("GENA-8 F1/foreign CALLBACK: %s", resp.Status)
	}
}
