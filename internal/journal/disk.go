package journal

import (
	"errors"
	"io"
)

// disk is a directory that is held by this process alone. It is the seam at
// which tests make it fail.
type disk interface {
	// Open opens a file for reading, and reports whether it was marked.
	// The error is fs.ErrNotExist when there is none.
	Open(name string) (f io.ReadCloser, marked bool, err error)
	// Create makes a new file for appending, instead of any that is there.
	Create(name string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// Lost returns why what is held is not where it would be read again, nil while it
	// is: the directory, or the file of this name that f is, was removed or has
	// another in its place.
	Lost(name string, f file) error
	// Return opens and locks what is at the directory's path now, where that is not
	// what is held; a directory that is not there is made.
	Return() error
	// Mark says for ever that what a file holds is not all. It needs no room.
	Mark(name string) error
	// Sync makes lasting what was renamed and removed.
	Sync() error
	Close() error
}

// file is one that is appended to. A Write is one write(2).
type file interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// replace writes a file anew and returns it. At every instant the name has the whole
// of the old file or of the new one, after a power cut too. f is nil where the old one
// is still in place.
func replace(d disk, name string, data []byte) (f file, err error) {
	if err := d.Return(); err != nil {
		return nil, err
	}
	fresh := name + newSuffix
	if f, err = d.Create(fresh); err != nil {
		return nil, err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.Rename(fresh, name)
	}
	if err != nil {
		_, _ = f.Close(), d.Remove(fresh)
		return nil, err
	}
	return f, d.Sync()
}

const newSuffix = ".new"

// Errors of Open.
var (
	// ErrLocked means that another process holds the directory.
	ErrLocked = errors.New("another process uses this directory")
	// ErrUnsafe means that others than the owner of this process could have
	// written there, so that nothing can be trusted.
	ErrUnsafe = errors.New("not safe")
)
