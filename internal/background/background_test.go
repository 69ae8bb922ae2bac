package background

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
		if err := Launch(context.Background(), Config{Name: "fake", PidFile: os.Args[2], Args: os.Args[3:]}); err != nil {
			fmt.Fprintln(os.Stderr, "launch:", err)
			os.Exit(1)
		}
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
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: os.Getenv("NOTIFY_SOCKET")})
	if err != nil {
		return 8
	}
	fmt.Fprint(conn, "STATUS=not yet READY=1")
	fmt.Fprint(conn, "STATUS=up\nREADY=1")
	ctx, stop := WhileKept(context.Background())
	defer stop()
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
