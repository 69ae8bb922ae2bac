package igd_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/portmap"
)

func TestListing(t *testing.T) {
	t.Parallel()
	l := start(t)
	ports := []string{"6002", "6000", "6001"}
	for _, p := range ports {
		wantCode(t, l.call(hostA, ip1, "AddPortMapping", mapping(hostA, "NewExternalPort", p, "NewPortMappingDescription", "p"+p)...), 0)
		wantCode(t, l.call(hostB, ip1, "AddPortMapping", mapping(hostB, "NewExternalPort", "7"+p[1:])...), 0)
	}
	t.Run("SOAP-20 CHOICE-15/index 0 to N", func(t *testing.T) {
		for i, p := range append(ports, "") {
			r := l.call(hostA, ip1, "GetGenericPortMappingEntry", "NewPortMappingIndex", strconv.Itoa(i))
			if p == "" {
				wantCode(t, r, 713)
				continue
			}
			wantCode(t, r, 0)
			leaseBetween(t, r, 3590, 3600)
			delete(r.Out, "NewLeaseDuration")
			want := map[string]string{
				"NewRemoteHost": "", "NewExternalPort": p, "NewProtocol": "UDP", "NewInternalPort": "6000",
				"NewInternalClient": "192.168.1.50", "NewEnabled": "1", "NewPortMappingDescription": "p" + p,
			}
			if diff := cmp.Diff(want, r.Out); diff != "" {
				t.Errorf("entry %d (-want +got):\n%s", i, diff)
			}
		}
		wantCode(t, l.call(hostA, ip1, "GetGenericPortMappingEntry", "NewPortMappingIndex", "65535"), 713)
	})
	t.Run("C5 K7/others' entries", func(t *testing.T) {
		wantCode(t, l.call(hostA, ip1, "GetSpecificPortMappingEntry", key("7000", "UDP")...), 714)
		wantCode(t, l.call(hostA, ip2, "GetSpecificPortMappingEntry", key("7000", "UDP")...), 714)
		wantCode(t, l.call(hostA, ip1, "GetGenericPortMappingEntry", "NewPortMappingIndex", "3"), 713)
		wantCode(t, l.call(hostA, ip2, "GetListOfPortMappings", span("7000", "7002")...), 730)
	})
	t.Run("SOAP-26 CHOICE-5/list", func(t *testing.T) {
		got := ported(list(t, l.call(hostA, ip2, "GetListOfPortMappings", span("1024", "65535")...)))
		if diff := cmp.Diff([]string{"6000", "6001", "6002"}, got); diff != "" {
			t.Errorf("ports (-want +got):\n%s", diff)
		}
		got = ported(list(t, l.call(hostA, ip2, "GetListOfPortMappings", span("6001", "6002", "NewNumberOfPorts", "1")...)))
		if diff := cmp.Diff([]string{"6001"}, got); diff != "" {
			t.Errorf("ports (-want +got):\n%s", diff)
		}
		wantCode(t, l.call(hostA, ip2, "GetListOfPortMappings", span("1024", "65535", "NewProtocol", "TCP")...), 730)
	})
	t.Run("SOAP-28/start above end", func(t *testing.T) {
		wantCode(t, l.call(hostA, ip2, "GetListOfPortMappings", span("7000", "6000")...), 733)
		wantCode(t, l.call(hostA, ip2, "DeletePortMappingRange", spanOnly("7000", "6000")...), 733)
	})
	t.Run("SOAP-29/nothing in range", func(t *testing.T) {
		for _, r := range [][2]string{{"20000", "30000"}, {"0", "0"}} {
			wantCode(t, l.call(hostA, ip2, "GetListOfPortMappings", span(r[0], r[1])...), 730)
			wantCode(t, l.call(hostA, ip2, "DeletePortMappingRange", spanOnly(r[0], r[1])...), 730)
		}
	})
	t.Run("B7/protocol", func(t *testing.T) {
		wantCode(t, l.call(hostA, ip2, "GetListOfPortMappings", span("0", "65535", "NewProtocol", "ICMP")...), 601)
		wantCode(t, l.call(hostA, ip2, "DeletePortMappingRange", with(spanOnly("0", "65535"), "NewProtocol", "ICMP")...), 601)
	})
	if n := len(l.table()); n != 6 {
		t.Errorf("%d mappings left", n)
	}
}

func span(first, last string, pairs ...string) []string {
	return with(append(spanOnly(first, last), "NewNumberOfPorts", "0"), pairs...)
}

func spanOnly(first, last string) []string {
	return []string{"NewStartPort", first, "NewEndPort", last, "NewProtocol", "UDP", "NewManage", "1"}
}

// listEntry is a row of the port list, fields in the order of the document.
type listEntry struct {
	Fields []struct {
		XMLName xml.Name
		Value   string `xml:",chardata"`
	} `xml:",any"`
}

func (e listEntry) get(name string) string {
	for _, f := range e.Fields {
		if f.XMLName.Local == name {
			return f.Value
		}
	}
	return "(missing)"
}

func list(t testing.TB, r reply) []listEntry {
	t.Helper()
	wantCode(t, r, 0)
	const ns = "urn:schemas-upnp-org:gw:WANIPConnection"
	var doc struct {
		XMLName xml.Name
		Entries []listEntry `xml:"urn:schemas-upnp-org:gw:WANIPConnection PortMappingEntry"`
	}
	if err := xml.Unmarshal([]byte(r.Out["NewPortListing"]), &doc); err != nil {
		t.Fatalf("%v in %q", err, r.Out["NewPortListing"])
	}
	if doc.XMLName != (xml.Name{Space: ns, Local: "PortMappingList"}) {
		t.Errorf("list element %v", doc.XMLName)
	}
	for _, e := range doc.Entries {
		var names []string
		for _, f := range e.Fields {
			if f.XMLName.Space != ns {
				t.Errorf("%s has namespace %q", f.XMLName.Local, f.XMLName.Space)
			}
			names = append(names, f.XMLName.Local)
		}
		want := []string{
			"NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort",
			"NewInternalClient", "NewEnabled", "NewDescription", "NewLeaseTime",
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
	}
	return doc.Entries
}

func ported(entries []listEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.get("NewExternalPort"))
	}
	return all
}

// TestListOnTheWire: the list is a CDATA section, because miniupnpc reads no
// escaped one, and what a client writes cannot end it.
func TestListOnTheWire(t *testing.T) {
	t.Parallel()
	l := start(t)
	wantCode(t, l.call(hostA, ip2, "AddPortMapping", mapping(hostA, "NewPortMappingDescription", "]]></NewPortListing><x/>")...), 0)
	resp := l.do(hostA, "POST", l.url(2, "WANIPConnection", "control"),
		envelope(typePrefix+ip2, "GetListOfPortMappings", argsXML(span("1", "65535")...)),
		"SOAPACTION", `"`+typePrefix+ip2+`#GetListOfPortMappings"`, "CONTENT-TYPE", "text/xml")
	body, _ := io.ReadAll(resp.Body)
	for _, part := range []string{
		"<NewPortListing><![CDATA[<p:PortMappingList ", "</p:PortMappingList>]]></NewPortListing>",
		"<p:NewDescription>]]&gt;&lt;/NewPortListing&gt;&lt;x/&gt;</p:NewDescription>",
	} {
		if !bytes.Contains(body, []byte(part)) {
			t.Errorf("SOAP-26/no %s in\n%s", part, body)
		}
	}
	if n := bytes.Count(body, []byte("]]>")); n != 1 {
		t.Errorf("the section ends %d times", n)
	}
}

func TestLargeList(t *testing.T) {
	t.Parallel()
	l := start(t)
	client := hostA.client
	client.Via = portmap.ViaUPnP
	nasty := strings.Repeat(`<>&"`, 64)
	for i := range 200 {
		r := portmap.Request{
			Client: client, Transport: portmap.UDP, Internal: addrPort(hostA, 6000), ExternalPort: uint16(6000 + i),
			Exact: true, Description: nasty,
		}
		if _, err := l.engine.Map(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	// parseReply checks the size of each reply.
	first, seen := 6000, []string(nil)
	for {
		r := l.call(hostA, ip2, "GetListOfPortMappings", span(strconv.Itoa(first), "65535")...)
		if r.Code == 730 {
			break
		}
		entries := list(t, r)
		if len(entries) == 0 {
			t.Fatal("G13: an empty list")
		}
		for _, e := range entries {
			if e.get("NewDescription") != nasty {
				t.Fatalf("description %q", e.get("NewDescription"))
			}
		}
		seen = append(seen, ported(entries)...)
		first, _ = strconv.Atoi(seen[len(seen)-1])
		first++
	}
	if len(seen) != 200 || !slices.IsSorted(seen) {
		t.Errorf("G13: %d entries", len(seen))
	}
}

func TestEntriesOfOtherProtocols(t *testing.T) {
	t.Parallel()
	l := start(t)
	c := hostA.client
	c.Via = portmap.ViaPCP
	r := portmap.Request{
		Client: c, Transport: portmap.TCP, Internal: addrPort(hostA, 8333), ExternalPort: 8333,
		Lifetime: time.Hour, Nonce: &portmap.Nonce{'s', 'e', 'c', 'r', 'e', 't'}, Description: "bad \x00\xff bytes",
		Remotes: []portmap.Remote{{Prefix: prefix("198.51.100.0/24")}, {Prefix: prefix("203.0.113.9/32"), Port: 53}, {Prefix: prefix("192.0.2.0/24"), Port: 80}},
	}
	if _, err := l.engine.Map(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got := l.call(hostA, ip1, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	wantCode(t, got, 0)
	leaseBetween(t, got, 3590, 3600)
	delete(got.Out, "NewLeaseDuration")
	want := map[string]string{
		"NewRemoteHost": "198.51.100.0/24,203.0.113.9:53,192.0.2.0/24:80", "NewExternalPort": "8333", "NewProtocol": "TCP", "NewInternalPort": "8333",
		"NewInternalClient": "192.168.1.50", "NewEnabled": "1", "NewPortMappingDescription": "bad \ufffd\ufffd bytes",
	}
	if diff := cmp.Diff(want, got.Out); diff != "" {
		t.Errorf("C5: entry (-want +got):\n%s", diff)
	}
}
