package doctor_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"portcullis/internal/doctor"
)

// good is a machine without a fault.
func good() doctor.Facts {
	return doctor.Facts{
		LANs: []string{"br-lan"}, WAN: "wan0", WANUp: true, External: "203.0.113.5", WAN6Up: true,
		Forwards: true, Forwards6: true, DefaultRoutes: 1, Synced: true, Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Backend: "nftables", AnswersSeen: true, AcceptChain: "inet fw4 forward",
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
		{"WAN down", func(f *doctor.Facts) { f.WANUp = false }, "wan", doctor.Failure, false},
		{"private WAN", func(f *doctor.Facts) { f.Private = true }, "private_wan", doctor.Failure, false},
		{"private and allowed", func(f *doctor.Facts) { f.Private, f.Allowed = true, true }, "private_wan", doctor.Warning, false},
		{"forwarding", func(f *doctor.Facts) { f.Forwards = false }, "forwarding", doctor.Failure, false},
		{"forwarding of IPv6", func(f *doctor.Facts) { f.Forwards6 = false }, "forwarding6", doctor.Failure, false},
		{"port", func(f *doctor.Facts) { f.Taken = []doctor.Listener{{"udp 5351", ""}} }, "port_taken", doctor.Failure, false},
		{"rp_filter", func(f *doctor.Facts) { f.StrictRP, f.DefaultRoutes = []string{"wan0"}, 2 }, "rp_filter", doctor.Warning, false},
		{"clock", func(f *doctor.Facts) { f.Synced, f.Daemon.Open = false, 1 }, "clock", doctor.Warning, false},
		{"clock of 1970", func(f *doctor.Facts) { f.Now, f.Daemon.Open = time.Unix(0, 0), 1 }, "clock", doctor.Warning, false},
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
