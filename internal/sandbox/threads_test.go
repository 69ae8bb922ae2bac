package sandbox

import (
	"os"
	"runtime"
	"sync"
	"testing"
)

// tasks returns how many threads this process has.
func tasks(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestMakeThreads: threads that were made stay, and who needs as many at once gets no other.
func TestMakeThreads(t *testing.T) {
	const n = 40
	makeThreads(n)
	before := tasks(t)
	if before < n {
		t.Errorf("%d threads, want %d", before, n)
	}
	var locked, done sync.WaitGroup
	all := make(chan struct{})
	for range n - 10 {
		locked.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			locked.Done()
			<-all
		})
	}
	locked.Wait()
	during := tasks(t)
	close(all)
	done.Wait()
	if during != before {
		t.Errorf("%d threads, %d were there", during, before)
	}
}
