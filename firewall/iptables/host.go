package iptables

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"portcullis/internal/program"
)

// The programs by name, where the host has both flavours.
const (
	legacyProgram = "iptables-legacy"
	mainProgram   = "iptables"
	NFTProgram    = "iptables-nft"
)

// Usable returns the reason why a program cannot be used.
func Usable(name string) error {
	_, err := findPrograms(four, name, 0)
	return err
}

// LegacyRules reports whether somebody else has rules in the legacy tables, and which
// program keeps them. A kernel that has loaded no such table is not asked further:
// asking would load it. It is the thread's network that counts: the first thread of the
// process, whose /proc/net is, may be in the copy that doctor has made of the machine.
// hidden reports that only root can tell.
func LegacyRules(ctx context.Context) (found string, there, hidden bool) {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || len(bytes.TrimSpace(names)) == 0 {
		return "", false, errors.Is(err, fs.ErrPermission)
	}
	for _, name := range []string{legacyProgram, mainProgram} {
		if _, err := program.Find(name); err != nil {
			continue
		}
		p, err := findPrograms(four, name, 0)
		if err != nil || p.flavour != legacy {
			continue
		}
		there, err := p.save(ctx)
		if err != nil {
			return "", false, false
		}
		return name, there.owners(), false
	}
	return "", false, false
}
