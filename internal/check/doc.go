// Package check finds what a valid configuration cannot do on this machine, and tells
// what the daemon would serve here.
//
// Owns: the warnings of `portcullis check` (Judge, which is pure), the facts that they
// rest on (Look; Runnable, of the hook), and the preview of roles and backend (Preview).
//
// May import: accounts, slog, config, firewall, firewall/nft, leasefile (where a file can be),
// netif, wiring, nearest, policy and portmap of ours; the standard library but not net/http.
//
// Never: refuses a file. What is not there today may come tomorrow, so everything here is
// a warning; what can never be is an error, and config's. It changes nothing on the
// machine, but that the choice of a backend makes and removes an empty table.
//
// The roles come from netif.Choose and the backend from wiring, as the daemon's do.
package check
