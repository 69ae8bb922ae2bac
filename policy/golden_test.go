package policy_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/policy"
	"portcullis/portmap"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// elsewhereDecided are the reasons that are not this package's to give.
var elsewhereDecided = map[portmap.Reason]bool{
	portmap.IdentityChanged: true, portmap.AskedElsewhere: true, portmap.NotOwner: true, portmap.WrongNonce: true, portmap.TooManyRemotes: true, portmap.PortTaken: true, portmap.PortReserved: true,
	portmap.PortInUse: true, portmap.NoPorts: true, portmap.NoSuchMapping: true, portmap.FirewallFailed: true,
	portmap.Busy: true, portmap.Ended: true, portmap.Removed: true, portmap.Revoked: true,
}

// speak returns a request for each sentence, with the case it stands for.
func speak(t *testing.T) []struct {
	about string
	d     portmap.Decision
} {
	wide := policy.Rule{Name: "living room", Action: portmap.Allow, Internal: ports(span(1024, 65535))}
	few := policy.Rule{Name: "server", Action: portmap.Allow, Internal: ports(one(7777)), MaxMappings: 4, MaxMappingsTotal: 8}
	cameras := policy.Rule{Name: "cameras never", Action: portmap.Deny, Clients: []policy.ClientMatch{{Host: "cam-*"}}}
	ask := policy.Rule{Name: "ask me", Action: portmap.Ask}
	camera, noMAC := nat(tcp, 6000, 6000), nat(tcp, 6000, 8080)
	camera.Client.Name = "cam-porch"
	noMAC.Client.MAC = portmap.MAC{}
	strict := func(def portmap.Action) *policy.Policy { return build(t, policy.Config{Default: def}) }
	with := func(change func(*portmap.Facts)) portmap.Facts {
		f := facts()
		change(&f)
		return f
	}
	quiet := facts()
	std := shipped(t)
	type line = struct {
		about string
		d     portmap.Decision
	}
	return []line{
		{"SCTP", std.Decide(nat(132, 6000, 6000), quiet)},
		{"an interface that is not served", std.Decide(self(nat(tcp, 6000, 6000), "192.168.70.9", "br-guest"), quiet)},
		{"a source outside the prefix", std.Decide(self(nat(tcp, 6000, 6000), "10.9.9.9", "br-lan"), quiet)},
		{"the network is not known yet", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.View = nil }))},
		{"another host", std.Decide(to(nat(tcp, 6000, 6000), "192.168.1.20"), quiet)},
		{"another host over IPv6", std.Decide(to(pinhole(tcp, 6000), "2001:db8:1::20"), quiet)},
		{"the gateway", std.Decide(to(nat(tcp, 6000, 80), "192.168.1.1"), quiet)},
		{"loopback", std.Decide(to(nat(tcp, 6000, 80), "127.0.0.1"), quiet)},
		{"the WAN address", std.Decide(to(nat(tcp, 6000, 80), "203.0.113.5"), quiet)},
		{"broadcast of the LAN", std.Decide(to(nat(tcp, 6000, 6000), "192.168.1.255"), quiet)},
		{"limited broadcast", std.Decide(to(nat(tcp, 6000, 6000), "255.255.255.255"), quiet)},
		{"unspecified", std.Decide(to(nat(tcp, 6000, 6000), "0.0.0.0"), quiet)},
		{"multicast", std.Decide(to(nat(tcp, 6000, 6000), "239.255.255.250"), quiet)},
		{"link-local", std.Decide(to(nat(tcp, 6000, 6000), "169.254.9.9"), quiet)},
		{"shared address", std.Decide(to(nat(tcp, 6000, 6000), "100.64.0.9"), quiet)},
		{"v4-mapped", std.Decide(to(nat(tcp, 6000, 6000), "::ffff:192.168.1.10"), quiet)},
		{"wrong family", std.Decide(to(nat(tcp, 6000, 6000), "2001:db8:1::10"), quiet)},
		{"6to4 on the LAN", std.Decide(self(pinhole(tcp, 6000), "2002:c0a8:114::9", "br-odd"), with(func(f *portmap.Facts) {
			f.View.LAN["br-odd"] = portmap.LAN{Prefixes: prefixes("2002:c0a8:114::/64")}
		}))},
		{"internal port 0", std.Decide(nat(tcp, 6000, 0), quiet)},
		{"Tier 0 inside", std.Decide(nat(tcp, 6000, 445), quiet)},
		{"Tier 0 outside", std.Decide(nat(udp, 11211, 6000), quiet)},
		{"restricted to multicast", std.Decide(only(nat(tcp, 6000, 6000), "224.0.0.1/32"), quiet)},
		{"restricted to the wrong family", std.Decide(only(nat(tcp, 6000, 6000), "2001:db8::7/128"), quiet)},
		{"restricted to no network", std.Decide(only(nat(tcp, 6000, 6000), "198.51.100.7/24"), quiet)},

		{"Tier 1 inside", std.Decide(nat(tcp, 6000, 8080), quiet)},
		{"Tier 1 inside, client without MAC", std.Decide(noMAC, quiet)},
		{"Tier 1 outside", std.Decide(nat(tcp, 443, 6000), quiet)},
		{"Tier 1 on both sides", std.Decide(nat(tcp, 443, 443), quiet)},
		{"Tier 1 without a name", std.Decide(nat(udp, 6000, 777), quiet)},
		{"Tier 1 under a wide rule", shipped(t, wide).Decide(nat(tcp, 6000, 3389), quiet)},
		{"Tier 1 pinhole", std.Decide(pinhole(tcp, 22), quiet)},
		{"a rule", shipped(t, cameras).Decide(camera, quiet)},
		{"default deny", strict(portmap.Deny).Decide(nat(tcp, 6000, 6000), quiet)},
		{"default ask", strict(portmap.Ask).Decide(nat(tcp, 6000, 6000), quiet)},
		{"denied when asked", strict(portmap.Ask).Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.Answer = &portmap.Answer{ID: 482913} }))},
		{"ask rule", shipped(t, ask).Decide(nat(tcp, 6000, 6000), quiet)},

		{"no WAN", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.View.WANs[0].Up = false }))},
		{"unique local pinhole", std.Decide(self(pinhole(tcp, 6000), "fd00:1::9", "br-lan"), quiet)},
		{"private WAN", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) {
			f.View.WANs[0].External, f.View.WANs[0].Private = netip.MustParseAddr("100.64.1.2"), true
		}))},
		{"client quota", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.ClientMappings = 32 }))},
		{"rule quota", shipped(t, few).Decide(nat(tcp, 6000, 7777), with(func(f *portmap.Facts) {
			f.RuleMappings = func(string) int { return 4 }
		}))},
		{"rule quota in all", shipped(t, few).Decide(nat(tcp, 6000, 7777), with(func(f *portmap.Facts) {
			f.RuleTotal = func(string) int { return 8 }
		}))},
		{"LAN quota", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.LANMappings = 768 }))},
		{"total quota", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.Mappings = 1024 }))},
		{"total quota nearly used, many already", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.Mappings, f.ClientMappings = 1000, 2 }))},
		{"total quota nearly used, never heard", func() portmap.Decision {
			r := nat(tcp, 6000, 6000)
			r.Client.Unheard = true
			return std.Decide(r, with(func(f *portmap.Facts) { f.Mappings = 800 }))
		}()},
		{"grant rate", std.Decide(nat(tcp, 6000, 6000), with(func(f *portmap.Facts) { f.GrantReadyAt = now.Add(15*time.Second + 1) }))},
	}
}

// Every sentence a person can get to read stands in one file, for review. Each
// reason this package can give is there, and a new one makes its author choose.
func TestSentences(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "sentences.txtar")
	var got strings.Builder // in the txtar format
	got.WriteString("What each refusal says. Rewrite with: go test ./policy -run Sentences -update\n")
	seen := map[portmap.Reason]bool{}
	for _, line := range speak(t) {
		seen[line.d.Reason] = true
		fmt.Fprintf(&got, "-- %s: %s --\n%s\n", line.d.Reason, line.about, line.d.Detail)
		if line.d.Detail == "" || strings.Contains(line.d.Detail, "%!") || strings.ContainsAny(line.d.Detail, "\r\n") {
			t.Errorf("%s: sentence %q", line.about, line.d.Detail)
		}
	}
	for _, r := range portmap.Reasons() {
		if seen[r] == elsewhereDecided[r] {
			t.Errorf("reason %s: has a sentence %v, is another package's %v", r, seen[r], elsewhereDecided[r])
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
