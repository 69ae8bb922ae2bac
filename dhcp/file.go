package dhcp

import (
	"bytes"
	"errors"
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

// trust says who may own a file.
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
	errOwner      = errors.New("it is at a usual place, and no system user's; who trusts it names it in lan.leases")
)

// lookAt gives the state of what stands at path, zero where nothing does.
func lookAt(path string, who trust) (state, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	return stateOf(&st, who)
}

// stateOf gives the state of a file that may be read.
func stateOf(st *unix.Stat_t, who trust) (state, error) {
	s := state{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, written: st.Mtim, changed: st.Ctim}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return s, errNotRegular
	case who == systemOwn && st.Uid >= systemUsers && int(st.Uid) != os.Geteuid():
		return s, errOwner
	case st.Size > MaxFile:
		return s, errTooLarge
	}
	return s, nil
}

// attempts is how often a file is read that changes meanwhile.
const attempts = 3

// readFile gives the content of a file, if possible while nobody writes there.
func readFile(path string, who trust) (data []byte, err error) {
	for whole, n := false, 0; err == nil && !whole && n < attempts; n++ {
		data, whole, err = readOnce(path, who)
	}
	return data, err
}

// readOnce opens nothing but a file that stands at path itself, and waits for
// nobody (a FIFO would).
func readOnce(path string, who trust) (data []byte, whole bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, errors.Unwrap(err) // the path is said by the caller
	}
	defer f.Close()
	before, err := stateOpen(f, who)
	if err != nil {
		return nil, false, err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, MaxFile)); err != nil {
		return nil, false, err
	}
	after, err := stateOpen(f, who)
	return b.Bytes(), before == after, err
}

func stateOpen(f *os.File, who trust) (state, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return state{}, err
	}
	return stateOf(&st, who)
}
