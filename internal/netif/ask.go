package netif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxAnswer is more than a neighbour or a route takes, in octets.
const maxAnswer = 4096

// ask sends a question about neighbours or routes and hands the kernel's one answer to f,
// which must not keep it. The kernel has answered when it has been asked, so nothing
// waits. It is for what every request needs: the library allocates and clears 64 KiB for
// each answer, which collected garbage again and again (docs/performance.md).
func (k *Kernel) ask(req *nl.NetlinkRequest, f func(payload []byte)) error {
	s := k.neighbours.Socket
	s.Lock()
	defer s.Unlock()
	req.Seq = atomic.AddUint32(&k.neighbours.Seq, 1)
	if err := s.Send(req); err != nil {
		return err
	}
	for {
		n, from, err := unix.Recvfrom(s.GetFd(), k.answer[:], unix.MSG_TRUNC)
		if kernel, ok := from.(*unix.SockaddrNetlink); errors.Is(err, unix.EINTR) || ok && kernel.Pid != nl.PidKernel {
			continue
		}
		if err != nil {
			return err
		}
		payload, ours, err := answerTo(k.answer[:min(n, maxAnswer)], req.Seq)
		if err != nil {
			return err
		}
		if ours {
			if payload != nil {
				f(payload)
			}
			return nil
		}
	}
}

// answerTo takes one message apart, and reports whether it answers the question with this
// number; else it is what is left of an earlier one. An acknowledgement has no payload, a
// refusal is an error.
func answerTo(m []byte, seq uint32) (payload []byte, ours bool, err error) {
	if len(m) < unix.NLMSG_HDRLEN {
		return nil, false, fmt.Errorf("an answer of %d octets", len(m))
	}
	size := binary.NativeEndian.Uint32(m)
	if binary.NativeEndian.Uint32(m[8:]) != seq {
		return nil, false, nil
	}
	if size < unix.NLMSG_HDRLEN || int64(size) > int64(len(m)) {
		return nil, false, fmt.Errorf("a message of %d octets in %d", size, len(m))
	}
	payload = m[unix.NLMSG_HDRLEN:size]
	if binary.NativeEndian.Uint16(m[4:]) != unix.NLMSG_ERROR {
		return payload, true, nil
	}
	if len(payload) < 4 {
		return nil, false, fmt.Errorf("a refusal of %d octets", len(payload))
	}
	if errno := -int32(binary.NativeEndian.Uint32(payload)); errno != 0 {
		return nil, true, unix.Errno(errno)
	}
	return nil, true, nil
}
