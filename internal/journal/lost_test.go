package journal_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/journal"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// TestLosesItsPlace: L12. A directory or a file that is taken away from under the journal is
// noticed within seconds, though nothing is written; what can be written anew is, and
// what is not safe is not written to, and said once.
func TestLosesItsPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		take func(dir string) error
		back func(dir string) error // makes it possible again; nil: it was all the time
	}{
		"directory removed": {os.RemoveAll, nil},
		"directory moved":   {func(dir string) error { return os.Rename(dir, dir+".old") }, nil},
		"file removed":      {func(dir string) error { return os.Remove(filepath.Join(dir, journal.JournalFile)) }, nil},
		"file replaced": {func(dir string) error {
			name := filepath.Join(dir, journal.JournalFile)
			return errors.Join(os.Rename(name, name+".bak"), os.WriteFile(name, []byte("other"), 0o600))
		}, nil},
		"a link in its place": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir+".trap", 0o700), os.Symlink(dir+".trap", dir))
		}, os.Remove},
		"a directory for everybody": {func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
		}, func(dir string) error { return os.Chmod(dir, 0o700) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			synctest.Test(t, func(t *testing.T) {
				var log lockedLog
				w := &world{t: t, clock: newFakeClock(), log: slog.New(slog.NewTextHandler(&log, nil))}
				cfg := journal.Config{Dir: dir, Log: w.log, MaxMappings: 100, Clock: bubbleClock{}}
				j, _, err := journal.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				w.j = j
				m := w.mapping(7)
				m.Created, m.Expires = time.Now(), time.Now().Add(time.Hour)
				w.record([]portmap.Mapping{m})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- j.Run(ctx) }()
				pass := func(d time.Duration) {
					time.Sleep(d) // of the bubble
					synctest.Wait()
				}
				pass(time.Minute)
				if log.take(); c.take(dir) != nil {
					t.Fatal("it cannot be taken away")
				}
				pass(time.Minute)
				failures := 0
				if c.back != nil {
					failures = 1
				}
				if said := log.take(); strings.Count(said, "level=WARN") != 1 || strings.Count(said, "level=ERROR") != failures {
					t.Errorf("the log says\n%s", said)
				}
				if err := j.SaveIdentity(journal.NewIdentity()); (err != nil) != (c.back != nil) {
					t.Errorf("the identity is written: %v", err)
				}
				if c.back != nil {
					if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
						t.Errorf("written where it is not safe: %v", left)
					}
					if err := c.back(dir); err != nil {
						t.Fatal(err)
					}
					pass(time.Minute)
				}
				cancel()
				<-done
				// What is there now is what a crash would leave.
				next := filepath.Join(t.TempDir(), "copy")
				if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(os.Chmod(next, 0o700), os.Chmod(filepath.Join(next, journal.JournalFile), 0o600)); err != nil {
					t.Fatal(err)
				}
				cfg.Dir = next
				again, got, err := journal.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Mappings) != 1 || got.Mappings[0].ID != 7 || !got.Whole {
					t.Errorf("restored %+v", got)
				}
				if err := errors.Join(again.Close(), j.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// lockedLog is written by the journal's own goroutine.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was written since the last time.
func (l *lockedLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.buf.String()
	l.buf.Reset()
	return said
}
