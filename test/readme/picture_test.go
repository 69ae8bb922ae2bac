package readme

import (
	"flag"
	"fmt"
	"html"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/internal/wiring"
	"portcullis/policy"
	"portcullis/portmap"
)

// The pictures of the README are made by `make pictures` from the program's own words, and
// compared with them here.

var update = flag.Bool("update", false, "write the pictures anew")

// changing is what differs from run to run: counts, times, and the spaces that columns need
// for them.
var changing = regexp.MustCompile(`[0-9.]+|  +`)

// same compares a picture with the one in the repository, or writes it there.
func same(t *testing.T, name, is string) {
	t.Helper()
	path := filepath.Join(root, name)
	if *update {
		if err := os.WriteFile(path, []byte(is), 0o644); err != nil { //nolint:gosec // everybody may look
			t.Fatal(err)
		}
		return
	}
	if was := file(t, name); changing.ReplaceAllString(was, "#") != changing.ReplaceAllString(is, "#") {
		t.Errorf("%s is not what the program says now; run make pictures. It would be\n%s", name, is)
	}
}

// clause is where a sentence is broken into two lines.
var clause = regexp.MustCompile(`[;,] `)

// asked is an arrow of the picture: who asks for what, and what the policy says.
type asked struct {
	who, what string
	request   portmap.Request
}

// refusal returns the policy's sentence, "" where it allows the request.
func refusal(t *testing.T, r portmap.Request) string {
	t.Helper()
	p, err := policy.New(wiring.Policy(config.Default()))
	if err != nil {
		t.Fatal(err)
	}
	lan := netip.MustParsePrefix("192.168.1.0/24")
	v := portmap.View{
		LAN:   map[string]portmap.LAN{"br-lan": {Prefixes: []netip.Prefix{lan}, Addrs: []netip.Addr{netip.MustParseAddr("192.168.1.1")}}},
		Local: map[netip.Addr]struct{}{netip.MustParseAddr("192.168.1.1"): {}},
		WANs:  []portmap.WAN{{Name: "wan0", Up: true, External: netip.MustParseAddr("203.0.113.5")}},
	}
	d := p.Decide(r, portmap.Facts{View: &v})
	if d.Action == portmap.Allow {
		return ""
	}
	return d.Detail
}

func wish(from, to string, tr portmap.Transport, port uint16) portmap.Request {
	c := portmap.Client{Addr: netip.MustParseAddr(from), MAC: portmap.MAC{2, 0, 0, 0, 0, 1}, Interface: "br-lan", Via: portmap.ViaUPnP}
	return portmap.Request{
		Client: c, Kind: portmap.NAT4, Transport: tr, Internal: netip.AddrPortFrom(netip.MustParseAddr(to), port), ExternalPort: port, Exact: true,
	}
}

// TestPicture: docs/gate.svg has the sentences of the policy.
func TestPicture(t *testing.T) {
	rows := []asked{
		{"console", "3074/udp for a game", wish("192.168.1.10", "192.168.1.10", portmap.UDP, 3074)},
		{"laptop", "22000/tcp for its backup", wish("192.168.1.20", "192.168.1.20", portmap.TCP, 22000)},
		{"malware", "its own 445/tcp (SMB)", wish("192.168.1.40", "192.168.1.40", portmap.TCP, 445)},
		{"malware", "the laptop's 22/tcp", wish("192.168.1.40", "192.168.1.20", portmap.TCP, 22)},
		{"malware", "an Internet host (UPnProxy)", wish("192.168.1.40", "203.0.113.67", portmap.TCP, 3128)},
	}
	var b strings.Builder
	const high, top = 74, 74
	h := top + high*len(rows)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 %d" role="img" aria-labelledby="t">
<title id="t">Hosts on a LAN ask Portcullis for open ports. What its policy allows goes to the kernel, and packets from the Internet come in there; the rest is refused with a sentence.</title>
<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328 } .head { font-weight: bold; font-size: 15px } .small { font-size: 12px }
.yes { stroke: #1a7f37; fill: none; stroke-width: 2.5 } .no { stroke: #cf222e; fill: none; stroke-width: 2.5 }
.why { fill: #cf222e; font-size: 12px } .ok { fill: #1a7f37; font-size: 12px } .box { fill: #eef1f4; stroke: #8c959f }
</style>
<defs>
<marker id="y" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#1a7f37"/></marker>
<marker id="n" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#cf222e"/></marker>
</defs>
<rect width="960" height="%d" rx="8" fill="#fff"/>
<rect class="box" x="20" y="16" width="130" height="%d" rx="6"/><text class="head" x="36" y="40">your LAN</text>
<rect class="box" x="510" y="16" width="120" height="%d" rx="6"/><text class="head" x="526" y="40">Portcullis</text><text class="small" x="526" y="58">one policy</text>
<rect class="box" x="690" y="16" width="110" height="%d" rx="6"/><text class="head" x="704" y="40">the kernel</text><text class="small" x="704" y="58">nftables</text>
<rect class="box" x="850" y="16" width="95" height="%d" rx="6"/><text class="head" x="864" y="40">Internet</text>
`, h, h, h-32, h-32, h-32, h-32)
	for i, r := range rows {
		y := top + high*i + 24
		fmt.Fprintf(&b, "<text x=\"36\" y=\"%d\">%s</text><text class=\"small\" x=\"166\" y=\"%d\">%s</text>\n", y+5, r.who, y-8, html.EscapeString(r.what))
		why := refusal(t, r.request)
		if allowed := i < 2; allowed != (why == "") {
			t.Errorf("%s, %s: %q", r.who, r.what, why)
		}
		if why == "" {
			fmt.Fprintf(&b, "<path class=\"yes\" marker-end=\"url(#y)\" d=\"M150 %d H508\"/><text class=\"ok\" x=\"526\" y=\"%d\">granted</text>", y, y+4)
			fmt.Fprintf(&b, "<path class=\"yes\" marker-end=\"url(#y)\" d=\"M630 %d H688\"/>", y)
			fmt.Fprintf(&b, "<path class=\"yes\" marker-end=\"url(#y)\" d=\"M850 %d H802\"/><text class=\"ok\" x=\"704\" y=\"%d\">opens, counts</text>\n", y, y+4)
			continue
		}
		fmt.Fprintf(&b, "<path class=\"no\" marker-end=\"url(#n)\" d=\"M150 %d H508\"/><path class=\"no\" d=\"M518 %d l14 14 m0 -14 l-14 14\"/>", y, y-7)
		for j, part := range clause.Split(why, 2) {
			fmt.Fprintf(&b, "<text class=\"why\" x=\"166\" y=\"%d\">%s</text>", y+17+15*j, html.EscapeString(part))
		}
		b.WriteByte('\n')
	}
	b.WriteString("</svg>\n")
	same(t, "docs/gate.svg", b.String())
}
