package igd_test

import (
	"net/netip"
	"strconv"
	"testing"

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
