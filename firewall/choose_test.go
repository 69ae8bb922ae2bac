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
		{"nobody has rules", "nftables", "no rules", firewall.Machine{}},
		{"no iptables", "nftables", "no rules", firewall.Machine{IPTables: no}},
		{"legacy rules", "iptables", "iptables-legacy", firewall.Machine{LegacyRules: true}},
		{"legacy rules and no program", "nftables", "not here", firewall.Machine{LegacyRules: true, IPTables: no}},
		{"rules in nf_tables", "nftables", "no rules", firewall.Machine{NFTRules: true}},
		{"rules that only root sees", "nftables", "only root", firewall.Machine{Hidden: true}},
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
