package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// readTime is how long a pipe, or a terminal, may take to say all that it has: there may be
// nobody who writes, and who waits for that obeys no signal.
const readTime = 5 * time.Second

// ReadFile returns what a file has, of one that is too large one octet more than most, and what
// sort of file it is.
func ReadFile(path string, most int64) ([]byte, fs.FileMode, error) {
	return readWithin(path, most, readTime)
}

func readWithin(path string, most int64, within time.Duration) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if err := f.SetReadDeadline(time.Now().Add(within)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return nil, 0, err
	}
	var from io.Reader = f
	if info.Mode()&fs.ModeNamedPipe != 0 {
		from = &pipe{file: f}
	}
	data, err := io.ReadAll(io.LimitReader(from, most+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s has not said all that it has within %v", path, within)
	}
	return data, info.Mode(), err
}

// pipe is one that was opened for reading, and does not end before somebody has written there.
type pipe struct {
	file  *os.File
	begun bool
}

func (p *pipe) Read(b []byte) (n int, err error) {
	if p.begun {
		return p.file.Read(b)
	}
	p.begun = true
	raw, err := p.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), b) // #nosec G115 -- a descriptor
		return n > 0 || failed != nil && failed != syscall.EAGAIN && failed != syscall.EINTR
	})
	if err == nil {
		err = failed
	}
	return max(0, n), err
}
