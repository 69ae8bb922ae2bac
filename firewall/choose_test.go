package firewall_test

import (
	"errors"
	"strings"
	"testing"

	"portcullis/firewall"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	no := errors.New("not here")
	for _, c := range []struct {
		name, want, why string
		host            firewall.Machine
	}{
		{"both work and nobody has rules", "nftables", "has nf_tables", firewall.Machine{}},
		{"no iptables", "nftables", "has nf_tables", firewall.Machine{IPTables: no}},
		{"no nf_tables", "iptables", "not here", firewall.Machine{NFTables: no}},
		{"no nf_tables, with legacy rules", "iptables", "not here", firewall.Machine{NFTables: no, LegacyRules: true}},
		{"neither", "nftables", "not here", firewall.Machine{NFTables: no, IPTables: no}},
		{"legacy rules", "iptables", "iptables-legacy", firewall.Machine{LegacyRules: true}},
		{"legacy rules and no program", "nftables", "not here", firewall.Machine{LegacyRules: true, IPTables: no}},
		{"rules in nf_tables", "nftables", "has nf_tables", firewall.Machine{NFTRules: true}},
		{"rules in both", "nftables", "has some too", firewall.Machine{NFTRules: true, LegacyRules: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := firewall.Choose(c.host)
			if got != c.want || !strings.Contains(why, c.why) || !strings.HasPrefix(why, got) {
				t.Errorf("%s (%s), want %s for %q", got, why, c.want, c.why)
			}
		})
	}
}
