package main

import (
	"runtime"

	"github.com/vishvananda/netns"

	"portcullis/internal/lab"
)

// thread runs functions one after another inside a host, for as long as they
// like; lab's own thread of the host is for short work only.
type thread struct {
	work  chan func()
	ended chan struct{}
}

func newThread(h *lab.Host) (*thread, error) {
	t := &thread{work: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(t.ended)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := netns.Set(h.Namespace())
		ready <- err
		if err != nil {
			return
		}
		for f := range t.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		<-t.ended
		return nil, err
	}
	return t, nil
}

// start runs f on the thread; the error comes when it is done.
func (t *thread) start(f func() error) <-chan error {
	done := make(chan error, 1)
	t.work <- func() { done <- f() }
	return done
}

func (t *thread) close() {
	close(t.work)
	<-t.ended
}
