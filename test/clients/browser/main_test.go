package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	testrig "portcullis/test/rig"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// chromium is one process for all tests.
var chromium context.Context

func TestMain(m *testing.M) { os.Exit(withBrowser(m)) }

// shell is what Debian calls Chromium without a window.
const shell = "chromium-headless-shell"

func withBrowser(m *testing.M) int {
	if testrig.Exe = os.Getenv("PORTCULLIS"); testrig.Exe == "" {
		dir, err := os.MkdirTemp("", "portcullis-browser-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		testrig.Exe = filepath.Join(dir, "portcullis")
		cmd := exec.Command("go", "build", "-o", testrig.Exe, "./cmd/portcullis")
		cmd.Dir = "../../.."
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
	chromium, _ = chromedp.NewContext(ctx) // which Cancel ends, and waits until it has ended
	defer func() { _ = chromedp.Cancel(chromium) }()
	if err := chromedp.Run(chromium); err != nil {
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
	ctx, stop := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	t.Cleanup(cancel)
	return ctx
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
