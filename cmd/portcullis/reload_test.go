package main

import (
	"bytes"
	"testing"

	"portcullis/internal/control"
)

// TestPrintReloaded: what the owner reads of a reload.
func TestPrintReloaded(t *testing.T) {
	t.Parallel()
	gone := control.Revoked{
		Mapping: control.Mapping{ExternalPort: 6000, Protocol: "udp", InternalIP: "192.168.1.5", InternalPort: 6001, Description: "a\x1bgame"},
		Why:     `the rule "no games" denies this`,
	}
	for want, r := range map[string]control.Reloaded{
		"reloaded; nothing has changed\n": {},
		"reloaded: lease.max, rule\n":     {Changed: []string{"lease.max", "rule"}},
		"nothing that a running daemon takes over has changed\nonly after a restart: log.level\n": {Restart: []string{"log.level"}},
		"reloaded: rule\nclosed 6000/udp to 192.168.1.5:6001 (a\ufffdgame): the rule \"no games\" denies this\nonly after a restart: state.dir\n": {
			Changed: []string{"rule"}, Restart: []string{"state.dir"}, Revoked: []control.Revoked{gone},
		},
	} {
		var out bytes.Buffer
		if err := printReloaded(&out, r); err != nil || out.String() != want {
			t.Errorf("%v; it prints\n%swant\n%s", err, &out, want)
		}
	}
}
