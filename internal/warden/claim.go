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
// namespace has its own, as it has its own nf_tables: whoever has bound it is the gate
// here. It ends with the process, however that ends.
const claimName = "@portcullis"

// claim makes this process the only gate of its network namespace. A second one would
// take the first one's table away, even where it serves other LANs, or none yet.
func claim(log *slog.Logger) (*net.UnixListener, error) {
	name := &net.UnixAddr{Net: "unix", Name: claimName}
	l, err := net.ListenUnix("unix", name)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	owner, err := peer(name)
	if err == nil && (owner.Uid == 0 || owner.Uid == uint32(os.Geteuid())) {
		return nil, fmt.Errorf("another portcullis is running on this machine (process %d); one serves all LANs that lan.interfaces names", owner.Pid)
	}
	// Nobody else can be a gate: or any user could keep us from starting.
	log.Warn("instance lock is held by another program", "process", owner.Pid, "user", owner.Uid)
	return nil, nil
}

// peer says who listens at a name; the error is that nobody does.
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
	var owner *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		owner, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return unix.Ucred{}, err
	}
	return *owner, nil
}
