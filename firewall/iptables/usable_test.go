package iptables_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/firewall/iptables"
)

// TestUsable: a program that is not there, that fails, or that does not say that it is iptables, is
// not used, and it is said why.
func TestUsable(t *testing.T) {
	for want, script := range map[string]string{
		"":                          "echo 'iptables v1.8.11 (nf_tables)'",
		`unknown version "hello\n"`: "echo hello",
		"exit status 3":             "echo 'iptables v1.8.11 (legacy)'; exit 3",
		"executable file not found": "",
	} {
		path := filepath.Join(t.TempDir(), "iptables")
		if script != "" {
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		switch err := iptables.Usable(path); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", script, err)
		case want != "" && (!errors.Is(err, iptables.ErrNoProgram) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", script, err, want)
		}
	}
}
