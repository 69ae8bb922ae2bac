package webprocess

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/json"
	"portcullis/internal/random"
	"portcullis/internal/sandbox"
)

// Config is what Run needs; all of it must be set but Warn's lines, which may be few.
type Config struct {
	Listener *net.TCPListener // Run closes it
	Loopback bool             // only this machine may connect
	Hosts    []string         // that a browser may call it by, with the port; the first is in links
	Socket   string           // the daemon's
	Again    <-chan os.Signal // each has another sign-in link printed
	Out      io.Writer        // for links
	Warn     func(string)     // of what this machine cannot do for our safety
}

// Bounds of an opener.
const (
	maxFiles   = 128
	maxData    = 128 << 20       // of memory, as a front has it; most are tables that the runtime never touches
	endTimeout = 5 * time.Second // for a page that is told to end
	wordOctets = 24              // of a sign-in link's, at random
)

// Run starts the page, and connects to the daemon for it, until ctx ends. It returns why the
// page has ended before.
func Run(ctx context.Context, cfg Config) error {
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	ended, err := start(cfg, theirs)
	err = errors.Join(err, theirs.Close(), cfg.Listener.Close())
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	o := opener{cfg: cfg}
	if o.page, err = talk(ours); err != nil {
		return err
	}
	defer o.page.Close()
	s := sandbox.Enter(sandbox.Config{
		Role: sandbox.Opener, Capabilities: []sandbox.Capability{sandbox.DACOverride}, Files: maxFiles, Data: maxData,
		Paths: &sandbox.Paths{Sockets: true},
	})
	for _, line := range s.Lacks() {
		cfg.Warn("the sandbox of what connects to the daemon is incomplete: " + line)
	}
	if err := o.begin(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- o.serve(ctx) }()
	for {
		select {
		case <-cfg.Again:
			if err := o.link(); err != nil {
				return err
			}
		case how := <-ended:
			return fmt.Errorf("the page has ended: %s", how)
		case err := <-served: // nil: it has ended, or is about to
			_ = o.page.Close() // by which it ends
			how, late := awaited(ended)
			return fmt.Errorf("the page has ended: %s", cmp.Or(errors.Join(err, late), errors.New(how)))
		case <-ctx.Done():
			_ = o.page.Close()
			_, err := awaited(ended)
			return err
		}
	}
}

// awaited waits for the end of a page that nobody talks to any more, and returns how it was.
func awaited(ended <-chan string) (string, error) {
	select {
	case how := <-ended:
		return how, nil
	case <-time.After(endTimeout):
		return "", errors.New("the page does not end; it is killed with this process")
	}
}

// start starts the page, and returns where its end is told. One thread starts it and waits
// for it, because the page ends with that thread (PR_SET_PDEATHSIG).
func start(cfg Config, end *os.File) (<-chan string, error) {
	socket, err := cfg.Listener.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	begun, ended := make(chan error), make(chan string, 1)
	go func() {
		runtime.LockOSThread()
		pid, err := fork(cfg.Warn, end, socket)
		begun <- err
		if err == nil {
			ended <- wait(pid)
		}
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("start the page: %w", err)
	}
	return ended, nil
}

func fork(warn func(string), end, socket *os.File) (pid int, err error) {
	attr := &syscall.ProcAttr{
		Env: environment(os.Environ()), Files: []uintptr{0, 1, 2, end.Fd(), socket.Fd()},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if u := sandbox.PageUser(); u != (sandbox.User{}) {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"portcullis", Argument}, attr)
	if attr.Sys.Credential != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
		warn("the page is root, because this machine does not let it become another user: " + err.Error())
		attr.Sys.Credential = nil
		pid, err = syscall.ForkExec("/proc/self/exe", []string{"portcullis", Argument}, attr)
	}
	runtime.KeepAlive(end)
	runtime.KeepAlive(socket)
	return pid, err
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

// wait waits for the end of a child, and says how it was.
func wait(pid int) string {
	var how syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &how, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if how.Signaled() {
		return fmt.Sprintf("signal %d (%s)", how.Signal(), how.Signal())
	}
	return fmt.Sprintf("exit status %d", how.ExitStatus())
}

// opener connects to the daemon for the page.
type opener struct {
	cfg  Config
	page *net.UnixConn

	mu    sync.Mutex
	words []string // of links that the page has not taken yet; guarded by mu
}

// begin tells the page what it has to know, and has it take the first link.
func (o *opener) begin() error {
	text, err := json.Marshal(settings{Hosts: o.cfg.Hosts, Loopback: o.cfg.Loopback, Socket: o.cfg.Socket})
	if err != nil {
		return err
	}
	if _, err := o.page.Write(append([]byte{msgSettings}, text...)); err != nil {
		return err
	}
	return o.link()
}

// link has the page take another word by which somebody can sign in once. The one before is
// void.
func (o *opener) link() error {
	b := make([]byte, wordOctets)
	random.Fill(b)
	word := base64.RawURLEncoding.EncodeToString(b)
	o.mu.Lock()
	o.words = append(o.words, word)
	o.mu.Unlock()
	_, err := o.page.Write(link(word))
	return err
}

// taken prints the link that the page takes from now on.
func (o *opener) taken() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.words) == 0 {
		return errMessage
	}
	word := o.words[0]
	o.words = o.words[1:]
	_, err := fmt.Fprintf(o.cfg.Out, "http://%s/#%s\n", o.cfg.Hosts[0], word)
	return err
}

// serve opens one connection after the other, until the page has ended or says what it
// never does.
func (o *opener) serve(ctx context.Context) error {
	for {
		text, fd, err := receive(o.page)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return nil
		case err == nil && (fd >= 0 || len(text) != 1):
			err = errMessage
		case err == nil:
			err = o.answer(text[0])
		}
		if err != nil {
			return err
		}
	}
}

// answer does what the page wants.
func (o *opener) answer(kind byte) error {
	switch kind {
	case msgConnect:
		return o.connect()
	case msgTaken:
		return o.taken()
	}
	return errMessage
}

// connect connects once, and tells the page what came of it.
func (o *opener) connect() error {
	conn, err := control.Dial(o.cfg.Socket)
	if err != nil {
		_, err = o.page.Write(strconv.AppendUint([]byte{msgFailed}, uint64(errnoOf(err)), 10))
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = o.page.WriteMsgUnix([]byte{msgConnected}, unix.UnixRights(int(fd)), nil) // #nosec G115 -- a descriptor
	})
	return errors.Join(err, sent)
}
