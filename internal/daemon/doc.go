// Package daemon runs the gate: in which order its rooms start and stop, and who is told
// what when the network, the ruleset or a mapping changes.
//
// Owns: Run, and what follows the network, keeps the rules in the kernel, restores the
// mappings of the last run and identifies clients.
//
// May import: everything of ours but cmd, lab and test.
//
// Never: parses what a client wrote, decides what policy decides.
package daemon
