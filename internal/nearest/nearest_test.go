package nearest_test

import (
	"strings"
	"testing"

	"portcullis/internal/nearest"
)

func TestOf(t *testing.T) {
	t.Parallel()
	commands := []string{"run", "check", "doctor", "status", "list", "add", "delete", "version"}
	keys := []string{"interfaces", "extra_prefixes", "external_ip", "internal_ports", "external_ports"}
	words := []string{"upnp", "natpmp", "pcp", "lan", "wan", "rule"}
	for _, c := range []struct {
		word  string
		words []string
		want  string
	}{
		{"statsu", commands, "status"}, // swapped
		{"staus", commands, "status"},  // left out
		{"liist", commands, "list"},    // put in
		{"lost", commands, "list"},     // changed
		{"STATUS", commands, "status"}, // case
		{"list", commands, "list"},     // itself
		{"del", commands, "delete"},    // the beginning of one
		{"frobnicate", commands, ""},   // nothing
		{"x", commands, ""},            // shares nothing
		{"", commands, ""},             //
		{"list", nil, ""},              //
		{"interface", keys, "interfaces"},
		{"internal_port", keys, "internal_ports"},
		{"ext", keys, ""}, // the beginning of several
		{"nat-pmp", words, "natpmp"},
		{"LAN", words, "lan"},
		{"rules", words, "rule"},
		{"igd", words, ""},
		{strings.Repeat("x", 1<<20), commands, ""},
		{"\xff\x00", commands, ""},
	} {
		if got := nearest.Of(c.word, c.words); got != c.want {
			t.Errorf("Of(%.20q) = %q, want %q", c.word, got, c.want)
		}
	}
}
