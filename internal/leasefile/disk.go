package leasefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
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
	uid      uint32
	regular  bool
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
	return stamp{
		dev: uint64(st.Dev), ino: uint64(st.Ino), size: st.Size, uid: st.Uid, // of other sizes elsewhere
		changed: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)), regular: st.Mode&unix.S_IFMT == unix.S_IFREG,
	}, nil
}

// trusted reports whether what is there was written by whoever may say what is closed.
func (s stamp) trusted() bool {
	return s.regular && s.size <= maxFile && (s.uid == 0 || int(s.uid) == os.Geteuid())
}

// read returns what a file holds. A FIFO keeps nobody waiting.
func read(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return string(data), err
}

// errNoLeases means that there is something else than a lease file, perhaps because the
// owner has mistaken the path.
var errNoLeases = errors.New("that is no lease file; name another path, or remove what is there")

// replaceable returns why what is there when nothing has been written yet is let be.
func replaceable(path string, is stamp) error {
	switch {
	case is == stamp{} || is.regular && is.size == 0:
		return nil
	case !is.regular || is.size > maxFile:
		return errNoLeases
	}
	text, err := read(path)
	if err == nil && !strings.HasPrefix(text, "TCP") && !strings.HasPrefix(text, "UDP") {
		err = errNoLeases
	}
	return err
}

// errTaken means that the file was not what it had been, and is left as it is.
var errTaken = errors.New("somebody else has written the file")

// replace puts data in the place of a file, which must still be the one of was. It returns
// the stamp of what is there then. A reader sees the whole of one or of the other.
func replace(path string, data []byte, was stamp) (stamp, error) {
	next := path + newSuffix
	if err := create(next, data); err != nil {
		return stamp{}, err
	}
	now, err := stampOf(next)
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

// header begins a copy of what was written; behind it stands the run of the machine.
const header = "portcullis lease file 1 "

// keep writes down what a file holds, for the next run of the daemon.
func keep(path, boot string, list []line) error {
	var b bytes.Buffer
	b.WriteString(header + boot + "\n")
	for i := range list {
		fmt.Fprintf(&b, "%d %s\n", list[i].id, list[i].text)
	}
	next := path + writtenSuffix + newSuffix
	if err := create(next, b.Bytes()); err != nil {
		return err
	}
	return os.Rename(next, path+writtenSuffix)
}

// kept returns what the last run wrote into a file, nil where that is not known.
func kept(path, boot string) []line {
	is, err := stampOf(path + writtenSuffix)
	if err != nil || !is.regular || is.uid != 0 && int(is.uid) != os.Geteuid() {
		return nil
	}
	f, err := os.OpenFile(path+writtenSuffix, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2*maxFile))
	first, rest, whole := strings.Cut(string(data), "\n")
	if err != nil || boot == "" || !whole || first != header+boot {
		return nil
	}
	var list []line
	for rest != "" {
		var one string
		if one, rest, whole = strings.Cut(rest, "\n"); !whole {
			return nil
		}
		number, text, _ := strings.Cut(one, " ")
		id, err := strconv.ParseUint(number, 10, 64)
		if err != nil || len(list) == Most {
			return nil
		}
		list = append(list, line{id, text})
	}
	return list
}

// bootID returns the name of this run of the machine, "" where it is not known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
