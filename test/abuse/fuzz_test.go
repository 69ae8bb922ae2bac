package abuse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	"portcullis/policy"
	"portcullis/portmap"
	testrig "portcullis/test/rig"
)

// attacked is a gateway to which host a sends whatever it likes, while host b has
// mappings of its own.
type attacked struct {
	*rig
	udp, udp6 *net.UDPConn // of host a
	urls      *strings.Replacer
	others    []control.Mapping // host b's
}

// denied are the ports outside that a rule of the owner's forbids to everybody.
const deniedFirst, deniedLast = 50000, 59999

func attack(tb testing.TB) *attacked {
	tb.Helper()
	n := testrig.Network(tb, "a", "b")
	x := &attacked{rig: &rig{testrig.Start(tb, n, noRates+"mappings_per_client = 2000\nmappings = 10000\n"+
		fmt.Sprintf("[[rule]]\nname = \"never\"\naction = \"deny\"\nexternal_ports = [\"%d-%d\"]\n", deniedFirst, deniedLast))}}
	ctx, cancel := context.WithTimeout(tb.Context(), soon)
	defer cancel()
	b := n.Host("b")
	for _, op := range []byte{1, 2} {
		if reply, err := b.Exchange(ctx, lab.GatewayLAN, pmp(op, 46001, 46001, 3600)); err != nil || reply[3] != 0 {
			tb.Fatalf("host b: % x, %v", reply, err)
		}
	}
	if _, err := b.Map(ctx, lab.MapRequest{Gateway: lab.GatewayLAN6, Source: b.Addr6, Protocol: "UDP", Internal: 46002, Lease: time.Hour}); err != nil {
		tb.Fatal(err)
	}
	x.others = x.List(tb)
	a := n.Host("a")
	for conn, at := range map[**net.UDPConn]netip.Addr{&x.udp: a.Addr, &x.udp6: a.Addr6} {
		c, err := a.ListenPacket(netip.AddrPortFrom(at, 0).String())
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.Close() })
		*conn = c
	}
	var pairs []string
	for mark, service := range map[string]string{"{1}": lab.WANIP1, "{2}": lab.WANIP2, "{6}": lab.WANIPv6FC1} {
		device := map[bool]string{true: lab.IGD1, false: lab.IGD2}[service == lab.WANIP1]
		_, path, _ := strings.Cut(x.Point(tb, "a", device, service).Control, "5000")
		pairs = append(pairs, mark, strings.TrimSuffix(path, "control"))
	}
	x.urls = strings.NewReplacer(pairs...)
	return x
}

// The doors of the gateway.
const (
	doorNATPMP = iota // and PCP
	doorPCP6
	doorSSDP
	doorHTTP
	doors
)

// send sends one message and returns when it has been looked at.
func (x *attacked) send(t *testing.T, door byte, message []byte) {
	t.Helper()
	if door%doors != doorHTTP {
		message = message[:min(len(message), 1400)]
	}
	switch door % doors {
	case doorNATPMP:
		_, _ = x.udp.WriteToUDPAddrPort(message, server) // one that cannot be sent opens nothing
		(&talker{host: x.Host("a"), conn: x.udp}).looked(t)
	case doorPCP6:
		_, _ = x.udp6.WriteToUDPAddrPort(message, netip.AddrPortFrom(lab.GatewayLAN6, 5351))
		x.sixLooked(t, netip.AddrPortFrom(lab.GatewayLAN6, 5351))
	case doorSSDP:
		_, _ = x.udp.WriteToUDPAddrPort(message, netip.AddrPortFrom(lab.GatewayLAN, 1900))
	case doorHTTP:
		x.post(t, message)
	}
}

// looked returns when what was sent before has been looked at, whatever was answered.
func (c *talker) looked(t *testing.T) {
	t.Helper()
	testrig.Eventually(t, soon, "the good request is answered", func() bool {
		c.send(t, server, []byte{0, 0x5a})
		if err := c.conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for buf := make([]byte, 2048); ; {
			n, _, err := c.conn.ReadFromUDPAddrPort(buf)
			if err != nil || n > 1 && buf[1] == 0xda {
				return err == nil
			}
		}
	})
}

// post sends a request to TCP port 5000 and waits until the gateway has ended the
// connection. {n} in it is the length of the body.
func (x *attacked) post(t *testing.T, request []byte) {
	t.Helper()
	_, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	text := strings.Replace(x.urls.Replace(string(request)), "{n}", strconv.Itoa(len(body)), 1)
	ctx, cancel := contextFor(t, soon)
	defer cancel()
	conn, err := x.Host("a").Dial(ctx, "tcp4", hostPort(lab.GatewayLAN, 5000))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(soon))
	_, _ = conn.Write([]byte(text)) // it may be refused before it is all sent
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	if size, err := io.Copy(io.Discard, conn); size > 64<<10 || os.IsTimeout(err) {
		t.Errorf("%d octets, %v", size, err)
	}
}

// lawful fails the test when what is open is not what walls and rules allow to host a,
// when the kernel has something else than the owner sees, when host b's mappings are not
// what they were, and when it is not served.
func (x *attacked) lawful(t *testing.T) {
	t.Helper()
	a := x.Host("a")
	var list []control.Mapping
	testrig.Eventually(t, soon, "the kernel has what the owner sees", func() bool { // leases end meanwhile
		list = x.List(t)
		return slices.Equal(opened(list), x.kernel(t))
	})
	others := 0
	for _, m := range list {
		if slices.ContainsFunc(x.others, func(o control.Mapping) bool {
			return o.ID == m.ID && o.ClientMAC == m.ClientMAC && openedAs(o) == openedAs(m) && o.Remote == m.Remote && m.Enabled && !m.Suspended
		}) {
			others++
			continue
		}
		transport := map[string]portmap.Transport{"tcp": portmap.TCP, "udp": portmap.UDP}[m.Protocol]
		inside, why := policy.TierOf(policy.Internal, transport, m.InternalPort)
		outside, as := policy.TierOf(policy.External, transport, m.ExternalPort)
		switch {
		case m.ClientMAC != a.MAC.String(), m.InternalIP != a.Addr.String() && m.InternalIP != a.Addr6.String():
			t.Errorf("of another host: %+v", m)
		case inside != policy.Ordinary, outside != policy.Ordinary, m.InternalPort < 1024, m.ExternalPort < 1024:
			t.Errorf("behind a wall (%s%s): %+v", why, as, m)
		case m.ExternalPort >= deniedFirst && m.ExternalPort <= deniedLast:
			t.Errorf("against a rule: %+v", m)
		case m.Family == 4 && m.ExternalPort == 46001 && m.Remote == "":
			t.Errorf("host b's port: %+v", m)
		}
	}
	if others != len(x.others) {
		t.Errorf("host b has %d of its %d mappings: %+v", others, len(x.others), list)
	}
	ctx, cancel := contextFor(t, soon)
	defer cancel()
	if reply, err := x.Host("b").Exchange(ctx, lab.GatewayLAN, natpmpAddress); err != nil || !like(reply, "00800000 ........ cb007105") {
		t.Errorf("host b is not served: % x, %v", reply, err)
	}
	if len(list) < 100 {
		return
	}
	for _, m := range list {
		if m.ClientMAC == a.MAC.String() {
			if _, err := x.Owner.Delete(t.Context(), control.Deletion{ID: m.ID}); err != nil {
				t.Logf("mapping %d has ended meanwhile: %v", m.ID, err)
			}
		}
	}
}

// openedAs writes down what a mapping opens to whom, as kernel does.
func openedAs(m control.Mapping) string {
	return fmt.Sprintf("%s %d > %s %d", m.Protocol, m.ExternalPort, m.InternalIP, m.InternalPort)
}

func opened(list []control.Mapping) (all []string) {
	for _, m := range list {
		if m.Enabled && !m.Suspended {
			all = append(all, openedAs(m))
		}
	}
	slices.Sort(all)
	return slices.Compact(all) // several remotes
}

// held finds the sets whose elements open something, and their elements.
var held = regexp.MustCompile(`(?s)(map mapped|map mapped_from|map mapped_filtered|set pinholes|set pinholes_from|set pinholes_filtered) \{[^}]*?elements = \{([^}]*)\}`)

// kernel lists what the gateway's kernel lets in.
func (x *attacked) kernel(t *testing.T) (all []string) {
	t.Helper()
	for _, m := range held.FindAllStringSubmatch(testrig.On(t, x.Gateway, "nft", "-n", "list", "table", "inet", "portcullis"), -1) {
		for _, element := range strings.Split(m[2], ",") {
			key, target, _ := strings.Cut(element, " : ")
			f := strings.Fields(strings.ReplaceAll(key, " . ", " "))
			i := slices.IndexFunc(f, func(s string) bool { return s == "6" || s == "17" || s == "tcp" || s == "udp" })
			if i < 0 {
				t.Fatalf("an element without a protocol: %s", element)
			}
			protocol := map[string]string{"6": "tcp", "tcp": "tcp", "17": "udp", "udp": "udp"}[f[i]]
			if strings.HasPrefix(m[1], "set") {
				all = append(all, fmt.Sprintf("%s %s > %s %s", protocol, f[i+1], f[i-1], f[i+1]))
				continue
			}
			port := f[i+1]
			if m[1] == "map mapped_filtered" { // by source port, too
				port = f[i+2]
			}
			to := strings.Fields(strings.ReplaceAll(target, " . ", " "))
			all = append(all, fmt.Sprintf("%s %s > %s %s", protocol, port, to[0], to[1]))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// message is one to a door.
type message struct {
	door byte
	text []byte
}

// good are messages that do something, or would if they were not refused.
func good(tb testing.TB) (all []message) {
	add := func(door byte, texts ...[]byte) {
		for _, b := range texts {
			all = append(all, message{door, b})
		}
	}
	octets := func(m pcpMap) []byte { return m.octets(tb) }
	a6 := netip.MustParseAddr("2001:db8:77::10")
	add(doorNATPMP, natpmpAddress, pcpAnnounce, pmp(1, 6001, 6001, 3600), pmp(2, 6002, 6002, 7200), pmp(1, 6003, 0, 1), pmp(1, 6001, 0, 0), pmp(2, 0, 0, 0),
		pmp(2, 445, 44500, 3600), pmp(1, 6004, 50001, 3600), pmp(1, 6005, 46001, 3600),
		octets(pcpMap{}), octets(pcpMap{protocol: 6, internal: 6010, suggested: 6010}), octets(pcpMap{delete: true}), octets(pcpMap{client: hostB, internal: 46001}),
		octets(pcpMap{internal: 6011, suggested: 6011, options: preferFailure}), octets(pcpMap{internal: 6012, options: filterOption("203.0.113.66/32", 0)}),
		octets(pcpMap{internal: 6013, options: filterOption("203.0.113.64/30", 9000)}), octets(pcpMap{internal: 6014, options: thirdParty(hostB, 16)}),
		octets(pcpMap{internal: 6015, options: "80000003" + "61620000"}), octets(pcpMap{internal: 6016, suggested: 6016, options: "82000004" + "00041780"}))
	add(doorPCP6, octets(pcpMap{client: a6, internal: 9000, suggested: 9000, address: zero6}), octets(pcpMap{client: a6, internal: 9000, address: zero6, delete: true}),
		octets(pcpMap{client: a6, protocol: 6, internal: 9001, address: zero6, options: filterOption("2001:db8:ffff::2/128", 0)}),
		octets(pcpMap{client: netip.MustParseAddr("2001:db8:77::20"), internal: 46002, address: zero6}))
	add(doorSSDP, search(lab.IGD1), search("ssdp:all"), search("upnp:rootdevice"), []byte("NOTIFY * HTTP/1.1\r\nNT: x\r\n\r\n"))
	soap := func(mark, service, action string, args ...string) {
		body := `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` +
			action + ` xmlns:u="` + service + `">`
		for i := 0; i < len(args); i += 2 {
			body += "<" + args[i] + ">" + args[i+1] + "</" + args[i] + ">"
		}
		body += "</u:" + action + "></s:Body></s:Envelope>"
		add(doorHTTP, []byte("POST "+mark+"control HTTP/1.1\r\nHost: 192.168.77.1:5000\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \""+service+"#"+action+
			"\"\r\nContent-Length: {n}\r\n\r\n"+body))
	}
	key := []string{"NewRemoteHost", "", "NewExternalPort", "7000", "NewProtocol", "UDP"}
	rest := []string{"NewInternalPort", "7000", "NewInternalClient", "192.168.77.10", "NewEnabled", "1", "NewPortMappingDescription", "x", "NewLeaseDuration", "3600"}
	pinhole := []string{"RemoteHost", "", "RemotePort", "0", "InternalClient", a6.String(), "InternalPort", "9002", "Protocol", "17", "LeaseTime", "3600"}
	soap("{1}", lab.WANIP1, "AddPortMapping", slices.Concat(key, rest)...)
	soap("{2}", lab.WANIP2, "AddPortMapping", slices.Concat([]string{"NewRemoteHost", "203.0.113.66"}, key[2:], rest)...)
	soap("{2}", lab.WANIP2, "AddAnyPortMapping", slices.Concat(key, rest)...)
	for _, to := range []string{"192.168.77.20", "192.168.77.1", "203.0.113.66"} { // B1 to B3
		soap("{1}", lab.WANIP1, "AddPortMapping", slices.Concat(key[:2], []string{"NewExternalPort", "7001"}, key[4:], rest[:2], []string{"NewInternalClient", to}, rest[4:])...)
	}
	soap("{6}", lab.WANIPv6FC1, "AddPinhole", slices.Concat(pinhole[:4], []string{"InternalClient", "2001:db8:77::20"}, pinhole[6:])...) // J1
	soap("{1}", lab.WANIP1, "DeletePortMapping", key...)
	soap("{1}", lab.WANIP1, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	soap("{1}", lab.WANIP1, "GetSpecificPortMappingEntry", key...)
	soap("{1}", lab.WANIP1, "ForceTermination")
	soap("{2}", lab.WANIP2, "DeletePortMappingRange", "NewStartPort", "1", "NewEndPort", "65535", "NewProtocol", "TCP", "NewManage", "1")
	soap("{2}", lab.WANIP2, "GetListOfPortMappings", "NewStartPort", "1", "NewEndPort", "65535", "NewProtocol", "UDP", "NewManage", "1", "NewNumberOfPorts", "0")
	soap("{6}", lab.WANIPv6FC1, "AddPinhole", pinhole...)
	soap("{6}", lab.WANIPv6FC1, "DeletePinhole", "UniqueID", "1")
	soap("{6}", lab.WANIPv6FC1, "UpdatePinhole", "UniqueID", "1", "NewLeaseTime", "3600")
	add(doorHTTP, []byte("SUBSCRIBE {1}event HTTP/1.1\r\nHost: 192.168.77.1:5000\r\nCALLBACK: <http://192.168.77.10:9080/x>\r\nNT: upnp:event\r\nTIMEOUT: Second-60\r\n\r\n"),
		[]byte("GET / HTTP/1.1\r\nHost: 192.168.77.1:5000\r\n\r\n"))
	return all
}

// FuzzGateway: whatever host a sends to the whole program, what is open afterwards
// satisfies walls and rules, the kernel has nothing else, and host b is served.
func FuzzGateway(f *testing.F) {
	for _, m := range good(f) {
		f.Add(m.door, m.text)
	}
	x := attack(f)
	f.Fuzz(func(t *testing.T, door byte, text []byte) {
		x.send(t, door, text)
		x.lawful(t)
	})
}

// burst is how many spoilt messages TestSpoiltMessages sends.
const burst = 1500

// TestSpoiltMessages: B1, C3, J1, K9. The same with messages that are spoilt at random, a
// burst of them.
// PORTCULLIS_SEED is the number that a failure names.
func TestSpoiltMessages(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s := os.Getenv("PORTCULLIS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	x, rng, all := attack(t), rand.New(rand.NewPCG(seed, 0)), good(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("PORTCULLIS_SEED=%d", seed)
		}
	})
	most := 0
	for i := range burst {
		m := pick(rng, all)
		x.send(t, m.door, spoil(rng, m.text, all))
		if i%50 == 49 {
			x.lawful(t)
			most = max(most, len(x.List(t)))
		}
		if t.Failed() {
			return
		}
	}
	if most <= len(x.others) {
		t.Error("nothing was ever opened: this proves nothing")
	}
}

var (
	digits    = regexp.MustCompile(`[0-9]+`)
	addresses = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|2001:db8:[0-9a-f:]+`)
	targets   = []string{"192.168.77.20", "192.168.77.1", "203.0.113.66", "127.0.0.1", "0.0.0.0", "2001:db8:77::20", "2001:db8:77::1", "::1", "192.168.77.10", "evil.example"}
	odd       = []string{"0", "1", "22", "80", "445", "1023", "1024", "3389", "5000", "5351", "46001", "46002", "50000", "59999", "65535", "65536", "65981", "-1", "4294967295", "4294967296"}
)

// spoil changes a message here and there: its numbers and addresses most of all, because
// most others spoil it for every reader.
func spoil(rng *rand.Rand, text []byte, all []message) []byte {
	b := slices.Clone(text)
	for range rng.IntN(3) {
		switch i := rng.IntN(len(b) + 1); rng.IntN(12) {
		case 0: // a bit
			if i < len(b) {
				b[i] ^= 1 << rng.IntN(8)
			}
		case 1, 2: // an octet or two, as ports are
			if i+1 < len(b) {
				v := []uint16{0, 1, 22, 80, 445, 1023, 1024, 5351, 46001, 50001, 65535}[rng.IntN(11)]
				b[i], b[i+1] = byte(v>>8), byte(v)
			}
		case 3, 4, 5:
			b = replaceOne(rng, digits, b, odd)
		case 6, 7:
			b = replaceOne(rng, addresses, b, targets)
			b = bytes.Replace(b, hostA.AsSlice(), [][]byte{hostA.AsSlice(), hostB.AsSlice(), lab.GatewayLAN.AsSlice(), lab.InternetOne.AsSlice()}[rng.IntN(4)], 1)
		case 8: // cut
			b = b[:i]
		case 9: // left out
			b = slices.Delete(b, i, min(len(b), i+1+rng.IntN(8)))
		case 10: // again
			b = slices.Insert(b, i, b[i:min(len(b), i+1+rng.IntN(40))]...)
		case 11: // a piece of another
			o := all[rng.IntN(len(all))].text
			b = slices.Insert(b, i, o[rng.IntN(len(o)):]...)
		}
	}
	return b
}

// pick chooses a message: those that open something more often than others.
func pick(rng *rand.Rand, all []message) message {
	for {
		m := all[rng.IntN(len(all))]
		opens := m.door == doorNATPMP || m.door == doorPCP6 || bytes.Contains(m.text, []byte("#Add"))
		if opens || rng.IntN(4) == 0 {
			return m
		}
	}
}

// replaceOne puts another word in the place of one that is found.
func replaceOne(rng *rand.Rand, what *regexp.Regexp, b []byte, with []string) []byte {
	found := what.FindAllIndex(b, -1)
	if len(found) == 0 {
		return b
	}
	at := found[rng.IntN(len(found))]
	return slices.Replace(b, at[0], at[1], []byte(with[rng.IntN(len(with))])...)
}
