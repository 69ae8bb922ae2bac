package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	handle "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"portcullis/internal/netns"
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

	space  *netns.Space
	thread *netns.Thread
	links  *netlink.Handle
}

// newHost makes a namespace and its thread.
func newHost(name string) (*Host, error) {
	space, err := netns.New(name)
	if err != nil {
		return nil, err
	}
	thread, err := space.Thread()
	if err != nil {
		space.Close()
		return nil, err
	}
	links, err := netlink.NewHandleAt(handle.NsHandle(space.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		thread.Close()
		space.Close()
		return nil, err
	}
	return &Host{Name: name, space: space, thread: thread, links: links}, nil
}

// Do runs f on a thread that is inside the host. Sockets opened there stay
// there; f must not wait long, the host does one thing at a time.
func (h *Host) Do(f func() error) error { return h.thread.Do(f) }

// Thread starts one more thread in the host, for work that takes long.
func (h *Host) Thread() (*netns.Thread, error) { return h.space.Thread() }

// Start starts a command inside the host. It is killed when this process ends.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return h.Do(cmd.Start)
}

// Netlink returns a handle into the host, for tests that change its network.
func (h *Host) Netlink() *netlink.Handle { return h.links }

// Namespace returns the host's namespace, for tests that look into its kernel.
func (h *Host) Namespace() handle.NsHandle { return handle.NsHandle(h.space.FD()) }

// Path names the namespace for nsenter --net=.
func (h *Host) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.space.FD()) }

// SetSysctl writes a value under /proc/sys/net inside the host.
func (h *Host) SetSysctl(name, value string) error { return h.space.Sysctl("net/"+name, value) }

func (h *Host) close() {
	h.links.Close()
	h.thread.Close()
	h.space.Close()
}
