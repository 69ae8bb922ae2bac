// Package gena is UPnP eventing (GENA) for a server: it accepts subscriptions
// to sets of variables, and notifies the subscribers when a variable changes.
//
// It is the only package for which connections are opened because a client asked for it,
// so it is strict about where to: the address of a delivery is never taken from the
// CALLBACK header, it is the address the subscriber's own connection came from,
// out of the interface that connection came in by. The header yields a port, a
// path, and a reason to refuse.
//
// Owns: the CALLBACK, TIMEOUT and SID headers, the statuses of SUBSCRIBE and
// UNSUBSCRIBE, the subscriptions and their caps, event keys (SEQ), the NOTIFY
// message, its delivery and the reading of the subscriber's answer; and Dial, by which
// the half that may open sockets connects (internal/warden).
//
// May import: slog, the standard library, http1 for the words of SUBSCRIBE, xml1, random, and
// sockets and golang.org/x/sys/unix to bind a connection to an interface. A NOTIFY is written by
// hand on its connection (notify.go says why).
//
// Never: knows a gateway, a mapping or a service; opens a socket by itself; resolves a
// name; follows a redirect; uses a proxy; connects to an address other than a subscriber's own;
// blocks the caller that publishes a change; logs a byte a client wrote.
//
// What is decided here, where the documents differ:
//   - A failed message is given up, and its number is used up (UDA 1.1 section
//     4.3.2). One failure is survived (GENA-11); two in a row end the
//     subscription (abuse case F6). What a failed message said is told again
//     with the next change, so that a subscriber that was asleep catches up.
//   - A CALLBACK list that does not parse is refused whole: behind the first
//     mistake nobody knows where a URL begins. A URL that parses, but is not of
//     the subscriber's own address, is passed over, because hosts with several
//     addresses list one URL for each; when none is left the answer is 412.
//   - All usable URLs are kept, up to four, and tried in their order (GENA-10).
//   - A URL is at most 256 bytes (F2), longer ones are refused rather than cut.
//     So the 512-byte path of F7 gets 412, and shorter ones arrive unchanged.
package gena
