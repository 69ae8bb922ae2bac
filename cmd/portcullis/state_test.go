package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/config"
)

// openedState opens the state of a daemon in a directory.
func openedState(t *testing.T, dir string) (*state, string) {
	t.Helper()
	var log bytes.Buffer
	cfg := config.Config{}
	cfg.State.Dir = dir
	s, err := openState(&gate{cfg: cfg, log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, log.String()
}

// TestUnsafeStateDirectory: from a directory that others can write to, no path is
// taken that they know (abuse case D5), and nothing is written there.
func TestUnsafeStateDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const planted = `{"uuid":"00000000-0000-4000-8000-000000000001","path":"00112233445566778899aabb","boot_id":7}`
	file := filepath.Join(dir, "identity.json")
	if err := os.WriteFile(file, []byte(planted), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // #nosec G302 -- the fault that is tested
		t.Fatal(err)
	}
	s, log := openedState(t, dir)
	if !strings.Contains(log, "not safe") || strings.Contains(planted, s.path()) || strings.Contains(planted, s.uuid()) {
		t.Errorf("took the path %s, the UUID %s; logged %s", s.path(), s.uuid(), log)
	}
	s.nextBootID(0)
	if now, err := os.ReadFile(file); err != nil || string(now) != planted {
		t.Errorf("the file is %s, %v", now, err)
	}
}

// TestURLsOfTheLastRun: what a control point has found stays where it is, and the
// BOOTID tells that there was a start.
func TestURLsOfTheLastRun(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, _ := openedState(t, dir)
	boot := first.nextBootID(0)
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	first.journal = nil
	second, _ := openedState(t, dir)
	if second.path() != first.path() || second.uuid() != first.uuid() || second.nextBootID(0) <= boot {
		t.Errorf("path %s, then %s; UUID %s, then %s", first.path(), second.path(), first.uuid(), second.uuid())
	}
}
