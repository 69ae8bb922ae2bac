package igd_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"portcullis/internal/http1"
	"portcullis/internal/httpd"
	"portcullis/portmap"
	"portcullis/soap"
)

// witness is a gate that grants everything and remembers what it was asked.
type witness struct {
	maps   []portmap.Request
	unmaps []portmap.Selector
	portmap.Reader
	pinholes bool // there are some
}

// empty is the Reader of a gate without mappings.
var empty = portmap.Reader{Now: portmap.NewTable}

func (w *witness) Map(_ context.Context, r portmap.Request) (portmap.Mapping, error) {
	w.maps = append(w.maps, r)
	m := portmap.Mapping{Client: r.Client, Transport: r.Transport, Internal: r.Internal, ExternalPort: r.ExternalPort}
	if w.pinholes {
		m.ID = 1 // that of the first pinhole
	}
	return m, nil
}

func (w *witness) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	w.unmaps = append(w.unmaps, s)
	return nil, nil
}

// FuzzControl sends any header and body to a control URL. Whatever they are,
// the gate is asked at most once, for what the arguments say, in the name of
// the host that the socket names; and the reply is one of those that exist.
func FuzzControl(f *testing.F) {
	for _, service := range []string{ip1, ip2, ppp1} {
		for action, args := range map[string][]string{
			"AddPortMapping": mapping(hostA), "AddAnyPortMapping": mapping(hostA), "DeletePortMapping": key("6000", "UDP"),
			"GetSpecificPortMappingEntry": key("6000", "UDP"), "GetGenericPortMappingEntry": {"NewPortMappingIndex", "0"},
			"DeletePortMappingRange": spanOnly("0", "65535"), "GetListOfPortMappings": span("0", "65535"),
			"SetConnectionType": {"NewConnectionType", "IP_Routed"}, "GetStatusInfo": nil,
		} {
			header := `"` + typePrefix + service + "#" + action + `"`
			f.Add(uint8(0), header, []byte(envelope(typePrefix+service, action, argsXML(args...))))
			f.Add(uint8(1), header, []byte(envelope(typePrefix+service, action, argsXML(with(args, "NewInternalClient", " ", "NewRemoteHost", "*")...))))
		}
	}
	f.Add(uint8(2), `"urn:schemas-upnp-org:control-1-0#QueryStateVariable"`, []byte(envelope("urn:schemas-upnp-org:control-1-0", "QueryStateVariable", "<varName>ConnectionStatus</varName>")))
	f.Add(uint8(6), typePrefix+layer31+"#GetDefaultConnectionService", []byte(envelope(typePrefix+layer31, "GetDefaultConnectionService", "")))
	f.Add(uint8(4), "", []byte(`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`))

	gate := &witness{Reader: empty}
	front := newDevice(f, config(gate, goodWAN())).On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	services := []string{"WANIPConnection", "WANPPPConnection", "WANCommonInterfaceConfig", "Layer3Forwarding"}
	f.Fuzz(func(t *testing.T, where uint8, header string, body []byte) {
		gate.maps, gate.unmaps = nil, nil
		path := "/" + testPath + "/" + string('1'+rune(where&1)) + "/" + services[where>>1&3] + "/control"
		answer := front.ServeHTTP(post(hostA, path, header, body))
		checkAsked(t, gate, header, body)
		checkReplied(t, answer, len(gate.maps)+len(gate.unmaps))
	})
}

// post returns a request to a control URL, as it stands behind the server's guard.
func post(from host, path, header string, body []byte) *http1.Request {
	return &http1.Request{
		Method: http1.Post, Target: path, Remote: netip.AddrPortFrom(netip.MustParseAddr(from.from), 50000), Body: body,
		Header: http1.Header{"Soapaction": {header}, "Content-Type": {"text/xml"}},
	}
}

func checkAsked(t *testing.T, gate *witness, header string, body []byte) {
	t.Helper()
	if len(gate.maps)+len(gate.unmaps) == 0 {
		return
	}
	if len(gate.maps)+len(gate.unmaps) > 1 {
		t.Fatalf("the gate was asked %d times", len(gate.maps)+len(gate.unmaps))
	}
	msg, err := soap.Decode(header, body)
	if err != nil {
		t.Fatalf("the gate was asked although %v", err)
	}
	me := hostA.client
	me.Via = portmap.ViaUPnP
	for _, s := range gate.unmaps {
		if s.Client != me || !s.Transport.Valid() || s.FirstPort == 0 || s.LastPort < s.FirstPort {
			t.Errorf("selector %+v", s)
		}
	}
	for _, r := range gate.maps {
		target := me.Addr
		if said, _ := msg.Arg("NewInternalClient"); strings.TrimSpace(said) != "" {
			target = netip.MustParseAddr(said)
		}
		switch {
		case r.Client != me, r.Kind != portmap.NAT4, !r.Transport.Valid(), r.Internal.Addr() != target,
			!r.Internal.Addr().Is4(), r.Internal.Port() == 0,
			r.Exact != (msg.Name == "AddPortMapping"), r.Exact && r.ExternalPort == 0, r.Lifetime < 0,
			len(r.Description) > portmap.MaxDescription, !utf8.ValidString(r.Description), len(r.Remotes) > 1:
			t.Errorf("request %+v", r)
		}
		said, _ := msg.Arg("NewRemoteHost")
		said = strings.TrimSpace(said)
		if slices.Contains([]string{"", "*", "0.0.0.0", "undefined"}, said) != (len(r.Remotes) == 0) {
			t.Errorf("B10: remote host %q became %v", said, r.Remotes)
		}
		for _, remote := range r.Remotes {
			if remote.Prefix.String() != said+"/32" || remote.Port != 0 {
				t.Errorf("B10: remote host %q became %v", said, remote)
			}
		}
	}
}

func checkReplied(t *testing.T, answer *http1.Response, asked int) {
	t.Helper()
	switch answer.Status {
	case 200, 500:
	case 400, 413, 415:
		if len(answer.Body) != 0 || asked != 0 {
			t.Errorf("HTTP %d: %d bytes, the gate was asked %d times", answer.Status, len(answer.Body), asked)
		}
		return
	default:
		t.Fatalf("HTTP %d", answer.Status)
	}
	var e struct {
		Code int `xml:"Body>Fault>detail>UPnPError>errorCode"`
	}
	if err := xml.Unmarshal(answer.Body, &e); err != nil {
		t.Fatalf("the reply is not well-formed: %v\n%s", err, answer.Body)
	}
	if answer.Status == 500 && strings.Contains(string(answer.Body), "<faultcode>s:VersionMismatch<") && asked == 0 {
		return
	}
	if (answer.Status == 500) != (e.Code != 0) || 724 <= e.Code && e.Code <= 727 || e.Code == 715 {
		t.Errorf("HTTP %d with code %d", answer.Status, e.Code)
	}
	if len(answer.Body) > 64<<10 {
		t.Errorf("G13: %d bytes", len(answer.Body))
	}
}

// FuzzPinholes is FuzzControl for WANIPv6FirewallControl. Pinhole 7 is the
// caller's, 8 another host's, which is never touched.
func FuzzPinholes(f *testing.F) {
	add := func(from uint8, action string, args ...string) {
		f.Add(from, `"`+typePrefix+six1+"#"+action+`"`, []byte(envelope(typePrefix+six1, action, argsXML(args...))))
	}
	for from := range uint8(4) {
		for _, number := range []string{"7", "8", " 007 ", "65543"} {
			for action, args := range byNumber(number) {
				add(from, action, args...)
			}
		}
		add(from, "AddPinhole", pinhole(sixA)...)
		add(from, "AddPinhole", pinhole(sixB)...)
		add(from, "AddPinhole", pinhole(sixA, "RemoteHost", "2001:db8:9::1", "RemotePort", "53", "Protocol", "udp")...)
		add(from, "GetOutboundPinholeTimeout", pinhole(sixA)[:10]...)
		add(from, "GetFirewallStatus")
	}
	for _, odd := range append(append([]string{}, oddAddresses...), foreignAddresses...) {
		add(0, "AddPinhole", pinhole(sixA, "InternalClient", odd)...)
		add(0, "AddPinhole", pinhole(sixA, "RemoteHost", odd)...)
	}
	gate := &witness{Reader: standing(f, sixA, sixB), pinholes: true}
	front := newDevice(f, config(gate, goodWAN())).On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	hosts := []host{sixA, hostA, linkA, privacyA}
	f.Fuzz(func(t *testing.T, who uint8, header string, body []byte) {
		gate.maps, gate.unmaps = nil, nil
		from := hosts[who&3]
		answer := front.ServeHTTP(post(from, "/"+testPath+"/2/WANIPv6FirewallControl/control", header, body))
		checkPinholesAsked(t, gate, from, header, body)
		checkReplied(t, answer, len(gate.maps)+len(gate.unmaps))
	})
}

func checkPinholesAsked(t *testing.T, gate *witness, from host, header string, body []byte) {
	t.Helper()
	if len(gate.maps)+len(gate.unmaps) == 0 {
		return
	}
	msg, err := soap.Decode(header, body)
	if err != nil || len(gate.maps)+len(gate.unmaps) > 1 {
		t.Fatalf("the gate was asked %d times, %v", len(gate.maps)+len(gate.unmaps), err)
	}
	for _, s := range gate.unmaps {
		if msg.Name != "DeletePinhole" || s.Client.ID() != sixA.client.ID() || s.Client.Via != portmap.ViaUPnP || s.ID != 1 {
			t.Errorf("selector %+v", s)
		}
	}
	for _, r := range gate.maps {
		if r.Kind != portmap.Pinhole6 || !r.Transport.Valid() || r.Internal.Port() == 0 || !r.Internal.Addr().Is6() ||
			r.Internal.Addr().Is4In6() || r.Internal.Addr().Zone() != "" || r.Lifetime < time.Second || r.Lifetime > 24*time.Hour ||
			r.Client.Via != portmap.ViaUPnP || r.Client.Interface != "lan" || len(r.Remotes) > 1 {
			t.Errorf("request %+v", r)
		}
		if r.Client.ID() != from.client.ID() && (r.Client.MAC != hostA.client.MAC || r.Client.Addr != r.Internal.Addr()) {
			t.Errorf("in the name of %+v", r.Client)
		}
		if msg.Name == "UpdatePinhole" {
			if r.Internal != addrPort(sixA, 8443) {
				t.Errorf("updates %+v", r)
			}
			continue
		}
		if said, _ := msg.Arg("InternalClient"); netip.MustParseAddr(said) != r.Internal.Addr() {
			t.Errorf("J2: %q became %v", said, r.Internal)
		}
		host, _ := msg.Arg("RemoteHost")
		host = strings.TrimSpace(host)
		anybody := host == "" || host == "*" || host == "::/0"
		for _, remote := range r.Remotes {
			if anybody && (remote.Prefix.String() != "::/0" || remote.Port == 0) ||
				!anybody && remote.Prefix != netip.PrefixFrom(netip.MustParseAddr(host), 128) {
				t.Errorf("B10: remote host %q became %v", host, remote)
			}
		}
		if !anybody && len(r.Remotes) == 0 {
			t.Errorf("B10: remote host %q is lost", host)
		}
	}
}

// TestClientLeaves: a client that goes away while its request is served gets what it
// asked for; a half-closed connection looks the same.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	l := start(t)
	events := l.engine.Watch(8)
	body := envelope(typePrefix+ip1, "AddPortMapping", argsXML(mapping(hostA)...))
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(hostA.from)}}).Dial("tcp4", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nSOAPAction: \"%s#AddPortMapping\"\r\nContent-Length: %d\r\n\r\n%s",
		l.url(1, "WANIPConnection", "control"), l.addr, typePrefix+ip1, len(body), body)
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	select {
	case ev := <-events.C:
		if ev.Type != portmap.Granted {
			t.Errorf("got %+v", ev)
		}
	case <-time.After(patience):
		t.Error("nothing was mapped")
	}
}

// soap and httpd must agree, or a body that httpd lets through is refused.
func TestBodyCaps(t *testing.T) {
	t.Parallel()
	if httpd.MaxBody != soap.MaxBody {
		t.Errorf("httpd allows %d bytes, soap %d", httpd.MaxBody, soap.MaxBody)
	}
}
