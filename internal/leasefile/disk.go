package leasefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Names beside a file of ours.
const (
	newSuffix     = ".new"     // while it is written
	writtenSuffix = ".written" // what was written, for the next run
)

// maxFile bounds what is read: more than Most lines have.
const maxFile = Most * 512

// stamp shows whether a file is the one that was there; zero: there is none.
type stamp struct {
	dev, ino uint64
	size     int64
	changed  time.Time // its contents
	uid, gid uint32
	mode     uint32
}

// stampOf looks at a file, of which the last element is no link that is followed.
func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return stamp{}, nil
	case err != nil:
		return stamp{}, &fs.PathError{Op: "look at", Path: path, Err: err}
	}
	return stampFrom(&st), nil
}

func stampFrom(st *unix.Stat_t) stamp {
	return stamp{
		dev: uint64(st.Dev), ino: uint64(st.Ino), size: st.Size, uid: st.Uid, gid: st.Gid, mode: st.Mode, // of other sizes elsewhere
		changed: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)),
	}
}

func (s stamp) regular() bool { return s.mode&unix.S_IFMT == unix.S_IFREG }

// trusted reports whether what is there was written by whoever may say what is closed, and
// by nobody else.
func (s stamp) trusted() bool { return s.regular() && ours(s.uid) && !s.shared() }

// shared reports whether users may write there who are not the owner.
func (s stamp) shared() bool {
	return s.mode&0o002 != 0 || s.mode&0o020 != 0 && s.gid != 0 && int(s.gid) != os.Getegid()
}

func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// errNotTrusted means that others than root and the daemon may have written a file.
var errNotTrusted = errors.New("another user may have written it")

// read returns what a file holds, if it is to be trusted and has at most this many octets, and
// the stamp of what was read. It follows no link, and a FIFO keeps it waiting as little.
func read(path string, most int64) (string, stamp, error) {
	f, is, err := open(path)
	if err != nil {
		return "", is, err
	}
	defer f.Close()
	switch {
	case !is.trusted():
		return "", is, fmt.Errorf("%s: %w", path, errNotTrusted)
	case is.size > most:
		return "", is, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) != is.size {
		err = fmt.Errorf("%s is being written", path)
	}
	return string(data), is, err
}

// open opens a file for reading, and looks at what it got.
func open(path string) (*os.File, stamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil { // #nosec G115 -- a descriptor
		return nil, stamp{}, errors.Join(&fs.PathError{Op: "look at", Path: path, Err: err}, f.Close())
	}
	return f, stampFrom(&st), nil
}

// errNoLeases means that there is something else than a lease file, perhaps because the
// owner has mistaken the path.
var errNoLeases = errors.New("that is no lease file; name another path, or remove what is there")

// replaceable returns why what is there when nothing has been written yet is let be. That is
// told by how it begins, whoever wrote it: another user's is not believed, but may be the last
// run's.
func replaceable(path string, is stamp) error {
	switch {
	case is == stamp{} || is.regular() && is.size == 0:
		return nil
	case !is.regular():
		return errNoLeases
	}
	f, is, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var begin [len("TCP:")]byte
	if !is.regular() {
		return errNoLeases
	}
	if _, err := io.ReadFull(f, begin[:]); err != nil {
		return errNoLeases
	}
	switch string(begin[:]) {
	case "TCP:", "TCP;", "UDP:", "UDP;":
		return nil
	}
	return errNoLeases
}

// errTaken means that the file was not what it had been, and is left as it is.
var errTaken = errors.New("somebody else has written the file")

// replace puts data in the place of a file, which must still be the one of was. It returns
// the stamp of what is there then. A reader sees the whole of one or of the other. Before that
// can be seen, known is called with the stamp.
func replace(path string, data []byte, was stamp, known func(stamp) error) (stamp, error) {
	next := path + newSuffix
	if err := create(next, data); err != nil {
		return stamp{}, err
	}
	now, err := stampOf(next)
	if err == nil {
		err = known(now)
	}
	if err == nil {
		err = exchange(path, next, was)
	}
	if err != nil {
		_ = os.Remove(next)
		return stamp{}, err
	}
	return now, nil
}

// exchange gives a file the name of another, if that is the one of was.
func exchange(path, next string, was stamp) error {
	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, path, flags) }
	if was == (stamp{}) {
		err := rename(unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, fs.ErrExist):
			return errTaken
		case !cannot(err):
			return err
		}
	}
	err := rename(unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is there no more
		return os.Rename(next, path)
	case cannot(err): // by this file system; what is written in this moment is lost
		if is, err := stampOf(path); err != nil || is != was {
			return errors.Join(err, errTaken)
		}
		return os.Rename(next, path)
	case err != nil:
		return err
	}
	is, err := stampOf(next)
	if err == nil && is == was {
		return os.Remove(next)
	}
	return errors.Join(err, errTaken, rename(unix.RENAME_EXCHANGE))
}

// cannot reports whether a kernel or file system does not have a flag of renameat2(2).
func cannot(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) }

// create writes a new file, whose octets are on the disk when it returns.
func create(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
