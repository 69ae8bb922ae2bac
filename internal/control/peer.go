package control

import (
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const noGroup = ^uint32(0) // (gid_t)-1, which no process can have

// peer is who sits at the other end of the socket, by the kernel's word.
type peer struct {
	uid    uint32
	groups []uint32
}

// peerOf reports who is at the other end, if that can be told.
func peerOf(c net.Conn) (p peer, known bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return p, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return p, false
	}
	var credErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			p.uid = cred.Uid
			p.groups = append(supplementary(int(fd)), cred.Gid)
		}
	})
	return p, err == nil && credErr == nil
}

func (s *Server) mayTalk(p peer) bool {
	return p.uid == 0 || p.uid == uint32(os.Geteuid()) || s.gid != noGroup && slices.Contains(p.groups, s.gid)
}
