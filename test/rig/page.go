package rig

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Page is a `portcullis web` that runs.
type Page struct {
	URL  string // without a word
	Link string // the latest that was printed

	t     testing.TB
	cmd   *exec.Cmd
	lines chan string // of its standard output
	ended chan struct{}
	err   error // how it has ended

	mu   sync.Mutex
	errs strings.Builder // guarded by mu
}

// ServePage starts `portcullis web` on a port of this machine, for the daemon of a
// configuration; it ends with the test.
func ServePage(t testing.TB, config string, args ...string) *Page {
	t.Helper()
	return StartPage(t, exec.Command(Exe, append([]string{"web", "--config", config, "--listen", "127.0.0.1:0"}, args...)...))
}

// StartPage is ServePage by a command of one's own.
func StartPage(t testing.TB, cmd *exec.Cmd) *Page {
	t.Helper()
	p := &Page{t: t, cmd: cmd, lines: make(chan string, 16), ended: make(chan struct{})}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = in, p
	err = p.cmd.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	p.next()
	p.URL, _, _ = strings.Cut(p.Link, "#")
	return p
}

// stop ends it where it runs, and fails the test where it ends badly.
func (p *Page) stop() {
	select {
	case <-p.ended:
		return
	default:
	}
	if err := p.End(syscall.SIGTERM); err != nil {
		p.t.Errorf("portcullis web ended with %v\n%s", err, p.Said())
	}
}

// End sends it a signal, waits until it has ended, and returns how it did.
func (p *Page) End(by os.Signal) error {
	p.t.Helper()
	if err := p.cmd.Process.Signal(by); err != nil {
		p.t.Fatal(err)
	}
	return p.Ended()
}

// Ended waits until it has ended, and returns how it did.
func (p *Page) Ended() error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		p.t.Fatalf("portcullis web does not end\n%s", p.Said())
		return nil
	}
}

// Pid returns the process that connects to the daemon.
func (p *Page) Pid() int { return p.cmd.Process.Pid }

func (p *Page) read(out io.ReadCloser) {
	defer close(p.lines)
	defer out.Close()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.lines <- lines.Text()
	}
}

// next waits for the link that is printed next.
func (p *Page) next() {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("portcullis web has ended:\n%s", p.Said())
		}
		p.Link = line
	case <-time.After(2 * patience):
		p.t.Fatalf("portcullis web prints no link:\n%s", p.Said())
	}
}

// Another asks for another link.
func (p *Page) Another() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		p.t.Fatal(err)
	}
	p.next()
}

// Write takes what it writes to its standard error.
func (p *Page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.Write(b)
}

// Said returns what it has written there.
func (p *Page) Said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.String()
}
