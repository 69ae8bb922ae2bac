package background

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the process that stays, and the daemon that it starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == Argument:
		os.Exit(Main(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == "launch":
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		if err := Launch(ctx, Config{Name: "fake", PidFile: os.Args[2], Args: os.Args[3:]}); err != nil {
			fmt.Fprintln(os.Stderr, "launch:", err)
			os.Exit(1)
		}
		os.Exit(0)
	case len(os.Args) > 1 && os.Args[1] == "reads":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case os.Getenv(kept) != "":
		os.Exit(daemonOf(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// daemonOf is a daemon, which keeps notes of what it hears in the file that it is given.
func daemonOf(args []string) int {
	notes, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 9
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals)
	fmt.Fprintln(os.Stderr, "<6>quiet")
	if args[0] == "fails" {
		fmt.Fprintln(os.Stderr, "<3>level=ERROR msg=one\n<4>level=WARN msg=two\nportcullis: three")
		return 5
	}
	ctx, waits, stop := Kept(context.Background())
	defer stop()
	if waits == nil {
		return 8
	}
	fmt.Fprint(waits, "STATUS=not yet READY=1")
	if args[0] == "strangers" {
		return strangers()
	}
	if args[0] == "early" {
		fmt.Fprintln(notes, os.Getppid())
		if s := opened(ctx, args[2], signals); s != nil {
			fmt.Fprintln(notes, s, "before it served")
			return 0
		}
	}
	fmt.Fprint(waits, "STATUS=up\nREADY=1")
	fmt.Fprintln(notes, "serves")
	if args[0] == "ends" {
		return 0
	}
	if args[0] == "alone" { // there is no pid file
		fmt.Fprintln(notes, os.Getppid())
	}
	for {
		select {
		case s := <-signals:
			if s == unix.SIGURG || s == unix.SIGPIPE {
				continue
			}
			fmt.Fprintln(notes, s)
			if s == unix.SIGTERM {
				return 0
			}
		case <-ctx.Done():
			fmt.Fprintln(notes, "alone")
			return 0
		}
	}
}

// opened waits until a FIFO has been opened, and returns nil, or the signal that came before that.
func opened(ctx context.Context, fifo string, signals <-chan os.Signal) os.Signal {
	go func() {
		if f, err := os.Open(fifo); err == nil {
			_ = f.Close()
		}
		_ = unix.Kill(os.Getpid(), unix.SIGWINCH) // which is heard behind all that came before
	}()
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGURG:
			case unix.SIGWINCH:
				return nil
			default:
				return s
			}
		case <-ctx.Done():
			return unix.SIGKILL
		}
	}
}

// strangers says that a daemon serves as anybody on the machine could, and ends before it does.
func strangers() int {
	all, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return 8
	}
	for _, name := range regexp.MustCompile("@portcullis-[A-Z0-9]+").FindAllString(string(all), -1) {
		if conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: name}); err == nil {
			fmt.Fprint(conn, "READY=1")
		}
	}
	fmt.Fprintln(os.Stderr, "it never served")
	return 5
}

// launched runs a process that launches a daemon, and returns what it says and its error.
func launched(t *testing.T, pidFile string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"launch", pidFile}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// TestLaunch: who launches a daemon returns when it serves, with its number in the pid file, and
// holds nothing of it; signals reach it; the file goes with it, also when the process that
// stays is killed.
func TestLaunch(t *testing.T) {
	t.Parallel()
	for _, end := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		t.Run(unix.SignalName(end), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			pidFile, notes := filepath.Join(dir, "pid"), filepath.Join(dir, "notes")
			if said, err := launched(t, pidFile, "serves", notes); err != nil || said != "" {
				t.Fatalf("%v\n%s", err, said)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(text(t, pidFile)))
			if err != nil {
				t.Fatal(err)
			}
			if session, err := unix.Getsid(pid); err != nil || session != pid {
				t.Errorf("its session is %d, %v", session, err)
			}
			if is := text(t, fmt.Sprintf("/proc/%d/comm", pid)); is != "fake\n" {
				t.Errorf("it is called %q", is)
			}
			eventually(t, "it serves", func() bool { return text(t, notes) == "serves\n" })
			for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2} {
				before := text(t, notes)
				if err := unix.Kill(pid, s); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the daemon hears "+s.String(), func() bool { return text(t, notes) == before+s.String()+"\n" })
			}
			if err := unix.Kill(pid, end); err != nil {
				t.Fatal(err)
			}
			last := map[unix.Signal]string{unix.SIGKILL: "alone\n"}[end]
			if last == "" {
				last = unix.SIGTERM.String() + "\n"
			}
			eventually(t, "the daemon ends", func() bool { return strings.HasSuffix(text(t, notes), last) })
			if end != unix.SIGKILL {
				eventually(t, "the pid file is gone", func() bool { return text(t, pidFile) == "" })
			}
		})
	}
}

// TestLaunchFails: a daemon that ends before it serves has said why on standard error, its errors
// alone; nothing is left, and a pid file of another stays.
func TestLaunchFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	if err := os.WriteFile(pidFile, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "level=ERROR msg=one\nportcullis: three\nlaunch: " // and what launch returns
	if said, err := launched(t, pidFile, "fails", filepath.Join(dir, "notes")); err == nil || said != want+ErrEnded.Error()+"\n" {
		t.Errorf("%v, want %s:\n%s", err, want, said)
	}
	if is := text(t, pidFile); is != "1\n" {
		t.Errorf("the pid file is %q", is)
	}
	served := filepath.Join(dir, "served")
	if said, err := launched(t, filepath.Join(dir, "missing", "pid"), "alone", served); err != nil || said != "" {
		t.Errorf("a pid file that cannot be written: %v\n%s", err, said)
	}
	eventually(t, "it serves", func() bool { return strings.Count(text(t, served), "\n") == 2 })
	if pid, err := strconv.Atoi(strings.Fields(text(t, served))[1]); err != nil || unix.Kill(pid, unix.SIGTERM) != nil {
		t.Errorf("it is process %d, %v", pid, err)
	}
	eventually(t, "it ends", func() bool { return strings.HasSuffix(text(t, served), unix.SIGTERM.String()+"\n") })
}

// TestLaunchStrangers: nobody else can say that the daemon serves.
func TestLaunchStrangers(t *testing.T) {
	t.Parallel()
	said, err := launched(t, filepath.Join(t.TempDir(), "pid"), "strangers", filepath.Join(t.TempDir(), "notes"))
	if err == nil || !strings.Contains(said, "it never served\nlaunch: "+ErrEnded.Error()) {
		t.Errorf("%v\n%s", err, said)
	}
}

// early is a daemon that is being launched and does not serve yet.
type early struct {
	t                   *testing.T
	cmd                 *exec.Cmd
	out                 bytes.Buffer
	stays               int
	pidFile, notes, may string
}

func launchEarly(t *testing.T) *early {
	t.Helper()
	dir := t.TempDir()
	e := &early{t: t, pidFile: filepath.Join(dir, "pid"), notes: filepath.Join(dir, "notes"), may: filepath.Join(dir, "may")}
	if err := unix.Mkfifo(e.may, 0o600); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command("/proc/self/exe", "launch", e.pidFile, "early", e.notes, e.may)
	e.cmd.Stdout, e.cmd.Stderr = &e.out, &e.out
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it begins", func() bool { return strings.HasSuffix(text(t, e.notes), "\n") })
	var err error
	if e.stays, err = strconv.Atoi(strings.TrimSpace(text(t, e.notes))); err != nil {
		t.Fatal(err)
	}
	return e
}

// serve lets it serve.
func (e *early) serve() {
	e.t.Helper()
	f, err := os.OpenFile(e.may, os.O_RDWR, 0) // which does not wait
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = f.Close() })
}

// returned waits until who has launched it returns, and nobody holds what he was given.
func (e *early) returned() error {
	e.t.Helper()
	done := make(chan error, 1)
	go func() { done <- e.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		_ = unix.Kill(e.stays, unix.SIGKILL)
		e.t.Fatal("somebody holds standard error")
		return nil
	}
}

// heard waits until the daemon has written this as its last words.
func (e *early) heard(last string) {
	e.t.Helper()
	eventually(e.t, last, func() bool { return strings.HasSuffix(text(e.t, e.notes), last+"\n") })
}

func (e *early) send(pid int, all ...unix.Signal) {
	e.t.Helper()
	for _, s := range all {
		if err := unix.Kill(pid, s); err != nil {
			e.t.Fatal(err)
		}
	}
}

// TestLaunchSignals: before the daemon serves, a signal that tells it to read something again, or
// that a terminal has closed, ends none of the three; it reads its configuration again then.
func TestLaunchSignals(t *testing.T) {
	t.Parallel()
	e := launchEarly(t)
	e.send(e.cmd.Process.Pid, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	e.send(e.stays, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGHUP)
	e.serve()
	if err := e.returned(); err != nil || e.out.String() != "" {
		t.Fatalf("%v\n%s", err, &e.out)
	}
	eventually(t, "SIGHUP", func() bool {
		return strings.Contains(text(t, e.notes), "\nserves\n") && strings.Contains(text(t, e.notes), unix.SIGHUP.String())
	})
	if is := text(t, e.notes); strings.Contains(is, "before") {
		t.Errorf("the daemon notes\n%s", is)
	}
	e.send(e.stays, unix.SIGTERM)
	e.heard(unix.SIGTERM.String())
}

// TestHeldBack: a signal that comes before the daemon serves does not reach it; SIGHUP does when
// it serves.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	e := &early{t: t, notes: filepath.Join(t.TempDir(), "notes"), may: filepath.Join(t.TempDir(), "may")}
	if err := unix.Mkfifo(e.may, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &stay{cfg: Config{Name: "fake", Args: []string{"early", e.notes, e.may}}, up: make(chan struct{})}
	d, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it begins", func() bool { return text(t, e.notes) != "" })
	signals := make(chan os.Signal)
	go s.pass(signals, d)
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGPIPE, unix.SIGPIPE} { // with the last the others are done
		signals <- sig
	}
	e.serve()
	hear(d.life, func() { close(s.up); e.heard("serves\n" + unix.SIGHUP.String()); signals <- unix.SIGTERM })
	<-d.ended
	e.heard(unix.SIGTERM.String())
}

// TestLaunchStops: SIGTERM before the daemon serves ends all three, and is said; so is the end of
// the process that stays.
func TestLaunchStops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		to   func(*early) int
		s    unix.Signal
		want string
	}{
		"who launches": {func(e *early) int { return e.cmd.Process.Pid }, unix.SIGTERM, "launch: stopped by a signal before it served\n"},
		"who stays":    {func(e *early) int { return e.stays }, unix.SIGTERM, "launch: stopped by a signal before it served\n"},
		"killed":       {func(e *early) int { return e.stays }, unix.SIGKILL, "launch: the process that stays ended before the daemon served: signal: killed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := launchEarly(t)
			e.send(c.to(e), c.s)
			if err := e.returned(); err == nil || e.out.String() != c.want {
				t.Errorf("%v, want %s%s", err, c.want, &e.out)
			}
			e.heard("before it served")
		})
	}
}

// TestLaunchAlone: when who launches is killed the daemon serves all the same, and nobody holds
// what he was given.
func TestLaunchAlone(t *testing.T) {
	t.Parallel()
	e := launchEarly(t)
	e.send(e.cmd.Process.Pid, unix.SIGKILL)
	eventually(t, "it is dead", func() bool { return strings.Contains(text(t, fmt.Sprintf("/proc/%d/stat", e.cmd.Process.Pid)), ") Z ") })
	e.serve()
	if err := e.returned(); err == nil || e.out.String() != "" {
		t.Errorf("%v\n%s", err, &e.out)
	}
	e.heard("serves")
	eventually(t, "the pid file", func() bool { return text(t, e.pidFile) == fmt.Sprintln(e.stays) })
	e.send(e.stays, unix.SIGTERM)
	e.heard(unix.SIGTERM.String())
}

// TestLaunchShort: a daemon that ends when it has said that it serves has served, and leaves no
// pid file.
func TestLaunchShort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	for range 10 {
		if said, err := launched(t, pidFile, "ends", filepath.Join(dir, "notes")); err != nil || said != "" {
			t.Fatalf("%v\n%s", err, said)
		}
		eventually(t, "the pid file is gone", func() bool { return text(t, pidFile) == "" })
	}
}

var syslogLine = regexp.MustCompile(`^<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d miniupnpd\[(\d+)\]: (.*)$`)

// TestSyslog: each line has its priority, as LOG_DAEMON, and the number of the process; a syslogd
// that starts anew is reached, and one that is not there, or reads nothing, holds nothing up.
func TestSyslog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	s := newSyslog("miniupnpd", path)
	for range 2 {
		s.send(failure, "nobody listens")
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		for in, want := range map[string]string{"<4>a warning": "28 a warning", "no priority": "27 no priority", "<6>\xff": "30 ?", "<9>x": "27 <9>x"} {
			s.send(priorityOf(in))
			buf := make([]byte, 8192)
			if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := l.Read(buf)
			m := syslogLine.FindStringSubmatch(string(buf[:n]))
			if err != nil || m == nil || m[1]+" "+m[3] != want || m[2] != strconv.Itoa(os.Getpid()) {
				t.Errorf("%q: %q, %v", in, buf[:n], err)
			}
		}
		for range 10000 { // more than any queue holds
			s.send(failure, "nobody reads")
		}
		if err := errors.Join(l.Close(), os.RemoveAll(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLongLines: of a line that is too long the beginning is handed on, and the next is whole.
func TestLongLines(t *testing.T) {
	t.Parallel()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := &stay{log: &syslog{fd: -1}, aloud: &out}
	go func() {
		_, _ = to.WriteString(strings.Repeat("x", 3*maxLine) + "\nnext\nlast")
		_ = to.Close()
	}()
	s.read(from)
	if want := strings.Repeat("x", maxLine) + "\nnext\nlast\n"; out.String() != want {
		t.Errorf("%d octets, want %d: ...%q", out.Len(), len(want), out.String()[max(0, out.Len()-20):])
	}
}
