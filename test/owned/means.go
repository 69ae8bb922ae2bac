package owned

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/wall"
)

// Means is what an attacker does with what the front has, to harm others by it.
type Means struct {
	What string // "threads", "memory", "stack", "read only", "tables", "poller", "event", "shut", "join", "linger", "leave"
	FD   int    // of the three before the last
	N    int    // so many threads or octets, or the index of an interface
}

// do returns what came of it. Of threads that cannot be made there is no answer: it is the
// end of the runtime.
func (m Means) do(f *front) error {
	switch m.What {
	case "threads":
		threads(m.N)
		return nil
	case "memory":
		return memory(m.N, 0, unix.PROT_READ|unix.PROT_WRITE)
	case "stack": // which RLIMIT_STACK bounds when it grows, and nothing bounds at first
		return memory(m.N, unix.MAP_GROWSDOWN, unix.PROT_READ|unix.PROT_WRITE)
	case "read only": // which RLIMIT_DATA does not count any more
		return memory(m.N, 0, unix.PROT_READ)
	case "tables":
		return tables(m.N)
	case "poller":
		_, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		return err
	case "event":
		_, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		return err
	case "shut":
		return errors.Join(unix.Shutdown(m.FD, unix.SHUT_RDWR), unix.Shutdown(m.FD, unix.SHUT_RD))
	case "join":
		return unix.SetsockoptIPMreqn(m.FD, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: [4]byte{239, 66, 6, 1}, Ifindex: int32(m.N)})
	case "linger":
		return f.linger(m.FD)
	case "leave":
		return f.leave()
	}
	return fmt.Errorf("no means %q", m.What)
}

// threads makes n threads that stay.
func threads(n int) {
	var made sync.WaitGroup
	for range n {
		made.Add(1)
		go func() {
			runtime.LockOSThread()
			made.Done()
			select {}
		}()
	}
	made.Wait()
}

// memory takes n octets, uses them and has them protected so; or what there is. It gives them
// back.
func memory(n, flags, protection int) (err error) {
	const piece = 1 << 20
	for taken := 0; taken < n; taken += piece {
		b, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|flags)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(b) }()
		for i := 0; i < piece; i += 4096 {
			b[i] = 1
		}
		if protection&unix.PROT_WRITE == 0 {
			if err := unix.Mprotect(b, protection); err != nil {
				return err
			}
		}
	}
	return nil
}

// tables has the kernel make n octets of tables of pages, for memory that is only read and so
// is one page, and gives them back.
func tables(n int) error {
	const piece, table, octets = 1 << 30, 1 << 21, 1 << 12
	for taken := 0; taken < n; taken += piece / table * octets {
		b, err := unix.Mmap(-1, 0, piece, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(b) }()
		for i := 0; i < piece; i += table {
			if b[i] != 0 {
				return errors.New("what nobody wrote is not 0")
			}
		}
	}
	return nil
}

// linger fills a connection whose octets nobody reads, and asks that who closes it last
// waits for that. The listener is waited at for a while.
func (f *front) linger(listener int) error {
	err := error(unix.EAGAIN)
	for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		f.full, _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK)
	}
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	for b := make([]byte, 1<<16); err == nil; {
		_, err = unix.Write(f.full, b)
	}
	return unix.SetsockoptLinger(f.full, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 100000})
}

// leave has the warden be who closes that connection last.
func (f *front) leave() error {
	record, err := wall.Encode(wall.Message{Body: &wall.Record{Level: 8, Message: "x"}})
	for range 100 { // so that it is not read before this end is closed
		_, _ = f.wall.Write(record)
	}
	_, _, sent := f.wall.WriteMsgUnix(record, unix.UnixRights(f.full), nil)
	return errors.Join(err, sent, unix.Close(f.full))
}
