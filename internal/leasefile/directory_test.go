package leasefile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/internal/leasefile"
)

// TestOthersDirectory: where another user can put a file in the place of ours, none is
// written, and none believed.
func TestOthersDirectory(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(dir string) error{
		"anybody writes": func(dir string) error { return os.Chmod(dir, 0o777) },
		"a group writes": func(dir string) error { return errors.Join(os.Chown(dir, -1, 12345), os.Chmod(dir, 0o770)) },
		"another user's": func(dir string) error { return os.Chown(dir, 12345, -1) },
		"another user's, as /tmp": func(dir string) error {
			return errors.Join(os.Chown(dir, 12345, -1), os.Chmod(dir, os.ModeSticky|0o777))
		},
		"below anybody's": func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		"by another user's link": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir), os.Lchown(dir, 12345, -1))
		},
		"by a link in anybody's": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Mkdir(dir+"3", 0o700), os.Chmod(dir+"3", 0o777), os.Symlink("../"+filepath.Base(dir)+"2", dir+"3/to"), os.Symlink(dir+"3/to", dir))
		},
		"by a link that has no end": func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir, dir)) },
	} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				t.Parallel()
				if os.Geteuid() != 0 {
					t.Skip("only root can make it")
				}
				h := newHouse(t)
				h.three()
				h.rename(h.without(1))
				is, err := os.Stat(h.file)
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Dir(h.file)
				if err := do(dir); err != nil {
					t.Fatal(err)
				}
				if !running {
					h.start()
				}
				for range 2 {
					h.Dirty()
					h.turn()
				}
				h.wantsClosed()
				if n := strings.Count(h.log.String(), "cannot write the lease file"); n != 1 {
					t.Errorf("it was told %d times\n%s", n, &h.log)
				}
				if _, err := os.Stat(dir + "2"); err == nil {
					dir += "2"
				}
				if after, err := os.Stat(filepath.Join(dir, filepath.Base(h.file))); err != nil || !os.SameFile(is, after) {
					t.Errorf("the file was written: %v", err)
				}
			})
		}
	}
	dir := t.TempDir()
	for name, do := range map[string]func(string) error{
		"sticky": func(dir string) error { return os.Chmod(dir, os.ModeSticky|0o777) },
		"a link": func(dir string) error {
			return errors.Join(os.Mkdir(dir+"2", 0o700), os.Remove(dir), os.Symlink(filepath.Base(dir)+"2", dir))
		},
		"none": os.Remove,
	} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(at, 0o755), do(at)); err != nil {
			t.Fatal(err)
		}
		if err := leasefile.Usable(at, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDaemonsDirectory: who asks for a daemon of another user is told what that one would be.
func TestDaemonsDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make it")
	}
	dir := filepath.Join(t.TempDir(), "own")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		daemon []uint32
		usable bool
	}{{nil, false}, {[]uint32{12346}, false}, {[]uint32{12345}, true}} {
		if err := leasefile.Usable(dir, nil, c.daemon...); (err == nil) != c.usable {
			t.Errorf("for %d: %v", c.daemon, err)
		}
	}
}

// TestOverSystem: no file is written where the sandbox would open the system's with it, whatever
// link leads there, and one below is.
func TestOverSystem(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	system := []string{filepath.Join(run, "udev"), filepath.Join(run, "systemd")}
	link := filepath.Join(t.TempDir(), "run")
	if err := errors.Join(os.Mkdir(system[1], 0o755), os.Symlink(run, link)); err != nil {
		t.Fatal(err)
	}
	for dir, written := range map[string]bool{run: false, link: false, link + "/own": true, filepath.Dir(link): true} {
		h := newHouse(t)
		h.file = filepath.Join(dir, "leases")
		h.start(func(c *leasefile.Config) { c.System = system })
		h.open(1, 80)
		h.turn()
		_, err := os.Stat(h.file)
		said := strings.Count(h.log.String(), system[1]+" among it")
		if written != (err == nil) || written != (said == 0) {
			t.Errorf("in %s: %v, told %d times\n%s", dir, err, said, &h.log)
		}
	}
}

// TestOneFile: two paths that are one by a link are not written over each other.
func TestOneFile(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]string{"the same": "leases", "its copy": "leases.written", "new": "leases.new"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(filepath.Dir(h.file), link); err != nil {
				t.Fatal(err)
			}
			h.start(func(c *leasefile.Config) { c.File6 = filepath.Join(link, second) })
			h.three()
			if n := strings.Count(h.log.String(), "none of IPv6 is written"); n != 1 {
				t.Errorf("it is told %d times\n%s", n, &h.log)
			}
			h.rename(h.without(1))
			h.turn()
			h.wantsClosed(2)
		})
	}
}
