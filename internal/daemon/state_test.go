package daemon

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
func openedState(t *testing.T, dir string) (*state, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	cfg := config.Config{}
	cfg.State.Dir = config.Path(dir)
	s, err := openState(&gate{cfg: cfg, log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, log
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
	if !strings.Contains(log.String(), "not safe") || strings.Contains(planted, s.path()) || strings.Contains(planted, s.uuid()) {
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

// TestKeepIdentity: an identity that was removed is told of once and written anew; one
// that was never written, or may not be, is not missed.
func TestKeepIdentity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode  os.FileMode
		saved bool
		lines int
	}{
		"removed":             {0o700, true, 1},
		"never written":       {0o700, false, 0},
		"an unsafe directory": {0o777, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, c.mode); err != nil { // whatever the umask is
				t.Fatal(err)
			}
			s, log := openedState(t, dir)
			if c.saved {
				s.nextBootID(0)
			}
			file := filepath.Join(dir, "identity.json")
			if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			for range 3 {
				s.keepIdentity()
			}
			if n := strings.Count(log.String(), "identity was removed"); n != c.lines {
				t.Errorf("told %d times:\n%s", n, log)
			}
			if _, err := os.Stat(file); (err == nil) != (c.lines > 0) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}
