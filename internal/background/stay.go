package background

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
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
func Stay(cfg Config, serves func() error) int {
	sandbox.LimitMemory(sandbox.MemoryOfFront)
	runtime.GOMAXPROCS(1)
	name(cfg.Name)
	s := &stay{cfg: cfg, log: newSyslog(cfg.Name, devLog), up: make(chan struct{}), aloud: os.Stderr}
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
	up  chan struct{} // closed when the daemon serves

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
func (s *stay) run(serves func() error) (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	defer signal.Stop(signals)
	d, err := s.start()
	if err != nil {
		return 1, err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		hear(d.life, func() { s.serving(serves) })
	}()
	go s.pass(signals, d)
	sandbox.Enter(sandbox.Config{Programs: true, Files: maxFiles})
	s.read(d.out)
	<-d.ended
	if d.life.CloseRead() != nil { // what the daemon has said is heard before that
		_ = d.life.Close()
	}
	<-heard
	if s.cfg.PidFile != "" {
		removePid(s.cfg.PidFile)
	}
	return d.status()
}

// pass hands signals on. What comes before the daemon serves, when most would end it, it does not
// need, but for what has it read its configuration again.
func (s *stay) pass(signals <-chan os.Signal, d *daemon) {
	up, held := s.up, false
	for {
		var sig os.Signal
		select {
		case <-d.ended:
			return
		case <-up:
			up = nil
		case sig = <-signals:
		}
		select {
		case <-up:
			up = nil
		default:
		}
		switch {
		case sig == unix.SIGTERM || sig == unix.SIGINT:
			d.signal(unix.SIGTERM)
		case sig == unix.SIGPIPE: // of who waited, and reads no more
		case up != nil:
			held = held || sig == unix.SIGHUP
		case sig != nil:
			d.signal(sig.(syscall.Signal))
		}
		if up == nil && held {
			held = false
			d.signal(unix.SIGHUP)
		}
	}
}

// serving says that the daemon serves.
func (s *stay) serving(serves func() error) {
	close(s.up)
	if s.cfg.PidFile != "" {
		f, err := WritePid(s.cfg.PidFile)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			s.say(fmt.Sprintf("<4>cannot write the pid file: %v", err))
		}
	}
	s.mu.Lock()
	s.aloud = nil
	s.mu.Unlock()
	if err := serves(); err != nil {
		s.say(fmt.Sprintf("<4>%v", err))
	}
}

// hear calls serves once, at the first READY=1 (sd_notify(3)), until nobody says anything any
// more.
func hear(from net.Conn, serves func()) {
	buf := make([]byte, 512)
	once := sync.OnceFunc(serves)
	for {
		n, err := from.Read(buf)
		if err != nil {
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
	life  *net.UnixConn // by which it says that it serves; open as long as this process lives
	ended chan struct{}

	mu  sync.Mutex
	pid int // guarded by mu; 0 after its end
	how syscall.WaitStatus
	err error
}

// start starts the daemon, which ends with this process (Kept).
func (s *stay) start() (*daemon, error) {
	out, log, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	life, in, err := pair()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	defer in.Close()
	env := []string{kept + "=1"}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != kept && name != "NOTIFY_SOCKET" && name != "JOURNAL_STREAM" && name != "WATCHDOG_USEC" && name != "WATCHDOG_PID" {
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

// pair returns the ends of a connection that nobody else can find or send to.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "life"), os.NewFile(uintptr(fds[1]), "life") // #nosec G115 -- descriptors
	conn, err := net.FileConn(mine)
	if err := errors.Join(err, mine.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// kept says in the environment of a daemon that standard input is a connection to the process
// that stays.
const kept = "PORTCULLIS_BACKGROUND"

// Kept returns a context that ends with ctx, and with the process that stays where that has
// started this one; and the connection to that process, nil where there is none. What is said
// there is in the words of sd_notify(3). A signal at its death (PR_SET_PDEATHSIG) would be lost
// where a program starts itself anew by another thread than its first.
func Kept(ctx context.Context) (context.Context, net.Conn, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(kept) == "" {
		return ctx, nil, cancel
	}
	life, err := net.FileConn(os.Stdin)
	if err != nil { // somebody has said so who is not that process
		return ctx, nil, cancel
	}
	go func() {
		for err := error(nil); err == nil; { // nothing is said there to us
			_, err = life.Read(make([]byte, 1))
		}
		cancel()
	}()
	return ctx, life, cancel
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
