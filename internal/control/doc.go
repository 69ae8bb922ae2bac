// Package control is the administrator's way in: a unix socket that speaks JSON over
// HTTP, its server in the daemon and its client in the subcommands.
//
// Owns: the JSON types that outside tools rely on, who may talk (root, the daemon's own
// user, members of the configured group, by peer credentials), and the bounds of the
// conversation. Beside it a server for the metrics alone, which a loopback listener may have.
//
// May import: accounts, json, slog, portmap, http1, metrics (the type of its content),
// golang.org/x/sys/unix for the credentials.
//
// Never: opens anything by itself. The owner's wishes go through the engine
// like everybody's; there is no second way.
package control
