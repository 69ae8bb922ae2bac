package warden

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// claimName is a name in the space of abstract Unix sockets, of which each network
// namespace has its own, as it has its own nf_tables: whoever has bound it is the daemon
// here. It ends with the process, however that ends.
const claimName = "@portcullis"

// claim makes this process the only daemon of its network namespace. A second one would
// take the first one's table away, even where it serves other LANs, or none yet.
func claim(log *slog.Logger) (*net.UnixListener, error) {
	name := &net.UnixAddr{Net: "unix", Name: claimName}
	l, err := net.ListenUnix("unix", name)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	holder, err := peer(name)
	if err != nil { // it has ended in the meantime
		if l, err := net.ListenUnix("unix", name); err == nil {
			return l, nil
		}
	}
	if err == nil && (holder.Uid == 0 || holder.Uid == uint32(os.Geteuid())) {
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
