package dhcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// state is what shows that a file has changed; zero: there is no file.
type state struct {
	dev, ino         uint64
	size             int64
	written, changed unix.Timespec
}

// settle is for how long a file may have been written again without showing it:
// clocks of file systems are coarse.
const settle = 2 * time.Second

// settled says whether a later change would show.
func (s state) settled(now time.Time) bool {
	ago := now.Sub(time.Unix(s.changed.Unix()))
	return ago < 0 || ago > settle // a clock that was set back says nothing
}

// lookAt gives the state of what stands at path, which must be a regular file, and
// its owner.
func lookAt(path string) (state, uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return state{}, 0, nil
		}
		return state{}, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	s, err := stateOf(&st)
	if err != nil {
		err = fmt.Errorf("%s %w", path, err)
	}
	return s, st.Uid, err
}

func stateOf(st *unix.Stat_t) (state, error) {
	s := state{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, written: st.Mtim, changed: st.Ctim}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return s, errors.New("is not a regular file")
	case st.Size > MaxFile:
		return s, fmt.Errorf("has %d bytes, and %d are read at most", st.Size, MaxFile)
	}
	return s, nil
}

// attempts is how often a file is read that changes meanwhile.
const attempts = 3

// readFile gives the content of a regular file that is not being written.
func readFile(path string) ([]byte, error) {
	for range attempts - 1 {
		if data, whole, err := readOnce(path); err != nil || whole {
			return data, err
		}
	}
	data, _, err := readOnce(path)
	return data, err
}

func readOnce(path string) (data []byte, whole bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	before, err := stateOpen(f)
	if err != nil {
		return nil, false, err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, MaxFile)); err != nil {
		return nil, false, err
	}
	after, err := stateOpen(f)
	return b.Bytes(), before == after, err
}

func stateOpen(f *os.File) (state, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return state{}, err
	}
	return stateOf(&st)
}
