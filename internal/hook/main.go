package hook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/sandbox"
)

// Argument is what the program is started with to be the process between the daemon and the
// hook; with more arguments it becomes the hook itself. It is no command: people do not call it.
const Argument = "hook"

const (
	name = "portcullis"

	cannotKeep = 3 // the exit status of a process between that could do too much

	reports  = 3 // the descriptor by which the daemon hears of the program's ends
	waiting  = 256
	patience = 30 * time.Second // for the program to take an event
	goodbye  = 2 * time.Second  // and to end, when there are no more

	firstPause = time.Second
	lastPause  = time.Minute
	livesLong  = time.Minute
	reapEvery  = time.Second // of what the hook has left and has ended

	maxFiles = 256
	maxTasks = 256 // processes and threads of its user, on the whole machine
	maxData  = 512 << 20
	maxEvent = 64 << 10
)

// Main is the process between them, or what becomes the hook. It returns the exit status.
func Main(args []string) int {
	if len(args) > 1 && args[0] == "exec" {
		return become(args[1:])
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "portcullis: `portcullis run` starts the hook")
		return 2
	}
	runtime.LockOSThread() // the hook ends with this thread
	// What the hook leaves behind becomes our child, and ends with the hook (bury).
	adopts := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	// A terminal or a supervisor that ends the daemon tells all its processes; we end with it.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	sandbox.LimitMemory(sandbox.MemoryOfFront)
	runtime.GOMAXPROCS(1)
	unix.CloseOnExec(reports)
	_ = sandbox.CloseOnExec(reports) // what cannot be listed is ours alone, which is closed
	s := sandbox.Enter(sandbox.Config{Programs: true, Files: maxFiles})
	k := &keeper{command: args, report: os.NewFile(reports, "reports"), lines: make(chan []byte, waiting), patience: patience}
	if adopts != nil { // before Linux 3.4
		s.Missing = append(s.Missing, fmt.Errorf("adopt what the hook leaves: %w", adopts))
	}
	if len(s.Capabilities) > 0 || !s.NoNewPrivs || adopts != nil {
		k.say("cannot %s", strings.Join(s.Lacks(), "; "))
		return cannotKeep
	}
	open, stop := context.WithCancel(context.Background())
	k.open = open
	go func() {
		defer stop()
		k.read(os.Stdin)
	}()
	k.run(k.once)
	return 0
}

// become takes from the process what the hook must not have, and is the hook then.
func become(args []string) int {
	use := []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/run", "/proc", "/sys", "/dev", "/rom"}
	if own := filepath.Dir(args[0]); own != "/" {
		use = append(use, own)
	}
	s := sandbox.Enter(sandbox.Config{Role: sandbox.Hook, Files: maxFiles, Tasks: maxTasks, Data: maxData, Paths: &sandbox.Paths{Use: use, Files: []string{os.DevNull}}})
	if same := os.Getenv(sameUser) != ""; !s.Seccomp || same && s.Landlock == 0 || len(s.Capabilities) > 0 || !s.NoNewPrivs {
		fmt.Fprintln(os.Stderr, "not started, because it could do what it should not:", strings.Join(s.Lacks(), "; "))
		return 1
	}
	// What is caught is as at the beginning after exec(2), what is ignored would stay so.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	fmt.Fprintln(os.Stderr, "cannot start:", unix.Exec(args[0], args, nil))
	return 1
}

// sameUser is set in the environment of what becomes the hook where it is the daemon's user.
const sameUser = "PORTCULLIS_SAME_USER"

// keeper keeps one hook running.
type keeper struct {
	command []string
	report  *os.File
	lines   chan []byte     // events that wait
	open    context.Context // ends when the daemon has no more
	group   bool            // the hook is a group of processes of its own

	patience time.Duration // for the hook to take an event
}

// say tells the daemon a line.
func (k *keeper) say(format string, args ...any) { _, _ = fmt.Fprintf(k.report, format+"\n", args...) }

// read takes events from the daemon at once, and leaves out those that there is no room for.
func (k *keeper) read(from io.Reader) {
	in := bufio.NewScanner(from)
	in.Buffer(make([]byte, 4096), maxEvent)
	for in.Scan() {
		select {
		case k.lines <- append([]byte(in.Text()), '\n'):
		default:
			k.say("missed")
		}
	}
}

// run has the hook live again and again, until the daemon has no more events.
func (k *keeper) run(once func() (over bool)) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		over := once()
		if over {
			return
		}
		if time.Since(began) > livesLong {
			pause = firstPause
		}
		select {
		case <-k.open.Done():
			return
		case <-time.After(pause):
		}
	}
}

// once is one life of the hook. It reports whether there will be no other.
func (k *keeper) once() (over bool) {
	from, to, err := os.Pipe()
	if err != nil {
		k.say("cannot %v", err)
		return false
	}
	pid, err := k.start(from)
	_ = from.Close() // the hook alone has it
	if err != nil {
		_ = to.Close()
		k.say("cannot %v", err)
		return false
	}
	k.say("started %d", pid)
	all := -pid // the hook and what it has started
	if !k.group {
		all = pid
	}
	ended := make(chan syscall.WaitStatus, 1)
	go func() {
		ended <- wait(pid, all)
		close(ended)
	}()
	defer func() { // before there is another
		for range ended { // bury would take its number from wait
		}
		bury()
	}()
	// At the end it has less time to take what is left.
	stop := context.AfterFunc(k.open, func() { _ = to.SetWriteDeadline(time.Now().Add(goodbye)) })
	why := k.feed(to, ended)
	stop()
	_ = to.Close()
	over = k.open.Err() != nil
	if why == "" { // it is asked to end
		select {
		case how := <-ended:
			k.say("ended %s", outcome(how))
			return over
		case <-time.After(goodbye):
			why = "it did not end"
		}
	}
	_ = unix.Kill(all, unix.SIGKILL) // wait holds its number
	k.say("ended %s", why)
	return over
}

// wait waits for the end of the hook, and ends what it leaves, while its number is still taken.
func wait(pid, all int) (how syscall.WaitStatus) {
	for ended(unix.P_ALL, 0, 0) && !ended(unix.P_PID, pid, unix.WNOHANG) {
		for _, orphan := range children("Z") {
			if orphan != pid {
				reap(orphan)
			}
		}
		time.Sleep(reapEvery)
	}
	_ = unix.Kill(all, unix.SIGKILL)
	return reap(pid)
}

// ended reports whether such a child has ended that has not been reaped; without WNOHANG it waits
// for one.
func ended(kind, pid, options int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(kind, pid, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if err != unix.EINTR {
			return err == nil && info.Signo != 0
		}
	}
}

func reap(pid int) (how syscall.WaitStatus) {
	for {
		if _, err := syscall.Wait4(pid, &how, 0, nil); err != syscall.EINTR {
			return how
		}
	}
}

// bury ends what the hook has left out of its group, and what that leaves.
func bury() {
	for left := children(""); len(left) > 0; left = children("") {
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for _, pid := range left {
			reap(pid)
		}
	}
}

// children returns our own that are in this state; "": all. Not every kernel has
// /proc/self/task/*/children.
func children(state string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is one
	for _, name := range all {
		text, _ := os.ReadFile(name) // of one that has gone there is none
		// pid (name) state parent ..., where the name is the program's own.
		number, _, _ := strings.Cut(string(text), " ")
		rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, err := strconv.Atoi(number)
		if err == nil && len(rest) > 1 && rest[1] == strconv.Itoa(os.Getpid()) && (state == "" || state == rest[0]) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// feed hands on events until the hook has ended, hangs, or there are no more; then it returns
// "", else why the hook is over.
func (k *keeper) feed(to *os.File, ended chan syscall.WaitStatus) (why string) {
	for {
		select {
		case how := <-ended:
			return outcome(how)
		case <-k.open.Done():
			if len(k.lines) == 0 {
				return ""
			}
			why = k.hand(to, <-k.lines)
		case line := <-k.lines:
			why = k.hand(to, line)
		}
		if why != "" {
			return why
		}
	}
}

// hand writes one event.
func (k *keeper) hand(to *os.File, line []byte) (why string) {
	if k.open.Err() == nil {
		_ = to.SetWriteDeadline(time.Now().Add(k.patience))
	}
	if _, err := to.Write(line); err != nil {
		k.say("missed")
		if os.IsTimeout(err) {
			return "it has read nothing for " + k.patience.String()
		}
		return "it does not read"
	}
	return ""
}

// start starts the hook on this thread, with which it ends.
func (k *keeper) start(in *os.File) (pid int, err error) {
	attr := &syscall.ProcAttr{
		Env: os.Environ(), Dir: "/", Files: []uintptr{in.Fd(), 1, 2},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	argv := append([]string{name, Argument, "exec"}, k.command...)
	pid, err = syscall.ForkExec("/proc/self/exe", argv, attr)
	if k.group = err == nil; errors.Is(err, syscall.EPERM) { // the unit for systemd has taken setpgid(2), and ends what is left itself
		attr.Sys.Setpgid = false
		pid, err = syscall.ForkExec("/proc/self/exe", argv, attr)
	}
	return pid, err
}

// outcome says how a process has ended.
func outcome(how syscall.WaitStatus) string {
	if how.Signaled() {
		return fmt.Sprintf("signal %d (%s)", how.Signal(), how.Signal())
	}
	return fmt.Sprintf("exit status %d", how.ExitStatus())
}
