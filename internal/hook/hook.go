package hook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"portcullis/internal/sandbox"
	"portcullis/internal/slog"
)

// What the hook says by its standard output and error goes to the log: a line a second in the
// long run, of so many octets.
const (
	maxLine     = 1 << 10
	linesAtOnce = 20
	handTime    = time.Second     // for the process between, which reads at once
	endTime     = 3 * time.Second // at the end of the daemon
)

// Config is what a Hook needs.
type Config struct {
	Log     *slog.Logger
	Command []string // not empty; the first is an absolute path
}

// Status is what is known of a hook.
type Status struct {
	PID    int    // 0: it does not run now
	Over   bool   // it is not started again before the daemon is
	Ended  int    // how often it has ended
	Last   string // how it did last, or why it cannot be started
	Missed uint64 // events that it was not told
}

// Hook is the daemon's side.
type Hook struct {
	cfg   Config
	pid   int // of the process between
	to    *os.File
	says  *os.File
	about *os.File
	room  *rate.Limiter

	mu     sync.Mutex
	status Status // guarded by mu
	gone   bool   // guarded by mu; there is nobody to tell
}

// Start starts the process between the daemon and the hook. It is called before the sandbox
// closes.
func Start(cfg Config) (*Hook, error) {
	user := sandbox.HookUser()
	h := &Hook{cfg: cfg, room: rate.NewLimiter(1, linesAtOnce)}
	in, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	says, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), to.Close())
	}
	about, report, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), to.Close(), says.Close(), out.Close())
	}
	h.to, h.says, h.about = to, says, about
	attr := &syscall.ProcAttr{Dir: "/", Files: []uintptr{in.Fd(), out.Fd(), out.Fd(), report.Fd()}, Sys: &syscall.SysProcAttr{}}
	if user != (sandbox.User{}) {
		attr.Sys.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID}
	} else {
		attr.Env = []string{sameUser + "=1"}
	}
	h.pid, err = fork(append([]string{name, Argument}, cfg.Command...), attr)
	if shut := errors.Join(in.Close(), out.Close(), report.Close()); err != nil || shut != nil {
		return nil, errors.Join(fmt.Errorf("start the hook: %w", err), shut, to.Close(), says.Close(), about.Close())
	}
	return h, nil
}

// fork starts this program with nothing of the daemon's capabilities: where its service manager
// has taken capset(2), a process that begins with them is left with them.
func fork(argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		if err = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			err = fmt.Errorf("clear the ambient capabilities: %w", err)
			return
		}
		pid, err = syscall.ForkExec("/proc/self/exe", argv, attr)
	}()
	<-done
	return pid, err
}

// Close has the hook end: the process between sees that there are no more events.
func (h *Hook) Close() error { return h.to.Close() }

// Run takes in what the hook says and what is said of it, until ctx ends.
func (h *Hook) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		_ = h.to.Close()
		time.AfterFunc(endTime, func() { _ = errors.Join(h.says.Close(), h.about.Close()) }) // which something may hold
	})()
	var said sync.WaitGroup
	said.Go(func() { lines(h.says, h.said) }) // which something of the hook's may hold open for longer
	lines(h.about, h.heard)
	h.end(ctx)
	<-ctx.Done()
	said.Wait()
	return ctx.Err()
}

// end takes in that the process between has gone. Nobody can start another: what the daemon
// starts now is in its own sandbox.
func (h *Hook) end(ctx context.Context) {
	var how syscall.WaitStatus
	_, err := syscall.Wait4(h.pid, &how, 0, nil)
	for err == syscall.EINTR {
		_, err = syscall.Wait4(h.pid, &how, 0, nil)
	}
	h.mu.Lock()
	h.gone, h.status.PID = true, 0
	if h.status.Over = ctx.Err() == nil; h.status.Over {
		switch {
		case err != nil:
			h.status.Last = "the process that starts it has ended"
		case how.ExitStatus() != cannotKeep: // which it has said itself
			h.status.Last = "the process that starts it has ended: " + outcome(how)
		}
	}
	last, over := h.status.Last, h.status.Over
	h.mu.Unlock()
	if over {
		h.cfg.Log.Error("hook is over until portcullis is started again", "how", last)
	}
}

// lines calls f with each line, cut where it is too long.
func lines(from *os.File, f func(string)) {
	defer from.Close() // perhaps for the second time
	in := bufio.NewReaderSize(from, maxLine)
	for {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		f(string(line))
		for more && err == nil {
			_, more, err = in.ReadLine()
		}
	}
}

func (h *Hook) said(line string) {
	if h.room.Allow() {
		h.cfg.Log.Warn("hook says", "line", line)
	}
}

// heard takes in a report of the process between.
func (h *Hook) heard(line string) {
	word, rest, _ := strings.Cut(line, " ")
	h.mu.Lock()
	defer h.mu.Unlock()
	switch word {
	case "missed":
		h.status.Missed++
	case "started":
		h.status.PID, _ = strconv.Atoi(rest) // it is ours that says it
	case "ended", "cannot":
		h.status.PID, h.status.Last = 0, rest
		h.status.Ended++
		if h.room.Allow() {
			h.cfg.Log.Warn("hook ended", "how", rest, "ends", h.status.Ended)
		}
	}
}

// Tell hands on an event, a line without its end. It waits a second at most, and only where
// the process between does not run.
func (h *Hook) Tell(line []byte) {
	h.mu.Lock()
	gone := h.gone
	h.mu.Unlock()
	if !gone {
		_ = h.to.SetWriteDeadline(time.Now().Add(handTime))
		_, err := h.to.Write(append(line, '\n'))
		if err == nil {
			return
		}
		if !errors.Is(err, os.ErrClosed) { // half a line may be there
			_ = h.to.Close()
		}
		h.mu.Lock()
		h.gone = true
		h.mu.Unlock()
	}
	h.Miss()
}

// Miss counts an event that the hook was not told.
func (h *Hook) Miss() {
	h.mu.Lock()
	h.status.Missed++
	h.mu.Unlock()
}

// Status returns what is known.
func (h *Hook) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}
