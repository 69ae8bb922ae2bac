package sandbox

import (
	"os"
	"runtime"
	"runtime/debug"
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
		debug.SetGCPercent(50)
	}
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
