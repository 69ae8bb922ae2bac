package http1

import (
	"errors"
	"syscall"
)

// Passes reports whether a failure to accept a connection is one that passes: of the
// connection that is gone already, or for want of descriptors, memory, or what a poller may
// watch (accept(2), epoll_ctl(2)). Others of the same user may have used these up.
func Passes(err error) bool {
	var passing interface{ Temporary() bool }
	if errors.As(err, &passing) && passing.Temporary() {
		return true
	}
	for _, want := range []error{syscall.ECONNABORTED, syscall.ENOSPC, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
