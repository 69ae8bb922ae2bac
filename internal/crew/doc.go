// Package crew runs short work on goroutines that have done such work before. The stack of a
// new one begins small and is copied each time that it grows, which was a sixteenth of what a
// renewal cost (docs/performance.md).
//
// Owns: the goroutines that wait for more work.
//
// May import: the standard library alone.
//
// Never: bounds how much work there is at once, which is for who has it done.
package crew
