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

// single is the daemon in one process: it serves the LANs, writes nf_tables and the state
// directory, and never starts a program. What it uses most stands first.
func single(pid uint32, families []uint32) role {
	return role{otherwise: refuse, rules: []rule{
		{why: "the runtime waits and wakes", does: allow,
			calls: []string{"futex", "futex_time64", "nanosleep", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_ctl", "sched_yield"}},
		{why: "files and sockets that are open", does: allow,
			calls: []string{"read", "write", "recvmsg", "sendmsg", "recvfrom", "sendto", "close", "accept4", "readv", "writev"}},
		{why: "the runtime interrupts its own threads; nobody else gets a signal", does: allow,
			calls: []string{"tgkill"}, when: &argument{index: 0, mask: all, values: []uint32{pid}}},
		{why: "signals, and the way back from their handlers", does: allow,
			calls: []string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall"}},
		{why: "memory that cannot be executed", does: allow,
			calls: []string{"mmap", "mmap2", "mprotect"}, when: &argument{index: 2, mask: unix.PROT_EXEC, values: []uint32{0}}},
		{why: "memory", does: allow,
			calls: []string{"munmap", "madvise", "mincore"}},
		{why: "memory has a name in /proc/PID/maps", does: allow,
			calls: []string{"prctl"}, when: &argument{index: 0, mask: all, values: []uint32{unix.PR_SET_VMA}}},
		{why: "threads, never processes", does: allow,
			calls: []string{"clone"}, when: &argument{index: 0, mask: all &^ unix.CLONE_SETTLS, values: []uint32{thread}}},
		{why: "its flags are in memory; the runtime does not need it", does: unknown,
			calls: []string{"clone3"}},
		{why: "threads begin and end", does: allow,
			calls: []string{"set_thread_area", "exit", "exit_group"}},
		{why: "who and where it is, what time it is, random octets", does: allow,
			calls: []string{"getpid", "gettid", "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid", "getegid32",
				"sched_getaffinity", "uname", "clock_gettime", "gettimeofday", "adjtimex", "getrandom"}},
		{why: "sockets of the families that are served; not unix, by which root would be obeyed by other daemons", does: allow,
			calls: []string{"socket"}, when: &argument{index: 0, mask: all, values: families}},
		{why: "i386 makes sockets by this one call, whose arguments are in memory; 8 is socketpair", does: allow,
			calls: []string{"socketcall"}, when: &argument{index: 0, mask: all,
				values: []uint32{1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}}},
		{why: "LANs and event callbacks come and go", does: allow,
			calls: []string{"bind", "listen", "connect", "accept", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt"}},
		{why: "the speed of a link", does: allow,
			calls: []string{"ioctl"}, when: &argument{index: 1, mask: all, values: []uint32{unix.SIOCETHTOOL}}},
		{why: "descriptors that do not wait", does: allow,
			calls: []string{"fcntl", "fcntl64"}, when: &argument{index: 1, mask: all,
				values: []uint32{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC}}},
		{why: "the poller begins with the first socket", does: allow,
			calls: []string{"epoll_create1", "eventfd2", "pipe2"}},
		{why: "the journal, lease files, /proc/net and /proc/sys/net; the runtime reads its share of the processors", does: allow,
			calls: []string{"openat", "pread64", "pwrite64", "lseek", "_llseek", "getdents64", "fstat", "fstat64", "lstat64", "stat64",
				"newfstatat", "fstatat64", "statx", "faccessat", "readlinkat"}},
		{why: "the journal is written anew, and begins again when its directory has been replaced", does: allow,
			calls: []string{"unlinkat", "renameat", "renameat2", "mkdirat", "fchmodat", "fsync", "fdatasync", "ftruncate", "ftruncate64", "flock"}},
		{why: "the socket of the owner goes at the end; the directory of the journal is made anew", does: allow,
			calls: []string{"unlink", "mkdir"}},
	}}
}

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
