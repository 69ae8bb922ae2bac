package leasefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// oneFile reports whether a file is another, or what stands beside it, whatever links lead to
// their directory.
func oneFile(a, b string) bool {
	first, err := os.Stat(filepath.Dir(a))
	second, err2 := os.Stat(filepath.Dir(b))
	if err != nil || err2 != nil || !os.SameFile(first, second) {
		return false
	}
	a, b = filepath.Base(a), filepath.Base(b)
	for _, suffix := range []string{"", newSuffix, writtenSuffix, writtenSuffix + newSuffix} {
		if a+suffix == b || b+suffix == a {
			return true
		}
	}
	return false
}

// OverSystem is a directory in which there is one of the system's. The sandbox, which knows
// directories and what is below them, would open that as well.
type OverSystem struct{ dir, system string }

// Error says what would happen.
func (o *OverSystem) Error() string {
	return fmt.Sprintf("the sandbox would let the daemon change whatever is in %s, %s among it", o.dir, o.system)
}

// Over returns which of the system's directories that are there is in this one; nil: none.
func Over(dir string, system []string) *OverSystem {
	is, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	for _, d := range system {
		if above, err := os.Stat(filepath.Dir(d)); err != nil || !os.SameFile(is, above) {
			continue
		}
		if _, err := os.Stat(d); err == nil {
			return &OverSystem{dir, d}
		}
	}
	return nil
}

// Usable returns why no lease file can be in a directory, given the system's: an *OverSystem, or
// that others could replace the file.
func Usable(dir string, system []string, daemon ...uint32) error {
	if over := Over(dir, system); over != nil {
		return over
	}
	return private(dir, daemon...)
}

// maxLinks is how many symbolic links a path may have (path_resolution(7)).
const maxLinks = 40

// private returns why other users could put a file where one of ours is: because they own a
// directory above it, may rename what is in one, or have made a link that leads there. In a
// directory like /tmp they may not, if it is root's. Whoever owns the root directory can
// do anything. What is not there yet is nobody's. Of these users one may be the daemon, who is
// not this process.
func private(dir string, daemon ...uint32) error {
	root, err := stampOf("/")
	if err != nil {
		return err
	}
	at, rest, links := "/", dir, 0
	for {
		is, err := stampOf(at)
		switch trusted := is.uid == root.uid || ours(is.uid) || slices.Contains(daemon, is.uid); {
		case err != nil:
			return err
		case is == stamp{}:
			return nil
		case !trusted:
			return fmt.Errorf("%s belongs to another user, who could replace the file", at)
		case is.mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := os.Readlink(at)
			if links++; err != nil || links > maxLinks {
				return errors.Join(err, &fs.PathError{Op: "follow", Path: dir, Err: unix.ELOOP})
			}
			if at, rest = filepath.Dir(at), target+"/"+rest; filepath.IsAbs(target) {
				at = "/"
			}
			is = stamp{} // its directory has been looked at
		case is.mode&unix.S_IFMT != unix.S_IFDIR:
			return &fs.PathError{Op: "use", Path: at, Err: unix.ENOTDIR}
		case is.shared() && is.mode&unix.S_ISVTX == 0:
			return fmt.Errorf("other users may write in %s, and could replace the file", at)
		}
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return nil
		}
		name, after, _ := strings.Cut(rest, "/")
		at, rest = filepath.Join(at, name), after
	}
}
