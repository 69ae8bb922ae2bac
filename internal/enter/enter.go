package enter

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// In runs f in the network namespace of a file descriptor, on a thread of its own; in
// the current one, and at once, where fd is 0 or less. A program that f starts is there
// too, but must not be bound to the thread's life (Pdeathsig): see netns.Thread.
func In(fd int, f func() error) error {
	if fd <= 0 {
		return f()
	}
	return OnThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// OnThread runs f on a thread that ends with it, because it is never unlocked: no other
// goroutine can ever run in the namespace that f enters.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}
