// Package web is the owner's page: what a browser loads, and the little that it asks of us.
//
// Owns: the page itself (static), who may load what (links to sign in by, sessions, and what
// browsers say of a request's origin), and the bounds of the conversation.
//
// May import: the standard library, without net/http and templates; golang.org/x/time/rate; of
// ours json, control, digest, http1 and random.
//
// Never: opens a socket or a file, knows what connects to the daemon, or keeps anything but
// who is signed in and what has happened lately.
//
// What is decided here:
//   - Nothing of a client becomes markup: the page makes its nodes itself, and sets texts.
//     A policy of contents forbids all else, in the browser too (Trusted Types).
//   - Who is signed in shows two secrets: a cookie that no script reads, and a key that only
//     pages of this origin can read and send. A cookie goes to every port of this machine,
//     and the header that the key stands in no page of another origin can send unasked.
//   - The word of a link stands behind the # of its URL, which browsers send to nobody. It is
//     good once, and for a quarter of an hour.
//   - The page asks again every two seconds while it is seen, and less often where answers take
//     the daemon longer: a twentieth of its time at most. A stream of events would hold a connection a tab,
//     and say nothing of traffic. All tabs share what the daemon has been asked.
package web
