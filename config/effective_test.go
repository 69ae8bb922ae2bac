package config_test

import (
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/policy"
)

// TestEffectiveAll: the effective configuration has every key, as far as a
// rule has it, and also what this version does not take from a file.
func TestEffectiveAll(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.WAN.Interface6 = "wan6"
	c.Firewall.Backend = config.BackendIPTables
	c.Rules = []policy.Rule{{Name: "r"}}
	text := string(config.Effective(c))
	have := make(map[string]string)
	for _, s := range settings(text) {
		have[s.key] = s.value
	}
	for key, want := range map[string]string{
		"wan.interface6":   `"wan6"`,
		"firewall.backend": `"iptables"`,
		"rule.name":        `"r"`,
		"rule.action":      `"deny"`, // the zero value of an action shuts
	} {
		if have[key] != want {
			t.Errorf("%s = %s, want %s", key, have[key], want)
		}
	}
	for _, key := range config.Keys() {
		if _, ok := have[key]; !ok && !strings.HasPrefix(key, "rule.") {
			t.Errorf("%s is missing", key)
		}
	}
}
