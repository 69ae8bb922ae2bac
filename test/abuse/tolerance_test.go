package abuse

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestOddClients: L11. What named clients write, byte for byte where a report has it, opens
// a port of their own host as what everybody writes does; and the same with what a web
// page could send opens nothing (docs/protocol-notes.md has the table).
func TestOddClients(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	path := mustURL(t, r.v1(t, "a").Control).Path
	at := hostPort(lab.GatewayLAN, 5000)
	envelope := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(soapCall) }
	absolute := func(authority, host string) string {
		return strings.Replace(post(path, host, soapCall), path, "http://"+authority+path, 1)
	}
	const remote, soap11, soap12 = "<NewRemoteHost></NewRemoteHost>", "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope/"
	for _, x := range []struct{ id, request, want string }{
		{"ODD-13/SOAP 1.2 is told so", post(path, at, envelope(soap11, soap12)), "500"},
		{"ODD-10/CDATA", post(path, at, envelope(">x<", "><![CDATA[My app]]><")), "200"},
		{"ODD-11/comment", post(path, at, envelope(remote, remote+"<!-- x -->")), "200"},
		{"ODD-12/absolute form", absolute(at, at), "200"},
		{"ODD-12/absolute form without the port", absolute(lab.GatewayLAN.String(), lab.GatewayLAN.String()), "200"},
		{"ODD-12 D1/absolute form elsewhere", absolute("evil.example", at), "403"},
		{"ODD-12 D1/absolute form to the WAN", absolute(lab.GatewayWAN.String()+":5000", at), "403"},
		{"ODD-2/undeclared prefix", post(path, at, envelope("<u:", "<m:", "</u:", "</m:")), "200"},
		{"ODD-3/no NewRemoteHost", post(path, at, envelope(remote, "")), "200"},
		{"ODD-3/no description", post(path, at, envelope("<NewPortMappingDescription>x</NewPortMappingDescription>", "")), "200"},
		{"ODD-5/0.0.0.0", post(path, at, envelope(remote, "<NewRemoteHost>0.0.0.0</NewRemoteHost>")), "200"},
		{"ODD-6/undefined", post(path, at, envelope(remote, "<NewRemoteHost>undefined</NewRemoteHost>")), "200"},
		{"ODD-7/no Content-Type", post(path, at, soapCall, "Content-Type: -"), "200"},
		{"D2/no Content-Type, no SOAPAction", post(path, at, soapCall, "Content-Type: -", "SOAPAction: -"), "400"},
		{"D4/no Content-Type, but a page's Origin", post(path, at, soapCall, "Content-Type: -", "Origin: null"), "403"},
		{"ODD-8/us-ascii", post(path, at, envelope(`"1.0"?>`, `"1.0" encoding="us-ascii"?>`)), "200"},
		{"ODD-9/a line break in front", post(path, at, "\n"+soapCall), "200"},
	} {
		t.Run(x.id, func(t *testing.T) {
			before := r.World(t)
			answer := raw(t, r.Host("a"), at, x.request)
			if status(answer) != x.want {
				t.Fatalf("answered %.300q, want %s", answer, x.want)
			}
			if strings.Contains(answer, "Access-Control-") {
				t.Error("the answer speaks to a browser")
			}
			if x.want != "200" {
				r.Unchanged(t, before, "L11")
				return
			}
			list := r.List(t)
			if len(list) != 1 || list[0].ExternalPort != 45000 || list[0].InternalIP != r.Host("a").Addr.String() || list[0].Remote != "" {
				t.Errorf("opened %+v", list)
			}
			if err := r.v1(t, "a").Delete(t.Context(), 45000, "TCP"); err != nil {
				t.Fatal(err)
			}
		})
	}
	if answer := raw(t, r.Host("a"), at, post(path, at, envelope(soap11, soap12))); !strings.Contains(answer, "<faultcode>s:VersionMismatch</faultcode>") {
		t.Errorf("ODD-13: %s", answer)
	}
}

// TestSearchWithoutEmptyLine: ODD-1. libplum, ssdpy, lighthouse and SwiftSSDP leave
// out the empty line at the end of a search.
func TestSearchWithoutEmptyLine(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	group := netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), 1900)
	for name, text := range map[string]string{
		"ssdpy":   strings.TrimSuffix(string(search(lab.IGD1)), "\r\n"),
		"libplum": "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: ssdp:discover\r\nMX: 1\r\nST: " + lab.IGD1 + "\r\n",
	} {
		conn, err := r.Host("a").ListenPacket(hostPort(r.Host("a").Addr, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		testrig.Eventually(t, soon, name+" hears an answer", func() bool {
			if _, err := conn.WriteToUDPAddrPort([]byte(text), group); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2048)
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			return err == nil && strings.Contains(string(buf[:n]), "ST: "+lab.IGD1+"\r\n")
		})
	}
}
