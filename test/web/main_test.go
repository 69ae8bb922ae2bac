package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	testrig "portcullis/test/rig"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// browser is one process for all tests.
var browser context.Context

func TestMain(m *testing.M) { os.Exit(withBrowser(m)) }

// shell is what Debian calls Chromium without a window.
const shell = "chromium-headless-shell"

func withBrowser(m *testing.M) int {
	if testrig.Exe = os.Getenv("PORTCULLIS"); testrig.Exe == "" {
		dir, err := os.MkdirTemp("", "portcullis-web-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		testrig.Exe = filepath.Join(dir, "portcullis")
		cmd := exec.Command("go", "build", "-o", testrig.Exe, "./cmd/portcullis")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is shipped: only so does its sandbox close
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
	}
	if os.Geteuid() != 0 || !installed() {
		if os.Getenv("CI") == "true" {
			fmt.Fprintf(os.Stderr, "these tests need root and %s, which test/install installs\n", shell)
			return 1
		}
		fmt.Printf("skipped: needs root and %s, which test/install installs\n", shell)
		return 0
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(shell), chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-proxy-server", true),
		chromedp.WSURLReadTimeout(2*patience))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	var end context.CancelFunc
	browser, end = chromedp.NewContext(ctx)
	defer end()
	if err := chromedp.Run(browser); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func installed() bool {
	_, err := exec.LookPath(shell)
	return err == nil
}

// tab returns a tab of a browser that knows nothing yet.
func tab(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	t.Cleanup(cancel)
	return ctx
}

// page is a `portcullis web` that runs.
type page struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string // without the word
	link string // the latest

	lines chan string // of its standard output

	mu   sync.Mutex
	errs strings.Builder // guarded by mu
}

// serve starts `portcullis web` for the daemon of a configuration; its end is the test's.
func serve(t *testing.T, config string, args ...string) *page {
	t.Helper()
	p := &page{t: t, lines: make(chan string, 16)}
	p.cmd = exec.Command(testrig.Exe, append([]string{"web", "--config", config, "--listen", "127.0.0.1:0"}, args...)...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("portcullis web ended with %v\n%s", err, p.said())
		}
	})
	p.next()
	p.url, _, _ = strings.Cut(p.link, "#")
	return p
}

func (p *page) read(out io.Reader) {
	defer close(p.lines)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.lines <- lines.Text()
	}
}

// next waits for the link that is printed next.
func (p *page) next() {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("portcullis web has ended:\n%s", p.said())
		}
		p.link = line
	case <-time.After(patience):
		p.t.Fatalf("portcullis web prints no link:\n%s", p.said())
	}
}

// another asks for another link.
func (p *page) another() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		p.t.Fatal(err)
	}
	p.next()
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.Write(b)
}

// said returns what it has written to its standard error.
func (p *page) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.String()
}

// run does actions in a tab.
func run(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var now string
		_ = chromedp.Run(ctx, chromedp.Evaluate("document.body.innerText", &now))
		t.Fatalf("%v\nthe page shows:\n%s", err, now)
	}
}

// until waits until an expression is true on the page.
func until(expression string) chromedp.Action {
	return chromedp.Poll(expression, nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(patience))
}

// shows waits until an element has a text.
func shows(selector, text string) chromedp.Action {
	return until(fmt.Sprintf("[...document.querySelectorAll(%q)].some(e => e.checkVisibility() && e.innerText.includes(%q))", selector, text))
}

// value returns what an expression is.
func value[T any](t *testing.T, ctx context.Context, expression string) (v T) {
	t.Helper()
	run(t, ctx, chromedp.Evaluate(expression, &v))
	return v
}
