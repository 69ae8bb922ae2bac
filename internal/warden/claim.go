package warden

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/slog"
)

// claimName is a name in the space of abstract Unix sockets, of which each network
// namespace has its own, as it has its own nf_tables: whoever has bound it is the daemon
// here. It ends with the process, however that ends.
const claimName = "@portcullis"

// claim makes this process the only daemon of its network namespace. A second one would
// take the first one's table away, even where it serves other LANs, or none yet.
func claim(log *slog.Logger) (*net.UnixListener, error) {
	name := &net.UnixAddr{Net: "unix", Name: claimName}
	var holder unix.Ucred
	for began := time.Now(); ; time.Sleep(endingStep) {
		l, err := net.ListenUnix("unix", name)
		if !errors.Is(err, unix.EADDRINUSE) {
			return l, err
		}
		holder, err = peer(name)
		if err == nil && !gone(holder) || time.Since(began) > endingTimeout {
			break
		}
	}
	return refused(log, holder)
}

// How long a daemon that was killed is waited for: its front ends with it, a moment later.
const (
	endingTimeout = 5 * time.Second
	endingStep    = 10 * time.Millisecond
)

// gone reports whether a process has ended; that of another namespace has no number here.
func gone(c unix.Ucred) bool {
	return c.Pid > 0 && errors.Is(unix.Kill(int(c.Pid), 0), unix.ESRCH)
}

// refused is what comes of a lock that somebody holds.
func refused(log *slog.Logger, holder unix.Ucred) (*net.UnixListener, error) {
	if holder.Pid > 0 && (holder.Uid == 0 || holder.Uid == uint32(os.Geteuid())) {
		return nil, fmt.Errorf("another portcullis is running on this machine (process %d); one serves all LANs that lan.interfaces names", holder.Pid)
	}
	// Nobody else can be the daemon: or any user could keep us from starting.
	log.Warn("instance lock is held by another program", "process", holder.Pid, "user", holder.Uid)
	return nil, nil
}

// peer returns who listens at a name; the error is that nobody does.
func peer(name *net.UnixAddr) (unix.Ucred, error) {
	conn, err := net.DialUnix("unix", nil, name)
	if err != nil {
		return unix.Ucred{}, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var holder *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		holder, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return unix.Ucred{}, err
	}
	return *holder, nil
}
