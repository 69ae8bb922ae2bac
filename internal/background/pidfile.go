package background

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPid is how much of a pid file is read, in octets.
const maxPid = 64

// openPid opens a pid file that is a file of our own or of root's, and nothing else by its
// name: who else can write in its directory could have it lead to any file, or to a FIFO that
// nobody reads.
func openPid(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644) // #nosec G302 G304 -- everybody may read it
	if err != nil {
		return nil, err
	}
	if err := ownFile(f); err != nil {
		return nil, errors.Join(&os.PathError{Op: "pid file", Path: name, Err: err}, f.Close())
	}
	return f, nil
}

func ownFile(f *os.File) error {
	var s unix.Stat_t
	switch err := unix.Fstat(int(f.Fd()), &s); { // #nosec G115 -- a descriptor
	case err != nil:
		return err
	case s.Mode&unix.S_IFMT != unix.S_IFREG || s.Nlink > 1:
		return errors.New("this is no file with one name")
	case s.Uid != 0 && int(s.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to another user (%d)", s.Uid)
	}
	return nil
}

// ReadPid returns the process in a pid file.
func ReadPid(name string) (int, error) {
	f, err := openPid(name, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPid+1))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 || len(b) > maxPid {
		return 0, &os.PathError{Op: "pid file", Path: name, Err: errors.New("there is no number of a process in it")}
	}
	return pid, nil
}

// WritePid writes this process into a pid file, which stays open.
func WritePid(name string) (*os.File, error) {
	f, err := openPid(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// RemovePid removes what WritePid has written, and closes it; where the sandbox has closed its
// directory it is made empty. It stays where it names another process by now, or another file has
// its name.
func RemovePid(f *os.File) error {
	b := make([]byte, maxPid)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return errors.Join(err, f.Close())
	}
	is, err := f.Stat()
	there, missing := os.Lstat(f.Name())
	if string(b[:n]) != fmt.Sprintln(os.Getpid()) || err != nil || missing != nil || !os.SameFile(is, there) {
		return errors.Join(err, f.Close())
	}
	if os.Remove(f.Name()) == nil {
		return f.Close()
	}
	return errors.Join(f.Truncate(0), f.Close())
}

// removePid removes a pid file that has this process in it.
func removePid(name string) {
	if pid, err := ReadPid(name); err == nil && pid == os.Getpid() {
		_ = os.Remove(name)
	}
}

// Other is another process that runs this program.
type Other struct {
	Pid int
	fd  *os.File // by which the kernel tells of its end; nil: it is older than Linux 5.3
}

// Running returns the process in a pid file, where it is another one that runs this program;
// nil: it is not.
func Running(name string) *Other {
	pid, err := ReadPid(name)
	if err != nil || pid == os.Getpid() { // what is wrong with it is said when it is written
		return nil
	}
	o := &Other{Pid: pid}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil && unix.SetNonblock(fd, true) == nil { // before it is looked at: the number may be another's soon
		o.fd = os.NewFile(uintptr(fd), "process") // #nosec G115 -- a descriptor
	}
	own, err := os.Readlink(self)
	other, failed := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || failed != nil || strings.TrimSuffix(own, deleted) != strings.TrimSuffix(other, deleted) {
		o.Close()
		return nil
	}
	return o
}

// deleted is behind the name of a program whose file was replaced.
const deleted = " (deleted)"

// Close forgets it.
func (o *Other) Close() {
	if o.fd != nil {
		_ = o.fd.Close()
	}
}

// Ends waits until it has ended, and reports whether it has, in time and before ctx ends.
func (o *Other) Ends(ctx context.Context, within time.Duration) bool {
	if o.fd == nil || o.fd.SetReadDeadline(time.Now().Add(within)) != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = o.fd.SetReadDeadline(time.Now()) })
	defer stop()
	conn, err := o.fd.SyscallConn()
	if err != nil {
		return false
	}
	return conn.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} // #nosec G115 -- a descriptor
		n, err := unix.Poll(ready, 0)
		return err == nil && n > 0
	}) == nil
}
