package dhcp

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// state is what shows that a file has changed; zero: there is no file.
type state struct {
	dev, ino         uint64
	size             int64
	written, changed syscall.Timespec
}

// settle is for how long a file may have been written again without showing it:
// clocks of file systems are coarse.
const settle = 2 * time.Second

// settled reports whether a later change would show.
func (s state) settled(now time.Time) bool {
	ago := now.Sub(time.Unix(s.changed.Unix()))
	return ago < 0 || ago > settle // a clock that was set back says nothing
}

// trust is who may own a file.
type trust uint8

const (
	anyOwner  trust = iota // the owner of the gateway has named it
	systemOwn              // root or a system user
)

// systemUsers are below this number on all common systems; people are above.
const systemUsers = 1000

// The reasons against a file. They have no numbers in them, so that each is logged
// once.
var (
	errNotRegular = errors.New("it is not a regular file")
	errTooLarge   = errors.New("it is larger than 1 MiB")
	errOwner      = errors.New("it is in a default location and does not belong to root or a system user; if you trust it, name it in lan.leases")
)

// lookAt returns the state of what stands at path, zero where nothing does, and why it
// may not be read.
func lookAt(path string, who trust) (state, error) {
	var st syscall.Stat_t
	err := syscall.Lstat(path, &st)
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	s := newState(&st)
	switch {
	case st.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return s, errNotRegular
	case who == systemOwn && st.Uid >= systemUsers && int(st.Uid) != os.Geteuid():
		return s, errOwner
	case st.Size > MaxFile:
		return s, errTooLarge
	}
	return s, nil
}

func newState(st *syscall.Stat_t) state {
	return state{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, written: st.Mtim, changed: st.Ctim}
}

// errBusy means that a file is not what it was a moment ago.
var errBusy = errors.New("it is being written")

// readFile returns the content of a file that has been looked at. It waits for nobody,
// as a FIFO would that has come in its place.
func readFile(path string, want state) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errBusy
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !want.is(f) {
		return nil, errBusy
	}
	data := make([]byte, want.size)
	if _, err := io.ReadFull(f, data); err != nil || !want.is(f) {
		return nil, errBusy
	}
	return data, nil
}

// is reports whether f is the file that has been looked at, and is as it was.
func (s state) is(f *os.File) bool {
	var st syscall.Stat_t
	return syscall.Fstat(int(f.Fd()), &st) == nil && newState(&st) == s
}
