package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// directory is the real disk. Everything goes through its descriptor, so that
// nobody can put another directory in its place between two steps; Lost finds out when
// that has been done, and Return goes there.
type directory struct {
	path string
	fd   int
}

var _ disk = (*directory)(nil)

// openDirectory makes the directory if need be, and locks it. It must be ours or
// root's, nobody else's to write to, and no symbolic link.
func openDirectory(path string) (*directory, error) {
	path = filepath.Clean(path)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link: %w", path, ErrUnsafe)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if _, err = trusted(fd, path, unix.S_IFDIR); err == nil {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%s: %w", path, ErrLocked)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &directory{path, fd}, nil
}

// trusted returns what a file or directory is. With an error others than root and
// ourselves can have written there, or it is of another kind.
func trusted(fd int, path string, kind uint32) (st unix.Stat_t, err error) {
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		err = fmt.Errorf("%s is of another kind: %w", path, ErrUnsafe)
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		err = fmt.Errorf("%s belongs to user %d: %w", path, st.Uid, ErrUnsafe)
	case st.Mode&0o022 != 0:
		err = fmt.Errorf("%s can be written to by others (mode %04o): %w", path, st.Mode&0o7777, ErrUnsafe)
	}
	return st, err
}

func (d *directory) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// Open implements disk.
func (d *directory) Open(name string) (io.ReadCloser, bool, error) {
	// O_NONBLOCK: a FIFO must not stop the program.
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, false, fmt.Errorf("%s is a symbolic link: %w", filepath.Join(d.path, name), ErrUnsafe)
	}
	if err != nil {
		return nil, false, d.fail("open", name, err)
	}
	path := filepath.Join(d.path, name)
	st, err := trusted(fd, path, unix.S_IFREG)
	if err != nil {
		_ = unix.Close(fd)
		return nil, false, err
	}
	return os.NewFile(uintptr(fd), path), st.Mode&0o200 == 0, nil
}

// Create implements disk.
func (d *directory) Create(name string) (file, error) {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, d.fail("remove", name, err)
	}
	fd, err := unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// Rename implements disk.
func (d *directory) Rename(from, to string) error {
	return d.fail("rename", from, unix.Renameat(d.fd, from, d.fd, to))
}

// Remove implements disk.
func (d *directory) Remove(name string) error {
	return d.fail("remove", name, unix.Unlinkat(d.fd, name, 0))
}

// Lost implements disk.
func (d *directory) Lost(name string, f file) error {
	if err := d.strayed(); err != nil {
		return err
	}
	held, ok := f.(*os.File)
	if !ok {
		return nil
	}
	var there unix.Stat_t
	err := unix.Fstatat(d.fd, name, &there, unix.AT_SYMLINK_NOFOLLOW)
	return d.fail("stat", name, cmp.Or(err, isAt(int(held.Fd()), &there)))
}

// strayed returns why the path does not lead to the directory that is held.
func (d *directory) strayed() error {
	var there unix.Stat_t
	err := unix.Lstat(d.path, &there)
	return d.fail("stat", "", cmp.Or(err, isAt(d.fd, &there)))
}

// errReplaced means that another file or directory has the name.
var errReplaced = errors.New("it was replaced")

func isAt(fd int, there *unix.Stat_t) error {
	var held unix.Stat_t
	if err := unix.Fstat(fd, &held); err != nil {
		return err
	}
	if held.Dev != there.Dev || held.Ino != there.Ino {
		return errReplaced
	}
	return nil
}

// Return implements disk.
func (d *directory) Return() error {
	if d.strayed() == nil {
		return nil
	}
	now, err := openDirectory(d.path)
	if err != nil {
		return err
	}
	_ = unix.Close(d.fd) // of what nobody finds any more, and its lock with it
	d.fd = now.fd
	return nil
}

// Mark implements disk: a file that is not all is one that cannot be written to.
func (d *directory) Mark(name string) error {
	return d.fail("mark", name, unix.Fchmodat(d.fd, name, 0o400, 0))
}

// Sync implements disk.
func (d *directory) Sync() error {
	err := unix.Fsync(d.fd)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil // a file system that has no such thing
	}
	return d.fail("sync", "", err)
}

// Close implements disk. It unlocks explicitly, because closing is not enough: a child
// that is between its fork and its exec has a copy of the descriptor, which would hold
// the lock until the exec closes it (flock(2)).
func (d *directory) Close() error {
	return errors.Join(d.fail("unlock", "", unix.Flock(d.fd, unix.LOCK_UN)), d.fail("close", "", unix.Close(d.fd)))
}
