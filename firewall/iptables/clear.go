package iptables

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"portcullis/firewall/nft"
	"portcullis/internal/enter"
	"portcullis/internal/slog"
)

// Clear removes all that a daemon which has ended left in the kernel, by whichever backend:
// what nft.Clear does, our rule in FORWARD of each flavour, and what is listed in its nat table. It returns what it removed.
func Clear(ctx context.Context, log *slog.Logger, netns int) (gone []string, err error) {
	for _, name := range []string{NFTProgram, legacyProgram, mainProgram} {
		for _, f := range families {
			p, missing := findPrograms(f, name, netns)
			if missing != nil {
				continue // what is not installed has written no rule
			}
			was, failed := p.clear(ctx)
			if was {
				gone = append(gone, "rule in FORWARD of "+p.main)
			}
			err = errors.Join(err, failed)
			if f == four {
				chains, failed := p.clearListing(ctx)
				gone, err = append(gone, chains...), errors.Join(err, failed)
			}
		}
	}
	more, failed := nft.Clear(ctx, log, netns)
	return append(gone, more...), errors.Join(err, failed)
}

// clear removes our rule of a family, and reports whether there was one. A table that is not
// loaded is not asked for, which would load it.
func (p *programs) clear(ctx context.Context) (was bool, err error) {
	if p.flavour == legacy && !loaded(p.family, p.netns, "filter") {
		return false, nil
	}
	there, err := p.forward(ctx)
	if err != nil || len(ours(there)) == 0 {
		return false, err
	}
	return true, (&rule{programs: p}).remove(ctx)
}

// loaded reports whether the kernel has a legacy table of a family.
func loaded(f family, netns int, table string) (there bool) {
	file := [...]string{"ip_tables_names", "ip6_tables_names"}[f]
	err := enter.In(netns, func() error {
		names, err := os.ReadFile("/proc/thread-self/net/" + file)
		there = slices.Contains(strings.Fields(string(names)), table)
		return err
	})
	return err == nil && there
}
