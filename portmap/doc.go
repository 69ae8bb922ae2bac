// Package portmap is the vocabulary of the gate and its engine: who asks
// (Client), for what (Request), what was granted (Mapping), why not (Reason),
// and what happened (Event); the Table that knows every mapping, and the Engine
// that is the only one to change it.
//
// Owns: the mapping table, leases, ownership, conflicts, port choice, quotas'
// counts, events.
//
// May import: the standard library, and nothing that does I/O.
//
// Never: reads a clock outside Engine, opens a socket or a file, knows a
// protocol, a firewall or a configuration format. Everything it needs from the
// world stands in the small interfaces in engine.go; all other rooms point here.
package portmap
