package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is one machine of the network: a network namespace with a thread that
// lives in it.
type Host struct {
	Name string
	Addr netip.Addr // on the LAN, or on the WAN side; the gateway's is its LAN address
	MAC  net.HardwareAddr

	// Addr6 is the host's global address in the newest prefix, LinkLocal its
	// link-local one, without a zone. They are invalid while there is none.
	Addr6, LinkLocal netip.Addr

	ifname string // of its own interface
	index  int

	ns     netns.NsHandle
	handle *netlink.Handle
	work   chan func()
	ended  chan struct{}
}

var errClosed = errors.New("lab: the host is gone")

// newHost makes a namespace and its thread.
func newHost(name string) (*Host, error) {
	h := &Host{Name: name, work: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go h.live(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	var err error
	if h.handle, err = netlink.NewHandleAt(h.ns); err != nil {
		h.close()
		return nil, fmt.Errorf("lab: netlink in %s: %w", name, err)
	}
	return h, nil
}

// live is the host's thread. It is never unlocked, so it ends with the goroutine
// and no other goroutine can ever run in this namespace.
func (h *Host) live(ready chan<- error) {
	defer close(h.ended)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		ready <- fmt.Errorf("lab: network namespace for %s: %w", h.Name, err)
		return
	}
	h.ns = ns
	ready <- nil
	for f := range h.work {
		f()
	}
}

// Do runs f on a thread that is inside the host. Sockets opened there stay
// there; f must not wait long, the host does one thing at a time.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	select {
	case h.work <- func() { done <- f() }:
		return <-done
	case <-h.ended:
		return errClosed
	}
}

// Start starts a command inside the host. It is killed when this process ends.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return h.Do(cmd.Start)
}

// Netlink returns a handle into the host, for tests that change its network.
func (h *Host) Netlink() *netlink.Handle { return h.handle }

// Namespace returns the host's namespace, for tests that look into its kernel.
func (h *Host) Namespace() netns.NsHandle { return h.ns }

// Path names the namespace for nsenter --net=.
func (h *Host) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(h.ns)) }

// SetSysctl writes a value under /proc/sys/net inside the host.
func (h *Host) SetSysctl(name, value string) error {
	return h.Do(func() error {
		return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	})
}

func (h *Host) close() {
	if h.handle != nil {
		h.handle.Close()
	}
	close(h.work)
	<-h.ended
	_ = h.ns.Close() // nothing can be done about a failed close of a namespace
}
