package igd_test

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/igd"
)

func TestGetters(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, service := range []string{ip1, ip2, ppp1} {
		t.Run("SOAP-1/"+service, func(t *testing.T) {
			r := l.call(hostA, service, "GetExternalIPAddress")
			wantCode(t, r, 0)
			if want := "{" + typePrefix + service + "}GetExternalIPAddressResponse"; r.Name != want {
				t.Errorf("response %s, want %s", r.Name, want)
			}
			if diff := cmp.Diff(map[string]string{"NewExternalIPAddress": "203.0.113.7"}, r.Out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		t.Run("SOAP-2/"+service, func(t *testing.T) {
			r := l.call(hostA, service, "GetStatusInfo")
			up, _ := strconv.Atoi(r.Out["NewUptime"])
			if up < 90 || up > 120 {
				t.Errorf("uptime %d", up)
			}
			delete(r.Out, "NewUptime")
			want := map[string]string{"NewConnectionStatus": "Connected", "NewLastConnectionError": "ERROR_NONE"}
			if diff := cmp.Diff(want, r.Out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		t.Run("GetNATRSIPStatus "+service, func(t *testing.T) {
			want := map[string]string{"NewRSIPAvailable": "0", "NewNATEnabled": "1"}
			if diff := cmp.Diff(want, l.call(hostA, service, "GetNATRSIPStatus").Out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		t.Run("GetConnectionTypeInfo "+service, func(t *testing.T) {
			want := map[string]string{"NewConnectionType": "IP_Routed", "NewPossibleConnectionTypes": "IP_Routed"}
			if diff := cmp.Diff(want, l.call(hostA, service, "GetConnectionTypeInfo").Out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		t.Run("SOAP-46/"+service, func(t *testing.T) {
			r := l.call(hostA, service, "RequestConnection")
			wantCode(t, r, 0)
			if len(r.Names) != 0 {
				t.Errorf("out arguments %q", r.Names)
			}
		})
	}
	t.Run("GetLinkLayerMaxBitRates", func(t *testing.T) {
		want := map[string]string{"NewUpstreamMaxBitRate": "20000000", "NewDownstreamMaxBitRate": "100000000"}
		if diff := cmp.Diff(want, l.call(hostA, ppp1, "GetLinkLayerMaxBitRates").Out); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWANDown(t *testing.T) {
	t.Parallel()
	l := start(t)
	l.wan.set(func(s *igd.WANStatus) { *s = igd.WANStatus{LinkUp: true} })
	r := l.call(hostA, ip1, "GetExternalIPAddress")
	wantCode(t, r, 0)
	if diff := cmp.Diff(map[string]string{"NewExternalIPAddress": ""}, r.Out); diff != "" {
		t.Errorf("SOAP-1 K10/down (-want +got):\n%s", diff)
	}
	status := func(why string) map[string]string {
		return map[string]string{"NewConnectionStatus": "Disconnected", "NewLastConnectionError": why, "NewUptime": "0"}
	}
	if diff := cmp.Diff(status("ERROR_IP_CONFIGURATION"), l.call(hostA, ip1, "GetStatusInfo").Out); diff != "" {
		t.Errorf("no address (-want +got):\n%s", diff)
	}
	l.wan.set(func(s *igd.WANStatus) { *s = igd.WANStatus{} })
	if diff := cmp.Diff(status("ERROR_NO_CARRIER"), l.call(hostA, ip1, "GetStatusInfo").Out); diff != "" {
		t.Errorf("no carrier (-want +got):\n%s", diff)
	}
	wantCode(t, l.call(hostA, ip1, "RequestConnection"), 704)
	for _, unusable := range []string{"0.0.0.0", "2001:db8::1"} {
		l.wan.set(func(s *igd.WANStatus) { s.External, s.Up = netip.MustParseAddr(unusable), true })
		if got := l.call(hostA, ip1, "GetExternalIPAddress").Out["NewExternalIPAddress"]; got != "" {
			t.Errorf("external address %q is told as %q", unusable, got)
		}
	}
}

func TestCommonInterface(t *testing.T) {
	t.Parallel()
	l := start(t)
	want := map[string]string{
		"NewWANAccessType": "Ethernet", "NewLayer1UpstreamMaxBitRate": "20000000",
		"NewLayer1DownstreamMaxBitRate": "100000000", "NewPhysicalLinkStatus": "Up",
	}
	if diff := cmp.Diff(want, l.call(hostA, common1, "GetCommonLinkProperties").Out); diff != "" {
		t.Errorf("SOAP-47 (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"TotalBytesSent": "1", "TotalBytesReceived": "5", "TotalPacketsSent": "4294967295", "TotalPacketsReceived": "0",
	} {
		if got := l.call(hostA, common1, "Get"+name).Out["New"+name]; got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	l.wan.set(func(s *igd.WANStatus) { *s = igd.WANStatus{RateDown: 10_000_000_000} })
	want = map[string]string{
		"NewWANAccessType": "Ethernet", "NewLayer1UpstreamMaxBitRate": "1000000000",
		"NewLayer1DownstreamMaxBitRate": "4294967295", "NewPhysicalLinkStatus": "Down",
	}
	if diff := cmp.Diff(want, l.call(hostA, common1, "GetCommonLinkProperties").Out); diff != "" {
		t.Errorf("SOAP-47/unknown rate (-want +got):\n%s", diff)
	}
}

// defaultConnection asks at the control URL of a version's description.
func (l *lan) defaultConnection(version int) string {
	l.t.Helper()
	return l.post(hostA, l.url(version, "Layer3Forwarding", "control"),
		`"`+typePrefix+layer31+`#GetDefaultConnectionService"`,
		envelope(typePrefix+layer31, "GetDefaultConnectionService", "")).Out["NewDefaultConnectionService"]
}

func TestLayer3Forwarding(t *testing.T) {
	t.Parallel()
	l := start(t)
	for version := 1; version <= 2; version++ {
		c := l.rootDocument(version).Device.Devices[0].Devices[0]
		want := fmt.Sprintf("%s:WANConnectionDevice:%d,urn:upnp-org:serviceId:WANIPConn1", c.UDN, version)
		if got := l.defaultConnection(version); got != want {
			t.Errorf("version %d: %q, want %q", version, got, want)
		}
	}
	got := l.call(hostA, layer31, "GetDefaultConnectionService").Out["NewDefaultConnectionService"]
	wantCode(t, l.call(hostA, layer31, "SetDefaultConnectionService", "NewDefaultConnectionService", got), 0)
	for _, other := range []string{"", "uuid:x", strings.Replace(got, "WANIPConn1", "WANPPPConn1", 1)} {
		wantCode(t, l.call(hostA, layer31, "SetDefaultConnectionService", "NewDefaultConnectionService", other), 606)
	}
}

func TestDangerousActions(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA)...), 0)
	before, status := l.table(), l.wan.Status()
	for _, c := range []struct {
		service, action string
		args            []string
		code            int
	}{
		{ip1, "ForceTermination", nil, 606},
		{ip2, "ForceTermination", nil, 606},
		{ppp1, "ForceTermination", nil, 606},
		{ip1, "RequestTermination", nil, 401},
		{ip1, "RequestConnection", nil, 0},
		{ip1, "SetConnectionType", []string{"NewConnectionType", "IP_Routed"}, 606},
		{ip2, "SetConnectionType", []string{"NewConnectionType", "IP_Bridged"}, 731},
		{ip1, "SetConnectionType", []string{"NewConnectionType", "%n%n%n"}, 402},
		{ip2, "SetConnectionType", []string{"NewConnectionType", "%n%n%n"}, 601},
		{ip1, "SetAutoDisconnectTime", []string{"NewAutoDisconnectTime", "1"}, 401},
		{ip1, "SetIdleDisconnectTime", []string{"NewIdleDisconnectTime", "1"}, 401},
		{ppp1, "ConfigureConnection", []string{"NewUserName", "x", "NewPassword", "y"}, 401},
		{ppp1, "GetPassword", nil, 401},
		{ppp1, "GetUserName", nil, 401},
		{common1, "SetEnabledForInternet", []string{"NewEnabledForInternet", "0"}, 401},
		{layer31, "SetDefaultConnectionService", []string{"NewDefaultConnectionService", "uuid:0:WANConnectionDevice:1,x"}, 606},
	} {
		t.Run("G12/"+c.service+" "+c.action, func(t *testing.T) {
			wantCode(t, l.call(hostA, c.service, c.action, c.args...), c.code)
		})
	}
	for _, service := range []string{"LANHostConfigManagement", "DeviceProtection", "WANIPv6FirewallControl"} {
		resp := l.do(hostA, "POST", l.url(1, service, "control"), "", "SOAPACTION", `"x#y"`, "CONTENT-TYPE", "text/xml")
		if resp.StatusCode != 404 {
			t.Errorf("G12/%s: %s", service, resp.Status)
		}
	}
	if diff := cmp.Diff(before, l.table()); diff != "" || l.wan.Status() != status {
		t.Errorf("something changed:\n%s", diff)
	}
}

func TestDispatch(t *testing.T) {
	t.Parallel()
	l := start(t)
	path := l.url(2, "WANIPConnection", "control")
	get := func(serviceType, action string) reply {
		return l.post(hostA, path, `"`+serviceType+"#"+action+`"`, envelope(serviceType, action, ""))
	}
	const action = "GetExternalIPAddress"
	for id, c := range map[string]struct {
		serviceType, action string
		code                int
	}{
		"either version":                 {typePrefix + ip1, action, 0},
		"SOAP-31/unknown":                {typePrefix + ip2, "Foo", 401},
		"SOAP-31/of another service":     {typePrefix + ip2, "GetCommonLinkProperties", 401},
		"SOAP-31/another service's type": {typePrefix + common1, "GetCommonLinkProperties", 401},
		"other case":                     {typePrefix + ip2, "getexternalipaddress", 401},
		"version 3":                      {typePrefix + "WANIPConnection:3", action, 401},
		"version 0":                      {typePrefix + "WANIPConnection:0", action, 401},
		"version 01":                     {typePrefix + "WANIPConnection:01", action, 401},
		"no version":                     {typePrefix + "WANIPConnection", action, 401},
		"foreign namespace":              {"urn:example-com:service:WANIPConnection:1", action, 401},
		"query of another service type":  {"urn:schemas-upnp-org:control-1-0", action, 401},
	} {
		t.Run(id, func(t *testing.T) { wantCode(t, get(c.serviceType, c.action), c.code) })
	}
	for _, a := range []string{"AddAnyPortMapping", "DeletePortMappingRange", "GetListOfPortMappings"} {
		for _, service := range []string{ip1, ppp1} {
			t.Run("SOAP-32/"+service+" "+a, func(t *testing.T) {
				args := map[string][]string{
					"AddAnyPortMapping": mapping(hostA), "DeletePortMappingRange": spanOnly("1", "2"), "GetListOfPortMappings": span("1", "2"),
				}[a]
				wantCode(t, l.call(hostA, service, a, args...), 401)
			})
		}
	}
	t.Run("SOAP-37/header and body differ", func(t *testing.T) {
		body := envelope(typePrefix+ip2, "AddPortMapping", argsXML(mapping(hostA)...))
		wantCode(t, l.post(hostA, path, `"`+typePrefix+ip2+`#DeletePortMapping"`, body), 401)
		if got := l.table(); len(got) != 0 {
			t.Errorf("something changed: %q", got)
		}
	})
	t.Run("SOAP-34/prefixes", func(t *testing.T) {
		args := argsXML(mapping(hostA)...)
		open := `<SOAP:Envelope xmlns:SOAP="http://schemas.xmlsoap.org/soap/envelope/"><SOAP:Body>`
		for _, body := range []string{
			open + `<AddPortMapping xmlns="` + typePrefix + ip2 + `">` + args + `</AddPortMapping></SOAP:Body></SOAP:Envelope>`,
			open + `<m:AddPortMapping xmlns:m="` + typePrefix + ip2 + `">` + args + `</m:AddPortMapping></SOAP:Body></SOAP:Envelope>`,
		} {
			wantCode(t, l.post(hostA, path, `"`+typePrefix+ip2+`#AddPortMapping"`, body), 0)
		}
	})
	t.Run("SOAP-35/no quotes", func(t *testing.T) {
		wantCode(t, l.post(hostA, path, typePrefix+ip2+"#"+action, envelope(typePrefix+ip2, action, "")), 0)
	})
	t.Run("G5/duplicate argument", func(t *testing.T) {
		args := argsXML(append(mapping(hostA), "NewExternalPort", "6001")...)
		body := envelope(typePrefix+ip2, "AddPortMapping", args)
		wantCode(t, l.post(hostA, path, `"`+typePrefix+ip2+`#AddPortMapping"`, body), 402)
	})
}

func TestQueryStateVariable(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA)...), 0)
	const control = "urn:schemas-upnp-org:control-1-0"
	query := func(from host, args string) reply {
		return l.post(from, l.url(1, "WANIPConnection", "control"), `"`+control+`#QueryStateVariable"`,
			envelope(control, "QueryStateVariable", args))
	}
	for name, want := range map[string]string{"ConnectionStatus": "Connected", "PortMappingNumberOfEntries": "1"} {
		r := query(hostA, "<u:varName>"+name+"</u:varName>")
		wantCode(t, r, 0)
		if r.Name != "{"+control+"}QueryStateVariableResponse" || r.Out["return"] != want {
			t.Errorf("%s: %+v, want %q", name, r, want)
		}
	}
	if got := query(hostB, "<varName>PortMappingNumberOfEntries</varName>").Out["return"]; got != "0" {
		t.Errorf("K7/B sees %q entries", got)
	}
	for _, name := range []string{"ExternalIPAddress", "Foo", ""} {
		wantCode(t, query(hostA, "<varName>"+name+"</varName>"), 404)
	}
	wantCode(t, query(hostA, ""), 402)
}

func TestHTTPRules(t *testing.T) {
	t.Parallel()
	l := start(t)
	root, scpd := "/"+testPath+"/1/root.xml", l.url(1, "WANIPConnection", "scpd.xml")
	control, event := l.url(1, "WANIPConnection", "control"), l.url(1, "WANIPConnection", "event")
	good := envelope(typePrefix+ip1, "AddPortMapping", argsXML(mapping(hostA)...))
	action := []string{"SOAPACTION", `"` + typePrefix + ip1 + `#AddPortMapping"`}
	xml := []string{"CONTENT-TYPE", `text/xml; charset="utf-8"`}
	for _, c := range []struct {
		id, method, path, body string
		headers                []string
		status                 int
		allow                  string
	}{
		{"DESC-1/HEAD", "HEAD", root, "", nil, 200, ""},
		{"HEAD of a service", "HEAD", scpd, "", nil, 200, ""},
		{"D5/usual path", "GET", "/rootDesc.xml", "", nil, 404, ""},
		{"D5/the top", "GET", "/", "", nil, 404, ""},
		{"D5/inside the directory", "GET", "/" + testPath + "/", "", nil, 404, ""},
		{"G9/doubled slash", "GET", "/" + root, "", nil, 404, ""},
		{"G9/dots", "GET", "/x/.." + root, "", nil, 404, ""},
		{"G9/escaped letter", "GET", strings.Replace(root, "root", "%72oot", 1), "", nil, 404, ""},
		{"G9/query", "GET", root + "?x", "", nil, 404, ""},
		{"G9/PUT", "PUT", "/x", "", nil, 405, "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE"},
		{"POST to the description", "POST", root, "", nil, 405, "GET, HEAD"},
		{"GET of control", "GET", control, "", nil, 405, "POST"},
		{"M-POST", "M-POST", control, "", nil, 405, "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE"},
		{"D3/OPTIONS", "OPTIONS", control, "", nil, 405, "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE"},
		{"GET of events", "GET", event, "", nil, 405, "SUBSCRIBE, UNSUBSCRIBE"},
		{"lower case method", "post", control, "", nil, 405, "GET, HEAD, POST, SUBSCRIBE, UNSUBSCRIBE"},
		{"POST to events", "POST", event, "x", nil, 405, "SUBSCRIBE, UNSUBSCRIBE"},
		{"SUBSCRIBE to control", "SUBSCRIBE", control, "", nil, 405, "POST"},
		{"DESC-5 D1/foreign Host", "GET", root, "", []string{"Host", "evil.example"}, 403, ""},
		{"D2/no SOAPAction", "POST", control, good, xml, 400, ""},
		{"D2/no SOAPAction, text/plain", "POST", control, good, []string{"CONTENT-TYPE", "text/plain"}, 400, ""},
		{"G6/two SOAPActions", "POST", control, good, slices.Concat(action, action, xml), 400, ""},
		{"SOAP-38/JSON", "POST", control, good, slices.Concat(action, []string{"CONTENT-TYPE", "application/json"}), 415, ""},
		{"D2/text/plain", "POST", control, good, slices.Concat(action, []string{"CONTENT-TYPE", "text/plain"}), 415, ""},
		{"D2/no type and no SOAPAction, as a page may send it", "POST", control, good, nil, 400, ""},
		{"D2/empty type", "POST", control, good, slices.Concat(action, []string{"CONTENT-TYPE", ""}), 415, ""},
		{"D2/octets", "POST", control, good, slices.Concat(action, []string{"CONTENT-TYPE", "application/octet-stream"}), 415, ""},
		{"G3/empty body", "POST", control, "", slices.Concat(action, xml), 400, ""},
		{"G4/DOCTYPE", "POST", control, `<!DOCTYPE x>` + good, slices.Concat(action, xml), 400, ""},
		{"G2/body over the cap", "POST", control, good + strings.Repeat(" ", 64<<10), slices.Concat(action, xml, []string{"Expect", "100-continue"}), 413, ""},
		{"unknown service", "POST", l.url(1, "WANCableLinkConfig", "control"), good, slices.Concat(action, xml), 404, ""},
		{"unknown version", "POST", l.url(3, "WANIPConnection", "control"), good, slices.Concat(action, xml), 404, ""},
	} {
		t.Run(c.id, func(t *testing.T) {
			resp := l.do(hostA, c.method, c.path, c.body, c.headers...)
			if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow {
				t.Errorf("%s, Allow %q, want %d, %q", resp.Status, resp.Header.Get("Allow"), c.status, c.allow)
			}
			if body, _ := io.ReadAll(resp.Body); c.method == "HEAD" && len(body) != 0 {
				t.Errorf("HEAD gave %d bytes", len(body))
			}
		})
	}
	if resp := l.do(hostA, "GET", root, "", "Accept-Language", "de"); resp.Header.Get("Content-Language") != "en" {
		t.Errorf("Content-Language %q", resp.Header.Get("Content-Language"))
	}
	for _, path := range []string{root, scpd, control, "/x"} {
		if resp := l.do(unknown, "GET", path, ""); resp.StatusCode != 403 {
			t.Errorf("A6/stranger gets %s for %s", resp.Status, path)
		}
	}
	resp := l.do(unknown, "POST", control, good, slices.Concat(action, xml)...)
	if resp.StatusCode != 403 {
		t.Errorf("A6/stranger's action: %s", resp.Status)
	}
	for _, media := range []string{"text/xml", "TEXT/XML;charset=utf-8", "application/soap+xml", ` text/xml ; charset="utf-8`, "-"} {
		headers := []string{"SOAPACTION", `"` + typePrefix + ip1 + `#GetStatusInfo"`}
		if media != "-" { // scripts with Python's requests send none
			headers = append(headers, "CONTENT-TYPE", media)
		}
		resp := l.do(hostA, "POST", control, envelope(typePrefix+ip1, "GetStatusInfo", ""), headers...)
		if resp.StatusCode != 200 {
			t.Errorf("D2/%s: %s", media, resp.Status)
		}
	}
	// ODD-13, offbynull/portmapper#26: SOAP 1.1 section 4.4.1.
	resp = l.do(hostA, "POST", control, strings.ReplaceAll(good, "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope/"),
		slices.Concat(action, xml)...)
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 500 || !strings.Contains(string(body), "<faultcode>s:VersionMismatch</faultcode>") {
		t.Errorf("ODD-13: %s\n%s", resp.Status, body)
	}
	if got := l.table(); len(got) != 0 {
		t.Errorf("something changed: %q", got)
	}
}

func TestHugeArguments(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, name := range []string{"NewRemoteHost", "NewProtocol", "NewInternalClient", "NewPortMappingDescription", "NewExternalPort"} {
		t.Run("G2/"+name, func(t *testing.T) {
			r := l.call(hostA, ip1, "AddPortMapping", mapping(hostA, name, strings.Repeat("9", 8<<10))...)
			if r.Code != 605 && r.Code != 402 {
				t.Errorf("%+v", r)
			}
			// Not longer than what a socket takes at once: the answer comes before
			// the body is read, and what is still being sent then meets a reset.
			r = l.call(hostA, ip1, "AddPortMapping", mapping(hostA, name, strings.Repeat("9", 20<<10))...)
			if r.Status != 413 {
				t.Errorf("%+v", r)
			}
		})
	}
	if got := l.table(); len(got) != 0 {
		t.Errorf("something changed: %q", got)
	}
}

func TestInjection(t *testing.T) {
	t.Parallel()
	l := start(t)
	for _, bad := range []string{"`touch c`", "$(touch c)", ";|&", "%n%s", `'"`, "\n", "\u202e", "ÿ", "192.168.1.50;id"} {
		for _, name := range []string{"NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient", "NewEnabled", "NewLeaseDuration"} {
			if strings.TrimSpace(bad) == "" && (name == "NewRemoteHost" || name == "NewInternalClient") {
				continue // blank means anybody, and oneself
			}
			t.Run("G11/"+name+" "+strconv.Quote(bad), func(t *testing.T) {
				wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, name, bad)...), 402)
			})
		}
	}
	if got := l.table(); len(got) != 0 {
		t.Errorf("something changed: %q", got)
	}
}
