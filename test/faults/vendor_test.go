package faults

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// fetched returns the document at a URL as a host gets it.
func fetched(t *testing.T, h *lab.Host, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}, Timeout: soon}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

const vendor = `[upnp]
friendly_name = "Gateway <7>"
manufacturer = "Example & Sons"
manufacturer_url = "https://www.example.com/?a=1&b=2"
model_name = "G7"
model_number = "7-2"
model_description = "For the home"
model_url = "http://example.com/g7"
serial_number = "00042"
presentation_url = "http://192.168.77.1/"
uuid = "mac:br-lan"
upload_kbps = 40000
download_kbps = 5000000
notify_interval = "1m"
igdv1_clients = ["%s"]
`

// TestVendor: what a vendor says of his gateway is what hosts are told, by two processes; it is
// found as before, and the one who has to be shown version 1 is, whatever he searches for.
func TestVendor(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	r := testrig.Start(t, n, fmt.Sprintf(vendor, n.Host("b").Addr))
	found := map[string]lab.Found{}
	for _, host := range []string{"a", "b"} {
		found[host] = testrig.Found(t, lab.NewControlPoint(r.Host(host)), lab.Search{Target: lab.IGD2})
	}
	if a, b := found["a"].Location(), found["b"].Location(); !strings.Contains(a, "/2/") || !strings.Contains(b, "/1/") {
		t.Errorf("shown are %s and %s, want versions 2 and 1", a, b)
	}
	if age := found["a"].Header.Get("Cache-Control"); age != "max-age=120" {
		t.Errorf("announcements hold for %q, want twice a minute", age)
	}
	doc := fetched(t, r.Host("a"), found["a"].Location())
	for _, want := range []string{
		"<friendlyName>Gateway &lt;7&gt;</friendlyName>\n<manufacturer>Example &amp; Sons</manufacturer>\n",
		"<manufacturerURL>https://www.example.com/?a=1&amp;b=2</manufacturerURL>\n<modelDescription>For the home</modelDescription>\n",
		"<modelName>G7</modelName>\n<modelNumber>7-2</modelNumber>\n<modelURL>http://example.com/g7</modelURL>\n<serialNumber>00042</serialNumber>\n<UDN>uuid:",
		"</deviceList>\n<presentationURL>http://192.168.77.1/</presentationURL>\n</device>\n</root>",
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("the description lacks %s:\n%s", want, doc)
		}
	}
	if usn := found["a"].Header.Get("Usn"); !strings.Contains(doc, "<UDN>"+strings.Split(usn, "::")[0]+"</UDN>") || usn[len("uuid:xxxxxxxx-xxxx-")] != '8' {
		t.Errorf("USN is %s", usn)
	}
	link := r.Point(t, "b", lab.IGD2, "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1")
	out, err := link.Call(t.Context(), "GetCommonLinkProperties")
	if err != nil || out["NewLayer1UpstreamMaxBitRate"] != "40000000" || out["NewLayer1DownstreamMaxBitRate"] != "4294967295" {
		t.Errorf("the rate of the line is %v, %v", out, err)
	}
	opened(t, r, 6000)
}

// TestNoIPv6: where it is switched off nobody is answered by IPv6, and what was open by it
// closes, at a reload as well; switched on it works again. IPv4 goes on meanwhile.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "a"), "")
	a := r.Host("a")
	base := []byte(strings.Replace(lab.Settings, "%[1]s", strings.TrimSuffix(r.Daemon.Socket, "/control.sock"), 2))
	opened(t, r, 6000)
	request := lab.MapRequest{Gateway: lab.GatewayLinkLocal, Source: a.Addr6, Protocol: "TCP", Internal: 9000, Lease: time.Hour}
	if _, err := mapPCP(t, a, request); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(a.Addr6, 9000)
	if !r.Reaches(t, "TCP", lab.InternetOne6, at, a, soon) {
		t.Fatal("the pinhole does not work")
	}
	sockets := func() string {
		return testrig.On(t, r.Gateway, "ss", "-Hnlu6") + testrig.On(t, r.Gateway, "ss", "-Hnlt6")
	}
	if s := sockets(); !strings.Contains(s, ":5351") || !strings.Contains(s, ":1900") || !strings.Contains(s, ":5000") {
		t.Fatalf("with IPv6 it listens at\n%s", s)
	}
	configure(t, r, []byte(strings.Replace(string(base), "[wan]", "ipv6 = false\n[wan]", 1)), "")
	done := reloaded(t, r)
	if len(done.Changed) != 1 || done.Changed[0] != "lan.ipv6" || len(done.Restart) != 0 {
		t.Errorf("the reload changed %+v", done)
	}
	testrig.Eventually(t, soon, "nothing listens by IPv6", func() bool { return sockets() == "" })
	if r.Reaches(t, "TCP", lab.InternetOne6, at, a, 300*time.Millisecond) {
		t.Error("a packet comes by IPv6")
	}
	working(t, r, 6000)
	configure(t, r, base, "")
	reloaded(t, r)
	testrig.Eventually(t, soon, "it listens again", func() bool { return strings.Contains(sockets(), ":5351") })
	if _, err := mapPCP(t, a, request); err != nil || !r.Reaches(t, "TCP", lab.InternetOne6, at, a, soon) {
		t.Errorf("switched on again: %v", err)
	}
}
