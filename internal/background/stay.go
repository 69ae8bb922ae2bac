package background

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/sandbox"
)

// maxLine is how much of a line of the log is handed on, in octets.
const maxLine = 4096

// maxFiles is more than the process needs that stays.
const maxFiles = 64

// Stay is the process that stays, in this process. It calls serves when the daemon serves, and
// returns its exit status when it has ended.
func Stay(cfg Config, serves func()) int {
	sandbox.LimitMemory(sandbox.MemoryOfFront)
	runtime.GOMAXPROCS(1)
	name(cfg.Name)
	s := &stay{cfg: cfg, log: newSyslog(cfg.Name, devLog), aloud: os.Stderr}
	code, err := s.run(serves)
	if err != nil {
		s.say(fmt.Sprintf("%s: %v", cfg.Name, err))
		code = 1
	}
	return code
}

// name gives this process a name in lists of processes.
func name(text string) { _ = os.WriteFile("/proc/self/comm", []byte(text), 0) }

type stay struct {
	cfg Config
	log *syslog

	mu    sync.Mutex
	aloud io.Writer // guarded by mu; who waits hears what goes wrong; nil: nobody waits
}

// say hands on a line of the log.
func (s *stay) say(line string) {
	priority, text := priorityOf(line)
	s.log.send(priority, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aloud != nil && priority <= failure {
		fmt.Fprintln(s.aloud, text)
	}
}

// run starts the daemon and waits for its end.
func (s *stay) run(serves func()) (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	told := "@portcullis-" + rand.Text()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: told})
	if err != nil {
		return 1, err
	}
	defer notify.Close()
	end, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: told})
	if err != nil {
		return 1, err
	}
	defer end.Close()
	d, err := s.start(told)
	if err != nil {
		return 1, err
	}
	last, heard := rand.Text(), make(chan struct{})
	go func() {
		defer close(heard)
		s.hear(notify, last, func() { s.serving(serves) })
	}()
	go func() {
		for sig := range signals {
			if sig == unix.SIGINT {
				sig = unix.SIGTERM
			}
			d.signal(sig.(syscall.Signal))
		}
	}()
	sandbox.Enter(sandbox.Config{Programs: true, Files: maxFiles})
	s.read(d.out)
	<-d.ended
	if _, err := end.Write([]byte(last)); err != nil { // behind all that the daemon has said
		_ = notify.Close()
	}
	<-heard
	if s.cfg.PidFile != "" {
		if b, err := os.ReadFile(s.cfg.PidFile); err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
			_ = os.Remove(s.cfg.PidFile)
		}
	}
	return d.status()
}

// serving says that the daemon serves.
func (s *stay) serving(serves func()) {
	if s.cfg.PidFile != "" {
		if err := os.WriteFile(s.cfg.PidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil { // #nosec G306 -- everybody may read it
			s.say(fmt.Sprintf("<4>cannot write the pid file: %v", err))
		}
	}
	s.mu.Lock()
	s.aloud = nil
	s.mu.Unlock()
	serves()
}

// hear calls serves once, at the first READY=1 (sd_notify(3)), until it hears the last word.
func (s *stay) hear(notify *net.UnixConn, last string, serves func()) {
	buf := make([]byte, 512)
	once := sync.OnceFunc(serves)
	for {
		n, err := notify.Read(buf)
		if err != nil || string(buf[:n]) == last {
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				once()
			}
		}
	}
}

// read hands on what the daemon logs, until it and all that it has started have ended.
func (s *stay) read(out io.ReadCloser) {
	defer out.Close()
	in := bufio.NewReaderSize(out, maxLine)
	for rest := false; ; {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		if !rest {
			s.say(string(line))
		}
		rest = more
	}
}

// daemon is the one that was started.
type daemon struct {
	out   io.ReadCloser // its log
	life  *os.File      // open as long as this process lives, and nobody writes to it
	ended chan struct{}

	mu  sync.Mutex
	pid int // guarded by mu; 0 after its end
	how syscall.WaitStatus
	err error
}

// start starts the daemon, which ends with this process (WhileKept).
func (s *stay) start(told string) (*daemon, error) {
	out, log, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	in, life, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	defer in.Close()
	env := []string{"NOTIFY_SOCKET=" + told, kept + "=1"}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "NOTIFY_SOCKET" && name != "JOURNAL_STREAM" && name != "WATCHDOG_USEC" && name != "WATCHDOG_PID" {
			env = append(env, v)
		}
	}
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{in.Fd(), log.Fd(), log.Fd()}}
	pid, err := syscall.ForkExec(self, append([]string{s.cfg.Name}, s.cfg.Args...), attr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), out.Close(), life.Close())
	}
	d := &daemon{out: out, life: life, ended: make(chan struct{}), pid: pid}
	go d.wait(pid)
	return d, nil
}

// kept says in the environment of a daemon that standard input ends with the process that stays.
const kept = "PORTCULLIS_BACKGROUND"

// WhileKept returns a context that ends with ctx, and with the process that stays where that has
// started this one. A signal at its death (PR_SET_PDEATHSIG) would be lost where a program starts
// itself anew by another thread than its first.
func WhileKept(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(kept) == "" || unix.SetNonblock(0, true) != nil {
		return ctx, cancel
	}
	life := os.NewFile(0, "life")
	go func() {
		_, _ = io.Copy(io.Discard, life)
		cancel()
	}()
	return ctx, cancel
}

func (d *daemon) wait(pid int) {
	// It is waited for without being reaped, so that no signal goes to another process.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if _, d.err = syscall.Wait4(pid, &d.how, 0, nil); d.err != syscall.EINTR {
			break
		}
	}
	d.pid = 0
	close(d.ended)
}

func (d *daemon) signal(s syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pid > 0 {
		_ = syscall.Kill(d.pid, s)
	}
}

// status returns its exit status, after its end.
func (d *daemon) status() (int, error) {
	switch {
	case d.err != nil:
		return 1, d.err
	case d.how.Signaled():
		return 1, fmt.Errorf("the daemon was ended by signal %d (%s)", d.how.Signal(), d.how.Signal())
	}
	return d.how.ExitStatus(), nil
}
