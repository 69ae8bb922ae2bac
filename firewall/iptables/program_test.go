package iptables

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fake is programs that are shell scripts.
func fake(t *testing.T, script string) *programs {
	t.Helper()
	p := &programs{family: four, main: filepath.Join(t.TempDir(), "iptables")}
	for _, name := range []string{"", "-save", "-restore"} {
		if err := os.WriteFile(p.main+name, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// What succeeded is not called a failure because its output is read late: on a busy
// machine, or where something that it started holds the pipe.
func TestSucceededLate(t *testing.T) {
	t.Parallel()
	if err := fake(t, "sleep 2 & exit 0").restore(t.Context(), "*filter\nCOMMIT\n"); err != nil {
		t.Error(err)
	}
}

// A program has no longer than who waits for it.
func TestProgramEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := fake(t, "exec sleep 8").save(ctx)
	if took := time.Since(start); err == nil || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error("ended before its time")
	}
}

// The rule is written again where others write at the same time, and what is told of it
// is what the program said.
func TestRuleIsTriedAgain(t *testing.T) {
	t.Parallel()
	p := fake(t, `case $0 in
*-save) cat "$(dirname "$0")/rules" 2>/dev/null; exit 0 ;;
*-restore)
	echo . >>"$(dirname "$0")/runs"
	[ "$(wc -l <"$(dirname "$0")/runs")" -gt 1 ] || { echo "RULE_INSERT failed" >&2; exit 4; }
	{ echo "*filter"; sed -n 's/^-I FORWARD 1/-A FORWARD/p'; } >"$(dirname "$0")/rules"
esac`)
	r := &rule{programs: p, mark: 0x40}
	if lost, err := r.keep(t.Context()); lost != "" || err != nil {
		t.Errorf("the second try: %q, %v", lost, err)
	}
	if lost, err := r.keep(t.Context()); lost != "" || err != nil {
		t.Errorf("what is there: %q, %v", lost, err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(p.main), "rules")); err != nil {
		t.Fatal(err)
	}
	if lost, err := r.keep(t.Context()); !strings.Contains(lost, "was missing") || err != nil {
		t.Errorf("what is gone: %q, %v", lost, err)
	}
	broken := &rule{programs: fake(t, `case $0 in *-restore) echo "No chain/target/match by that name" >&2; exit 2; esac`), mark: 1}
	if _, err := broken.keep(t.Context()); err == nil || !strings.Contains(err.Error(), "No chain/target/match") {
		t.Errorf("a rule that is refused: %v", err)
	}
}
