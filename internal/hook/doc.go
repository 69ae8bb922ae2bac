// Package hook runs the program that the owner has told of events, as a process that can do
// little, and never waits for it.
//
// Owns: Hook (the daemon's side: which events, one JSON object a line, and what is known of the
// program), Main (the process between them, which starts the program, again where it ends, and
// has the lines that it has not read yet), and what the program may say.
//
// May import: the standard library, x/sys/unix, x/time/rate; of ours sandbox and slog.
//
// Never: decides anything, reads anything of the program's but lines for the log, or keeps the
// engine waiting.
//
// What is decided here:
//   - The daemon cannot start programs in its sandbox, and what it started there would be in it.
//     So the process between them is started before it closes, where a hook is configured, and
//     goes when its standard input ends, which is when the daemon does.
//   - The program is another user than the daemon (64996) where that can start it as one; otherwise it
//     is the daemon's, and Landlock and a filter of its own keep it from the daemon's files, from
//     the control socket and from signals. Where neither can be, it is not started.
//   - It has no capability and no environment, nothing open but three descriptors, and may
//     read what programs need (/usr, /etc, /opt, /run, its own directory), write no file, and use
//     TCP and UDP. Its user has 256 processes at most, and what it leaves running ends with it,
//     in a session of its own too: the process between adopts that.
//   - 256 events wait for a program that is slow. What comes then is left out, and counted. One
//     that takes no event for half a minute is ended, and started again a second later, then
//     two, up to a minute. If the process between dies, there is no hook before the daemon is
//     started again: what could start another would be one more process that may die.
package hook
