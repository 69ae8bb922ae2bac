package sandbox

import "golang.org/x/sys/unix"

// A role is what one kind of process may ask of the kernel. A call that stands in no rule
// has the role's last word.
type role struct {
	rules     []rule
	otherwise action
}

// A rule is for calls that serve one purpose. Those that a processor does not have are
// left out there.
type rule struct {
	why   string
	calls []string
	does  action
	when  *argument // nil: whatever the arguments are
	also  *argument // after when: both must be so
}

// An argument is that with the number index, of which the bits in mask must have one of
// the values; otherwise the call is refused.
type argument struct {
	index  int
	mask   uint32
	values []uint32
}

// all is the mask of an argument that is compared as it is.
const all = ^uint32(0)

// namespaces are the flags of clone(2) that make one.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// thread is what the Go runtime makes a thread with (cloneFlags there); some
// processors add CLONE_SETTLS.
const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// process is what the runtime starts a program with, where the kernel gives a descriptor
// of the child (forkAndExecInChild1 in the package syscall).
const process = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | uint32(unix.SIGCHLD)

// perThread is the signal by which the runtime makes a call on every thread
// (sigPerThreadSyscall there).
const perThread = 33

// everyone is what every process of ours does. interrupt is how the runtime reaches its
// threads; what is used most stands first.
func everyone(interrupt argument) []rule {
	return []rule{
		{why: "the runtime waits and wakes", does: allow,
			calls: []string{"futex", "futex_time64", "nanosleep", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_ctl", "sched_yield"}},
		{why: "files and sockets that are open", does: allow,
			calls: []string{"read", "write", "recvmsg", "recvfrom", "close", "accept4", "readv", "writev"}},
		{why: "the same; not a connection together with what is sent, which takes no connect", does: allow,
			calls: []string{"sendmsg"}, when: &argument{index: 2, mask: unix.MSG_FASTOPEN, values: []uint32{0}}},
		{why: "likewise", does: allow,
			calls: []string{"sendto"}, when: &argument{index: 3, mask: unix.MSG_FASTOPEN, values: []uint32{0}}},
		{why: "the runtime interrupts its own threads", does: allow, calls: []string{"tgkill"}, when: &interrupt},
		{why: "signals, and the way back from their handlers", does: allow,
			calls: []string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall"}},
		{why: "memory that cannot be executed, and is neither shared nor a stack: RLIMIT_DATA counts no such", does: allow,
			calls: []string{"mmap", "mmap2"}, when: &executable, also: &argument{index: 3, mask: unix.MAP_SHARED | unix.MAP_GROWSDOWN, values: []uint32{0}}},
		{why: "memory", does: allow,
			calls: []string{"munmap", "madvise", "mincore"}},
		{why: "its flags are in memory; the runtime does not need it", does: unknown,
			calls: []string{"clone3"}},
		{why: "threads begin and end", does: allow,
			calls: []string{"set_thread_area", "exit", "exit_group"}},
		{why: "who and where it is, what time it is, random octets", does: allow,
			calls: []string{"getpid", "gettid", "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid", "getegid32",
				"sched_getaffinity", "uname", "clock_gettime", "gettimeofday", "adjtimex", "getrandom"}},
		{why: "sockets that are open are asked", does: allow,
			calls: []string{"accept", "getsockname", "getpeername", "getsockopt"}},
		{why: "the speed of a link", does: allow,
			calls: []string{"ioctl"}, when: &argument{index: 1, mask: all, values: []uint32{unix.SIOCETHTOOL}}},
		{why: "descriptors that do not wait, and copies of them", does: allow,
			calls: []string{"fcntl", "fcntl64"}, when: &argument{index: 1, mask: all,
				values: []uint32{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC}}},
		{why: "the runtime reads its share of the processors", does: allow,
			calls: []string{"pread64"}},
	}
}

// executable says that memory is not.
var executable = argument{index: 2, mask: unix.PROT_EXEC, values: []uint32{0}}

// clone makes threads, and processes where a role starts some.
func clone(flags ...uint32) rule {
	return rule{why: "threads, and processes where a role starts some", does: allow,
		calls: []string{"clone"}, when: &argument{index: 0, mask: all &^ unix.CLONE_SETTLS, values: flags}}
}

// own says that a process interrupts its own threads; nobody else gets a signal.
func own(pid uint32) argument { return argument{index: 0, mask: all, values: []uint32{pid}} }

// named lets memory have a name in /proc/PID/maps, and nothing else be asked of prctl.
var named = rule{why: "memory has a name in /proc/PID/maps", does: allow,
	calls: []string{"prctl"}, when: &argument{index: 0, mask: all, values: []uint32{unix.PR_SET_VMA}}}

// i386 makes sockets by one call, whose arguments are in memory. These are the numbers of
// what it does with sockets that are open; 1 to 3 are socket, bind and connect, 4 is
// listen, 8 socketpair.
var socketcalls = []uint32{5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}

// front is the process that parses what the network sends. It has the sockets that the
// warden hands it, and gets no other; it opens no file, and there is nobody to whom it
// could send a signal. It makes no thread (makeThreads): who owns it could make all that its
// user, or the group of processes that holds both halves, may have. Likewise no poller: the
// wall has begun the one of its runtime, and each other could watch every descriptor again,
// until its user, which may be the warden's, may watch none (epoll(7), max_user_watches). Nor
// does it protect memory: what is read only does not count any more, and stays.
func front(pid uint32) role {
	rules := append(everyone(own(pid)), named,
		rule{why: "i386 asks so of sockets that are open", does: allow, calls: []string{"socketcall"},
			when: &argument{index: 0, mask: all, values: socketcalls}},
		rule{why: "what package net and our datagrams set of a socket; not SO_LINGER, whose last close would wait in the warden, and no groups, which may be of any link",
			does: allow, calls: []string{"setsockopt"}, when: &argument{index: 2, mask: all, values: []uint32{
				unix.TCP_NODELAY, unix.SO_KEEPALIVE, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.IP_PKTINFO, unix.IPV6_RECVPKTINFO}}},
		rule{why: "an answer is whole; a listener stays open, for one of them is the instance lock", does: allow,
			calls: []string{"shutdown"}, when: &argument{index: 1, mask: all, values: []uint32{unix.SHUT_WR}}})
	return role{otherwise: refuse, rules: rules}
}

// opener connects to the control socket for the process that serves the owner's page, which
// is a front, and has nothing else to do: it reads no octet of what passes there. It has one
// thread for each call that waits, and makes no more.
func opener(pid uint32) role {
	rules := append(everyone(own(pid)), named,
		rule{why: "the control socket, which no other kind of socket is", does: allow,
			calls: []string{"socket"}, when: &argument{index: 0, mask: all, values: []uint32{unix.AF_UNIX}}},
		rule{why: "likewise", does: allow, calls: []string{"connect"}},
		rule{why: "i386 does both by this call, and more that needs no privilege", does: allow,
			calls: []string{"socketcall"}, when: &argument{index: 0, mask: all, values: append([]uint32{1, 3}, socketcalls...)}},
		rule{why: "the end of the page is waited for", does: allow, calls: []string{"wait4"}})
	return role{otherwise: refuse, rules: rules}
}

// decides is what the half does that decides: it opens sockets, reads lease files and
// /proc/net, writes nf_tables and the state directory.
func decides(families, byOneCall []uint32) []rule {
	return []rule{
		{why: "the poller begins with the first socket", does: allow,
			calls: []string{"epoll_create1", "eventfd2"}},
		{why: "memory that cannot be executed", does: allow, calls: []string{"mprotect"}, when: &executable},
		{why: "sockets of the families that are served; not unix, by which root would be obeyed by other daemons", does: allow,
			calls: []string{"socket"}, when: &argument{index: 0, mask: all, values: families}},
		{why: "i386 makes sockets by this one call", does: allow,
			calls: []string{"socketcall"}, when: &argument{index: 0, mask: all, values: append(byOneCall, socketcalls...)}},
		{why: "LANs and event callbacks come and go", does: allow,
			calls: []string{"bind", "listen", "connect", "setsockopt", "shutdown"}},
		{why: "the journal, lease files, /proc/net and /proc/sys/net", does: allow,
			calls: []string{"openat", "pwrite64", "lseek", "_llseek", "getdents64", "fstat", "fstat64", "lstat64", "stat64",
				"newfstatat", "fstatat64", "statx", "faccessat", "readlinkat"}},
		{why: "lease files tell that they have changed", does: allow, calls: []string{"inotify_init1", "inotify_add_watch"}},
		{why: "the journal is written anew, and begins again when its directory has been replaced", does: allow,
			calls: []string{"unlinkat", "renameat", "renameat2", "mkdirat", "fchmodat", "fsync", "fdatasync", "ftruncate", "ftruncate64", "flock"}},
		{why: "what a child says, and whether it has begun, come by one", does: allow, calls: []string{"pipe2"}},
		{why: "the socket of the owner goes at the end; the directory of the journal is made anew", does: allow,
			calls: []string{"unlink", "mkdir"}},
	}
}

// single is the daemon in one process, which never starts a program.
func single(pid uint32, families []uint32) role {
	rules := append(everyone(own(pid)), named, clone(thread))
	return role{otherwise: refuse, rules: append(rules, decides(families, []uint32{1, 2, 3, 4})...)}
}

// warden is the process that decides, and starts the front, also anew. What the front does
// until its own sandbox has closed stands here as well: it begins in this one.
func warden(families []uint32) role {
	rules := append(everyone(argument{index: 2, mask: all, values: []uint32{uint32(unix.SIGURG), perThread}}), clone(thread, process),
		rule{why: "the front is started", does: allow, calls: []string{"execve", "dup3", "getppid"}},
		rule{why: "its end is waited for, and brought about; there is a descriptor of no other process", does: allow,
			calls: []string{"wait4", "pidfd_send_signal"}},
		rule{why: "the wall before it; no other daemon is behind such a socket", does: allow,
			calls: []string{"socketpair"}},
		rule{why: "it goes on as another user, of the two that are left; its sockets are that user's from the start", does: allow,
			calls: []string{"setresuid", "setresuid32", "setresgid", "setresgid32", "setfsuid", "setfsuid32"}},
		rule{why: "it closes its own sandbox, ends with the warden, and has few files", does: allow,
			calls: []string{"prctl"}, when: &argument{index: 0, mask: all, values: []uint32{
				unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_SET_PDEATHSIG, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS, unix.PR_SET_DUMPABLE,
				unix.PR_GET_DUMPABLE, unix.PR_SET_SECCOMP, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_CAPBSET_DROP, unix.PR_CAP_AMBIENT}}},
		rule{why: "likewise; each of them only takes away", does: allow,
			calls: []string{"seccomp", "capget", "capset", "prlimit64", "getrlimit", "ugetrlimit", "setrlimit",
				"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}},
		rule{why: "its runtime begins", does: allow, calls: []string{"arch_prctl"}})
	return role{otherwise: refuse, rules: append(rules, decides(families, []uint32{1, 2, 3, 4, 8})...)}
}

// hook is the program that the owner has told of events. It may be the warden's user, so it
// gets no unix socket, by which the control socket would take it for the owner, sends no signal
// and sets no limit of another process.
var hook = role{otherwise: allow, rules: append([]rule{
	{why: "sockets by which a message leaves; not unix", does: allow,
		calls: []string{"socket"}, when: &argument{index: 0, mask: all, values: []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}}},
	{why: "i386 makes sockets by it, whose arguments are in memory", does: refuse, calls: []string{"socketcall"}},
	{why: "pairs are no way to another process", does: allow, calls: []string{"socketpair"}},
	{why: "signals; what hangs is ended by what has started it", does: refuse,
		calls: []string{"kill", "tgkill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}},
	{why: "limits of its own", does: allow, calls: []string{"prlimit64"}, when: &argument{index: 0, mask: all, values: []uint32{0}}},
	{why: "how others are scheduled", does: refuse,
		calls: []string{"setpriority", "ioprio_set", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"}},
}, programs.rules...)}

// programs is the daemon where iptables writes its rules: it starts its programs, which
// are under the same filter. What none of them needs is refused.
var programs = role{otherwise: allow, rules: []rule{
	{why: "other processes", does: refuse,
		calls: []string{"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise"}},
	{why: "namespaces and mounts", does: refuse,
		calls: []string{"setns", "unshare", "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen",
			"fsconfig", "fsmount", "fspick", "mount_setattr"}},
	{why: "a process in a new namespace", does: allow,
		calls: []string{"clone"}, when: &argument{index: 0, mask: namespaces, values: []uint32{0}}},
	{why: "its flags are in memory; libc goes back to clone", does: unknown,
		calls: []string{"clone3"}},
	{why: "the kernel itself", does: refuse,
		calls: []string{"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
			"bpf", "perf_event_open", "syslog", "acct", "quotactl", "settimeofday", "clock_settime", "clock_settime64", "stime",
			"sethostname", "setdomainname", "iopl", "ioperm", "vm86", "vm86old", "modify_ldt"}},
	{why: "parts of the kernel that are often at fault, and that nobody here needs", does: refuse,
		calls: []string{"io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "keyctl", "add_key", "request_key",
			"name_to_handle_at", "open_by_handle_at", "fanotify_init", "lookup_dcookie", "personality", "move_pages", "migrate_pages",
			"mbind", "set_mempolicy"}},
	{why: "MIPS has calls by way of another call", does: refuse,
		calls: []string{"syscall"}},
}}
