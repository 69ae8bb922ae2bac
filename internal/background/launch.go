package background

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
// serves. With ErrEnded the daemon has said on standard error why it does not. From then on this
// process ignores what would end it while it waits, and what it starts would end by before it
// listens: a terminal that closes, a script that says that an address has changed.
func Launch(ctx context.Context, cfg Config) error {
	wait, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wait.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, say.Close())
	}
	defer null.Close()
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
	p, err := os.StartProcess(self, append([]string{cfg.Name, Argument, cfg.Name, cfg.PidFile}, cfg.Args...), &os.ProcAttr{
		Dir: "/", Files: []*os.File{null, os.Stderr, os.Stderr, say}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err := errors.Join(err, say.Close()); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGTERM) })
	defer stop()
	b, err := io.ReadAll(wait)
	if len(b) > 0 && err == nil {
		return p.Release()
	}
	state, waited := p.Wait()
	switch {
	case err != nil || waited != nil:
		return errors.Join(err, waited)
	case state.Success():
		return errStopped
	case !state.Exited():
		return fmt.Errorf("the process that stays ended before the daemon served: %s", state)
	}
	return ErrEnded
}

// ErrEnded says that the daemon has ended before it served, and has said why.
var ErrEnded = errors.New("the daemon ended before it served")

// errStopped says that it was told to.
var errStopped = errors.New("stopped by a signal before it served")

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
	return Stay(Config{Name: args[0], PidFile: args[1], Args: args[2:]}, func() error {
		defer say.Close()
		// 0 is /dev/null. It comes before the word: who hears that may wait for the end of these.
		err := errors.Join(unix.Dup3(0, 1, 0), unix.Dup3(0, 2, 0))
		_, _ = say.Write([]byte{1}) // or nobody waits any more
		return err
	})
}
