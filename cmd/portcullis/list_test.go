package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"portcullis/internal/control"
)

// shown is what the daemon of these tests has.
var shown = []control.Mapping{
	{ID: 3, Protocol: "tcp", Family: 4, ExternalPort: 443, InternalIP: "192.168.77.2", InternalPort: 443, ClientMAC: "86:dc:00:00:00:02", ClientHost: "nas", Via: "upnp", Rule: "web", Enabled: true, ExpiresIn: 604798, Packets: 8, Bytes: 1536},
	{ID: 1, Protocol: "udp", Family: 4, ExternalPort: 3074, InternalIP: "192.168.77.9", InternalPort: 3074, ClientMAC: "86:dc:00:00:00:09", Via: "natpmp", Description: "a game of a very long name, as it is told", Enabled: true, ExpiresIn: 3599, Packets: 12000, Bytes: 4500000, Endless: true},
	{ID: 7, Protocol: "tcp", Family: 4, ExternalPort: 8443, InternalIP: "192.168.50.4", InternalPort: 443, Via: "owner", Remote: "198.51.100.7", Enabled: true, Packets: 1, Bytes: 60},
	{ID: 9, Protocol: "tcp", Family: 6, ExternalPort: 22000, InternalIP: "2001:db8:77::20", InternalPort: 22000, ClientMAC: "86:dc:00:00:00:02", Via: "pcp", ExpiresIn: 7260},
}

// turnedAway is what the daemon of these tests has refused.
var turnedAway = []control.RefusedDevice{{
	Client:  control.Asker{Address: "2001:db8:77::30", MAC: "86:dc:00:00:00:30", Host: "cam", Interface: "br-lan"},
	Refused: []control.Refused{{Time: "2026-11-30T01:02:03Z", Count: 1, Protocol: "tcp", Family: 6, ExternalPort: 80, InternalIP: "2001:db8:77::30", InternalPort: 80, Via: "pcp"}},
}}

// waiting is what waits for the owner of these tests, and answered what he has said.
var (
	waiting = []control.Pending{
		{ID: 482913, Protocol: "udp", InternalIP: "192.168.77.9", InternalPort: 3074, ClientHost: "xbox", Description: "a\tgame\x1b[2J"},
		{ID: 771204, Protocol: "tcp", InternalIP: "192.168.77.2", InternalPort: 22},
	}
	answered = []control.Approval{{ID: 500123, Decision: "deny", ClientIP: "192.168.77.9", ClientHost: "xbox", Protocol: "udp", InternalPort: 88}}
)

// shower is a daemon that has these mappings, and returns the configuration that names it.
func shower(t *testing.T) string {
	t.Helper()
	config := file(t, socketOnly)
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(config), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	answer := func(w http.ResponseWriter, code int, v any) {
		if code != 200 {
			w.WriteHeader(code)
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/mappings", func(w http.ResponseWriter, _ *http.Request) {
		before := "["
		for _, m := range shown {
			fmt.Fprint(w, before)
			answer(w, 200, m) // each is a line
			before = ","
		}
		fmt.Fprintln(w, "]")
	})
	mux.HandleFunc("GET /v1/refused", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, turnedAway) })
	mux.HandleFunc("GET /v1/pending", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, waiting) })
	mux.HandleFunc("GET /v1/approvals", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, answered) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, control.Status{Version: "1.2.3", Uptime: 604798, Mappings: 3, Pinholes: 1, Limit: 1024, Denied: 4,
			LAN:      []control.LAN{{Interface: "br-lan", Prefixes: []string{"192.168.77.0/24", "2001:db8:77::/64"}}, {Interface: "br-iot", Prefixes: []string{"192.168.50.0/24"}}},
			Firewall: control.Firewall{Backend: "nftables", DriftRepaired: 1}, Configuration: control.Configuration{File: "/etc/portcullis/portcullis.toml", Since: "2026-11-30T01:02:03Z"}})
	})
	mux.HandleFunc("POST /v1/delete", func(w http.ResponseWriter, r *http.Request) {
		var d control.Deletion
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		i := slices.IndexFunc(shown, func(m control.Mapping) bool {
			return m.ID == d.ID || m.ExternalPort == d.Port && m.Protocol == d.Protocol
		})
		if i < 0 {
			answer(w, 404, control.Failure{Reason: "no-such-mapping", Error: "there is no such mapping"})
			return
		}
		answer(w, 200, shown[i:i+1])
	})
	mux.HandleFunc("POST /v1/add", func(w http.ResponseWriter, r *http.Request) {
		var a control.Addition
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		if a.ExternalPort == 443 {
			answer(w, 409, control.Failure{Reason: "port-taken", Error: "tcp port 443 is mapped by another host"})
			return
		}
		m := control.Mapping{ID: 10, Protocol: a.Protocol, Family: 4, ExternalPort: a.ExternalPort, InternalIP: a.InternalIP, InternalPort: a.InternalPort, Remote: a.Remote, Description: a.Description, ExpiresIn: a.Lifetime, Via: "owner", Enabled: true}
		if strings.Contains(a.InternalIP, ":") {
			m.Family, m.ExternalPort = 6, a.InternalPort
		}
		answer(w, 200, m)
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return config
}

// TestOwner: what the commands that ask the daemon print.
func TestOwner(t *testing.T) {
	t.Parallel()
	config := shower(t)
	for _, c := range []struct {
		args string
		code int
		want string // both outputs
	}{
		{"list", 0, `ID  PORT       TARGET                   HOST  MAC                FROM               VIA     EXPIRES             PACKETS  BYTES  RULE  DESCRIPTION
3   443/tcp    192.168.77.2:443         nas   86:dc:00:00:00:02                     upnp    6d23h               8        1.5k   web
1   3074/udp   192.168.77.9:3074              86:dc:00:00:00:09                     natpmp  59m59s unless seen  12000    4.5M         a game of a very long name, as it is told
7   8443/tcp   192.168.50.4:443                                  198.51.100.7       owner   never               1        60
9   22000/tcp  [2001:db8:77::20]:22000        86:dc:00:00:00:02  nobody (disabled)  pcp     2h1m                0        0
`},
		{"list --client nas", 0, `ID  PORT     TARGET            HOST  MAC                VIA   EXPIRES  PACKETS  BYTES  RULE
3   443/tcp  192.168.77.2:443  nas   86:dc:00:00:00:02  upnp  6d23h    8        1.5k   web
`},
		{"list --client 192.168.50.4", 0, "ID  PORT      TARGET            FROM          VIA    EXPIRES  PACKETS  BYTES\n7   8443/tcp  192.168.50.4:443  198.51.100.7  owner  never    1        60\n"},
		{"list --client 192.168.50.5", 0, "ID  PORT  TARGET  EXPIRES\nportcullis: no mapping matches --client 192.168.50.5\n"},
		{"list --client cam --lan br-iot", 0, "ID  PORT  TARGET  EXPIRES\nportcullis: no mapping matches --client cam --lan br-iot\n"},
		{"list --mac 86-dc-00-00-00-30", 0, "ID  PORT  TARGET  EXPIRES\nportcullis: no mapping matches --mac 86-dc-00-00-00-30\n"},
		{"list --client 192.168.50.5 --json", 0, "[]\n"},
		{"list --client nosuch", 1, "portcullis: --client: \"nosuch\" is neither an address nor a MAC address, and no device of that name has a mapping or was refused one lately\n"},
		{"list --client 192.168.50 --json", 1, "{\n  \"error\": \"--client: \\\"192.168.50\\\" is neither an address nor a MAC address, and no device of that name has a mapping or was refused one lately\"\n}\nportcullis: --client: \"192.168.50\" is neither an address nor a MAC address, and no device of that name has a mapping or was refused one lately\n"},
		{"refused --client nosuch", 1, "portcullis: --client: \"nosuch\" is neither an address nor a MAC address, and no device of that name has a mapping or was refused one lately\n"},
		{"refused --client nas", 0, "nothing of nas was refused lately, as far as that device is known\n"},
		{"refused --client 192.168.77.2", 0, "nothing of 192.168.77.2 was refused lately, as far as that device is known\n"},
		{"refused --client nas --json", 0, "[]\n"},
		{"list --lan br-iot --sort id", 0, "ID  PORT      TARGET            FROM          VIA    EXPIRES  PACKETS  BYTES\n7   8443/tcp  192.168.50.4:443  198.51.100.7  owner  never    1        60\n"},
		{"list --lan br-lna", 1, "portcullis: no LAN is served on \"br-lna\"; those that are: br-lan, br-iot\n"},
		{"status", 0, `version   1.2.3, up 6d23h
WAN       none yet
LAN       br-lan 192.168.77.0/24, 2001:db8:77::/64
LAN       br-iot 192.168.50.0/24
mappings  4 of 1024, 1 of them a pinhole
refused   4
firewall  nftables, repaired once
senders   cannot be seen, so NAT-PMP and PCP are not served
sandbox   : no capability, not dumpable
config    /etc/portcullis/portcullis.toml, read 2026-11-30T01:02:03Z
`},
		{"delete tcp 443", 0, "closed 443/tcp to 192.168.77.2:443 (8 packets)\n"},
		{"delete 7", 0, "closed 8443/tcp to 192.168.50.4:443 (1 packet)\n"},
		{"delete 9", 0, "closed tcp [2001:db8:77::20]:22000 (0 packets)\n"},
		{"delete 3 99", 1, "closed 443/tcp to 192.168.77.2:443 (8 packets)\nportcullis: there is no mapping 99; `portcullis list` shows them\n"},
		{"delete 99 --json", 1, "[]\nportcullis: there is no mapping 99; `portcullis list` shows them\n"},
		{"delete udp 80", 1, "portcullis: 80/udp is not open; `portcullis list` shows what is\n"},
		{"delete --all", 1, "portcullis: no port is open\n"},
		{"add tcp 8444 192.168.77.2:443", 0, "opened 8444/tcp to 192.168.77.2:443\n"},
		{"add tcp 8444 192.168.77.2:443 --for 7d --from 198.51.100.7", 0, "opened 8444/tcp to 192.168.77.2:443 from 198.51.100.7 for 7d\n"},
		{"add udp [2001:db8:77::20]:9000 --for=forever", 0, "opened udp [2001:db8:77::20]:9000\n"},
		{"add tcp 443 192.168.77.9:443", 1, "portcullis: tcp port 443 is mapped by another host; `portcullis list` shows it, and `portcullis delete` closes it\n"},
	} {
		code, out, errs := call(t, append(strings.Fields(c.args), "--config", config)...)
		if code != c.code || out+errs != c.want {
			t.Errorf("%s: exit %d, want %d\n%swant\n%s", c.args, code, c.code, out+errs, c.want)
		}
	}
}

// TestListOrders: each order and each filter, by the ids that are left.
func TestListOrders(t *testing.T) {
	t.Parallel()
	config := shower(t)
	for args, want := range map[string]string{
		"":                             "3 1 7 9",
		"--sort id":                    "1 3 7 9",
		"--sort port":                  "3 1 7 9",
		"--sort target":                "7 3 1 9",
		"--sort expires":               "1 9 3 7",
		"--sort packets":               "1 3 7 9",
		"--sort bytes":                 "1 3 7 9",
		"--client NAS":                 "3",
		"--client 2001:db8:77:0::20":   "9",
		"--client ::ffff:192.168.77.9": "1",
		"--client 86-DC-00-00-00-02":   "3 9",
		"--mac 86:dc:00:00:00:02":      "3 9",
		"--mac 86-DC-00-00-00-09":      "1",
		"--lan br-lan":                 "3 1 9",
		"--lan br-lan --mac 86:dc:00:00:00:02 --client 192.168.77.2": "3",
	} {
		code, out, errs := call(t, append(strings.Fields("list --json "+args), "--config", config)...)
		var list []control.Mapping
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Errorf("%s: exit %d, %v, %s%s", args, code, err, out, errs)
			continue
		}
		var ids []string
		for _, m := range list {
			ids = append(ids, fmt.Sprint(m.ID))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	for _, c := range commands() {
		for _, o := range c.Options {
			if o.Name != "sort" {
				continue
			}
			for _, word := range strings.Split(o.Arg, "|") {
				if orders[word] == nil {
					t.Errorf("--sort %s sorts nothing", word)
				}
			}
		}
	}
}

// TestRefusedClient: a device is named there as in the list.
func TestRefusedClient(t *testing.T) {
	t.Parallel()
	config := shower(t)
	for _, who := range []string{"CAM", "86-DC-00-00-00-30", "86:dc:00:00:00:30", "2001:DB8:77:0::30"} {
		code, out, errs := call(t, "refused", "--json", "--client", who, "--config", config)
		var list []control.RefusedDevice
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 {
			t.Errorf("%s: exit %d, %v, %s%s", who, code, err, out, errs)
		}
	}
}

// TestListFits: no line is wider than the terminal, whatever its width, and what matters
// most is there longest.
func TestListFits(t *testing.T) {
	t.Parallel()
	list := append(slices.Clone(shown), control.Mapping{ID: 11, Protocol: "udp", InternalIP: "192.168.77.2", ClientHost: "東京のテレビ", Enabled: true, Description: strings.Repeat("東京", 40)})
	for width := 1; width < 250; width++ {
		var out strings.Builder
		if err := printMappings(&out, list, width); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != len(list)+1 {
			t.Fatalf("%d columns: %d lines\n%s", width, len(lines), &out)
		}
		for _, line := range lines {
			if wide(line) > width || !utf8.ValidString(line) {
				t.Errorf("%d columns: %d in %q", width, wide(line), line)
			}
		}
		for least, head := range map[int]string{60: "EXPIRES", 70: "FROM", 95: "MAC", 250: "BYTES"} {
			if width >= least && !strings.Contains(lines[0], head) {
				t.Errorf("%d columns: %s is left out: %s", width, head, lines[0])
			}
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]string{
		0: "0s", 59: "59s", 60: "1m", 3599: "59m59s", 3600: "1h", 3660: "1h1m", 86399: "23h59m", 86400: "1d", 604798: "6d23h", 604800: "7d",
	} {
		if got := span(seconds); got != want {
			t.Errorf("%d seconds are %s, want %s", seconds, got, want)
		}
	}
	for bytes, want := range map[uint64]string{
		0: "0", 999: "999", 1000: "1.0k", 1536: "1.5k", 9949: "9.9k", 9950: "10k", 999499: "999k", 999500: "1.0M", 4500000: "4.5M", 1 << 63: "9.2E", 1<<64 - 1: "18E",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes are %s, want %s", bytes, got, want)
		}
	}
	for word, want := range map[string]int64{"forever": 0, "1s": 1, "90m": 5400, "24h": 86400, "7d": 604800, "3650d": control.MaxLifetime} {
		if got, err := lifetime(word); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", word, got, err, want)
		}
	}
	for _, word := range []string{"", "0", "0s", "0d", "-1h", "-1d", "1.5d", "3651d", "99999999d", "1e3", "100ms", "d", "9999999h"} {
		if got, err := lifetime(word); err == nil {
			t.Errorf("%q is %d", word, got)
		}
	}
}
