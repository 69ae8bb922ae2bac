package iptables

import (
	"bytes"
	"context"
	"os"
	"os/exec"
)

// The two programs by name, where the host has both.
const (
	legacyProgram = "iptables-legacy"
	mainProgram   = "iptables"
)

// LegacyRules says whether somebody else has rules in the legacy tables, and which
// program keeps them. A kernel that has loaded no such table is not asked further:
// asking would load it.
func LegacyRules(ctx context.Context) (program string, there bool) {
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	if err != nil || len(bytes.TrimSpace(names)) == 0 {
		return "", false
	}
	for _, name := range []string{legacyProgram, mainProgram} {
		if _, err := exec.LookPath(name); err != nil {
			continue
		}
		p, err := findPrograms(four, name, 0)
		if err != nil || p.flavour != "legacy" {
			continue
		}
		text, err := p.save(ctx)
		if err != nil {
			return "", false
		}
		return name, parseSaved(text).owners()
	}
	return "", false
}
