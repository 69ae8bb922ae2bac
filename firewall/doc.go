// Package firewall says what the kernel shall hold for the mappings of the
// gate, without saying how it gets there: the entries that a set of mappings
// asks for and the change from one set to the next (State), the facts of the
// machine that the rules depend on (Gateway), what the owner's own rules
// already forward (Forwards), and the errors a person must act on.
//
// The backends below this directory turn it into kernel objects; firewall/nft
// through nf_tables, firewall/iptables the same and a rule in the tables of iptables.
// firewall/flows ends flows for them. firewall/fwtest holds the conformance
// suite that each passes, and a fake for the tests of other rooms; firewall/homenet
// the network and the packets that prove it.
//
// Owns: the translation of mappings into entries, their text form, the shared
// types of the backends.
//
// May import: portmap and the standard library.
//
// Never: opens a socket, reads a clock, knows a backend.
package firewall
