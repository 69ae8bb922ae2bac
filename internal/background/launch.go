package background

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Argument is what the program is started with to be the process that stays. It is no
// command: people do not call it.
const Argument = "background"

// Config is what the process that stays needs.
type Config struct {
	Name    string   // of both processes, in lists of them and in the log
	Args    []string // of the daemon, by which it stays in the foreground and writes its log as logging's format syslog
	PidFile string   // an absolute path; "": none
}

// ready is the descriptor by which who waits hears that the daemon serves.
const ready = 3

// Launch starts the process that stays, in a session of its own, and waits until the daemon
// serves. With an error the daemon has said on standard error why it does not.
func Launch(ctx context.Context, cfg Config) error {
	wait, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wait.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(err, say.Close())
	}
	defer null.Close()
	p, err := os.StartProcess(self, append([]string{cfg.Name, Argument, cfg.Name, cfg.PidFile}, cfg.Args...), &os.ProcAttr{
		Dir: "/", Files: []*os.File{null, os.Stderr, os.Stderr, say}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err := errors.Join(err, say.Close()); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGTERM) })
	defer stop()
	if b, err := io.ReadAll(wait); len(b) > 0 && err == nil {
		return p.Release()
	}
	if _, err := p.Wait(); err != nil {
		return err
	}
	return ErrEnded
}

// ErrEnded says that the daemon has ended before it served, and has said why.
var ErrEnded = errors.New("the daemon ended before it served")

// self is this program, whatever became of its file since.
const self = "/proc/self/exe"

// Main is the process that stays, with the arguments behind Argument. It returns the exit
// status.
func Main(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "portcullis: `portcullis miniupnpd` starts this")
		return 2
	}
	unix.CloseOnExec(ready)
	say := os.NewFile(ready, "ready")
	return Stay(Config{Name: args[0], PidFile: args[1], Args: args[2:]}, func() {
		if _, err := say.Write([]byte{1}); err != nil { // nobody waits any more
			return
		}
		_ = say.Close()
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return
		}
		defer null.Close()
		for fd := 1; fd <= 2; fd++ {
			_ = unix.Dup3(int(null.Fd()), fd, 0) // #nosec G115 -- a descriptor
		}
	})
}
