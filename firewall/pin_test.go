package firewall_test

import (
	"testing"

	"portcullis/firewall"
	"portcullis/portmap"
)

// TestPinholes: pinholes beside translated ports.
func TestPinholes(t *testing.T) {
	playSteps(t, map[string]story{
		"pinhole": {
			[]step{
				{add: []string{"1 udp pin -> [2001:db8::2]:5000 for 60s"}, want: `
					add udp [2001:db8::2]:5000 lets in anyone`},
				{add: []string{"1 udp pin -> [2001:db8::2]:5000 for 90s"}, want: `
					retime udp [2001:db8::2]:5000 lets in anyone`},
				{add: []string{"1 udp pin from 2001:db8:9::7 -> [2001:db8::2]:5000 for 90s"}, want: `
					del udp [2001:db8::2]:5000 lets in anyone
					add udp [2001:db8::2]:5000 lets in 2001:db8:9::7`},
				{add: []string{"1 udp pin from 2001:db8:9::7 -> [2001:db8::2]:5000 off"}, want: `
					del udp [2001:db8::2]:5000 lets in 2001:db8:9::7`},
				{add: []string{"1 udp pin from 2001:db8:9::7 -> [2001:db8::3]:5000"}, want: `
					add udp [2001:db8::3]:5000 lets in 2001:db8:9::7`},
			},
			"udp [2001:db8::3]:5000 lets in 2001:db8:9::7",
		},
		"J7/pinholes of one endpoint, and of others": {
			[]step{
				{add: []string{
					"1 udp pin -> [2001:db8::2]:5000", "2 udp pin from 2001:db8:9::7 -> [2001:db8::2]:5000",
					"3 udp pin from 2001:db8:9::/64 port 53 from 2001:db8:9::/48 port 54 -> [2001:db8::2]:5000",
					"4 tcp pin -> [2001:db8::2]:5000", "5 udp pin -> [2001:db8::2]:5001", "6 udp pin -> [2001:db8::3]:5000",
				}, want: `
					add tcp [2001:db8::2]:5000 lets in anyone
					add udp [2001:db8::2]:5000 lets in anyone
					add udp [2001:db8::2]:5001 lets in anyone
					add udp [2001:db8::3]:5000 lets in anyone
					add udp [2001:db8::2]:5000 lets in 2001:db8:9::/48 port 54
					add udp [2001:db8::2]:5000 lets in 2001:db8:9::/64 port 53
					add udp [2001:db8::2]:5000 lets in 2001:db8:9::7`},
				{del: []string{"1 udp pin -> [2001:db8::2]:5000", "3 udp pin -> [2001:db8::2]:5000", "4 tcp pin -> [2001:db8::2]:5000"}, want: `
					del tcp [2001:db8::2]:5000 lets in anyone
					del udp [2001:db8::2]:5000 lets in anyone
					del udp [2001:db8::2]:5000 lets in 2001:db8:9::/48 port 54
					del udp [2001:db8::2]:5000 lets in 2001:db8:9::/64 port 53`},
			},
			"udp [2001:db8::2]:5001 lets in anyone\nudp [2001:db8::3]:5000 lets in anyone\n" +
				"udp [2001:db8::2]:5000 lets in 2001:db8:9::7",
		},
		"both families in one step": {
			[]step{{
				add: []string{"1 udp 5000 -> 10.0.0.2:5000", "2 udp pin -> [2001:db8::2]:5000"}, want: `
				add udp 5000 -> 10.0.0.2:5000
				add udp 10.0.0.2:5000 keeps 5000
				add udp [2001:db8::2]:5000 lets in anyone`,
			}},
			"udp 5000 -> 10.0.0.2:5000\nudp 10.0.0.2:5000 keeps 5000\nudp [2001:db8::2]:5000 lets in anyone",
		},
		"an ID that changes its family": {
			[]step{
				{add: []string{"1 udp 5000 -> 10.0.0.2:5000"}, want: `
					add udp 5000 -> 10.0.0.2:5000
					add udp 10.0.0.2:5000 keeps 5000`},
				{add: []string{"1 udp pin -> [2001:db8::2]:5000"}, want: `
					del udp 5000 -> 10.0.0.2:5000
					del udp 10.0.0.2:5000 keeps 5000
					add udp [2001:db8::2]:5000 lets in anyone`},
			},
			"udp [2001:db8::2]:5000 lets in anyone",
		},
	})
}

// What no pin can say. Each is tried beside a mapping that is good.
func TestPinholeRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want portmap.Reason
	}{
		"B10/IPv4 remote":           {"2 udp pin from 198.51.100.7 -> [2001:db8::2]:5000", portmap.BadRemote},
		"B10/both families":         {"2 udp pin from 2001:db8:9::7 from 198.51.100.7 -> [2001:db8::2]:5000", portmap.BadRemote},
		"B10/v4-mapped remote":      {"2 udp pin from ::ffff:198.51.100.7 -> [2001:db8::2]:5000", portmap.BadRemote},
		"B10/not masked":            {"2 udp pin from 2001:db8:9::7/64 -> [2001:db8::2]:5000", portmap.BadRemote},
		"A8/v4-mapped host":         {"2 udp pin -> [::ffff:10.0.0.2]:5000", portmap.NotAHost},
		"A8/an IPv4 host":           {"2 udp pin -> 10.0.0.2:5000", portmap.NotAHost},
		"B4/unspecified host":       {"2 udp pin -> [::]:5000", portmap.NotAHost},
		"B4/loopback":               {"2 udp pin -> [::1]:5000", portmap.NotAHost},
		"B4/a group":                {"2 udp pin -> [ff0e::1]:5000", portmap.NotAHost},
		"J2/never routed":           {"2 udp pin -> [fe80::1]:5000", portmap.NotAHost},
		"J2/with a zone":            {"2 udp pin -> [2001:db8::2%eth0]:5000", portmap.NotAHost},
		"B6/port 0":                 {"2 udp pin -> [2001:db8::2]:0", portmap.BadPort},
		"B7/transport":              {"2 sctp pin -> [2001:db8::2]:5000", portmap.BadTransport},
		"a translated one to IPv6":  {"2 udp 5000 -> [2001:db8::2]:5000", portmap.NotAHost},
		"J/the same again":          {"2 udp pin -> [2001:db8::1]:5000", portmap.PortTaken},
		"J/what comes to the same":  {"2 udp pin from ::/0 -> [2001:db8::1]:5000", portmap.PortTaken},
		"J/a host again":            {"2 udp pin from 2001:db8:9::7 -> [2001:db8::1]:5001", portmap.PortTaken},
		"J/networks that overlap":   {"2 udp pin from 2001:db8:9::/48 -> [2001:db8::1]:5002", portmap.PortTaken},
		"J/a port of the network":   {"2 udp pin from 2001:db8:9::7 port 53 -> [2001:db8::1]:5002", portmap.PortTaken},
		"fine: another remote host": {"2 udp pin from 2001:db8:9::8 -> [2001:db8::1]:5001", portmap.NoReason},
		"fine: a host of it":        {"2 udp pin from 2001:db8:9::7 -> [2001:db8::1]:5002", portmap.NoReason},
		"fine: anyone beside it":    {"2 udp pin -> [2001:db8::1]:5002", portmap.NoReason},
		"fine: another network":     {"2 udp pin from 2001:db8:8::/48 -> [2001:db8::1]:5002", portmap.NoReason},
		"fine: another transport":   {"2 tcp pin -> [2001:db8::1]:5000", portmap.NoReason},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := firewall.NewState()
			c, err := s.Plan(mappings(t, "11 udp pin -> [2001:db8::1]:5000", "12 udp pin from 2001:db8:9::7 -> [2001:db8::1]:5001",
				"13 udp pin from 2001:db8:9::/64 -> [2001:db8::1]:5002"), nil)
			if err != nil {
				t.Fatal(err)
			}
			s.Commit(c)
			c, err = s.Plan(mappings(t, "1 tcp 8000 -> 10.0.0.2:80", tc.text), nil)
			if got := portmap.ReasonOf(err); got != tc.want {
				t.Errorf("refused with %v (%v), want %v", got, err, tc.want)
			}
			if (c != nil) != (err == nil) {
				t.Errorf("a change in spite of the refusal: %s", c)
			}
		})
	}
}
