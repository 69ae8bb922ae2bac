package sandbox

import (
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the halves of the daemon shall need at most of memory that they allocate, in
// octets: several times what they use idle, and so that both fit 40 MB with the program's
// own pages.
const (
	MemoryOfFront   = 12 << 20
	memoryOfWarden  = 16 << 20 // and memoryOfMapping for each that there may be
	memoryOfMapping = 12 << 10
)

// LimitMemory has the runtime keep what it allocates below so many octets, as far as it
// can: beyond, it collects garbage more often, with half of the processor's time at most.
// It also lets only half as much garbage lie about as is the rule, because on a small
// router memory is scarcer than time. GOMEMLIMIT and GOGC in the environment take
// precedence.
func LimitMemory(most int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(most)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(usualGarbage)
	}
}

// How much garbage may lie about, in parts of a hundred of what is in use.
const (
	usualGarbage   = 50
	sparingGarbage = 25
)

// Spare has half as much garbage lie about until what it returns is called, for work in which
// the process has more in use than ever after.
func Spare() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(sparingGarbage)
	return func() { debug.SetGCPercent(before) }
}

// LimitWarden is LimitMemory for a process that decides, with at most so many mappings.
func LimitWarden(mappings int) { LimitMemory(memoryOfWarden + int64(mappings)*memoryOfMapping) }

// ShareProcessors has this process use half of the processors. A request wakes one goroutine
// after the other, never two at once, and a runtime with one processor more looks for work
// there each time, which costs requests in one process as well as in two
// (docs/performance.md). GOMAXPROCS in the environment takes precedence.
func ShareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS((runtime.NumCPU() + 1) / 2)
	}
}

// timerSlack is by how much the kernel may let a timer of ours wait, in nanoseconds. What
// waits so precisely is one thread of Go's runtime alone: while there is work it asks every
// 20 microseconds who is stuck, which is a fifth of what a request costs (docs/performance.md).
const timerSlack = 200_000

// Slacken starts this program anew, in the same process, with timers that may be late by
// timerSlack: the runtime's thread has begun before any code of ours, and a thread has
// from its beginning what the one that started it had. It returns where that is so already,
// or cannot be.
func Slacken() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now == 0 || now >= timerSlack { // 0: of a thread with a deadline
		return
	}
	self, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(self, os.Args, os.Environ())
}
