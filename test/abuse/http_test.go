package abuse

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// soapCall is the text of a good AddPortMapping request, to be spoiled.
const soapCall = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
	`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:AddPortMapping xmlns:u="` + lab.WANIP1 + `">` +
	`<NewRemoteHost></NewRemoteHost><NewExternalPort>45000</NewExternalPort><NewProtocol>TCP</NewProtocol>` +
	`<NewInternalPort>45000</NewInternalPort><NewInternalClient>192.168.77.10</NewInternalClient><NewEnabled>1</NewEnabled>` +
	`<NewPortMappingDescription>x</NewPortMappingDescription><NewLeaseDuration>60</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>`

// post writes a request; head lines are added to the usual ones, and replace
// those of the same name.
func post(path, host, body string, head ...string) string {
	lines := []string{"Host: " + host, `Content-Type: text/xml; charset="utf-8"`,
		`SOAPAction: "` + lab.WANIP1 + `#AddPortMapping"`, fmt.Sprintf("Content-Length: %d", len(body))}
	for _, h := range head {
		name, value, _ := strings.Cut(h, ":")
		replaced := false
		for i := range lines {
			if n, _, _ := strings.Cut(lines[i], ":"); strings.EqualFold(n, name) {
				lines[i], replaced = h, true
				if value == " -" {
					lines[i] = ""
				}
			}
		}
		if !replaced {
			lines = append(lines, h)
		}
	}
	text := "POST " + path + " HTTP/1.1\r\n"
	for _, l := range lines {
		if l != "" {
			text += l + "\r\n"
		}
	}
	return text + "\r\n" + body
}

// TestBrowserBorne: D1 to D5, G1, G3 to G6, G9, SOAP-37 to SOAP-41, in the whole program:
// what a web page or a broken client can send opens nothing.
func TestBrowserBorne(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	r.inhabit(t)
	kept := len(r.List(t))
	c := r.v1(t, "a")
	at := hostPort(lab.GatewayLAN, 5000)
	path := mustURL(t, c.Control).Path
	envelope := func(old, new string) string { return strings.Replace(soapCall, old, new, 1) }
	for _, x := range []struct{ id, request, want string }{
		{"D1/name in Host", post(path, "evil.example", soapCall), "403"},
		{"D1/WAN address in Host", post(path, "203.0.113.5:5000", soapCall), "403"},
		{"D1/no Host", post(path, "", soapCall, "Host: -"), "400"},
		{"D2/no SOAPAction", post(path, at, soapCall, "SOAPAction: -"), "400"},
		{"D2/text/plain", post(path, at, soapCall, "Content-Type: text/plain"), "415"},
		{"D2/form", post(path, at, soapCall, "Content-Type: application/x-www-form-urlencoded"), "415"},
		{"SOAP-38/json", post(path, at, soapCall, "Content-Type: application/json"), "415"},
		{"D3/preflight", "OPTIONS " + path + " HTTP/1.1\r\nHost: " + at + "\r\nAccess-Control-Request-Private-Network: true\r\n\r\n", "405"},
		{"D4/origin", post(path, at, soapCall, "Origin: http://evil.example"), "403"},
		{"D4/sec-fetch", post(path, at, soapCall, "Sec-Fetch-Site: cross-site"), "403"},
		{"D5/rootDesc.xml", "GET /rootDesc.xml HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "404"},
		{"D5/ctl", post("/ctl/IPConn", at, soapCall), "404"},
		{"G9/traversal", "GET " + path + "/../../../etc/passwd HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "404"},
		{"G9/encoded", "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "404"},
		{"F3/shell in an event path", "SUBSCRIBE /evt/`touch%20x` HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "404"},
		{"G1/header and body differ", post(path, at, soapCall, `SOAPAction: "`+lab.WANIP1+`#DeletePortMapping"`), "500"},
		{"G1/one quote", post(path, at, soapCall, `SOAPAction: "`), "400"},
		{"G3/empty body", post(path, at, ""), "400"},
		{"G3/missing argument", post(path, at, envelope("<NewProtocol>TCP</NewProtocol>", "")), "500"},
		{"G4/entity", post(path, at, `<!DOCTYPE a [<!ENTITY b "c">]>`+soapCall), "400"},
		{"G5/two ports", post(path, at, envelope("<NewProtocol>", "<NewExternalPort>45001</NewExternalPort><NewProtocol>")), "500"},
		{"G5/split value", post(path, at, envelope(">45000<", ">450<!-- -->00<")), "400"},
		{"G6/chunked", post(path, at, "0\r\n\r\n", "Content-Length: -", "Transfer-Encoding: chunked"), "501"},
		{"G6/no length", post(path, at, "", "Content-Length: -"), "411"},
		{"G2/argument of 1 kB", post(path, at, envelope(">x<", ">"+strings.Repeat("x", 1025)+"<")), "500"},
		{"G2/argument of 12 kB", post(path, at, envelope(">x<", ">"+strings.Repeat("x", 12<<10)+"<")), "500"},
		{"G2/body of 17 kB", post(path, at, envelope(">x<", ">"+strings.Repeat("x", 17<<10)+"<")), "413"},
		{"G6/two lengths", post(path, at, soapCall, fmt.Sprintf("Content-Length: %d\r\nContent-Length: 0", len(soapCall))), "400"},
		{"G10/negative chunk", post(path, at, "-1\r\n"+soapCall+"\r\n0\r\n\r\n", "Content-Length: -", "Transfer-Encoding: chunked"), "501"},
		{"G10/huge chunk", post(path, at, "ffffffffffffffff\r\n"+soapCall, "Content-Length: -", "Transfer-Encoding: chunked"), "501"},
		{"G7/header of 9 kB", post(path, at, soapCall, "X: "+strings.Repeat("x", 9<<10)), "431"},
		{"G7/70 header lines", post(path, at, soapCall, strings.Repeat("X: x\r\n", 70)+"Y: y"), "431"},
		{"G7/too long", post(path, at, soapCall, "Content-Length: 2147483647"), "413"},
		{"SOAP-40/short body", post(path, at, soapCall[:100], fmt.Sprintf("Content-Length: %d", len(soapCall))), ""},
		{"SOAP-31/unknown action", post(path, at, strings.ReplaceAll(soapCall, "AddPortMapping", "Foo"), `SOAPAction: "`+lab.WANIP1+`#Foo"`), "500"},
		{"SOAP-32/action of version 2", post(path, at, strings.ReplaceAll(soapCall, "AddPortMapping", "AddAnyPortMapping"), `SOAPAction: "`+lab.WANIP1+`#AddAnyPortMapping"`), "500"},
	} {
		t.Run(x.id, func(t *testing.T) {
			before := r.World(t)
			answer := raw(t, r.Host("a"), at, x.request)
			if status(answer) != x.want {
				t.Errorf("answered %q, want %s", strings.SplitN(answer, "\r\n\r\n", 2)[0], x.want)
			}
			if strings.Contains(answer, "Access-Control-") {
				t.Error("the answer speaks to a browser")
			}
			r.Unchanged(t, before)
		})
	}
	if got := status(raw(t, r.Host("a"), at, post(path, at, soapCall))); got != "200" || len(r.List(t)) != kept+1 {
		t.Errorf("the unspoilt request got %s: the cases above prove nothing", got)
	}
}

// strangers are callbacks that lead elsewhere than to host a, or that two readers could
// read in two ways; the ports are those that a subscriber may not name.
var strangers = []string{
	"<http://203.0.113.66:9080/x>", "<http://192.168.77.20:9080/>", "<http://192.168.77.1:9080/>", "<http://127.0.0.1:9080/>",
	"<http://localhost:9080/>", "<https://192.168.77.10:9080/>", "<http://[::ffff:192.168.77.10]:9080/>",
	"<http://192.168.77.10@203.0.113.66:9080/>", "<http://203.0.113.66:9080/?<http://192.168.77.10:9080/>", "http://192.168.77.10:9080/", "<>",
	"<http://user:word@192.168.77.10:9080/>", "<http://192.168.77.10:80/>", "<http://192.168.77.10:22/>", "<http://192.168.77.10:1023/>",
	"<http://192.168.77.10:0/>", "<http://192.168.77.10:65536/>", "<http://192.168.77.10:-1/>", "<http://192.168.77.10:9080 />",
	"<http://192.168.77.10:9080/", "<<http://192.168.77.10:9080/>>", "<http://192.168.77.10:9080/\t>", "<ftp://192.168.77.10:9080/>",
	"<http://3232255242:9080/>", "<http://0xc0a84d0a:9080/>", "<http://192.168.077.010:9080/>", "<http://192.168.77.10.:9080/>",
	"<http://192.168.77.10:9080@203.0.113.66/>", "<http://203.0.113.66#@192.168.77.10:9080/>", "<http:///203.0.113.66:9080/>",
	"<http://192.168.77.10%00.evil.example:9080/>", "<http://192.168.77.10:9080\\@203.0.113.66:9080/>", "<//192.168.77.10:9080/>",
	"<http://0.0.0.0:9080/>", "<http://255.255.255.255:9080/>", "<http://239.255.255.250:9080/>", "<http://169.254.169.254:9080/>",
}

// TestCallStranger: F1, F2. A subscription whose callback leads elsewhere is refused,
// and no packet goes there.
func TestCallStranger(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	event := eventURL(t, r)
	r.inhabit(t)
	before := r.World(t)
	reached := make(chan string, 16)
	for _, x := range []struct {
		host *lab.Host
		at   netip.Addr
	}{{r.Internet, lab.InternetOne}, {r.Host("b"), r.Host("b").Addr}, {r.Gateway, lab.GatewayLAN}} {
		l, err := x.host.Listen(hostPort(x.at, 9080))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				reached <- x.host.Name
				conn.Close()
			}
		}()
	}
	at := hostPort(lab.GatewayLAN, 5000)
	for _, callback := range strangers {
		answer := raw(t, r.Host("a"), at, "SUBSCRIBE "+event+" HTTP/1.1\r\nHost: "+at+"\r\nCALLBACK: "+callback+"\r\nNT: upnp:event\r\nTIMEOUT: Second-300\r\n\r\n")
		if status(answer) != "412" {
			t.Errorf("%s: answered %s, want 412", callback, status(answer))
		}
	}
	r.Unchanged(t, before, "F1", "F2")
	// The subscriber itself is reached, so events do go out in this test.
	l, err := r.Host("a").Listen(hostPort(r.Host("a").Addr, 9080))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go serveOne(l, got)
	answer := raw(t, r.Host("a"), at, "SUBSCRIBE "+event+" HTTP/1.1\r\nHost: "+at+"\r\nCALLBACK: <http://192.168.77.10:9080/cb>\r\nNT: upnp:event\r\nTIMEOUT: Second-300\r\n\r\n")
	if status(answer) != "200" {
		t.Fatalf("GENA-1: answered %.200q", answer)
	}
	select {
	case body := <-got:
		for _, name := range []string{"ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries", "PossibleConnectionTypes"} {
			if !strings.Contains(body, "<"+name+">") {
				t.Errorf("GENA-1: the first event lacks %s: %s", name, body)
			}
		}
	case <-time.After(10 * time.Second):
		t.Error("GENA-1: no event came")
	}
	select {
	case who := <-reached:
		t.Errorf("F1: %s was reached", who)
	default:
	}
}

func serveOne(l net.Listener, got chan<- string) {
	server := &http.Server{ReadTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err == nil {
			select {
			case got <- string(body):
			default:
			}
		}
	})}
	_ = server.Serve(l) // until the test closes l
}

// description fetches the root description for a version.
func description(t *testing.T, r *rig, device string) (location, text string) {
	t.Helper()
	location = testrig.Found(t, lab.NewControlPoint(r.Host("a")), lab.Search{Target: device}).Location()
	u := mustURL(t, location)
	return location, raw(t, r.Host("a"), u.Host, "GET "+u.Path+" HTTP/1.1\r\nHost: "+u.Host+"\r\n\r\n")
}

var eventElement = regexp.MustCompile(`(?s)WANIPConnection:1</serviceType>.*?<eventSubURL>([^<]+)<`)

func eventURL(t *testing.T, r *rig) string {
	t.Helper()
	_, text := description(t, r, lab.IGD1)
	m := eventElement.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no eventSubURL in\n%s", text)
	}
	return m[1]
}

// TestFingerprint: K6, D5. Nothing in discovery or the description tells about
// the machine, and the path cannot be guessed.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	location, text := description(t, r, lab.IGD2)
	segments := strings.Split(strings.Trim(mustURL(t, location).Path, "/"), "/")
	if len(segments[0]) < 16 {
		t.Errorf("D5: the path %s is short", location)
	}
	release := strings.TrimSpace(testrig.On(t, r.Gateway, "uname", "-r"))
	for _, secret := range []string{"serialNumber", "presentationURL", "02:00:00", "020000", release, "go1."} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
			t.Errorf("K6: the description tells %q:\n%s", secret, text)
		}
	}
	if m := regexp.MustCompile(`(?m)^Server: (.*)\r$`).FindStringSubmatch(text); m == nil || m[1] != "Linux UPnP/1.1 Portcullis" {
		t.Errorf("K6: server header %q", m)
	}
}

// TestDangerousActions: G12. They are refused or do nothing; the WAN stays up.
func TestDangerousActions(t *testing.T) {
	t.Parallel()
	r := start(t, noRates)
	c := r.v2(t, "a")
	before := r.World(t)
	for _, x := range []struct {
		action string
		args   []string
		want   int
	}{
		{"ForceTermination", nil, 606},
		{"RequestTermination", nil, 401},
		{"SetConnectionType", []string{"NewConnectionType", "IP_Bridged"}, 731},
		{"SetConnectionType", []string{"NewConnectionType", "%n%n%n%n"}, 601},
		{"RequestConnection", nil, 0},
		{"SetDNSServer", []string{"NewDNSServers", "203.0.113.66"}, 401},
		{"SendSetupMessage", nil, 401},
	} {
		if _, err := c.Call(t.Context(), x.action, x.args...); code(err) != x.want {
			t.Errorf("%s%v answered %v, want %d", x.action, x.args, err, x.want)
		}
	}
	if out, err := c.Call(t.Context(), "GetStatusInfo"); err != nil || out["NewConnectionStatus"] != "Connected" {
		t.Errorf("status afterwards: %v, %v", out, err)
	}
	if out, err := c.Call(t.Context(), "GetExternalIPAddress"); err != nil || out["NewExternalIPAddress"] != lab.GatewayWAN.String() {
		t.Errorf("K8: %v, %v", out, err)
	}
	r.Unchanged(t, before, "G12", "K8")
}

// TestSearchFlood: E1. However often one host searches for everything, what goes
// out stays within the limits, and another host is answered meanwhile.
func TestSearchFlood(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	flood, err := r.Host("a").ListenPacket(hostPort(r.Host("a").Addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	began := time.Now()
	for range 2000 {
		if _, err := flood.WriteToUDPAddrPort(search(lab.IGD1), netip.AddrPortFrom(lab.GatewayLAN, 1900)); err != nil {
			t.Fatal(err)
		}
	}
	testrig.Found(t, lab.NewControlPoint(r.Host("b")), lab.Search{Target: lab.IGD1})
	if err := flood.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := 0
	for buf := make([]byte, 2048); ; answers++ {
		if _, _, err := flood.ReadFromUDPAddrPort(buf); err != nil {
			break
		}
	}
	// 20 a second after a burst of 20 (docs/abuse-cases.md has the bounds).
	if limit := 20 + int(20*(time.Since(began).Seconds()+1)); answers == 0 || answers > limit {
		t.Errorf("%d answers to 2000 searches, at most %d are allowed", answers, limit)
	}
}

// TestPrivateWAN: K10. Behind another NAT nothing is promised that cannot work.
func TestPrivateWAN(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		extra string
		want  int
		ip    string
	}{
		"refuse": {"", 501, ""},
		"allow":  {"private_address = \"allow\"\n", 0, "100.64.3.4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := lab.New("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(n.Close)
			testrig.On(t, n.Gateway, "ip", "addr", "flush", "dev", "wan0")
			testrig.On(t, n.Gateway, "ip", "addr", "add", "100.64.3.4/24", "dev", "wan0")
			testrig.On(t, n.Gateway, "ip", "route", "add", "default", "dev", "wan0")
			if err := n.HostFirewall(); err != nil {
				t.Fatal(err)
			}
			config := strings.Replace(lab.Settings, "interface = \"wan0\"\n", "interface = \"wan0\"\n"+x.extra, 1)
			d, err := n.StartDaemonWith(t.Context(), testrig.Exe, config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Stop(); err != nil {
					t.Error(err)
				}
			}()
			r := &rig{&testrig.Rig{Network: n, Daemon: d, Owner: control.NewClient(d.Socket)}}
			c := r.v1(t, "a")
			before := r.World(t)
			if err := c.Add(t.Context(), udp(6000, 6000)); code(err) != x.want {
				t.Errorf("AddPortMapping: %v, want %d", err, x.want)
			}
			if x.want != 0 {
				r.Unchanged(t, before, "K10")
			}
			if out, err := c.Call(t.Context(), "GetExternalIPAddress"); err != nil || out["NewExternalIPAddress"] != x.ip {
				t.Errorf("external address: %v, %v, want %q", out, err, x.ip)
			}
		})
	}
}
