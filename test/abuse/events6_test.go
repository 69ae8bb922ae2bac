package abuse

import (
	"bytes"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// TestEvents6: events over IPv6. A subscriber at a link-local or a global address is
// told at first and when pinholes come to be allowed, at its own address only.
func TestEvents6(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a", "b")
	if err := n.RemoveWAN6(); err != nil {
		t.Fatal(err)
	}
	r := startOn(t, n, noRates)
	a := r.Host("a")
	heard := make(map[netip.Addr]chan string)
	for source, gateway := range map[netip.Addr]netip.Addr{a.LinkLocal: lab.GatewayLinkLocal, a.Addr6: lab.GatewayLAN6} {
		c := r.six(t, "a", source, gateway, lab.WANIPv6FC1)
		at, err := url.Parse(c.Control)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimSuffix(at.Path, "control") + "event"
		l, err := a.Listen(netip.AddrPortFrom(a.Zoned(source), 9080).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		heard[source] = make(chan string, 16)
		go serveOne(l, heard[source])
		for callback, want := range map[string]string{
			"<http://[" + source.String() + "]:9080/cb>":                      "200",
			"<http://[" + r.Host("b").Addr6.String() + "]:9080/cb>":           "412", // F1
			"<http://[" + lab.InternetOne6.String() + "]:9080/cb>":            "412", // F1
			"<http://[::ffff:192.168.77.10]:9080/cb>":                         "412", // A8
			"<http://" + source.String() + ":9080/cb>":                        "412",
			"<http://[" + lab.GatewayLinkLocal.String() + "%25eth0]:9080/cb>": "412",
		} {
			answer := ask6(t, a, source, netip.AddrPortFrom(gateway, 5000),
				"SUBSCRIBE "+path+" HTTP/1.1\r\nHost: "+at.Host+"\r\nCALLBACK: "+callback+"\r\nNT: upnp:event\r\nTIMEOUT: Second-300\r\n\r\n")
			if status(answer) != want {
				t.Errorf("%s: answered %.100q, want %s", callback, answer, want)
			}
		}
	}
	wait := func(text string) {
		t.Helper()
		for source, events := range heard {
			for found := false; !found; {
				select {
				case body := <-events:
					found = strings.Contains(body, text)
				case <-time.After(10 * time.Second):
					t.Fatalf("%s was not told %s", source, text)
				}
			}
		}
	}
	wait("<InboundPinholeAllowed>0</InboundPinholeAllowed>")
	if err := n.AddWAN6(); err != nil {
		t.Fatal(err)
	}
	wait("<InboundPinholeAllowed>1</InboundPinholeAllowed>")
}

// ask6 sends one request from an address and gives the whole answer.
func ask6(t *testing.T, h *lab.Host, source netip.Addr, to netip.AddrPort, request string) string {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	conn, err := h.DialFrom(ctx, netip.AddrPortFrom(source, 0), "tcp", to.String())
	if err != nil {
		return "dial: " + err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte(request))
	var answer bytes.Buffer
	_, _ = answer.ReadFrom(conn)
	return answer.String()
}
