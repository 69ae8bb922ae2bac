package inotify_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/inotify"
)

// watches returns of how many things the kernel tells this process by inotify.
func watches(t *testing.T) (n int) {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", os.Getpid()))
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // of the directory that was listed
			t.Fatal(err)
		}
		n += strings.Count(string(text), "inotify wd:")
	}
	return n
}

// TestWatch: of a file that is to come its directory tells, unless that is everybody's; a
// file that is there tells itself, wherever it is.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		mode  os.FileMode
		there bool
		want  int
	}{
		"to come":                {0o755, false, 1},
		"there":                  {0o755, true, 2},
		"to come, in /tmp":       {0o777 | os.ModeSticky, false, 0},
		"there, in /tmp":         {0o777 | os.ModeSticky, true, 1},
		"to come, for all users": {0o777, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "leases")
			if c.there {
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(dir, c.mode); err != nil {
				t.Fatal(err)
			}
			w, err := inotify.New(map[string]bool{"leases": true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := w.Watch(file); err != nil {
				t.Fatal(err)
			}
			if n := watches(t); n != c.want {
				t.Errorf("the kernel tells of %d things, want %d", n, c.want)
			}
			if !c.there {
				return
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			<-w.Told
		})
	}
}

// TestWatchPlace: a directory tells what comes and goes there of what was named, and its own
// end.
func TestWatchPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	file := filepath.Join(dir, "leases")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w, err := inotify.New(map[string]bool{"leases": true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if there, err := w.WatchPlace(dir); err != nil || !there {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return os.Remove(file) },
		func() error { return os.WriteFile(file, nil, 0o600) },
		func() error { return os.Rename(file, file+".bak") },
		func() error { return os.Rename(file+".bak", file) },
		func() error { return os.Rename(dir, dir+".old") },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		<-w.Told
	}
}
