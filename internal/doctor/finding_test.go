package doctor_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/doctor"
)

// good is a machine without a fault.
func good() doctor.Facts {
	return doctor.Facts{
		LANs: []string{"br-lan"}, WAN: "wan0", WANUp: true, External: "203.0.113.5", WAN6Up: true,
		Forwards: true, Forwards6: true, DefaultRoutes: 1, Synced: true, Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Backend: "nftables", AnswersSeen: true, Daemon: doctor.Daemon{Answers: true}, Option: " --config x.toml", AcceptChain: "inet fw4 forward",
		Trial: doctor.Trial{Mapping: doctor.Verdict{Tried: true, Passed: true}, Pinhole: doctor.Verdict{Tried: true, Passed: true}},
	}
}

// TestJudge: what each fact comes to, and that every fault has a remedy.
func TestJudge(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		spoil func(*doctor.Facts)
		id    string
		level doctor.Level
		none  bool // there is no general remedy
	}{
		{"configuration", func(f *doctor.Facts) { f.Config = broken }, "config", doctor.Failure, false},
		{"interfaces", func(f *doctor.Facts) { f.Network = broken }, "interfaces", doctor.Failure, false},
		{"a LAN that leads outside", func(f *doctor.Facts) { f.Doubts = []string{"br-lan leads outside; name another"} }, "interfaces_doubtful", doctor.Warning, false},
		{"no LAN", func(f *doctor.Facts) { f.LANs = nil }, "lan", doctor.Failure, false},
		{"no WAN", func(f *doctor.Facts) { f.WAN = "" }, "wan", doctor.Failure, false},
		{"a WAN that is not there", func(f *doctor.Facts) { f.WANGone, f.WANUp = true, false }, "wan", doctor.Failure, false},
		{"WAN down", func(f *doctor.Facts) { f.WANUp = false }, "wan", doctor.Failure, false},
		{"private WAN", func(f *doctor.Facts) { f.Private = true }, "private_wan", doctor.Failure, false},
		{"private and allowed", func(f *doctor.Facts) { f.Private, f.Allowed = true, true }, "private_wan", doctor.Warning, false},
		{"forwarding", func(f *doctor.Facts) { f.Forwards = false }, "forwarding", doctor.Failure, false},
		{"forwarding of IPv6", func(f *doctor.Facts) { f.Forwards6 = false }, "forwarding6", doctor.Failure, false},
		{"port", func(f *doctor.Facts) { f.Taken = []doctor.Listener{{"udp 5351", ""}} }, "port_taken", doctor.Failure, false},
		{"rp_filter", func(f *doctor.Facts) { f.StrictRP, f.DefaultRoutes = []string{"wan0"}, 2 }, "rp_filter", doctor.Warning, false},
		{"clock", func(f *doctor.Facts) { f.Synced, f.Quotas.Open = false, 1 }, "clock", doctor.Warning, false},
		{"clock of 1970", func(f *doctor.Facts) { f.Now, f.Quotas.Open = time.Unix(0, 0), 1 }, "clock", doctor.Warning, false},
		{"state", func(f *doctor.Facts) { f.State = broken }, "state", doctor.Warning, false},
		{"second gateway", func(f *doctor.Facts) { f.OtherGateways = []string{"192.168.1.2"} }, "second_gateway", doctor.Warning, false},
		{"second DHCP server", func(f *doctor.Facts) { f.OtherDHCP = []string{"192.168.1.2"} }, "second_dhcp", doctor.Warning, false},
		{"legacy", func(f *doctor.Facts) { f.Legacy = true }, "iptables_legacy", doctor.Warning, false},
		{"kernel", func(f *doctor.Facts) { f.Firewall = broken }, "firewall", doctor.Failure, true}, // the error has it
		{"answers stray", func(f *doctor.Facts) {
			f.Strays, f.Trial.Mapping.Marked = []doctor.Stray{{LAN: "br-lan", WAN: "wan0", By: "wg0", Way: "table 7"}}, true
		}, "answers", doctor.Failure, false},
		{"of IPv6", func(f *doctor.Facts) {
			f.Strays, f.Trial.Pinhole.Marked = []doctor.Stray{{IPv6: true, By: "wg0"}}, true
		}, "answers6", doctor.Failure, false},
		{"nowhere", func(f *doctor.Facts) { f.Strays, f.Trial.Mapping.Marked = []doctor.Stray{{}}, true }, "answers", doctor.Failure, false},
		{"perhaps by a mark", func(f *doctor.Facts) { f.Strays = []doctor.Stray{{By: "wg0"}} }, "answers", doctor.Warning, false},
		{"of some hosts", func(f *doctor.Facts) {
			f.Strays, f.Trial.Mapping.Marked = []doctor.Stray{{Hosts: "192.168.1.3/32", By: "wg0"}}, true
		}, "answers", doctor.Warning, false},
		{"a daemon that is stuck", func(f *doctor.Facts) { f.Daemon.Answers, f.Daemon.Stuck = false, true }, "daemon", doctor.Failure, false},
		{"no daemon", func(f *doctor.Facts) { f.Daemon.Answers = false }, "daemon", doctor.Warning, false},
		{"a hook that is not there", func(f *doctor.Facts) { f.Hook.Err = broken }, "hook", doctor.Warning, false},
		{"a hook that has ended too often", func(f *doctor.Facts) { f.Daemon.Hook = &control.Hook{Over: true} }, "hook", doctor.Warning, false},
		{"a hook that has ended", func(f *doctor.Facts) { f.Daemon.Hook = &control.Hook{Ended: 1} }, "hook", doctor.Warning, false},
		{"a file that was changed", func(f *doctor.Facts) { f.Daemon.Changed = []string{"rule"} }, "daemon", doctor.Warning, false},
		{"another file", func(f *doctor.Facts) { f.Daemon.File, f.Daemon.Mine = "/a", "/b" }, "daemon", doctor.Warning, false},
		{"a file with a mistake", func(f *doctor.Facts) { f.Daemon.Broken = broken }, "daemon", doctor.Warning, false},
		{"a daemon of another version", func(f *doctor.Facts) { f.Daemon.Unknown = broken }, "daemon", doctor.Warning, false},
		{"all is taken", func(f *doctor.Facts) { f.Quotas.Open, f.Quotas.Most = 4, 4 }, "quota", doctor.Failure, false},
		{"a device has all that it may", func(f *doctor.Facts) { f.Quotas.Devices = []string{"192.168.1.2 has 32 of 32"} }, "quota_client", doctor.Warning, false},
		{"a LAN has all that it may", func(f *doctor.Facts) { f.Quotas.LANs = []string{"br-lan has 256 of 256"} }, "quota_lan", doctor.Warning, false},
		{"a rule allows no more", func(f *doctor.Facts) { f.Quotas.Rules = []string{`the rule "x" allows 4 of 4`} }, "quota_rule", doctor.Warning, false},
		{"a rule allows a device no more", func(f *doctor.Facts) { f.Quotas.Asked = []string{`the rule "x" allows 192.168.1.2 4 of 4`} }, "quota_rule_client", doctor.Warning, false},
		{"an address that nobody is answered at", func(f *doctor.Facts) { f.Unserved = []string{"198.51.100.1 on br-lan"} }, "lan_address", doctor.Warning, false},
		{"a refusal that a rule would allow", func(f *doctor.Facts) {
			f.Daemon.Refused, f.Refusals = 1, []control.RefusedDevice{{Refused: []control.Refused{{Verdict: control.Verdict{Add: "[[rule]]\n"}}}}}
		}, "refused_lately", doctor.Fine, false},
		{"something waits", func(f *doctor.Facts) { f.Daemon.Pending = 2 }, "pending", doctor.Warning, false},
		{"refusals", func(f *doctor.Facts) { f.Daemon.Refused = 4 }, "refused", doctor.Fine, true},
		{"three LANs that nobody named", func(f *doctor.Facts) { f.LANs, f.Detected = []string{"a", "b", "c"}, true }, "lans_detected", doctor.Warning, false},
		{"an external address that has gone", func(f *doctor.Facts) { f.Left = "203.0.113.9" }, "external_ip", doctor.Warning, false},
		{"nobody is heard", func(f *doctor.Facts) {
			f.Asks = []doctor.Dropped{{LAN: "br-lan", Asks: doctor.Asked(5000, true, true), Blame: []doctor.Blame{{Chain: "inet filter input"}}}}
		}, "asks", doctor.Failure, false},
		{"nobody is heard, whatever the rules", func(f *doctor.Facts) {
			f.Asks = []doctor.Dropped{{LAN: "br-lan", Asks: doctor.Asked(5000, true, true)}}
		}, "asks", doctor.Failure, false},
		{"nobody is heard, and nothing can be tried", func(f *doctor.Facts) {
			f.Trial = doctor.Trial{Skipped: "the WAN is down"}
			f.Asks = []doctor.Dropped{{LAN: "br-lan", Asks: doctor.Asked(5000, true, true), Blame: []doctor.Blame{{Chain: "inet filter input"}}}}
		}, "asks", doctor.Failure, false},
		{"nobody was tried", func(f *doctor.Facts) { f.AsksFailed = broken }, "asks", doctor.Warning, true},
		{"no trial", func(f *doctor.Facts) { f.Trial = doctor.Trial{Skipped: "no nft"} }, "path", doctor.Warning, true},
		{"dropped", func(f *doctor.Facts) {
			f.Trial.Mapping = doctor.Verdict{Tried: true, Blame: []doctor.Blame{{Chain: "inet x y"}}}
		}, "path", doctor.Failure, false},
		{"dropped by nobody", func(f *doctor.Facts) { f.Trial.Mapping = doctor.Verdict{Tried: true} }, "path", doctor.Failure, false},
		{"dropped by iptables", func(f *doctor.Facts) {
			f.Trial.Mapping = doctor.Verdict{Tried: true, Blame: []doctor.Blame{{Chain: "ip filter FORWARD", OfIPTables: true}}}
		}, "path", doctor.Failure, false},
		{"dropped by the accept chain", func(f *doctor.Facts) {
			f.Trial.Pinhole = doctor.Verdict{Tried: true, Blame: []doctor.Blame{{Chain: f.AcceptChain}}}
		}, "path6", doctor.Failure, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := good()
			c.spoil(&f)
			all := doctor.Judge(&f)
			i := slices.IndexFunc(all, func(x doctor.Finding) bool { return x.ID == c.id && x.Level == c.level })
			if i < 0 || all[i].What == "" || (all[i].Remedy == "") != c.none {
				t.Fatalf("found %+v", all)
			}
			if called, configured := strings.Count(all[i].Remedy, "portcullis reload")+strings.Count(all[i].Remedy, "portcullis run"), strings.Count(all[i].Remedy, " --config x.toml"); configured < called {
				t.Errorf("without the configuration: %q", all[i].Remedy)
			}
			if first := c.id == "clock" && i == len(all)-1 || all[0].Level == c.level; doctor.Stops(all) != (c.level == doctor.Failure) || !first {
				t.Errorf("the worst is not first, or does not count: %+v", all)
			}
		})
	}
	f := good()
	for _, x := range doctor.Judge(&f) {
		if x.Level != doctor.Fine || x.Remedy != "" {
			t.Errorf("of a good machine: %+v", x)
		}
	}
	f.StrictRP = []string{"all"} // with one default route it does no harm
	if doctor.Stops(doctor.Judge(&f)) || len(doctor.Judge(&f)) != 6 {
		t.Errorf("found %+v", doctor.Judge(&f))
	}
}

// TestPendingIsApproved: for what waits for an answer no rule is advised, as it is approved.
func TestPendingIsApproved(t *testing.T) {
	t.Parallel()
	f := good()
	f.Daemon.Refused, f.Daemon.Pending = 1, 1
	f.Refusals = []control.RefusedDevice{{Refused: []control.Refused{{Verdict: control.Verdict{Action: "ask", Add: "[[rule]]\n"}}}}}
	all := doctor.Judge(&f)
	for _, x := range all {
		if strings.Contains(x.Remedy, "[[rule]]") {
			t.Errorf("found %+v", x)
		}
	}
	if !slices.ContainsFunc(all, func(x doctor.Finding) bool { return strings.Contains(x.Remedy, "portcullis pending") }) {
		t.Errorf("nobody is told of `portcullis pending`: %+v", all)
	}
}

// TestAskRemedies: the lines are those of the program whose rules drop, for what is dropped.
func TestAskRemedies(t *testing.T) {
	t.Parallel()
	input := doctor.Blame{Chain: "inet filter input"}
	for _, c := range []struct {
		dropped doctor.Dropped
		want    string
	}{
		{doctor.Dropped{Asks: doctor.Asked(5000, true, true), Blame: []doctor.Blame{input}}, `nft insert rule inet filter input iifname "br-lan" udp dport { 1900, 5351 } accept
nft insert rule inet filter input iifname "br-lan" tcp dport 5000 accept
and the same in the file that has these rules (/etc/nftables.conf)`},
		{doctor.Dropped{Asks: doctor.Asked(0, true, false), Blame: []doctor.Blame{{Chain: "inet x output", Answers: true, Elsewhere: true}}}, `nft insert rule inet x output oifname "br-lan" udp sport 5351 accept
and the same in the file that has these rules (/etc/nftables.conf)`},
		{doctor.Dropped{Asks: doctor.Asked(0, true, false), Blame: []doctor.Blame{{Chain: "ip filter INPUT", OfIPTables: true}}}, `iptables -t filter -I INPUT -i br-lan -p udp -m multiport --dports 5351 -j ACCEPT
and the same where these rules are kept (netfilter-persistent save)`},
		{doctor.Dropped{Asks: doctor.Asked(0, true, false), Blame: []doctor.Blame{{Chain: "iptables-legacy filter OUTPUT", OfIPTables: true, Answers: true}}}, `iptables-legacy -t filter -I OUTPUT -o br-lan -p udp -m multiport --sports 5351 -j ACCEPT
and the same where these rules are kept (netfilter-persistent save)`},
	} {
		f := good()
		c.dropped.LAN = "br-lan"
		f.Asks = []doctor.Dropped{c.dropped}
		if got := doctor.Judge(&f)[0]; got.ID != "asks" || got.Remedy != c.want {
			t.Errorf("got %+v", got)
		}
	}
}

// TestPathRemedies: whatever the configuration is, it is told from the chains that drop
// without any, and takes effect in the way that is said.
func TestPathRemedies(t *testing.T) {
	t.Parallel()
	native := doctor.Blame{Chain: "inet filter forward"}
	docker := doctor.Blame{Chain: "ip filter FORWARD", OfIPTables: true}
	const restart = "\nthen: systemctl restart portcullis"
	for name, c := range map[string]struct {
		backend, chain string
		blame, bare    []doctor.Blame
		want           string
	}{
		"both":             {"nftables", "", []doctor.Blame{native, docker}, []doctor.Blame{native, docker}, `backend = "iptables" and accept_chain = "inet filter forward" in [firewall] of /etc/portcullis/portcullis.toml` + restart},
		"the chain is set": {"nftables", "inet filter forward", []doctor.Blame{docker}, []doctor.Blame{native, docker}, `backend = "iptables" in [firewall] of /etc/portcullis/portcullis.toml` + restart},
		"the backend is":   {"iptables", "", []doctor.Blame{native}, []doctor.Blame{native, docker}, `accept_chain = "inet filter forward" in [firewall] of /etc/portcullis/portcullis.toml` + restart},
		"another chain is": {"nftables", "inet other forward", []doctor.Blame{native}, []doctor.Blame{native}, `accept_chain = "inet filter forward" in [firewall] of /etc/portcullis/portcullis.toml` + restart},
		"one of two is": {"nftables", "inet other forward", []doctor.Blame{native}, []doctor.Blame{native, {Chain: "inet other forward"}},
			"nft insert rule inet filter forward ct status dnat accept, and the same where its rules are written: accept_chain names one chain only"},
		"before it": {"iptables", "", []doctor.Blame{{Chain: "ip mangle FORWARD", OfIPTables: true, Elsewhere: true}}, []doctor.Blame{docker, {Chain: "ip mangle FORWARD", OfIPTables: true, Elsewhere: true}},
			"change ip mangle FORWARD, before which Portcullis has no jump, to accept what comes in by the WAN and is not refused later"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := good()
			f.Backend, f.AcceptChain, f.Daemon.Answers = c.backend, c.chain, true
			f.Trial.Mapping = doctor.Verdict{Tried: true, Blame: c.blame, Bare: c.bare}
			if got := doctor.Judge(&f)[0]; got.ID != "path" || got.Remedy != c.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}
