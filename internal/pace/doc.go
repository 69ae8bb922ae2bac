// Package pace has those who look at something from time to time do so at the same moment:
// a processor that has been woken for one does the work of all, and sleeps again.
//
// Owns: which moments these are: the whole multiples of a period, on the clock of the day.
// The daemon's processes have them in common, and so has whoever else goes by whole minutes.
//
// May import: the standard library.
//
// Never: decides how often somebody looks, or waits.
package pace
