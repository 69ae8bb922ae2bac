package incumbent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"portcullis/config"
	"portcullis/policy"
	"portcullis/portmap"
)

// theirs is what miniupnpd answers: the first rule that matches decides, and where there is
// none, it allows. A text that is missing matches every expression.
func theirs(rules []rule, ext uint16, from uint32, in uint16, text string) bool {
	for _, r := range rules {
		if ext < r.external.first || ext > r.external.last || in < r.internal.first || in > r.internal.last ||
			from&r.address.mask != r.address.address&r.address.mask {
			continue
		}
		if r.text != "" && text != "" {
			re, err := regexp.CompilePOSIX("(" + strings.ToLower(r.text) + ")")
			if err == nil && !re.MatchString(strings.ToLower(text)) {
				continue
			}
		}
		return r.allow
	}
	return true
}

// FuzzOpensNoMore: what our policy allows by an imported file, miniupnpd allowed by it, at
// the edges of every rule.
func FuzzOpensNoMore(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data, "Plex Media Server")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		in, err := Read("in", data)
		if err != nil || in.Kind == Leases || len(in.rules) > 12 {
			return
		}
		plan, err := Translate(&in, Machine{})
		if err != nil {
			return
		}
		p, err := policy.New(policy.Config{Default: plan.Config.Policy.Default, Rules: plan.Config.Rules})
		if err != nil {
			t.Fatal(err)
		}
		view := portmap.View{
			WANs: []portmap.WAN{{Name: "wan", Up: true, External: netip.MustParseAddr("203.0.113.5")}},
			LAN:  map[string]portmap.LAN{"br-lan": {Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}},
		}
		ask := func(ext uint16, from uint32, port uint16, text string) {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], from)
			host := netip.AddrFrom4(b)
			r := portmap.Request{Client: portmap.Client{Addr: host, Interface: "br-lan", Via: portmap.ViaUPnP}, Transport: portmap.TCP,
				Internal: netip.AddrPortFrom(host, port), ExternalPort: ext, Description: text}
			d := p.Decide(r, portmap.Facts{View: &view})
			if d.Action == portmap.Allow && !theirs(in.rules, ext, from, port, text) {
				t.Errorf("%d -> %s:%d %q is allowed by %q, and was not\n%s", ext, host, port, text, d.Rule, plan.Text("in"))
			}
			if d.Action == portmap.Allow && d.Rule == "" && port < 1024 {
				t.Errorf("%s:%d is open by no rule", host, port)
			}
		}
		for _, r := range in.rules {
			if r.network != "" {
				return // whose hosts are not known here
			}
			for _, ext := range []uint16{r.external.first, r.external.last, r.external.first - 1, r.external.last + 1} {
				for _, port := range []uint16{r.internal.first, r.internal.last, r.internal.first - 1, r.internal.last + 1} {
					for _, from := range []uint32{r.address.address, r.address.address | ^r.address.mask, r.address.address ^ 1, r.address.address ^ 1<<20} {
						if ext != 0 {
							ask(ext, from, port, text)
							ask(ext, from, port, "")
						}
					}
				}
			}
		}
	})
}

// TestNamedBehindMore: a rule that names a port which only a rule opens goes on opening it behind
// one that allows more, as in the example of miniupnpd's own file, and never before a denial.
func TestNamedBehindMore(t *testing.T) {
	t.Parallel()
	const wide, names, deny, all = "allow 1024-65535 192.168.1.0/24 1024-65535\n", "allow 8080 192.168.1.5/32 8080\n", "deny 8080 192.168.1.5/32 8080\n", "deny 0-65535 0.0.0.0/0 0-65535\n"
	for text, want := range map[string]string{
		wide + names + all: "2 1 3", names + wide + all: "1 2 3", deny + wide + names + all: "1 3 2 4", wide + deny + names + all: "1 2 3 4",
		wide + "allow 6000 192.168.1.5/32 6000\n" + names: "3 1 2", all + wide + names: "1 3 2", "": "",
	} {
		f, err := Read("x", []byte("port=0\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Translate(&f, Machine{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range plan.Config.Rules {
			var n int
			if _, err := fmt.Sscanf(r.Name, "line %d of", &n); err != nil {
				t.Fatal(r.Name, err)
			}
			got = append(got, fmt.Sprint(n-1))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is tried as %s, want %s", text, got, want)
		}
	}
}

// TestNoIPv6: who had IPv6 off has it off by an import, and mappings as before.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"ipv6_disable=yes": false, "ipv6_disable=no": true, "ipv6_disable=": true, "port=0": true,
		"config upnpd\n\toption ipv6_disable 1": false, "config upnpd\n\toption ipv6_disable 0": true,
	} {
		f, err := Read("x", []byte(text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Translate(&f, Machine{})
		if err != nil || plan.Config.LAN.IPv6 != want || len(plan.Config.Rules) != 0 {
			t.Errorf("%q: IPv6 %v, rules %v, %v", text, plan.Config.LAN.IPv6, plan.Config.Rules, err)
		}
	}
}

// TestNamedByIPv4: a rule that names a port which only a rule opens does so for IPv4, as
// miniupnpd's rules are of, whether it means a network by its addresses or a LAN; one for
// ordinary ports leaves IPv6 as open as it was there.
func TestNamedByIPv4(t *testing.T) {
	t.Parallel()
	const v2 = "config internal_network\noption interface lan\nlist acl_accept_ports 1000-1030\noption acl_preset "
	for _, c := range []struct {
		text string
		port uint16
		want portmap.Action // of a pinhole
		four portmap.Action // of a mapping
	}{
		{"allow 80 0.0.0.0/0 80", 80, portmap.Deny, portmap.Allow},
		{"allow 1024-65535 0.0.0.0/0 8080", 8080, portmap.Deny, portmap.Allow},
		{"allow 1024-65535 0.0.0.0/0 1024-65535", 65535, portmap.Allow, portmap.Allow},
		{v2 + "accept-web-ports", 80, portmap.Deny, portmap.Allow},
		{v2 + "accept-high-ports+web", 443, portmap.Deny, portmap.Allow},
		{v2 + "accept-high-ports+web", 6000, portmap.Allow, portmap.Allow},
		{v2 + "none\noption acl_custom_first 1", 1000, portmap.Deny, portmap.Allow},
		{v2 + "accept-web-ports\nconfig internal_network\noption interface iot\noption acl_preset accept-web-ports\nconfig settings s", 80, portmap.Deny, portmap.Allow},
	} {
		f, err := Read("x", []byte(c.text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Translate(&f, Machine{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.New(policy.Config{Default: portmap.Allow, Rules: plan.Config.Rules})
		if err != nil {
			t.Fatal(err)
		}
		for _, ask := range []struct {
			host string
			kind portmap.Kind
			want portmap.Action
		}{{"2001:db8::9", portmap.Pinhole6, c.want}, {"192.168.1.9", portmap.NAT4, c.four}} {
			host := netip.MustParseAddr(ask.host)
			lan := portmap.LAN{Prefixes: []netip.Prefix{netip.PrefixFrom(host, host.BitLen()/2+8).Masked()}}
			client := portmap.Client{Addr: host, MAC: portmap.MAC{2}, Interface: "br-lan", Via: portmap.ViaPCP}
			v := portmap.View{WANs: []portmap.WAN{{Name: "wan", Up: true, External: netip.MustParseAddr("11.22.33.44")}}, LAN: map[string]portmap.LAN{"br-lan": lan}, WAN6: "wan", WAN6Up: true}
			r := portmap.Request{Client: client, Kind: ask.kind, Transport: portmap.TCP, Internal: netip.AddrPortFrom(host, c.port), ExternalPort: c.port}
			if d := p.Decide(r, portmap.Facts{View: &v}); d.Action != ask.want {
				t.Errorf("%q: %s to %d: %+v", c.text, ask.host, c.port, d)
			}
		}
	}
}

// TestSectionsOfOneName: they are one, and an option counts as it was set last, as for libuci;
// two rules would open what one does not.
func TestSectionsOfOneName(t *testing.T) {
	t.Parallel()
	const rule = "config perm_rule web\noption action allow\noption ext_ports 6000\noption int_ports 6000\n"
	for in, want := range map[string]string{
		rule + "config perm_rule web\noption action deny\n":                                                        "deny 6000 br-lan",
		rule + "config perm_rule other\noption action deny\noption ext_ports 9\n":                                  "allow 6000 deny 9 br-lan",
		rule + "config perm_rule\noption ext_ports 9\nconfig perm_rule\n":                                          "allow 6000 deny 9 deny br-lan",
		rule + "option int_addr 10.0.0.9\noption int_addr 10.0.0.8\n":                                              "allow 6000 10.0.0.8/32 br-lan",
		"config upnpd c\noption internal_iface iot\noption internal_iface guest\n":                                 "br-guest",
		"config upnpd c\noption internal_iface iot\nlist internal_iface lan\n":                                     "br-iot br-lan",
		"config upnpd c\noption internal_iface iot\nconfig perm_rule\nconfig upnpd c\noption internal_iface lan\n": "deny br-lan",
		rule + "config upnpd web\n":    `x:5: "web" is a section of another type in line 1`,
		"config upnpd c d\n":           `x:1: "config upnpd c d" is no line of a UCI file`,
		"config upnpd ''\nconfig x ''": "br-lan", // no name
		"config upnpd c\n" + strings.Repeat("option port "+strings.Repeat("5", 4000)+"\nconfig upnpd c\n", 9): "x:18: the section has more than 32768 bytes",
	} {
		f, err := Read("x", []byte(in))
		var plan Plan
		if err == nil {
			plan, err = Translate(&f, Machine{})
		}
		if got := strings.Join(outline(plan.Config), " "); err == nil && got != want || err != nil && err.Error() != want {
			t.Errorf("%.200q: %s, want %s: %v", in, got, want, err)
		}
	}
}

// outline is what a configuration opens and serves, in short.
func outline(c config.Config) (all []string) {
	for _, r := range c.Rules {
		all = append(all, r.Action.String())
		for _, p := range r.External {
			all = append(all, p.String())
		}
		for _, m := range r.Clients {
			all = append(all, m.String())
		}
	}
	for _, i := range c.LAN.Interfaces {
		all = append(all, string(i))
	}
	return all
}

// TestLeasesOfThePage: on a router whose file does not say where the leases are, they are where
// LuCI's page looks for them; elsewhere nobody looks.
func TestLeasesOfThePage(t *testing.T) {
	t.Parallel()
	const page = "/var/run/miniupnpd.leases"
	for in, want := range map[string][2]string{
		"config upnpd config\n":                                              {page, page + "-ipv6"},
		"config upnpd config\noption upnp_lease_file ''\n":                   {page, page + "-ipv6"},
		"config upnpd config\noption upnp_lease_file6 /tmp/six\n":            {page, "/tmp/six"},
		"config upnpd config\noption upnp_lease_file /tmp/four\n":            {"/tmp/four", ""},
		"config settings s\nconfig internal_network\noption interface lan\n": {page, page + "-ipv6"},
		"config settings s\noption lease_file /tmp/four\n":                   {"/tmp/four", "/tmp/four-ipv6"},
	} {
		f, err := Read("x", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []Machine{{Router: &Router{Networks: map[string]string{"lan": "br-lan"}}}, {}} {
			plan, err := Translate(&f, m)
			if got := [2]string{string(plan.Config.Miniupnpd.LeaseFile), string(plan.Config.Miniupnpd.LeaseFile6)}; err != nil || m.Router == nil && got[0] == page || m.Router != nil && got != want {
				t.Errorf("%q, on the router %v: %q: %v", in, m.Router != nil, got, err)
			}
		}
	}
}

// TestOnTheRouter: where the devices of networks, and the holders of addresses, are known,
// they are taken, and no other way to the Internet instead of one that is down.
func TestOnTheRouter(t *testing.T) {
	t.Parallel()
	m := Machine{
		Router: &Router{Networks: map[string]string{"wan": "pppoe-wan", "lan": "br-home"}},
		Holder: func(a netip.Addr) (string, bool) { return "eth1", a == netip.MustParseAddr("192.168.1.1") },
	}
	for in, want := range map[string]string{
		"config upnpd config\noption external_iface wan\noption internal_iface lan\n": "pppoe-wan [br-home]",
		"config upnpd config\noption external_iface lte\noption internal_iface lan\n": "lte [br-home] look", // and no other way to the Internet
		"ext_ifname=eth0\nenable_natpmp=yes\nlistening_ip=192.168.1.1/24\n":           "eth0 [eth1]",
	} {
		f, err := Read("x", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Translate(&f, m)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(plan.Config.WAN.Interface, " ", plan.Config.LAN.Interfaces)
		for _, n := range plan.Notes {
			if n.Key != "firewall.accept_chain" {
				got += " look"
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// TestPattern: which expressions of POSIX are taken over, and that they find the same.
func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ere, finds, not string }{
		{"^Plex", "plex media server", "a plex"},
		{"torrent|bit", "uTorrent", "skype"},
		{"^(NAT-PMP|PCP)", "pcp map", "x pcp"},
		{"a.c", "a\nc", "ac"},
		{"[[:digit:]]+x", "12X", "x"},
		{"[]x]$", "a]", "]a"},
		{`a\.b`, "a.b", "axb"},
		{"[^a-z]", "a1", "abc"},
	} {
		re, ok := pattern(c.ere)
		if !ok {
			t.Errorf("%q is not taken over", c.ere)
			continue
		}
		if m := regexp.MustCompile(re); !m.MatchString(c.finds) || m.MatchString(c.not) {
			t.Errorf("%q as %q finds %t in %q and %t in %q", c.ere, re, m.MatchString(c.finds), c.finds, m.MatchString(c.not), c.not)
		}
	}
	for _, ere := range []string{"a+?", "a**", "*a", "(*a)", "^*", `\d`, `\1`, `\<a`, `[\.]`, "[[.a.]]", "[a", "a)", "(a", "(?i)a", "a{2}", "a||b", "|a", "a|", "()", "\xe9", "ä", "[ä]", "a\\", "a\tb", "[[:foo:]]"} {
		if re, ok := pattern(ere); ok {
			t.Errorf("%q is taken over as %q", ere, re)
		}
	}
}

// TestTextsOfRules: a rule that denies by a text denies requests without one too, as they
// match there; one whose text cannot be said denies everything; one that allows is left out.
func TestTextsOfRules(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`deny 1-2 10.0.0.1 3 "evil"`:   `[line 1: stricter: a rule that denies by its text denies what has none as well, as do NAT-PMP and PCP; via = ["upnp"] leaves these out] (?:(?is)evil)|^$`,
		`deny 1-2 10.0.0.1 3 "e\d"`:    "[line 1: stricter: a rule that denies is wider, because its mask, its network or its expression has no form here] <nil>",
		`allow 1024 10.0.0.1 3000 "a"`: "[line 1: stricter: the text of a program decides, which proves nothing; a request without one, as by NAT-PMP, is not allowed by it] (?is)a",
	} {
		f, err := Read("x", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		tr := newTranslation(Base{Config: config.Default()}, &f, Machine{})
		tr.ruleOf(f.rules[0])
		if got := fmt.Sprint(tr.notes, " ", tr.config.Rules[0].Description); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
