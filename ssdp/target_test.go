package ssdp_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/slog"
	"portcullis/ssdp"
)

// TestAnswers is the table of UDA 1.1 section 1.3.2, and CHOICE-16: what each search target is
// answered, as "ST USN version shown".
func TestAnswers(t *testing.T) {
	t.Parallel()
	urn := func(uuid, target string, shown int) string {
		return fmt.Sprintf("%s uuid:%s::%s v%d", target, uuid, target, shown)
	}
	var everything []string
	for _, r := range announced() {
		shown := " v0"
		if strings.HasPrefix(r, "urn:") {
			shown = " v1"
		}
		everything = append(everything, r+shown)
	}
	for _, c := range []struct {
		name, target string
		want         []string
	}{
		{"SSDP-1/rootdevice", root, []string{urn(uuidR, root, 0)}},
		{"SSDP-2/all", "ssdp:all", everything},
		{"SSDP-3/gateway 1", urnDevice + "InternetGatewayDevice:1", []string{urn(uuidR, urnDevice+"InternetGatewayDevice:1", 1)}},
		{"SSDP-4/gateway 2", urnDevice + "InternetGatewayDevice:2", []string{urn(uuidR, urnDevice+"InternetGatewayDevice:2", 2)}},
		{"SSDP-6/connection 1", urnService + "WANIPConnection:1", []string{urn(uuidC, urnService+"WANIPConnection:1", 1)}},
		{"SSDP-6/connection 2", urnService + "WANIPConnection:2", []string{urn(uuidC, urnService+"WANIPConnection:2", 2)}},
		{"SSDP-6/ppp", urnService + "WANPPPConnection:1", []string{urn(uuidC, urnService+"WANPPPConnection:1", 1)}},
		{"SSDP-6/only in tree 2", urnService + "WANIPv6FirewallControl:1", []string{urn(uuidC, urnService+"WANIPv6FirewallControl:1", 2)}},
		{"SSDP-7/connection 3", urnService + "WANIPConnection:3", nil},
		{"SSDP-7/ppp 2", urnService + "WANPPPConnection:2", nil},
		{"SSDP-7/version 0", urnService + "WANIPConnection:0", nil},
		{"SSDP-7/version 01", urnService + "WANIPConnection:01", nil},
		{"SSDP-7/version missing", urnService + "WANIPConnection", nil},
		{"SSDP-7/version empty", urnService + "WANIPConnection:", nil},
		{"SSDP-7/version not a number", urnService + "WANIPConnection:x", nil},
		{"SSDP-7/longer", urnService + "WANIPConnection:1:1", nil},
		{"SSDP-7/other case", strings.ToUpper(urnService) + "WANIPConnection:1", nil},
		{"SSDP-8/uuid", "uuid:" + uuidW, []string{fmt.Sprintf("uuid:%s uuid:%s v0", uuidW, uuidW)}},
		{"SSDP-8/uuid in capitals", "uuid:" + strings.ToUpper(uuidW), []string{fmt.Sprintf("uuid:%s uuid:%s v0", uuidW, uuidW)}},
		{"SSDP-9/unknown uuid", "uuid:" + strings.Replace(uuidW, "2c", "00", 1), nil},
		{"SSDP-9/uuid with more", "uuid:" + uuidR + "::" + root, nil},
		{"E3/backquotes", "uuid:`touch canary`", nil},
		{"E3/dollar", "uuid:$(touch canary)", nil},
		{"E3/semicolon", root + ";touch canary", nil},
		{"E3/pipe", root + "|touch canary", nil},
		{"E2/prefix of ours", "upnp:root", nil},
		{"E2/format verb", "%s%n", nil},
		{"another device", urnDevice + "MediaServer:1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			answers, err := ssdp.Answers(config(), c.target, gateway, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range answers {
				m := read(t, b)
				location := m.header.Get("LOCATION")
				got = append(got, m.row()+" "+strings.TrimSuffix(location[strings.LastIndex(location, "/")+1:], ".xml"))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestResponseText holds one response octet by octet.
func TestResponseText(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	got, err := ssdp.Answers(config(), urnService+"WANIPConnection:2", gateway, now)
	if err != nil || len(got) != 1 {
		t.Fatal(len(got), err)
	}
	want := "HTTP/1.1 200 OK\r\n" +
		"CACHE-CONTROL: max-age=1800\r\n" +
		"DATE: Wed, 04 Mar 2026 04:06:07 GMT\r\n" +
		"EXT:\r\n" +
		"LOCATION: http://192.168.1.1:5000/0123456789abcdef/v2.xml\r\n" +
		"SERVER: Linux UPnP/1.1 Portcullis\r\n" +
		"ST: urn:schemas-upnp-org:service:WANIPConnection:2\r\n" +
		"USN: uuid:" + uuidC + "::urn:schemas-upnp-org:service:WANIPConnection:2\r\n" +
		"BOOTID.UPNP.ORG: 500\r\n" +
		"CONFIGID.UPNP.ORG: 1002\r\n\r\n"
	if diff := cmp.Diff(want, string(got[0])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestResponseWithoutClock: a router that was just switched on has no date.
func TestResponseWithoutClock(t *testing.T) {
	t.Parallel()
	got, err := ssdp.Answers(config(), root, gateway, time.Unix(12, 0))
	if err != nil {
		t.Fatal(err)
	}
	if date := read(t, got[0]).header.Get("DATE"); date != "" {
		t.Errorf("DATE: %s", date)
	}
}

// TestResponsesFit: some stacks take no more than 512 octets (UDA 2.0 section 1.1),
// with the longest address and numbers there are.
func TestResponsesFit(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.BootID = 1<<31 - 1
	ask := cfg.Describe
	cfg.Describe = func(v int, a netip.Addr) ssdp.Description {
		return ssdp.Description{Location: ask(v, a).Location, ConfigID: 16777215}
	}
	got, err := ssdp.Answers(cfg, "ssdp:all", netip.MustParseAddr("192.168.100.100"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range got {
		if len(b) > 512 {
			t.Errorf("%d octets: %q", len(b), b)
		}
	}
}

// TestRowTwice: a device with two services of a type says so once (UDA 2.0
// section 1.2.2), two devices with one each say so twice.
func TestRowTwice(t *testing.T) {
	t.Parallel()
	cfg := config()
	service := urnService + "WANIPConnection"
	cfg.Targets = []ssdp.Target{
		{Type: service, MaxVersion: 1, UUID: uuidC},
		{Type: service, MaxVersion: 2, UUID: uuidC},
		{Type: service, MaxVersion: 1, UUID: uuidW},
	}
	for target, want := range map[string]int{"ssdp:all": 2, service + ":1": 2, service + ":2": 1} {
		got, err := ssdp.Answers(cfg, target, gateway, time.Now())
		if err != nil || len(got) != want {
			t.Errorf("%s: %d answers, want %d (%v)", target, len(got), want, err)
		}
	}
}

// TestTrees: what only the second tree has is found but not announced, and points
// at the second description; there is no third.
func TestTrees(t *testing.T) {
	t.Parallel()
	cfg := config()
	lonely := urnDevice + "Lonely"
	cfg.Targets = []ssdp.Target{
		{Type: root, UUID: uuidR},
		{UUID: uuidR, Tree: 1},
		{Type: root, UUID: uuidW, Tree: 2},
		{UUID: uuidW, Tree: 2},
		{Type: lonely, MaxVersion: 3, UUID: uuidR},
	}
	for _, c := range []struct {
		target string
		want   []string
	}{
		{"ssdp:all", []string{"v0", "v0", "v1"}},
		{root, []string{"v0", "v2"}},
		{"uuid:" + uuidR, []string{"v0"}},
		{"uuid:" + uuidW, []string{"v2"}},
		{lonely + ":3", []string{"v2"}},
	} {
		answers, err := ssdp.Answers(cfg, c.target, gateway, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range answers {
			location := read(t, b).header.Get("LOCATION")
			got = append(got, strings.TrimSuffix(location[strings.LastIndex(location, "/")+1:], ".xml"))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.target, diff)
		}
	}
}

// TestNewRefuses walks what New must not accept.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spoil      func(*ssdp.Config)
	}{
		{"nothing", "", func(*ssdp.Config) {}},
		{"no logger", "must not be nil", func(c *ssdp.Config) { c.Logger = nil }},
		{"no account", "must not be nil", func(c *ssdp.Config) { c.Account = nil }},
		{"no description", "must not be nil", func(c *ssdp.Config) { c.Describe = nil }},
		{"no interface", "interface index 0", func(c *ssdp.Config) { c.Ifindex = 0 }},
		{"no targets", "0 targets", func(c *ssdp.Config) { c.Targets = nil }},
		{"too many targets", "65 targets", func(c *ssdp.Config) { c.Targets = make([]ssdp.Target, 65) }},
		{"only tree 2", "nothing to announce", func(c *ssdp.Config) { c.Targets = c.Targets[11:] }},
		{"tree 3", "tree 3", func(c *ssdp.Config) { c.Targets[0].Tree = 3 }},
		{"uuid", "not 8-4-4-4-12", func(c *ssdp.Config) { c.Targets[0].UUID = "upnp-gateway" }},
		{"uuid with a letter", "not 8-4-4-4-12", func(c *ssdp.Config) { c.Targets[0].UUID = "g" + uuidR[1:] }},
		{"uuid without dash", "not 8-4-4-4-12", func(c *ssdp.Config) { c.Targets[0].UUID = strings.Replace(uuidR, "-", "0", 1) }},
		{"type", "neither urn", func(c *ssdp.Config) { c.Targets[0].Type = "ssdp:all" }},
		{"type with a line break", "neither urn", func(c *ssdp.Config) { c.Targets[2].Type = "urn:x\r\nX:1" }},
		{"version 0", "version 0", func(c *ssdp.Config) { c.Targets[2].MaxVersion = 0 }},
		{"version 10", "version 10", func(c *ssdp.Config) { c.Targets[2].MaxVersion = 10 }},
		{"server empty", "server", func(c *ssdp.Config) { c.Server = "" }},
		{"server with a line break", "server", func(c *ssdp.Config) { c.Server = "a\r\nX: 1" }},
		{"server too long", "server", func(c *ssdp.Config) { c.Server = strings.Repeat("s", 65) }},
		{"max-age too short", "max-age", func(c *ssdp.Config) { c.MaxAge = time.Second }},
		{"max-age too long", "max-age", func(c *ssdp.Config) { c.MaxAge = 25 * time.Hour }},
		{"max-age broken", "max-age", func(c *ssdp.Config) { c.MaxAge = 2500 * time.Millisecond }},
		{"bootid", "BOOTID", func(c *ssdp.Config) { c.BootID = 1 << 31 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := config()
			c.spoil(&cfg)
			_, err := ssdp.New(cfg, newFakeConn())
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := ssdp.New(ssdp.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Targets: targets()}, nil); err == nil {
		t.Error("no conn passes")
	}
}
