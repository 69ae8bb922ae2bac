package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"portcullis/internal/sandbox"
)

// name is what processes are called in lists of them.
const name = "portcullis"

// Argument is what the program is started with to be a front. It is no command: people
// do not call it.
const Argument = "front"

// Descriptors of a front.
const wallDescriptor = 3 // and behind it what holds the instance lock

// Supported returns why this kernel does not start processes as they are needed here, nil
// if it does. Descriptors of processes came with Linux 5.4.
func Supported() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open (Linux 5.4): %w", err)
	}
	return unix.Close(fd)
}

// child is a front that runs.
type child struct {
	parent *parent
	pid    int
	ended  chan struct{} // closed at its end
	how    syscall.WaitStatus

	// status is what the kernel says of it to everybody. Where /proc hides what cannot be
	// traced (hidepid), it can be opened before the front closes its sandbox, and only by the
	// thread that has the front for a child: Landlock before its version 8 keeps the
	// others from it.
	status *os.File
	unseen error // why there is no status

	mu sync.Mutex
	fd int // guarded by mu; its descriptor, -1 after its end
}

// A parent starts fronts and ends them, on one thread that does nothing else. The thread is
// locked and stays for as long as this process does: fronts end with it, it is the front's
// user, and a warden that needed a new one might get none when it matters.
type parent struct {
	score *os.File // Config.Score
	do    chan func()
	unfit error // why it can start none
}

func newParent(user sandbox.User, score *os.File) *parent {
	p := &parent{score: score, do: make(chan func())}
	go func() {
		runtime.LockOSThread()
		// The warden may have kept some for the programs of iptables. Where its service manager
		// has taken capset(2), a front that began with them would be left with them.
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			p.unfit = fmt.Errorf("clear the ambient capabilities: %w", err)
		} else {
			p.unfit = user.Borrow()
		}
		for f := range p.do {
			f()
		}
	}()
	return p
}

// on runs f on the parent's thread.
func (p *parent) on(f func() error) error {
	done := make(chan error, 1)
	p.do <- func() {
		if p.unfit != nil {
			done <- p.unfit
			return
		}
		done <- f()
	}
	return <-done
}

// start starts a front with these files.
func (p *parent) start(files []*os.File) (*child, error) {
	c := &child{parent: p, ended: make(chan struct{}), fd: -1}
	err := p.on(func() error { return c.fork(files) })
	runtime.KeepAlive(files)
	if c.pid > 0 {
		go c.wait()
		if err != nil {
			err = errors.Join(err, c.bury())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start a front: %w", err)
	}
	return c, nil
}

func (c *child) fork(files []*os.File) (err error) {
	attr := &syscall.ProcAttr{
		Env: environment(os.Environ()),
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &c.fd},
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	back, err := c.parent.offer()
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{name, Argument}, attr)
	if err == nil {
		c.pid = pid
		c.status, c.unseen = os.Open(fmt.Sprintf("/proc/%d/status", pid))
	}
	return errors.Join(err, back())
}

// environment returns what of it the runtime reads.
func environment(all []string) (some []string) {
	for _, v := range all {
		if strings.HasPrefix(v, "GO") {
			some = append(some, v)
		}
	}
	return some
}

// wait waits for the end.
func (c *child) wait() {
	for {
		if _, err := syscall.Wait4(c.pid, &c.how, 0, nil); err != syscall.EINTR {
			break
		}
	}
	c.mu.Lock()
	_ = unix.Close(c.fd) // of a process that is gone
	c.fd = -1
	c.mu.Unlock()
	close(c.ended)
}

// kill ends it, if it has not ended.
func (c *child) kill() error {
	err := c.parent.on(func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fd < 0 {
			return nil
		}
		return unix.PidfdSendSignal(c.fd, unix.SIGKILL, nil, 0)
	})
	if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended, and is about to be waited for
		return fmt.Errorf("end the front: %w", err)
	}
	return nil
}

// bury ends it, waits until it has ended, and lets go of what it leaves.
func (c *child) bury() error {
	err := c.kill()
	<-c.ended
	if c.status != nil {
		_ = c.status.Close() // was read only
	}
	return err
}

// sandbox returns what is in force in it.
func (c *child) sandbox() (sandbox.State, error) {
	if c.unseen != nil {
		return sandbox.State{}, c.unseen
	}
	return sandbox.Read(c.status)
}

// runs reports whether it has not ended.
func (c *child) runs() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// end says how it has ended.
func (c *child) end() string {
	switch {
	case c.how.Signaled():
		return fmt.Sprintf("signal %d (%s)", c.how.Signal(), c.how.Signal())
	case c.how.Exited():
		return fmt.Sprintf("exit status %d", c.how.ExitStatus())
	}
	return "unknown"
}
