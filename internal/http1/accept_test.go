package http1_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"portcullis/internal/http1"
)

// TestPasses: a listener goes on after what passes, and ends at all else.
func TestPasses(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ECONNABORTED: true,
		syscall.ENOSPC: true, syscall.ENOMEM: true, syscall.ENOBUFS: true,
		syscall.EINVAL: false, syscall.EBADF: false, net.ErrClosed: false, errors.New("broken"): false,
	} {
		var wrapped error = &net.OpError{Op: "accept", Err: &os.SyscallError{Syscall: "accept4", Err: err}}
		if got := http1.Passes(wrapped); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
