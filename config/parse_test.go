package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portcullis/config"
	"portcullis/firewall"
	"portcullis/policy"
	"portcullis/portmap"
)

// sameConfig compares values that cmp cannot look into.
var sameConfig = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
	cmp.Comparer(func(a, b *regexp.Regexp) bool {
		if a == nil || b == nil {
			return a == b
		}
		return a.String() == b.String()
	}),
}

func TestParseTypes(t *testing.T) {
	t.Parallel()
	const text = `
[lan]
interfaces = ["br-lan", "br-iot"]
extra_prefixes = ["192.168.7.0/24"]
[wan]
interface = "wan0"
external_ip = "198.51.100.4"
private_address = "allow"
[upnp]
enabled = false
http_port = 5001
events = false
friendly_name = "Gate"
[pcp]
natpmp = false
pcp = false
nonce = "strict"
[lease]
max = "24h"
min = "1m"
[limits]
mappings_per_client = 8
mappings = 100
grants_per_second = 0
requests_per_second = 10
[policy]
default = "deny"
[[rule]]
name = "cameras never"
action = "deny"
clients = ["AA:bb:cc:dd:ee:ff", "192.168.1.64/26", "192.168.1.7", "2001:db8:1::/64", "host:Cam-*", "iface:br-iot"]
external_ports = ["1024-65535"]
internal_ports = ["80", "8000-8999"]
protocols = ["udp", "tcp"]
via = ["upnp", "natpmp", "pcp"]
description = "^Plex"
max_lifetime = "1h"
max_mappings = 4
[[rule]]
name = "all else"
action = "allow"
[firewall]
backend = "nftables"
accept_chain = "ip filter FORWARD"
accept_chain6 = "inet fw4 forward"
mark = "0x80"
keep_on_stop = true
[state]
dir = "/srv/p"
[control]
socket = "/run/p.sock"
group = "wheel"
[log]
level = "warn"
format = "json"
`
	want := config.Default()
	want.LAN.Interfaces = []config.Interface{"br-lan", "br-iot"}
	want.LAN.ExtraPrefixes = []config.Network{{Prefix: netip.MustParsePrefix("192.168.7.0/24")}}
	want.WAN.Interface = "wan0"
	want.WAN.ExternalIP = config.PublicIP{Addr: netip.MustParseAddr("198.51.100.4")}
	want.WAN.PrivateAddress = config.AllowPrivate
	want.UPnP.Enabled, want.UPnP.Events = false, false
	want.UPnP.HTTPPort, want.UPnP.FriendlyName = 5001, "Gate"
	want.PCP.NATPMP, want.PCP.PCP, want.PCP.Nonce = false, false, config.NonceStrict
	want.Lease.Max, want.Lease.Min = 24*time.Hour, time.Minute
	want.Limits.MappingsPerClient, want.Limits.Mappings = 8, 100
	want.Limits.GrantsPerSecond, want.Limits.RequestsPerSecond = 0, 10
	want.Policy.Default = portmap.Deny
	want.Rules = []policy.Rule{
		{
			Name:   "cameras never",
			Action: portmap.Deny,
			Clients: []policy.ClientMatch{
				{MAC: portmap.MAC{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}},
				{Prefix: netip.MustParsePrefix("192.168.1.64/26")},
				{Prefix: netip.MustParsePrefix("192.168.1.7/32")},
				{Prefix: netip.MustParsePrefix("2001:db8:1::/64")},
				{Host: "cam-*"},
				{Interface: "br-iot"},
			},
			External:    []portmap.PortRange{{First: 1024, Last: 65535}},
			Internal:    []portmap.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8999}},
			Transports:  []portmap.Transport{portmap.UDP, portmap.TCP},
			Via:         []portmap.Via{portmap.ViaUPnP, portmap.ViaNATPMP, portmap.ViaPCP},
			Description: regexp.MustCompile("^Plex"),
			MaxLifetime: time.Hour,
			MaxMappings: 4,
		},
		{Name: "all else", Action: portmap.Allow},
	}
	want.Firewall.Backend = config.BackendNFTables
	want.Firewall.AcceptChain = firewall.Chain{Family: "ip", Table: "filter", Name: "FORWARD"}
	want.Firewall.AcceptChain6 = firewall.Chain{Family: "inet", Table: "fw4", Name: "forward"}
	want.Firewall.Mark, want.Firewall.KeepOnStop = 0x80, true
	want.State.Dir = "/srv/p"
	want.Control.Socket, want.Control.Group = "/run/p.sock", "wheel"
	want.Log.Level, want.Log.Format = config.LevelWarn, config.FormatJSON
	got, err := config.Parse("p.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameConfig); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestParseNothing: a text without keys is the defaults, and so is what the
// defaults print.
func TestParseNothing(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no text":   "",
		"a comment": "# later\n",
		"effective": string(config.Effective(config.Default())),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := config.Parse("p.toml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(config.Default(), got, sameConfig); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestParseText: what is not a text, or far too much of it (abuse case C13).
func TestParseText(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, want string }{
		{"NUL", "[log]\nlevel = \"in\x00fo\"\n", "p.toml:2: a NUL byte; allowed: UTF-8 text"},
		{"only NUL", "\x00\x00\x00\x00", "p.toml:1: a NUL byte; allowed: UTF-8 text"},
		{"UTF-16 little", "\xff\xfe[\x00l\x00", "p.toml:1: the file is UTF-16; save it as UTF-8"},
		{"UTF-16 big", "\xfe\xff\x00[", "p.toml:1: the file is UTF-16; save it as UTF-8"},
		{"Latin-1", "# \ufffd is fine\n\n# T\xfcr\n", "p.toml:3: the byte 0xfc is not UTF-8; allowed: UTF-8 text"},
		{"cut rune", "# \xe2\x82", "p.toml:1: the byte 0xe2 is not UTF-8; allowed: UTF-8 text"},
		{"control", "# \x1b[2J\n", "p.toml:1: not valid TOML: TOML files cannot contain control characters: '0x1b'"},
		{"lone CR", "# a\rb\n", "p.toml:1: not valid TOML: TOML files cannot contain control characters: '0x0d'"},
		{"too large", strings.Repeat("#", config.MaxFileSize+1), "p.toml:1: the file is too large; allowed: at most 1048576 bytes"},
		{"direction", "\"a\u202eb\" = 1\n\"a\u202eb\" = 2\n", "p.toml:2: not valid TOML: Key '\"a?b\"' has already been defined."},
		{"long key", strings.Repeat("ü", 150) + " = 1", "p.toml:1: not valid TOML: expected '.' or '=', but got 'ü' instead"},
		{"long key twice", strings.Repeat("k", 300) + " = 1\n" + strings.Repeat("k", 300) + " = 2", "p.toml:2: not valid TOML: Key '" + strings.Repeat("k", 195) + "..."},
		{"long value", "[policy]\ndefault = \"a" + strings.Repeat("ü", 100) + "\"", "p.toml:2: policy.default: \"a" + strings.Repeat("ü", 31) + "\"... is unknown; allowed: \"allow\", \"ask\", \"deny\""},
		{"end at once", "a", "p.toml:1: not valid TOML: unexpected EOF; expected key separator '='"},
	} {
		t.Run("C13/"+tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("p.toml", []byte(tc.text))
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
	if _, err := config.Parse("p.toml", []byte(strings.Repeat("#", config.MaxFileSize))); err != nil {
		t.Errorf("a file of the largest size: %v", err)
	}
}

// TestUnknownKey: an error lists the keys of its table, in the order of the file.
func TestUnknownKey(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("p.toml", []byte("[pcp]\nnatpmp = true\nnonce_strict = true\n[pcpp]\n"))
	want := `p.toml:3: unknown key "nonce_strict" in [pcp]; allowed: natpmp, pcp, nonce
p.toml:4: unknown table "pcpp" (did you mean [pcp]?); allowed: lan, wan, upnp, pcp, lease, limits, policy, rule, firewall, state, control, metrics, miniupnpd, sandbox, hook, log`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestParseBombs: texts within the size that cost the TOML library minutes, or
// the whole memory, must be refused before it sees them.
func TestParseBombs(t *testing.T) {
	t.Parallel()
	const n = config.MaxFileSize
	for name, text := range map[string]string{
		"lists":         "a=" + strings.Repeat("[", n-2),
		"inline tables": strings.Repeat("a={", n/3),
		"mixed":         strings.Repeat("a={b=[{", n/7),
		"key":           strings.Repeat("a.", n/2-2) + "a=1",
		"header":        "[" + strings.Repeat("a.", n/2-2) + "a]",
		"array header":  "[[" + strings.Repeat("a . ", n/4-2) + "a]]",
		"quoted key":    strings.Repeat(`"".`, n/3-2) + "a=1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("p.toml", []byte(text))
			const want = "p.toml:1: nested too deeply; allowed: 8 brackets inside each other, 8 parts in a key"
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// TestErrorsAreBounded: a large garbled file must not fill the log.
func TestErrorsAreBounded(t *testing.T) {
	t.Parallel()
	const n = config.MaxFileSize / 16
	for name, text := range map[string]string{
		"rules":        strings.Repeat("[[rule]]\n", n/9),
		"bad rules":    strings.Repeat("[[rule]]\n", 1000),
		"unknown keys": manyKeys(n / 16),
		"list":         "[lan]\ninterfaces = [" + strings.Repeat(`"a b",`, n/6) + "]",
		"long values":  "[lan]\ninterfaces = [" + strings.Repeat(`"`+strings.Repeat("x", n/200)+`",`+"\n", 200) + "]",
		"long key":     "[lan]\n" + strings.Repeat("k", n) + " = 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("p.toml", []byte(text))
			var all config.Errors
			if !errors.As(err, &all) {
				t.Fatalf("not refused: %v", err)
			}
			if len(all) > 101 {
				t.Errorf("%d errors, want not more than a person reads", len(all))
			}
			for _, e := range all {
				if len(e.Text) > 500 {
					t.Errorf("an error of %d bytes: %.100s...", len(e.Text), e.Text)
				}
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	b.WriteString("[lan]\n")
	for i := range n {
		fmt.Fprintf(&b, "k%06d = 1\n", i)
	}
	return b.String()
}

func TestErrorsAreCapped(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("p.toml", []byte(manyKeys(250)))
	var all config.Errors
	if !errors.As(err, &all) || len(all) != 101 {
		t.Fatalf("got %d errors, want 101", len(all))
	}
	if got, want := all[100].Error(), "p.toml:102: 150 more errors from here on"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}

// TestErrorsAreSingle: cmd may take each error by itself, and nothing of a bad
// file is handed out (abuse case C13: never fail open).
func TestErrorsAreSingle(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("p.toml", []byte("[policy]\ndefault = \"deny\"\n[log]\nlevel = 1\nformat = 2\n"))
	var all config.Errors
	if !errors.As(err, &all) || len(all) != 2 {
		t.Fatalf("want two errors, got %v", err)
	}
	want := &config.Error{File: "p.toml", Line: 4, Text: "log.level: must be a string in quotes, and is the number 1"}
	var first *config.Error
	if !errors.As(err, &first) || *first != *want {
		t.Errorf("errors.As gives %+v, want %+v", first, want)
	}
	if diff := cmp.Diff(config.Config{}, c, sameConfig); diff != "" {
		t.Errorf("a bad file gave a Config: %s", diff)
	}
}

// TestRuleChecks: the policy has its say about each rule that is right so far.
func TestRuleChecks(t *testing.T) {
	t.Parallel()
	const text = `# two good rules, and one that nobody could check
[[rule]]
name = "files"
action = "allow"
external_ports = ["445"]
[[rule]]
name = "good"
action = "allow"
external_ports = ["8080"]
[[rule]]
name = "bad"
action = "allow"
external_ports = ["445", "0"]
`
	_, err := config.Parse("p.toml", []byte(text))
	want := `p.toml:5: rule "files": tcp port 445 can never be opened: it is Windows file sharing (SMB)
p.toml:13: rule.external_ports: "0" is not a port or a range; allowed: 1 to 65535, like "80" or "8000-8999"`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestManyRules: the bound on rules and on the elements of a list.
func TestManyRules(t *testing.T) {
	t.Parallel()
	rules := func(n int) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "[[rule]]\nname = \"%d\"\naction = \"deny\"\n", i)
		}
		return []byte(b.String())
	}
	if c, err := config.Parse("p.toml", rules(1000)); err != nil || len(c.Rules) != 1000 {
		t.Errorf("1000 rules: got %d, %v", len(c.Rules), err)
	}
	_, err := config.Parse("p.toml", rules(1001))
	if want := "p.toml:1: 1001 rules; allowed: at most 1000"; err == nil || err.Error() != want {
		t.Errorf("1001 rules: got %v, want %s", err, want)
	}
	ports := func(n int) []byte {
		var b strings.Builder
		b.WriteString("[[rule]]\nname = \"r\"\naction = \"deny\"\nexternal_ports = [")
		for i := range n {
			fmt.Fprintf(&b, "\"%d\",", i+1)
		}
		return []byte(b.String() + "]\n")
	}
	if _, err := config.Parse("p.toml", ports(256)); err != nil {
		t.Errorf("256 elements: %v", err)
	}
	_, err = config.Parse("p.toml", ports(257))
	if want := "p.toml:4: rule.external_ports: 257 elements; allowed: at most 256"; err == nil || err.Error() != want {
		t.Errorf("257 elements: got %v, want %s", err, want)
	}
}

// TestBounds: the last value that is allowed, on each side.
func TestBounds(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"[lease]\nmin = \"1s\"\nmax = \"1193046h28m15s\"",
		"[lease]\nmin = \"168h\"",
		"[limits]\nmappings_per_client = 65535\nmappings = 1\ngrants_per_second = 1000\nrequests_per_second = 100000",
		"[upnp]\nhttp_port = 1",
		"[upnp]\nhttp_port = 65535\nfriendly_name = \"" + strings.Repeat("ü", 63) + "\"",
		"[lan]\ninterfaces = [\"fifteencharslon\", \"a.b-c@d\"]\nextra_prefixes = [\"10.0.0.0/8\", \"fd00::/8\", \"203.0.113.0/29\"]",
		"[control]\nsocket = \"/run/" + strings.Repeat("s", 102) + "\"\ngroup = \"_" + strings.Repeat("g", 31) + "\"",
		"[wan]\nexternal_ip = \"192.0.2.1\"",
		"[wan]\nexternal_ip = \"223.255.255.254\"",
	} {
		if _, err := config.Parse("p.toml", []byte(text)); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}
