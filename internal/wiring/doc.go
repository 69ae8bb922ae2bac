// Package wiring is what the configuration means to the other packages: the daemon, doctor
// and check all have it from here.
//
// Owns: Policy, Network, Facts (the parts of a configuration in the types of those who
// obey them), Firewall and Backend (which firewall backend is opened), Listed (what is shown
// to other programs), Clear (what a dead daemon left, by whichever backend).
//
// May import: the standard library; of ours slog, config, firewall and its backends, netif,
// policy and portmap.
//
// Never: keeps anything; changes a rule, but for Clear.
package wiring
