package lab_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/ipv6"

	"portcullis/internal/lab"
)

// gateway answers as ours should, with fixed words, and notes what it was asked.
type gateway struct {
	*lab.Host
	mu   sync.Mutex
	seen []string
}

func (g *gateway) saw(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, fmt.Sprintf(format, args...))
}

// asked returns what was noted since the last call.
func (g *gateway) asked() (seen []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen, g.seen = g.seen, nil
	return seen
}

// upnp serves discovery and control on the gateway's LAN.
func (g *gateway) upnp(t *testing.T) {
	t.Helper()
	conn, err := g.ListenPacket("[::]:1900")
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	link, err := g.Netlink().LinkByName(lab.Bridge)
	must(t, err)
	bridge := &net.Interface{Index: link.Attrs().Index}
	p := ipv6.NewPacketConn(conn)
	must(t, p.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true))
	for _, group := range []netip.AddrPort{lab.Group6LinkLocal, lab.Group6SiteLocal} {
		must(t, p.JoinGroup(bridge, net.UDPAddrFromAddrPort(group)))
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, control, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			source := from.(*net.UDPAddr)
			host := regexp.MustCompile(`HOST: (.*)\r`).FindStringSubmatch(string(buf[:n]))
			g.saw("search from %s to %s, hop limit %d, HOST %q", source.IP, control.Dst, control.HopLimit, host[1:])
			location := lab.GatewayLAN6
			if source.IP.IsLinkLocalUnicast() {
				location = lab.GatewayLinkLocal
			}
			_, _ = p.WriteTo(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nLOCATION: http://[%s]:5000/root.xml\r\n\r\n", location), nil, from)
		}
	}()
	l, err := g.Listen("[::]:5000")
	must(t, err)
	server := &http.Server{Handler: g, ReadHeaderTimeout: patience}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

const rootXML = `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList><service>` +
	`<serviceType>urn:schemas-upnp-org:service:WANIPv6FirewallControl:1</serviceType><controlURL>/ctl/IP6</controlURL>` +
	`</service></serviceList></device></deviceList></device></root>`

var argument = regexp.MustCompile(`<(\w+)>([^<]*)</`)

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	source, _, _ := net.SplitHostPort(r.RemoteAddr)
	source, _, _ = strings.Cut(source, "%")
	if r.Method == http.MethodGet {
		g.saw("%s %s from %s, Host %s", r.Method, r.URL, source, r.Host)
		_, _ = io.WriteString(w, rootXML)
		return
	}
	body, _ := io.ReadAll(r.Body)
	_, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPAction"), `"`), "#")
	said := action
	for _, a := range argument.FindAllStringSubmatch(string(body), -1) {
		said += " " + a[1] + "=" + a[2]
	}
	g.saw("%s from %s", said, source)
	answer := map[string]string{
		"AddPinhole": "<UniqueID>4711</UniqueID>", "GetPinholePackets": "<PinholePackets>4294967295</PinholePackets>",
		"CheckPinholeWorking": "<IsWorking>1</IsWorking>", "GetOutboundPinholeTimeout": "<OutboundPinholeTimeout>300</OutboundPinholeTimeout>",
		"GetFirewallStatus": "<FirewallEnabled>1</FirewallEnabled><InboundPinholeAllowed>0</InboundPinholeAllowed>",
	}[action]
	reply := fmt.Sprintf(`<u:%sResponse xmlns:u="%s">%s</u:%[1]sResponse>`, action, lab.WANIPv6FC1, answer)
	if strings.Contains(said, "UniqueID=9 ") || strings.HasSuffix(said, "UniqueID=9") {
		w.WriteHeader(http.StatusInternalServerError)
		reply = `<s:Fault><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>704</errorCode>` +
			`<errorDescription>NoSuchEntry</errorDescription></UPnPError></detail></s:Fault>`
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>`, reply)
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestSearch6: a search goes to either group with the source, the hop limit and
// the HOST that belong to it, and the description is read where the answer says,
// on the host's own link too.
func TestSearch6(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	g := &gateway{Host: n.Gateway}
	g.upnp(t)
	laptop := n.Host("laptop")
	private := netip.MustParseAddr("2001:db8:77::abcd:1")
	must(t, laptop.AddAddress(private))
	for _, c := range []struct {
		name           string
		search         lab.Search
		source         netip.Addr // of the HTTP connections
		control        string
		hears          string
		host           string
		searcher, asks netip.Addr
	}{
		{"link-local group", lab.Search{To: lab.Group6LinkLocal}, netip.Addr{}, "http://[fe80::1]:5000/ctl/IP6",
			"ff02::c, hop limit 1", "[FF02::C]:1900", laptop.LinkLocal, laptop.LinkLocal},
		{"site-local group", lab.Search{To: lab.Group6SiteLocal}, laptop.Addr6, "http://[2001:db8:77::1]:5000/ctl/IP6",
			"ff05::c, hop limit 10", "[FF05::C]:1900", laptop.Addr6, laptop.Addr6},
		{"site-local group, privacy address", lab.Search{To: lab.Group6SiteLocal, Source: private}, private, "http://[2001:db8:77::1]:5000/ctl/IP6",
			"ff05::c, hop limit 10", "[FF05::C]:1900", private, private},
		{"link-local group from a global address", lab.Search{To: lab.Group6LinkLocal, Source: laptop.Addr6}, netip.Addr{}, "http://[2001:db8:77::1]:5000/ctl/IP6",
			"ff02::c, hop limit 1", "[FF02::C]:1900", laptop.Addr6, private}, // the newest address
		{"the gateway alone", lab.Search{To: netip.MustParseAddrPort("[fe80::1]:1900")}, netip.Addr{}, "http://[fe80::1]:5000/ctl/IP6",
			"fe80::1, hop limit 64", "[FE80::1]:1900", laptop.LinkLocal, laptop.LinkLocal},
	} {
		p := lab.NewControlPoint(laptop)
		p.Source = c.source
		c.search.Target = lab.IGD2
		if err := p.FindBy(within(t, patience), c.search, lab.WANIPv6FC1); err != nil || p.Control != c.control {
			t.Errorf("%s: found %s, %v", c.name, p.Control, err)
		}
		base := strings.TrimSuffix(strings.TrimPrefix(c.control, "http://"), "/ctl/IP6")
		want := []string{
			fmt.Sprintf("search from %s to %s, HOST [%q]", c.searcher, c.hears, c.host),
			fmt.Sprintf("GET /root.xml from %s, Host %s", c.asks, base),
		}
		// On a busy machine a search is sent again.
		if diff := cmp.Diff(want, slices.Compact(g.asked())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := lab.NewControlPoint(n.Internet).Discover(within(t, doubt), lab.Search{To: lab.Group6LinkLocal, Target: lab.IGD2}); !errors.Is(err, lab.ErrSilence) {
		t.Errorf("the WAN is no part of the LAN's group: %v", err)
	}
}

// TestPinholeActions: what is sent, and what is made of the answers.
func TestPinholeActions(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	g := &gateway{Host: n.Gateway}
	g.upnp(t)
	p := lab.NewControlPoint(n.Host("laptop"))
	ctx := within(t, patience)
	must(t, p.Read(ctx, "http://[fe80::1]:5000/root.xml", lab.WANIPv6FC1))
	g.asked()
	hole := lab.Pinhole{Remote: lab.InternetOne6.String(), RemotePort: 53, Port: 32400, Protocol: "TCP", Lease: time.Hour}
	for _, c := range []struct {
		name string
		do   func() (any, error)
		want any
		asks string
	}{
		{"add", func() (any, error) { return p.AddPinhole(ctx, hole) }, uint16(4711),
			"AddPinhole RemoteHost=2001:db8:5::66 RemotePort=53 InternalClient=2001:db8:77::10 InternalPort=32400 Protocol=6 LeaseTime=3600"},
		{"add for another", func() (any, error) {
			return p.AddPinhole(ctx, lab.Pinhole{Client: "2001:db8:77::20", Port: 1, Protocol: "UDP"})
		}, uint16(4711), "AddPinhole RemoteHost= RemotePort=0 InternalClient=2001:db8:77::20 InternalPort=1 Protocol=17 LeaseTime=0"},
		{"update", func() (any, error) { return nil, p.UpdatePinhole(ctx, 4711, time.Minute) }, nil, "UpdatePinhole UniqueID=4711 NewLeaseTime=60"},
		{"update nothing", func() (any, error) {
			err := p.UpdatePinhole(ctx, 9, time.Minute)
			var refusal *lab.UPnPError
			if !errors.As(err, &refusal) {
				return nil, err
			}
			return refusal.Code, nil
		}, 704, "UpdatePinhole UniqueID=9 NewLeaseTime=60"},
		{"packets", func() (any, error) { return p.PinholePackets(ctx, 4711) }, uint32(1<<32 - 1), "GetPinholePackets UniqueID=4711"},
		{"works", func() (any, error) { return p.PinholeWorks(ctx, 4711) }, true, "CheckPinholeWorking UniqueID=4711"},
		{"delete", func() (any, error) { return nil, p.DeletePinhole(ctx, 4711) }, nil, "DeletePinhole UniqueID=4711"},
		{"status", func() (any, error) {
			enabled, allowed, err := p.FirewallStatus(ctx)
			return []bool{enabled, allowed}, err
		}, []bool{true, false}, "GetFirewallStatus"},
		{"timeout", func() (any, error) { return p.OutboundPinholeTimeout(ctx, hole) }, 5 * time.Minute,
			"GetOutboundPinholeTimeout RemoteHost=2001:db8:5::66 RemotePort=53 InternalClient=2001:db8:77::10 InternalPort=32400 Protocol=6"},
	} {
		got, err := c.do()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff([]string{c.asks + " from " + n.Host("laptop").LinkLocal.String()}, slices.Compact(g.asked())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// portControl answers at port 5351 of one address of the gateway; answer makes
// the reply, and nil is silence.
func (g *gateway) portControl(t *testing.T, at netip.Addr, answer func(request []byte) []byte) {
	t.Helper()
	conn, err := g.ListenPacket(netip.AddrPortFrom(at, 5351).String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			g.saw("%x from %s to %s", buf[:n], from.Addr().WithZone(""), at)
			if reply := answer(buf[:n]); reply != nil {
				_, _ = conn.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
}

// TestPCP6: PCP-34, to each address of the gateway from each of the host, and what is
// made of answers.
func TestPCP6(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	g := &gateway{Host: n.Gateway}
	laptop := n.Host("laptop")
	grant := func(request []byte) []byte {
		reply := append([]byte{2, request[1] | 0x80, 0, 0, 0, 0, 0, 120, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, request[24:]...)
		if len(reply) >= 60 {
			copy(reply[42:], request[40:42])
			copy(reply[44:60], request[8:24])
		}
		return reply
	}
	g.portControl(t, lab.GatewayLinkLocal, grant)
	g.portControl(t, lab.GatewayLAN6, grant)
	nonce := [12]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	for _, c := range []struct {
		source, gateway, uses netip.Addr
	}{
		{netip.Addr{}, lab.GatewayLAN6, laptop.Addr6},
		{netip.Addr{}, lab.GatewayLinkLocal, laptop.LinkLocal},
		{laptop.Addr6, lab.GatewayLinkLocal, laptop.Addr6},
	} {
		got, err := laptop.Map(within(t, patience), lab.MapRequest{Gateway: c.gateway, Source: c.source, Protocol: "TCP", Internal: 443,
			Lease: time.Hour, Nonce: nonce, Options: lab.Filter(netip.PrefixFrom(lab.InternetOne6, 128), 53)})
		want := lab.Granted{External: netip.AddrPortFrom(c.uses, 443), Lease: 2 * time.Minute, Epoch: 7, Nonce: nonce,
			Options: bytesOf(t, "03000014 00800035 20010db8 00050000 00000000 00000066")}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("from %s to %s: %v (-want +got):\n%s", c.uses, c.gateway, err, diff)
		}
		claimed := c.uses.As16()
		request := fmt.Sprintf("0201000000000e10%x000102030405060708090a0b0600000001bb0000%032x030000140080003520010db8000500000000000000000066", claimed, 0)
		// A slow answer is asked for again.
		if diff := cmp.Diff([]string{request + fmt.Sprintf(" from %s to %s", c.uses, c.gateway)}, slices.Compact(g.asked())); diff != "" {
			t.Errorf("from %s to %s (-want +got):\n%s", c.uses, c.gateway, diff)
		}
	}
	if epoch, err := laptop.Epoch(within(t, patience), netip.Addr{}, lab.GatewayLinkLocal); err != nil || epoch != 7 {
		t.Errorf("epoch %d, %v", epoch, err)
	}
}

// TestPCPRefusals: refusals, silence, and answers that are none.
func TestPCPRefusals(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	g := &gateway{Host: n.Gateway}
	laptop := n.Host("laptop")
	g.portControl(t, lab.GatewayLinkLocal, func(request []byte) []byte {
		return append([]byte{2, 0x81, 0, 12, 0, 0, 7, 8}, request[8:]...)
	})
	g.portControl(t, lab.GatewayLAN6, func(request []byte) []byte { return append([]byte{2, 0x81, 0, 0}, make([]byte, 56)...) })
	g.portControl(t, lab.GatewayWAN6, func([]byte) []byte { return nil })
	ask := func(gateway netip.Addr, wait time.Duration) error {
		_, err := laptop.Map(within(t, wait), lab.MapRequest{Gateway: gateway, Client: lab.InternetOne6, Protocol: "UDP", Internal: 1, Lease: time.Hour})
		return err
	}
	var refusal *lab.Refusal
	if err := ask(lab.GatewayLinkLocal, patience); !errors.As(err, &refusal) || *refusal != (lab.Refusal{Protocol: "PCP", Code: 12}) {
		t.Errorf("a refusal gave %v", err)
	}
	if err := ask(lab.GatewayLAN6, patience); err == nil || !strings.Contains(err.Error(), "not an answer") {
		t.Errorf("the answer to another request gave %v", err)
	}
	if err := ask(lab.GatewayWAN6, doubt); !errors.Is(err, lab.ErrSilence) {
		t.Errorf("silence gave %v", err)
	}
}

// TestPCPOptions: the layout of RFC 6887 section 7.3, padded to four bytes.
func TestPCPOptions(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"none":           {lab.PreferFailure(), "02000000"},
		"padded":         {lab.Option(128, 1, 2, 3, 4, 5), "80000005 01020304 05000000"},
		"third party":    {lab.ThirdParty(netip.MustParseAddr("192.0.2.1")), "01000010 00000000 00000000 0000ffff c0000201"},
		"IPv4 filter":    {lab.Filter(netip.MustParsePrefix("192.0.2.0/24"), 0), "03000014 00780000 00000000 00000000 0000ffff c0000200"},
		"anybody filter": {lab.Filter(netip.MustParsePrefix("::/0"), 0), "03000014 00000000 00000000 00000000 00000000 00000000"},
	} {
		if diff := cmp.Diff(bytesOf(t, c.want), c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	must(t, err)
	return b
}

// TestAnnouncements6: PCP-32. What is sent to the host alone is none.
func TestAnnouncements6(t *testing.T) {
	t.Parallel()
	n := network(t, "laptop")
	laptop := n.Host("laptop")
	ear, err := laptop.HearAnnouncements6()
	must(t, err)
	defer ear.Close()
	conn, err := n.Gateway.ListenPacket("[fe80::1]:5351")
	must(t, err)
	defer conn.Close()
	announce := bytesOf(t, "02800000 00000000 00000005 00000000 00000000 00000000")
	for _, to := range []netip.Addr{laptop.LinkLocal, netip.MustParseAddr("ff02::1")} {
		for _, payload := range [][]byte{announce, []byte("hello")} {
			_, err := conn.WriteToUDPAddrPort(payload, netip.AddrPortFrom(n.Gateway.Zoned(to), 5350))
			must(t, err)
		}
	}
	got, err := ear.Next(within(t, patience))
	if err != nil || got.From != netip.AddrPortFrom(lab.GatewayLinkLocal, 5351) || got.Epoch != 5 || got.HopLimit != 1 || !cmp.Equal(got.Payload, announce) {
		t.Errorf("heard %+v, %v", got, err)
	}
	if _, err := ear.Next(within(t, patience)); err == nil || errors.Is(err, lab.ErrSilence) {
		t.Errorf("hello is an announcement: %v", err)
	}
	if _, err := ear.Next(within(t, doubt)); !errors.Is(err, lab.ErrSilence) {
		t.Errorf("silence gave %v", err)
	}
}
