// Package gateway is the machine as the engine sees it: its LANs and WANs, its addresses,
// and the external ports that it or its owner uses.
//
// Owns: Gateway (the published View, and how old what it says of ports may be), Keeper
// (which ends mappings whose port is used by now).
//
// May import: the standard library; of ours slog, firewall (what the owner forwards, and which
// ports are kept), netif, pace and portmap.
//
// Never: reads the network or a ruleset by itself, decides who may have a port.
package gateway
