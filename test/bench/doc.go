// Command bench measures what a mapping costs, and whether it costs more because
// there are more mappings. It plays the same requests on two networks of
// namespaces, one with our daemon on the gateway and one with Debian's
// miniupnpd, and prints both side by side; and it drives the engine and the
// firewall backend without HTTP, to show how far away the kernel's own limit is, as it does
// with servers that answer without reading (-only floor).
//
// It also counts how often an idle daemon is woken, with each firewall backend (-only idle).
//
// `make bench` runs it, `make memory` its part about memory, and `make
// bench-instructions` the one that counts instructions. What `make bench` shall come to is
// in targets.go. The environment variable PORTCULLIS names the binary; it is built when
// unset. Without miniupnpd (test/install bench) only our half is
// measured. All numbers of docs/performance.md were printed by it.
//
// What is counted is checked: afterwards the list has as many entries as were
// added and not removed, the kernel holds as many, and a packet passes through
// the last one. When that fails, or when any request is refused, bench fails.
package main
