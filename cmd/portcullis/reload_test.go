package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"portcullis/internal/control"
)

// TestFailedJSON: a command that fails says so in JSON as well, of every kind that talks to
// the daemon or has to be root; not where the command line is wrong.
func TestFailedJSON(t *testing.T) {
	t.Parallel()
	nobody := file(t, socketOnly)
	for _, args := range [][]string{
		{"status"}, {"list"}, {"reload"}, {"refused"}, {"pending"}, {"approvals"}, {"approve", "1"}, {"deny", "1"}, {"revoke", "1"},
		{"events"}, {"add", "tcp", "6000", "192.168.1.2:6000"}, {"explain", "--client", "192.168.1.2", "--port", "1", "--protocol", "tcp"},
	} {
		code, out, errs := call(t, append(args, "--json", "--config", nobody)...)
		var said struct{ Error string }
		if err := json.Unmarshal([]byte(out), &said); err != nil || code != exitRefused || said.Error == "" || errs != "portcullis: "+said.Error+"\n" {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out, errs)
		}
	}
	if code, out, _ := call(t, "explain", "--json"); code != exitUsage || out != "" {
		t.Errorf("exit code %d, %q", code, out)
	}
}

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
