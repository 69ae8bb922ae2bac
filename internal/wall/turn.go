package wall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"portcullis/internal/sockets"
)

// Turn counts the tables of mappings, in a file that is in memory alone. The warden writes
// the number, its fronts read it: while it stays the same, what they have read is still so.
// It is not mapped, which no front may (internal/sandbox): reading it is one system call
// where asking the warden is several, and two changes of the process that runs.
type Turn struct {
	to, from *os.File // from is for fronts, who cannot write there
	write    int      // the descriptor of to
	count    uint32   // the engine's alone
}

// NewTurn makes one, for all fronts of a warden.
func NewTurn() (*Turn, error) {
	fd, err := unix.MemfdCreate("turn", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wall: make a file in memory: %w", err)
	}
	t := &Turn{to: os.NewFile(uintptr(fd), "turn"), write: fd}
	if err = t.Next(); err == nil {
		t.from, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	if err == nil {
		err = unix.Fchmod(fd, 0) // a front may be the same user
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wall: make a file in memory: %w", err), t.Close())
	}
	return t, nil
}

// Next says that there is another table. It is called when the table can be read, and
// before anybody is told of it, by one goroutine. The error is that fronts may go on with
// what they know.
func (t *Turn) Next() error {
	t.count++
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], t.count)
	_, err := sockets.WriteStartNow(t.write, b[:])
	return err
}

// Close ends it, after the engine and all fronts. Nil has no end.
func (t *Turn) Close() error {
	if t == nil {
		return nil
	}
	t.write = -1
	err := t.to.Close()
	if t.from != nil {
		err = errors.Join(err, t.from.Close())
	}
	return err
}

// turnOf reads the number; known is false where there is none.
func turnOf(fd int) (turn uint32, known bool) {
	var b [4]byte
	if fd < 0 {
		return 0, false
	}
	n, err := sockets.ReadStartNow(fd, b[:])
	return binary.NativeEndian.Uint32(b[:]), err == nil && n == len(b)
}
