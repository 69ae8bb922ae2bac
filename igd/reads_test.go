package igd_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"portcullis/internal/http1"
)

// BenchmarkReads answers what control points poll, from a table of 32 mappings of one
// host, which is what a host may have by default.
func BenchmarkReads(b *testing.B) {
	engine := newEngine(b)
	front := newDevice(b, config(engine, goodWAN())).On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	ask := func(action string, args ...string) *http1.Response {
		return front.ServeHTTP(post(hostA, "/"+testPath+"/2/WANIPConnection/control", `"`+typePrefix+ip2+"#"+action+`"`,
			[]byte(envelope(typePrefix+ip2, action, argsXML(args...)))))
	}
	for i := range 32 {
		port := strconv.Itoa(6000 + i)
		if r := ask("AddPortMapping", mapping(hostA, "NewExternalPort", port, "NewInternalPort", port)...); r.Status != http1.OK {
			b.Fatalf("status %d: %s", r.Status, r.Body)
		}
	}
	for name, args := range map[string][]string{
		"GetGenericPortMappingEntry":  {"NewPortMappingIndex", "31"},
		"GetSpecificPortMappingEntry": key("6031", "UDP"),
		"GetListOfPortMappings":       span("0", "65535"),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if r := ask(name, args...); r.Status != http1.OK {
					b.Fatalf("status %d: %s", r.Status, r.Body)
				}
			}
		})
	}
}

// BenchmarkExchange is a request from its octets to those of its reply, as miniupnpc
// sends it: what one costs beside the socket, the neighbour table and the kernel's
// firewall.
func BenchmarkExchange(b *testing.B) {
	engine := newEngine(b)
	front := newDevice(b, config(engine, goodWAN())).On("lan", netip.MustParseAddrPort("192.168.1.1:5000"))
	from := bufio.NewReaderSize(nil, http1.MaxHead)
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	ask := func(b *testing.B, octets []byte) {
		from.Reset(bytes.NewReader(octets))
		r, err := http1.ReadRequest(from)
		if err != nil {
			b.Fatal(err)
		}
		r.Remote, r.Local = netip.AddrPortFrom(netip.MustParseAddr(hostA.from), 50000), netip.MustParseAddrPort("192.168.1.1:5000")
		if err := r.ReadBody(from); err != nil {
			b.Fatal(err)
		}
		answer := front.ServeHTTP(r)
		if answer.Status != http1.OK {
			b.Fatalf("status %d: %s", answer.Status, answer.Body)
		}
		if err := answer.Write(io.Discard, r, now); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		action string
		args   []string
	}{
		{"AddPortMapping", mapping(hostA, "NewExternalPort", "6000")}, // which the benchmark renews
		{"GetSpecificPortMappingEntry", key("6000", "UDP")},
		{"GetExternalIPAddress", nil},
	} {
		body := envelope(typePrefix+ip1, c.action, argsXML(c.args...))
		octets := fmt.Appendf(nil, "POST /%s/1/WANIPConnection/control HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nUser-Agent: Debian/12, UPnP/1.1, MiniUPnPc/2.2.4\r\n"+
			"Content-Length: %d\r\nContent-Type: text/xml\r\nSOAPAction: \"%s#%s\"\r\nConnection: Close\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n\r\n%s",
			testPath, len(body), typePrefix+ip1, c.action, body)
		ask(b, octets)
		b.Run(c.action, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ask(b, octets)
			}
		})
	}
}
