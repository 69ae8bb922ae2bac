package netif

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	handle "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/internal/enter"
	"portcullis/internal/slog"
)

// answerTimeout bounds every question to the kernel. The library's sockets wait
// for ever by default, and one lost answer must not stop the daemon.
const answerTimeout = 5 * time.Second

// ErrNoInterface is returned when a named interface does not exist.
var ErrNoInterface = errors.New("no such interface")

// ErrGone says that an interface or its address has just gone: the next reading of the
// network shows it.
var ErrGone = errors.New("the interface or its address has just gone")

// Kernel holds the sockets through which the network is read. It is safe for
// concurrent use; Close it after every other call, Watch included, has
// returned. It needs no privilege.
type Kernel struct {
	log *slog.Logger
	ns  int // the network namespace; 0 in production: that of the process

	route      *nl.SocketHandle // links and addresses
	raw        *nl.SocketHandle // routes: own requests, see routes.go; nil after OpenLinks
	neighbours *nl.SocketHandle // its own socket, so that no dump delays a question on a request's way
	answer     [maxAnswer]byte  // to a question asked of neighbours; guarded by its lock
	sights     sights           // what was last said of neighbours
	diag       *nl.SocketHandle // nil on a kernel without sock_diag, and likewise
	ethtool    *os.File         // for its ioctl

	// mu guards the ioctl, which waits for changes of links; one thread at a time does.
	mu sync.Mutex

	procNet   string // the directory of tcp, tcp6, udp, udp6
	ipForward string // the sysctl's file
}

// Open opens the sockets in the network namespace of the process. log must not
// be nil; it gets what Watch heals.
func Open(log *slog.Logger) (*Kernel, error) {
	return OpenAt(log, 0)
}

// OpenLinks is Open for who asks Stats, Speed, Neighbour, Sight, NextHop and MACEnding alone,
// and opens no socket that only the other methods use: one of them tells of every connection
// of the gateway.
func OpenLinks(log *slog.Logger) (*Kernel, error) { return open(log, 0, (*Kernel).openLinks) }

// OpenAt opens them in the namespace of a file descriptor, which the caller may close
// afterwards.
// Entering another namespace than the process's own needs CAP_SYS_ADMIN there,
// so this is for tests and labs.
func OpenAt(log *slog.Logger, ns int) (*Kernel, error) { return open(log, ns, (*Kernel).openAll) }

func open(log *slog.Logger, ns int, sockets func(*Kernel) error) (*Kernel, error) {
	if log == nil {
		return nil, errors.New("netif: the logger must not be nil")
	}
	k := &Kernel{
		log:       log,
		procNet:   "/proc/thread-self/net",
		ipForward: "/proc/sys/net/ipv4/ip_forward",
		sights:    sights{news: -1},
	}
	if ns > 0 {
		fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("keep the network namespace: %w", err)
		}
		k.ns = fd
	}
	if err := k.inNamespace(func() error { return sockets(k) }); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kernel) openAll() (err error) {
	if k.diag, err = openNetlink(unix.NETLINK_INET_DIAG); err != nil {
		k.diag = nil // many small routers leave inet_diag out; Listening reads /proc instead
	}
	if k.raw, err = openNetlink(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	return k.openLinks()
}

func (k *Kernel) openLinks() (err error) {
	if k.route, err = openNetlink(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	if k.neighbours, err = openNetlink(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := k.sights.open(); err != nil {
		k.log.Warn("neighbours are asked for with each request", "err", err)
	}
	// The ioctl asks for any socket. One of the Internet's would let an attacker who has this
	// process send by it, wherever he likes.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	k.ethtool = os.NewFile(uintptr(fd), "ethtool")
	return nil
}

func openNetlink(protocol int) (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(handle.None(), handle.None(), protocol)
	if err != nil {
		return nil, err
	}
	tv := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := errors.Join(s.SetSendTimeout(&tv), s.SetReceiveTimeout(&tv)); err != nil {
		s.Close()
		return nil, err
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// Close releases the sockets.
func (k *Kernel) Close() {
	for _, s := range []*nl.SocketHandle{k.route, k.raw, k.neighbours, k.diag} {
		if s != nil {
			s.Close()
		}
	}
	k.sights.close()
	if k.ethtool != nil {
		_ = k.ethtool.Close() // a socket without data: nothing can be lost
	}
	if k.ns > 0 {
		_ = unix.Close(k.ns)
	}
}

// inNamespace runs f where the Kernel's sockets belong.
func (k *Kernel) inNamespace(f func() error) error { return enter.In(k.ns, f) }

// request starts a netlink request on one of the held sockets.
func request(s *nl.SocketHandle, protocol, typ, flags int) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{
			Len:   unix.SizeofNlMsghdr,
			Type:  uint16(typ),
			Flags: unix.NLM_F_REQUEST | uint16(flags),
		},
		Sockets: map[int]*nl.SocketHandle{protocol: s},
	}
}

// Forwarding reports whether the kernel forwards IPv4 at all
// (net.ipv4.ip_forward). Without it no mapping works.
func (k *Kernel) Forwarding() (bool, error) {
	var text []byte
	err := k.inNamespace(func() (err error) {
		text, err = os.ReadFile(k.ipForward)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read net.ipv4.ip_forward: %w", err)
	}
	return strings.TrimSpace(string(text)) != "0", nil
}
