package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Role is what kind of process this one is.
type Role uint8

// The roles; roles.go says what each may ask of the kernel.
const (
	Single Role = iota // the whole daemon in one process
	Warden             // the half that decides, which starts the other
	Front              // what parses what the network sends, and gets its sockets from another
	Opener             // what connects to the control socket for the owner's page
	Hook               // the program that the owner has told of events
)

// Config is what a process goes on with.
type Config struct {
	Role         Role
	Capabilities []Capability // that are kept, as far as they are there
	// Programs says that the process starts programs, which then go on with its
	// capabilities.
	Programs bool
	// PacketSockets says that it opens some.
	PacketSockets bool
	Files         uint64 // descriptors at most; at least 1
	Tasks         uint64 // processes and threads of its user at most, before it makes another; 0: no limit
	Data          uint64 // octets of memory of its own at most, those of the runtime included; 0: no limit
	Paths         *Paths // nil: any file, as its user may
	// User is who the front is, if it can be another than the warden: a Front goes on as
	// it, a Warden that is root can start one. Zero: the same.
	User User
	// Open, if not nil, opens what the process needs and can have without what is taken from
	// it, but could not when its filter is there.
	Open func() error
}

// State is what is in force.
type State struct {
	User         uint32 // effective
	Apart        bool   // Config.User is in force
	Capabilities []Capability
	NoNewPrivs   bool
	Seccomp      bool // a filter is on every thread
	Landlock     int  // the version of its interface that is used on every thread; 0: none
	Dumpable     bool // others of the same user may look into the process
	// Missing is why something is not in force that should be, nil when all is.
	Missing []error
}

// Enter takes from the process what cfg does not name. What the machine lacks is left out,
// and stands in State.Missing. It is called once.
func Enter(cfg Config) State {
	var missing []error
	try := func(what string, err error) bool {
		if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", what, err))
		}
		return err == nil
	}
	try("limit core dumps", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	try("limit open files", limitFiles(cfg.Files))
	try("limit processes", limitTasks(cfg.Tasks))
	try("limit memory", limitData(cfg.Data))
	try("hide memory", hide())
	apart := cfg.User != User{} && try("another user for the front", cfg.User.enter(cfg.Role))
	landlock := 0
	if try("no_new_privs", onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)) && cfg.Paths != nil {
		abi, err := confine(*cfg.Paths, cfg.Programs) // with the capabilities by which directories are reached
		if try("Landlock", err) {
			landlock = abi
		}
	}
	try("capabilities", dropCapabilities(cfg.Capabilities, cfg.Programs))
	s := Look()
	s.Landlock, s.Apart = landlock, apart
	if cfg.Open != nil {
		try("open what is needed", cfg.Open())
	}
	if cfg.Role == Warden || cfg.Role == Front || cfg.Role == Opener {
		makeThreads(runtime.GOMAXPROCS(0) + spareThreads) // two of them cannot later; with all that was taken
	}
	s.Seccomp = try("seccomp", enforce(cfg)) // after it, the rest could not be asked for
	s.Missing = missing
	return s
}

// Lacks returns what is Missing, a line each.
func (s State) Lacks() []string {
	lines := make([]string, len(s.Missing))
	for i, err := range s.Missing {
		lines[i] = strings.ReplaceAll(err.Error(), "\n", "; ") // of errors.Join
	}
	return lines
}

// Look returns what is in force without Enter.
func Look() State {
	s := State{User: uint32(os.Geteuid())} // #nosec G115 -- the kernel's are
	if held, err := capabilitiesNow(); err == nil {
		s.Capabilities = held.effective()
	}
	is := func(option int) bool {
		n, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
		return err == nil && n != 0
	}
	s.NoNewPrivs, s.Dumpable, s.Seccomp = is(unix.PR_GET_NO_NEW_PRIVS), is(unix.PR_GET_DUMPABLE), is(unix.PR_GET_SECCOMP)
	return s
}

// limitFiles lowers the limit to most.
func limitFiles(most uint64) error { return lower(unix.RLIMIT_NOFILE, most) }

// limitTasks likewise.
func limitTasks(most uint64) error {
	if most == 0 {
		return nil
	}
	return lower(unix.RLIMIT_NPROC, most)
}

func lower(limit int, most uint64) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(limit, &l); err != nil {
		return err
	}
	l.Cur, l.Max = min(l.Cur, most), min(l.Max, most)
	return unix.Setrlimit(limit, &l)
}

// addresses is how many times as many octets of addresses a process has as of memory: the
// runtime reserves more than 1 GB where they have 64 bits.
const addresses = 32

// limitData lowers the limit to most, and that of addresses.
func limitData(most uint64) error {
	if most == 0 {
		return nil
	}
	if err := onAllThreads(unix.SYS_GETPID, 0, 0, 0); err != nil {
		return err // the C library's threads have megabytes of stack each
	}
	if err := lower(unix.RLIMIT_DATA, most); err != nil {
		return err
	}
	// Of memory that is only read the tables of pages take a 512th, and count nowhere else.
	return lower(unix.RLIMIT_AS, addresses*most)
}

// enforce puts the filter of the role on every thread.
func enforce(cfg Config) error {
	if native.audit == 0 {
		return fmt.Errorf("there is no filter for %s", runtime.GOARCH)
	}
	if err := onAllThreads(unix.SYS_GETPID, 0, 0, 0); err != nil {
		return err // the C library makes its threads in ways that a filter does not know
	}
	code, err := assemble(filter(native, cfg.role(uint32(os.Getpid())))) // #nosec G115 -- the kernel's are
	if err != nil {
		return err
	}
	return install(code)
}

// role returns that of the process pid.
func (cfg Config) role(pid uint32) role {
	families := []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	if cfg.PacketSockets {
		families = append(families, unix.AF_PACKET)
	}
	switch {
	case cfg.Role == Front:
		return front(pid)
	case cfg.Role == Opener:
		return opener(pid)
	case cfg.Role == Hook:
		return hook
	case cfg.Programs:
		return programs
	case cfg.Role == Warden:
		return warden(families)
	}
	return single(pid, families)
}

// assemble returns a filter as the kernel takes it.
func assemble(program []bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return code, nil
}

// install puts a filter on every thread. The filters of service managers often lack
// seccomp(2), and have prctl(2), by which each thread does it for itself.
func install(code []unix.SockFilter) error {
	program := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(program)))
	if errno == unix.EPERM || errno == unix.ENOSYS {
		thread, _, errno = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(program)))
	}
	runtime.KeepAlive(code)
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}
