package inotify

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Watcher hears from the kernel that something was done to files, or where one may come to
// be. A file system of another machine tells nothing.
type Watcher struct {
	Told <-chan struct{} // holds one: there is something to look at

	told  chan struct{}
	file  *os.File
	names map[string]bool // that files of ours may have
	done  chan struct{}
}

const (
	// What was done to a file that is there it tells itself.
	onDirectory = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	onFile      = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF | unix.IN_DONT_FOLLOW
	onUse       = unix.IN_CLOSE | unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF | unix.IN_ONESHOT
	// What is done to the files themselves is not told: some are ours, and written all the time.
	onPlace = onDirectory | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_DONT_FOLLOW
)

// New makes one for files whose last elements are these. Close must be called.
func New(names map[string]bool) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	told := make(chan struct{}, 1)
	w := &Watcher{Told: told, told: told, file: os.NewFile(uintptr(fd), "inotify"), names: names, done: make(chan struct{})}
	go w.read()
	return w, nil
}

// read passes on that there is something to look at, until the watcher is closed; what it
// is the look finds out.
func (w *Watcher) read() {
	defer close(w.done)
	buf := make([]byte, 16*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		if !w.ours(buf[:n]) {
			continue
		}
		select {
		case w.told <- struct{}{}:
		default:
		}
	}
}

// ours reports whether one of these events is about a file of ours, or may be: a directory
// tells of whatever comes to it, and /tmp is busy on some machines.
func (w *Watcher) ours(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		size := int(binary.NativeEndian.Uint32(events[12:]))
		name := events[unix.SizeofInotifyEvent:min(unix.SizeofInotifyEvent+size, len(events))]
		switch {
		case binary.NativeEndian.Uint32(events[4:])&unix.IN_IGNORED != 0: // no event, but the end of a watch that has had its last
		case size == 0 || w.names[unix.ByteSliceToString(name)]: // of a file itself, or that some were lost
			return true
		}
		events = events[unix.SizeofInotifyEvent+len(name):]
	}
	return false
}

// Close ends it.
func (w *Watcher) Close() {
	_ = w.file.Close()
	<-w.done
}

// Watch has the kernel tell of a file from now on. The error is not about what is not
// there, or may not be read: call it again before each look. That a file has come to be
// is not told of a directory where everybody makes files, as in /tmp: each of them would
// wake us.
func (w *Watcher) Watch(path string) error {
	err := w.add(path, onFile)
	directory := filepath.Dir(path)
	if info, failed := os.Stat(directory); failed == nil && info.Mode().Perm()&0o002 != 0 {
		return err
	}
	return errors.Join(err, w.add(directory, onDirectory))
}

// WatchPlace has the kernel tell when a file comes to a directory or goes from there, and
// when the directory itself goes. It reports whether the directory is there, and is
// otherwise as Watch.
func (w *Watcher) WatchPlace(directory string) (there bool, err error) {
	return w.try(directory, onPlace)
}

// WatchUse has the kernel tell when somebody has done with a file, though nothing was
// written, and when the file goes; once, however often it is used: call it again before
// each look. It reports whether the file is there.
func (w *Watcher) WatchUse(path string) (there bool, err error) { return w.try(path, onUse) }

func (w *Watcher) add(path string, what uint32) error {
	_, err := w.try(path, what)
	return err
}

func (w *Watcher) try(path string, what uint32) (there bool, err error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return false, err
	}
	failed := raw.Control(func(fd uintptr) { _, err = unix.InotifyAddWatch(int(fd), path, what) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return false, failed
	}
	err = errors.Join(err, failed)
	return err == nil, err
}
