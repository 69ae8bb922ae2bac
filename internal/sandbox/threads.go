package sandbox

import (
	"runtime"
	"sync"
)

// spareThreads are idle beside those that run: what waits in the kernel for an answer of
// netlink, or in a call that takes longer than usual, is never so many at once.
const spareThreads = 16

// makeThreads has the runtime make threads that it keeps. A program whose runtime cannot
// make one that it needs ends, and whoever uses up what a user or a group of processes may
// have could end the daemon so.
func makeThreads(n int) {
	var made, done sync.WaitGroup
	all := make(chan struct{})
	for range n {
		made.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // so that each needs another one
			defer runtime.UnlockOSThread()
			made.Done()
			<-all
		})
	}
	made.Wait()
	close(all)
	done.Wait()
}
