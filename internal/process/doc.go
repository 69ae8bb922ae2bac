// Package process runs the front as a process of its own: what starts it and keeps one
// running, and what it does.
//
// Owns: Keeper (starts a front, tells it what to do, ends it, and starts another when it has
// ended), Main (the front itself), and what a front may say by its standard error.
//
// May import: the standard library, x/sys/unix; of ours slog, front, wall, sandbox, netif and pace.
//
// Never: knows the warden, the firewall or the configuration; decides what may be mapped.
//
// What is decided here:
//   - A front is started by /proc/self/exe, which is this program even when its file has
//     been replaced. It gets the wall and nothing else that is open but what holds the
//     instance lock: so nobody begins here before it has ended. (One that is owned could
//     accept there what programs of this machine have to give; it has nothing for them.)
//   - It ends with the warden, whatever it wants (PR_SET_PDEATHSIG). That is about the
//     thread that started it, so that one thread starts and ends all fronts, and stays.
//   - All fronts begin alike, the first too, in the closed sandbox of the warden; and
//     before the front has read a packet its own is closed.
//   - A front that dies is started anew at once, and later and later if that happens
//     again and again: what kills it may come again with the next packet, and a start
//     costs time that others are not served in either way.
//   - One that hangs is asked every so often whether it serves (watch). It answers when each
//     loop that receives or accepts has come round; one that it waits for in vain it names
//     in the log, and dies. What hangs in a goroutine of one request is not found.
package process
