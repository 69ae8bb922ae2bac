package sandbox

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const pid = 4711

var families = []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// machine runs the filter of a role on calls of one architecture.
type machine struct {
	processor
	vm      *bpf.VM
	numbers map[string]uint32 // all that there are
}

func machineOf(t *testing.T, goarch string, r role) machine {
	t.Helper()
	m := machine{processor: processorOf(t, goarch), numbers: published(t, goarch)}
	program := filter(m.processor, r)
	if _, err := bpf.Assemble(program); err != nil || len(program) > 4096 { // BPF_MAXINSNS
		t.Fatalf("%d instructions: %v", len(program), err)
	}
	var err error
	if m.vm, err = bpf.NewVM(program); err != nil {
		t.Fatal(err)
	}
	return m
}

// run returns what becomes of a call. The VM reads words with the high octet first, as
// the kernel does of a packet; those of seccomp are the processor's own, and so only the
// order of the halves is left.
func (m machine) run(t *testing.T, audit, number uint32, args ...uint64) action {
	t.Helper()
	data := make([]byte, offsetArgument+8*6)
	binary.BigEndian.PutUint32(data[offsetNumber:], number)
	binary.BigEndian.PutUint32(data[offsetAudit:], audit)
	for i, a := range args {
		low, high := offsetArgument+8*i, offsetArgument+8*i+4
		if m.bigEndian {
			low, high = high, low
		}
		binary.BigEndian.PutUint32(data[low:], uint32(a))
		binary.BigEndian.PutUint32(data[high:], uint32(a>>32))
	}
	verdict, err := m.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return action(verdict)
}

// onEach runs a test on each architecture with the filter of a role.
func onEach(t *testing.T, r role, f func(t *testing.T, goarch string, m machine)) {
	for goarch := range architectures {
		t.Run(goarch, func(t *testing.T) {
			t.Parallel()
			f(t, goarch, machineOf(t, goarch, r))
		})
	}
}

// never are calls by which a process gets out, up, or at another; none of them may be
// made in one process, whatever is added to its role.
var never = []string{
	"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd",
	"pidfd_send_signal", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "unshare", "mount", "umount2",
	"pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "init_module", "finit_module", "delete_module",
	"kexec_load", "kexec_file_load", "reboot", "bpf", "perf_event_open", "io_uring_setup", "io_uring_enter", "userfaultfd",
	"keyctl", "add_key", "request_key", "capset", "setuid", "setresuid", "setgroups", "seccomp", "symlinkat", "linkat",
	"mknodat", "fchownat", "fchown", "socketpair", "memfd_create", "personality", "process_madvise", "prlimit64", "setrlimit",
	"open_by_handle_at", "iopl", "ioperm", "modify_ldt", "syscall", "open", "creat", "openat2", "fchmodat2", "setxattr", "shmget",
}

// more are calls that a front may not make either: it gets sockets and files from nobody
// but the warden.
var more = []string{
	"socket", "bind", "listen", "connect", "openat", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "getdents64",
	"faccessat", "access", "unlink", "unlinkat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "ftruncate", "fchmodat", "flock",
	"pwrite64", "lseek", "wait4", "dup3", "landlock_restrict_self", "arch_prctl", "clone", "pipe2",
}

// starts are calls of those above that a warden makes to start a front, and to end it.
var starts = []string{"execve", "pidfd_send_signal", "socketpair", "setresuid", "capset", "seccomp", "prlimit64", "setrlimit"}

// connects are calls of more that an opener makes.
var connects = []string{"socket", "connect", "wait4"}

// TestRoles (K11): each call that a role names is allowed, as its arguments permit, and every
// other that the processor has is refused.
func TestRoles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role
		never []string
	}{
		"single": {single(pid, families), never},
		"front":  {front(pid), append(slices.Clone(never), more...)},
		"opener": {opener(pid), append(slices.Clone(never), slices.DeleteFunc(slices.Clone(more), func(call string) bool { return slices.Contains(connects, call) })...)},
		"warden": {warden(families), slices.DeleteFunc(slices.Clone(never), func(call string) bool { return slices.Contains(starts, call) })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, c.role, func(t *testing.T, goarch string, m machine) {
				each(t, goarch, m, c.role)
				for _, call := range c.never {
					if number, there := m.numbers[call]; there && m.run(t, m.audit, number, pid, pid) != refuse {
						t.Errorf("%s is not refused", call)
					}
				}
			})
		})
	}
}

// each compares what becomes of every call with what the role says.
func each(t *testing.T, goarch string, m machine, of role) {
	ruled := map[string]rule{}
	for _, r := range of.rules {
		for _, name := range r.calls {
			if _, twice := ruled[name]; twice {
				t.Errorf("%s stands in two rules", name)
			}
			ruled[name] = r
		}
	}
	for name, number := range m.numbers {
		r, named := ruled[name]
		want := refuse
		switch {
		case name == "mmap" && slices.Contains(oldMmap, goarch):
		case named && r.when == nil:
			want = r.does
		case named: // of which no argument is 0, but those of memory and of what is sent
			if r.when.mask == unix.PROT_EXEC || r.when.mask == unix.MSG_FASTOPEN {
				want = allow
			}
		}
		if got := m.run(t, m.audit, number); got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
	}
}

// called is a call with its arguments.
type called struct {
	call string
	args []uint64
	want action
}

// mad are bits that the kernel does not look at.
const mad = 1 << 32

// TestArguments: what an argument decides.
func TestArguments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role
		calls []called
	}{
		"single": {single(pid, families), []called{
			{"tgkill", []uint64{pid, pid + 1, 10}, allow},
			{"tgkill", []uint64{pid + 1, pid + 1, 9}, refuse},
			{"tgkill", []uint64{0, 0, 9}, refuse},
			{"tgkill", []uint64{0xffffffff, 1, 9}, refuse},
			{"clone", []uint64{thread}, allow},
			{"clone", []uint64{thread | unix.CLONE_SETTLS}, allow},
			{"clone", []uint64{uint64(unix.SIGCHLD)}, refuse},
			{"clone", []uint64{thread &^ unix.CLONE_THREAD}, refuse},
			{"clone", []uint64{thread | unix.CLONE_NEWNET}, refuse},
			{"clone", []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, refuse},
			{"clone3", nil, unknown},
			{"socket", []uint64{unix.AF_INET}, allow},
			{"socket", []uint64{unix.AF_INET6}, allow},
			{"socket", []uint64{unix.AF_NETLINK}, allow},
			{"socket", []uint64{unix.AF_UNIX}, refuse},
			{"socket", []uint64{unix.AF_PACKET}, refuse},
			{"socket", []uint64{unix.AF_ALG}, refuse},
			{"socket", []uint64{unix.AF_PACKET | mad}, refuse},
			{"socketcall", []uint64{1}, allow},
			{"socketcall", []uint64{8}, refuse},
			{"socketcall", []uint64{21}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
			{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANON}, allow},
			{"mmap", []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANON}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED_VALIDATE | unix.MAP_ANON}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_GROWSDOWN}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON}, refuse},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANON}, allow},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANON}, refuse},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED_VALIDATE | unix.MAP_ANON}, refuse},
			{"mmap2", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_GROWSDOWN}, refuse},
			{"mmap2", []uint64{0, 4096, unix.PROT_EXEC, unix.MAP_PRIVATE | unix.MAP_ANON}, refuse},
			{"mprotect", []uint64{4096, 4096, unix.PROT_READ}, allow},
			{"mprotect", []uint64{4096, 4096, unix.PROT_EXEC}, refuse},
			{"prctl", []uint64{unix.PR_SET_VMA}, allow},
			{"prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, refuse},
			{"prctl", []uint64{unix.PR_SET_SECCOMP}, refuse},
			{"prctl", []uint64{unix.PR_CAP_AMBIENT}, refuse},
			{"ioctl", []uint64{3, unix.SIOCETHTOOL}, allow},
			{"ioctl", []uint64{0, unix.TIOCSTI}, refuse},
			{"fcntl", []uint64{3, unix.F_GETFL}, allow},
			{"fcntl", []uint64{3, unix.F_SETOWN, 1}, refuse},
			{"fcntl64", []uint64{3, unix.F_SETFL}, allow},
			{"fcntl64", []uint64{3, unix.F_SETSIG}, refuse},
		}},
		"front": {front(pid), []called{
			{"tgkill", []uint64{pid, pid + 1, 10}, allow},
			{"tgkill", []uint64{pid + 1, pid + 1, uint64(unix.SIGURG)}, refuse},
			{"clone", []uint64{thread}, refuse},
			{"clone", []uint64{uint64(process)}, refuse},
			{"socketcall", []uint64{1}, refuse},
			{"socketcall", []uint64{3}, refuse},
			{"socketcall", []uint64{16}, allow},
			{"prctl", []uint64{unix.PR_SET_VMA}, allow},
			{"prctl", []uint64{unix.PR_SET_PDEATHSIG}, refuse},
			{"sendto", []uint64{3, 0, 5, unix.MSG_DONTWAIT}, allow},
			{"sendto", []uint64{3, 0, 5, unix.MSG_DONTWAIT | unix.MSG_FASTOPEN}, refuse},
			{"sendmsg", []uint64{3, 0, unix.MSG_NOSIGNAL}, allow},
			{"sendmsg", []uint64{3, 0, unix.MSG_FASTOPEN}, refuse},
			{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_GROWSDOWN}, refuse},
			{"mprotect", []uint64{4096, 4096, unix.PROT_EXEC}, refuse},
			{"mprotect", []uint64{4096, 4096, unix.PROT_READ}, refuse},
			{"epoll_create1", nil, refuse},
			{"eventfd2", nil, refuse},
			{"ioctl", []uint64{3, unix.SIOCETHTOOL}, allow},
			{"ioctl", []uint64{0, unix.TIOCSTI}, refuse},
		}},
		"opener": {opener(pid), []called{
			{"socket", []uint64{unix.AF_UNIX}, allow},
			{"socket", []uint64{unix.AF_INET}, refuse},
			{"socket", []uint64{unix.AF_NETLINK}, refuse},
			{"socket", []uint64{unix.AF_UNIX | mad}, allow},
			{"socketcall", []uint64{1}, allow},
			{"socketcall", []uint64{2}, refuse},
			{"socketcall", []uint64{3}, allow},
			{"socketcall", []uint64{4}, refuse},
			{"socketcall", []uint64{8}, refuse},
			{"clone", []uint64{thread}, refuse},
			{"clone", []uint64{uint64(process)}, refuse},
			{"tgkill", []uint64{pid + 1, pid + 1, uint64(unix.SIGKILL)}, refuse},
		}},
		"warden": {warden(families), []called{
			{"tgkill", []uint64{pid, pid, uint64(unix.SIGURG)}, allow},
			{"tgkill", []uint64{pid, pid, perThread}, allow},
			{"tgkill", []uint64{pid, pid, uint64(unix.SIGKILL)}, refuse},
			{"tgkill", []uint64{pid, pid, uint64(unix.SIGSTOP)}, refuse},
			{"epoll_create1", nil, allow},
			{"mprotect", []uint64{4096, 4096, unix.PROT_READ}, allow},
			{"clone", []uint64{thread}, allow},
			{"clone", []uint64{uint64(process)}, allow},
			{"clone", []uint64{uint64(process) | unix.CLONE_NEWUSER}, refuse},
			{"clone", []uint64{uint64(unix.SIGCHLD)}, refuse},
			{"socket", []uint64{unix.AF_UNIX}, refuse},
			{"socketcall", []uint64{8}, allow},
			{"prctl", []uint64{unix.PR_SET_SECCOMP}, allow},
			{"prctl", []uint64{unix.PR_SET_KEEPCAPS}, refuse},
			{"prctl", []uint64{unix.PR_SET_PTRACER}, refuse},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, c.role, func(t *testing.T, goarch string, m machine) {
				for _, x := range c.calls {
					number, there := m.numbers[x.call]
					if !there || x.call == "mmap" && slices.Contains(oldMmap, goarch) {
						continue
					}
					if got := m.run(t, m.audit, number, x.args...); got != x.want {
						t.Errorf("%s%v: %#x, want %#x", x.call, x.args, got, x.want)
					}
				}
			})
		})
	}
}

// TestPacketSockets: their family is allowed where the daemon sees senders by them.
func TestPacketSockets(t *testing.T) {
	t.Parallel()
	onEach(t, single(pid, append(slices.Clone(families), unix.AF_PACKET)), func(t *testing.T, _ string, m machine) {
		number, there := m.numbers["socket"]
		if there && (m.run(t, m.audit, number, unix.AF_PACKET) != allow || m.run(t, m.audit, number, unix.AF_UNIX) != refuse) {
			t.Error("not that family alone")
		}
	})
}

// TestPrograms: beside iptables the calls that none of its programs needs are refused, and
// what starts programs is not.
func TestPrograms(t *testing.T) {
	t.Parallel()
	onEach(t, programs, func(t *testing.T, _ string, m machine) {
		for name, want := range map[string]action{
			"execve": allow, "openat": allow, "socket": allow, "kill": allow, "wait4": allow, "prlimit64": allow,
			"ptrace": refuse, "process_vm_writev": refuse, "setns": refuse, "unshare": refuse, "mount": refuse, "bpf": refuse,
			"finit_module": refuse, "kexec_load": refuse, "keyctl": refuse, "userfaultfd": refuse, "io_uring_setup": refuse,
			"reboot": refuse, "perf_event_open": refuse, "clone3": unknown, "syscall": refuse,
		} {
			if number, there := m.numbers[name]; there && m.run(t, m.audit, number) != want {
				t.Errorf("%s: %#x, want %#x", name, m.run(t, m.audit, number), want)
			}
		}
		clone := m.numbers["clone"]
		for flags, want := range map[uint64]action{
			thread: allow, uint64(unix.SIGCHLD) | unix.CLONE_VM | unix.CLONE_VFORK: allow,
			unix.CLONE_NEWUSER: refuse, unix.CLONE_NEWNET | uint64(unix.SIGCHLD): refuse, unix.CLONE_NEWNS: refuse,
		} {
			if got := m.run(t, m.audit, clone, flags); got != want {
				t.Errorf("clone(%#x): %#x, want %#x", flags, got, want)
			}
		}
	})
}

// TestOtherProcessor: a call by the numbers of another processor ends the process, and so
// does one of x32.
func TestOtherProcessor(t *testing.T) {
	t.Parallel()
	for _, r := range []role{single(pid, families), warden(families), front(pid), opener(pid), programs} {
		for goarch := range architectures {
			m := machineOf(t, goarch, r)
			for other, a := range architectures {
				for _, number := range []uint32{m.numbers["read"], m.numbers["execve"], 0} {
					if got := m.run(t, a.number, number); (got == kill) != (other != goarch) {
						t.Errorf("%s on %s: %#x", other, goarch, got)
					}
				}
			}
			for _, number := range []uint32{x32 | m.numbers["read"], x32 | m.numbers["ptrace"], 0xffffffff} {
				if got := m.run(t, m.audit, number); goarch == "amd64" && got != kill || got != r.otherwise && got != kill {
					t.Errorf("number %#x on %s: %#x", number, goarch, got)
				}
			}
		}
	}
}
