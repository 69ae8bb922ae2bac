package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portcullis/config"
)

// live returns the keys that the manual says a running daemon takes over.
func live(t *testing.T) []string {
	t.Helper()
	_, section, found := strings.Cut(read(t, manPath), ".Sh CHANGES WHILE IT RUNS\n")
	if !found {
		t.Fatal("the manual does not say what a running daemon takes over")
	}
	section, _, _ = strings.Cut(section, "\n.Sh ")
	var keys []string
	for _, m := range regexp.MustCompile(`(?m)^\.It\n\.Ic ([a-z0-9_.]+)`).FindAllStringSubmatch(section, -1) {
		keys = append(keys, m[1])
	}
	return keys
}

// TestAdopt: a daemon takes over the keys that the manual names, one by one and together, and no
// other; what differs and is not taken over needs a restart.
func TestAdopt(t *testing.T) {
	t.Parallel()
	text := `[lan]
interfaces = ["br-lan"]
extra_prefixes = ["10.9.0.0/24"]
leases = ["/var/lib/dhcp/leases"]
ipv6 = false
[wan]
interface = "wan0"
interface6 = "wan6"
external_ip = "11.22.33.44"
private_address = "allow"
[upnp]
http_port = 5999
[pcp]
nonce = "strict"
[lease]
max = "2h"
min = "3m"
[limits]
mappings_per_client = 3
mappings_per_lan = 9
mappings = 30
grants_per_second = 3
requests_per_second = 3
[policy]
default = "deny"
same_device = true
unique_local = true
[state]
dir = "/srv"
[metrics]
listen = "127.0.0.1:9180"
mappings = true
[log]
level = "debug"
[[rule]]
name = "game"
action = "allow"
description = "^Plex"
`
	given, err := config.Parse("p.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	next, adopted, restart := config.Adopt(config.Default(), given)
	if want := live(t); !slices.Equal(adopted, want) {
		t.Errorf("a running daemon takes over\n%v\nand the manual says\n%v", adopted, want)
	}
	if want := []string{"lan.leases", "upnp.http_port", "pcp.nonce", "limits.requests_per_second", "policy.same_device", "state.dir", "metrics.listen", "log.level"}; !slices.Equal(restart, want) {
		t.Errorf("a restart is for %v, want %v", restart, want)
	}
	if next.Lease != given.Lease || len(next.Rules) != 1 || !reflect.DeepEqual(next.UPnP, config.Default().UPnP) || next.Limits.RequestsPerSecond != 50 {
		t.Errorf("what holds is %+v", next)
	}
	if _, adopted, again := config.Adopt(next, given); len(adopted) != 0 || !slices.Equal(again, restart) {
		t.Errorf("again it takes over %v, and needs a restart for %v", adopted, again)
	}
	same, err := config.Parse("p.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, adopted, restart := config.Adopt(given, same); len(adopted)+len(restart) != 0 {
		t.Errorf("the same text read twice differs in %v and %v", adopted, restart)
	}
	// No rule any more is a change, too.
	if next, adopted, _ := config.Adopt(given, config.Default()); !slices.Contains(adopted, "rule") || len(next.Rules) != 0 {
		t.Errorf("without rules it takes over %v", adopted)
	}
}

// TestLive: each key is one that a running daemon takes over or one that it does not, as
// Adopt says of it.
func TestLive(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"rule": true, "lan.interfaces": true, "limits.mappings": true, "policy.default": true,
		"firewall.backend": false, "firewall.accept_chain": false, "upnp.http_port": false,
		"firewall": false, "firewall.no": false, "no.no": false, "": false,
	} {
		if config.Live(key) != want {
			t.Errorf("%q is live: %v", key, !want)
		}
	}
}

// TestSocketIn: a mistake elsewhere in a file does not hide its socket.
func TestSocketIn(t *testing.T) {
	t.Parallel()
	const usual = "/run/portcullis/control.sock"
	for text, want := range map[string]string{
		"[control]\nsocket = \"/run/x.sock\"\n[limit]\nx = 3\n[[rule]]\nports = 7\n": "/run/x.sock",
		"[control]\nsocket = \"x.sock\"\n":                                           usual,
		"[control]\nsocket = 3\n":                                                    usual,
		"[control\nsocket = \"/run/x.sock\"":                                         usual,
		"":                                                                           usual,
	} {
		file := filepath.Join(t.TempDir(), "portcullis.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := config.SocketIn(file); string(got) != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := config.SocketIn(filepath.Join(t.TempDir(), "none")); string(got) != usual {
		t.Errorf("no file: %s", got)
	}
}
