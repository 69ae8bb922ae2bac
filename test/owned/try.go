package owned

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Try is what an attacker tries who looks for a way out.
type Try struct {
	Warden int // its process
	Files  []string
}

// WriteTurn is the try that no filter refuses: the file is not open for it.
const WriteTurn = "write the turn"

// prepared is what is opened before the sandbox closes: more than a front has.
type prepared struct {
	turn         int // the file that came with the settings (wall.Turn)
	links, rules int // sockets of netlink: routes and nf_tables
	interfaces   map[string]int
}

func prepare(turn int) (*prepared, error) {
	links, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	rules, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	p := &prepared{turn, links, rules, map[string]int{}}
	all, err := net.Interfaces()
	for _, i := range all {
		p.interfaces[i.Name] = i.Index
	}
	return p, err
}

// found is what each try came to: "" where it worked.
type found map[string]string

func (f found) note(what string, err error) { f[what] = text(err) }

func (f found) call(what string, trap uintptr, args ...uintptr) {
	args = append(args, make([]uintptr, 6)...)
	_, _, errno := unix.RawSyscall6(trap, args[0], args[1], args[2], args[3], args[4], args[5])
	f[what] = ""
	if errno != 0 {
		f.note(what, errno)
	}
}

// at is where the kernel finds a text.
func at(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(b))
}

// try tries everything.
func (p *prepared) try(t Try) map[string]string {
	f := found{}
	p.open(f, t.Files)
	reach(f, t.Warden)
	p.become(f)
	return f
}

// open tries to get files and sockets.
func (p *prepared) open(f found, files []string) {
	here := unix.AT_FDCWD
	cwd := uintptr(here)
	for _, name := range files {
		for what, flags := range map[string]int{"read": unix.O_RDONLY, "write": unix.O_RDWR, "make": unix.O_RDWR | unix.O_CREAT} {
			_, err := unix.Open(name, flags, 0o600)
			f.note("open to "+what+" "+name, err)
		}
		f.call("unlink "+name, unix.SYS_UNLINKAT, cwd, at(name), 0)
		f.call("exec "+name, unix.SYS_EXECVE, at(name), 0, 0)
		f.note("stat "+name, unix.Stat(name, new(unix.Stat_t)))
	}
	for name, family := range map[string]int{"inet": unix.AF_INET, "inet6": unix.AF_INET6, "unix": unix.AF_UNIX, "netlink": unix.AF_NETLINK, "packet": unix.AF_PACKET, "vsock": unix.AF_VSOCK} {
		_, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		f.note("socket "+name, err)
		_, err = unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		f.note("raw socket "+name, err)
	}
	f.note("bind", unix.Bind(p.links, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	f.note("connect", unix.Connect(p.links, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	f.note("listen", unix.Listen(p.links, 1))
	for fd := 3; fd < 64; fd++ { // what it began with; it is told by TCP what to do
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		family, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err == nil && err2 == nil && kind != unix.SOCK_STREAM && (family == unix.AF_INET || family == unix.AF_INET6) {
			f[fmt.Sprint("a socket of the Internet: ", fd)] = "is there"
		}
	}
	turn := uintptr(p.turn)
	f.call(WriteTurn, unix.SYS_WRITE, turn, at("0123"), 4)
	f.call("write at a place of the turn", unix.SYS_PWRITE64, turn, at("0123"), 4, 0)
	f.call("cut the turn", unix.SYS_FTRUNCATE, turn, 0)
	f.call("change who may write the turn", unix.SYS_FCHMOD, turn, 0o777)
	f.call("map the turn", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, turn, 0)
	f.call("open the turn again", unix.SYS_OPENAT, cwd, at(fmt.Sprintf("/proc/self/fd/%d", p.turn)), unix.O_RDWR)
	links := uintptr(p.links)
	f.call("have who closes last wait", unix.SYS_SETSOCKOPT, links, unix.SOL_SOCKET, unix.SO_LINGER, at("0123456789abcdef"), 8)
	f.call("join a group on any link", unix.SYS_SETSOCKOPT, links, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, at("0123456789abcdef"), 12)
	f.call("join a group of IPv6", unix.SYS_SETSOCKOPT, links, unix.IPPROTO_IPV6, unix.IPV6_ADD_MEMBERSHIP, at("0123456789abcdef01234"), 20)
	f.call("bind to a device", unix.SYS_SETSOCKOPT, links, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, at("wan0"), 4)
	f.call("unlock the instance", unix.SYS_SHUTDOWN, 4, unix.SHUT_RDWR)
	f.call("stop a listener", unix.SYS_SHUTDOWN, links, unix.SHUT_RD)
}

// reach tries to get at other processes.
func reach(f found, process int) {
	warden, self := uintptr(process), uintptr(os.Getpid())
	for name, pid := range map[string]uintptr{"the warden": warden, "pid 1": 1, "itself": self, "all": ^uintptr(0), "its group": 0} {
		f.call("kill "+name, unix.SYS_KILL, pid, uintptr(unix.SIGCONT))
		f.call("ptrace "+name, unix.SYS_PTRACE, unix.PTRACE_ATTACH, pid)
		f.call("seize "+name, unix.SYS_PTRACE, unix.PTRACE_SEIZE, pid)
		f.call("pidfd of "+name, unix.SYS_PIDFD_OPEN, pid)
		f.call("read memory of "+name, unix.SYS_PROCESS_VM_READV, pid)
		f.call("write memory of "+name, unix.SYS_PROCESS_VM_WRITEV, pid)
		f.call("limits of "+name, unix.SYS_PRLIMIT64, pid, unix.RLIMIT_NOFILE, at("0123456789abcdef"))
		f.call("compare "+name, unix.SYS_KCMP, pid, self)
	}
	f.call("signal the warden's thread", unix.SYS_TGKILL, warden, warden, uintptr(unix.SIGCONT))
	f.call("signal a thread", unix.SYS_TKILL, warden, uintptr(unix.SIGCONT))
	f.call("queue a signal", unix.SYS_RT_SIGQUEUEINFO, warden, uintptr(unix.SIGCONT))
}

// become tries to be more than it is.
func (p *prepared) become(f found) {
	f.call("be root", unix.SYS_SETRESUID, 0, 0, 0)
	f.call("be of root's group", unix.SYS_SETRESGID, 0, 0, 0)
	f.call("be root for files", unix.SYS_SETFSUID, 0)
	f.call("groups", unix.SYS_SETGROUPS, 0, 0)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	all := [2]unix.CapUserData{{Effective: ^uint32(0), Permitted: ^uint32(0), Inheritable: ^uint32(0)}, {Effective: ^uint32(0), Permitted: ^uint32(0)}}
	f.note("capabilities", unix.Capset(&header, &all[0]))
	f.call("be dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	f.call("outlive the warden", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0)
	f.call("another filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	f.call("namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	f.call("enter a namespace", unix.SYS_SETNS, 0, 0)
	f.call("fork", unix.SYS_CLONE, uintptr(unix.SIGCHLD))
	f.call("make a thread", unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_FS|unix.CLONE_FILES|unix.CLONE_SIGHAND|unix.CLONE_SYSVSEM|unix.CLONE_THREAD)
	f.call("clone3", unix.SYS_CLONE3, 0, 0)
	f.call("mount", unix.SYS_MOUNT, at("none"), at("/"), at("tmpfs"))
	f.call("chroot", unix.SYS_CHROOT, at("/"))
	f.call("chdir", unix.SYS_CHDIR, at("/"))
	f.call("executable memory", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0))
	f.call("memory that counts for nobody", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON, ^uintptr(0))
	f.call("pipes", unix.SYS_PIPE2, 0, 0)
	f.call("load a module", unix.SYS_INIT_MODULE, 0, 0, at(""))
	f.call("bpf", unix.SYS_BPF, 0)
	f.call("io_uring", unix.SYS_IO_URING_SETUP, 1, 0)
	f.call("keys", unix.SYS_KEYCTL, 0)
	f.call("set the clock", unix.SYS_CLOCK_SETTIME, 0, 0)
	f.call("steal a descriptor", unix.SYS_PIDFD_GETFD, 0, 0)
	f.call("many datagrams in one call", unix.SYS_SENDMMSG, 0, 0)
	f.call("type for the terminal", unix.SYS_IOCTL, 0, unix.TIOCSTI)
	f["change a link"] = text(p.request(p.links, unix.RTM_NEWLINK, make([]byte, unix.SizeofIfInfomsg)))
	f["take an address away"] = text(p.request(p.links, unix.RTM_DELADDR, make([]byte, unix.SizeofIfAddrmsg)))
	f["empty nf_tables"] = text(p.request(p.rules, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, []byte{unix.NFPROTO_INET, 0, 0, 0}))
}

// request makes a request of netlink, and returns what the kernel answers.
func (p *prepared) request(fd int, kind uint16, body []byte) error {
	b := make([]byte, unix.SizeofNlMsghdr+len(body))
	h := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
	*h = unix.NlMsghdr{Len: uint32(len(b)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, Seq: 1}
	copy(b[unix.SizeofNlMsghdr:], body)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	all, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			if code := *(*int32)(unsafe.Pointer(&m.Data[0])); code != 0 {
				return unix.Errno(-code)
			}
			return nil
		}
	}
	return fmt.Errorf("answered %d messages", len(all))
}
