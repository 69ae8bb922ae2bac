// Package firewall keeps a kernel as the mappings want it. What the kernel
// shall hold is pure: the entries that a set of mappings asks for and the change from
// one set to the next (State), the facts of the machine that the rules depend on
// (Facts), what the owner's own rules already forward (Forwards), and the errors a
// person must act on. The Driver keeps it so: one lock, the counters over rewriting, what
// is done when the kernel turns out to hold something else, and the connections that end
// with their mappings.
//
// A backend is a Kernel: five calls that take and give plain values. firewall/nft makes
// them through nf_tables, firewall/iptables has the same and a rule in the tables of
// iptables. The daemon asks a backend for three things more, which depend on its kernel
// alone (wiring.Backend): what the owner forwards, which ports flows hold, and how long
// answers come in. firewall/flows ends flows. firewall/fwtest holds the conformance
// suite that each passes, and a fake for the tests of other packages; firewall/homenet
// the network and the packets that prove it.
//
// Owns: the translation of mappings into entries, their text form, the Driver, the
// shared types of the backends.
//
// May import: slog, portmap and the standard library.
//
// Never: opens a socket, reads a clock, knows a backend.
package firewall
