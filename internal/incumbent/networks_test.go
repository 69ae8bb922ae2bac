package incumbent_test

import (
	"strings"
	"testing"

	"portcullis/internal/incumbent"
)

// TestNetworks: what netifd has not printed is no list of networks, rather than an empty one.
func TestNetworks(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                "not what `ubus call network.interface dump` prints",
		"Command failed: Not found\n":     "not what `ubus",
		"{}":                              `it has no "interface"`,
		`{"interface":{"lan":"br-lan"}}`:  "not what `ubus",
		`{"interface":[{"interface":1}]}`: "not what `ubus",
		strings.Repeat(" ", 1<<20) + "{}": "too large",
	} {
		if _, err := incumbent.Networks([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	if n, err := incumbent.Networks([]byte(`{"interface":[]}`)); err != nil || len(n) != 0 {
		t.Error(n, err)
	}
}
