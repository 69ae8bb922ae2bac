// Package reconcile keeps the kernel's rules as they should be, whoever changes the
// ruleset: it looks when another program has changed any, has repaired what differs, and
// does not fight with a program that undoes its repairs.
//
// Owns: Keeper (when to look, how often to repair, what the owner hears of it).
//
// May import: the standard library, golang.org/x/time/rate; of ours slog, firewall and pace.
//
// Never: knows what a rule says, writes one by itself.
package reconcile
