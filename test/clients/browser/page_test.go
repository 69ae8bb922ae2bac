package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	screen "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// game is what a console asks for.
var game = lab.Mapping{Protocol: "UDP", External: 3074, Internal: 3074, Lease: time.Hour, Description: "Game"}

// TestOpenPorts: what is open is seen with its traffic as it comes, and closed by hand.
func TestOpenPorts(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("#open-none", "No device has an open port"))
	if at := value[string](t, ctx, "location.href"); at != p.URL {
		t.Errorf("the word of the link stays in %s", at)
	}
	if err := c.Add(t.Context(), game); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, shows(".device h3", "192.168.77.10"), shows("td", "3074/udp"), shows("td", "Game (upnp)"), shows("td", "none"), shows("#events", "3074/udp opened (Game)"))
	if !r.Passes(t, "UDP", 3074, r.Host("console"), 3074) {
		t.Fatal("the mapping leads nowhere")
	}
	run(t, ctx, shows("td", "1 packet"),
		chromedp.Click("td button"), shows("td button", "Really close?"), chromedp.Click("td button"),
		shows("#open-none", "No device"), shows("#news", "Closed 3074/udp of 192.168.77.10."), shows("#events", "3074/udp closed"))
	if left := r.List(t); len(left) > 0 {
		t.Errorf("still open: %+v", left)
	}
	if !r.Blocked(t, "UDP", 3074, r.Host("console"), 3074) {
		t.Error("a packet arrives still")
	}
}

// asks is the owner who wants to be asked.
const asks = "[policy]\ndefault = \"ask\"\n"

// TestAskedOnThePage: a console asks and is refused; the page shows it, and a press of a button
// lets it: its next request opens the port, a packet arrives, and the page shows that too. What
// was said is taken back, and the port closes.
func TestAskedOnThePage(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console", "camera"), asks)
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("#facts", "203.0.113.5"), shows("#approvals-none", "Nothing yet"))
	if value[bool](t, ctx, "document.getElementById('pending').checkVisibility()") {
		t.Error("something waits before anybody has asked")
	}
	console, camera := r.Point(t, "console", lab.IGD1, lab.WANIP1), r.Point(t, "camera", lab.IGD1, lab.WANIP1)
	if err := console.Add(t.Context(), game); err == nil {
		t.Fatal("the console was not refused")
	}
	run(t, ctx, shows("#pending-list", "udp port 3074"), shows("#pending-list", "Game"), shows("#news", "192.168.77.10 asks for udp port 3074."), shows("#events", "3074/udp asked (Game)"))
	if title := value[string](t, ctx, "document.title"); title != "(1) Portcullis" {
		t.Errorf("the title is %q", title)
	}
	approve := `[aria-label="Approve udp port 3074 of 192.168.77.10"]`
	run(t, ctx, chromedp.SetValue("#pending-list select", "2h"), chromedp.Click(approve),
		shows("#news", "Approved udp port 3074 of 192.168.77.10. It opens when the device asks again."),
		shows("#approvals-list", "udp port 3074 approved, until"), until("!document.getElementById('pending').checkVisibility()"))
	if err := console.Add(t.Context(), game); err != nil {
		t.Fatalf("the console asks again: %v", err)
	}
	if !r.Passes(t, "UDP", 3074, r.Host("console"), 3074) {
		t.Fatal("no packet arrives")
	}
	run(t, ctx, shows("td", "3074/udp"), shows("td", "1 packet"), shows("#events", "udp port 3074 was approved by you"), shows("#events", "3074/udp opened (Game)"))

	evil := game
	evil.Description = `<img src=x onerror="window.owned=1">`
	for range 2 {
		if err := camera.Add(t.Context(), evil); err == nil {
			t.Fatal("the camera was not refused")
		}
	}
	run(t, ctx, shows("#pending-list", evil.Description), chromedp.Click("#pending-list input"), chromedp.Click(`[aria-label="Deny udp port 3074 of 192.168.77.20"]`),
		shows("#news", "Denied udp port 3074 of 192.168.77.20."), shows("#approvals-list", "every port denied"))
	if value[bool](t, ctx, "'owned' in window || document.querySelector('main img') !== null") {
		t.Error("a description is more than a text")
	}
	back := `document.querySelector('[aria-label*="Take back: 192.168.77.10"]')`
	run(t, ctx, chromedp.Click(back, chromedp.ByJSPath), until(back+".textContent == 'Really?'"), chromedp.Click(back, chromedp.ByJSPath),
		shows("#news", "What was open by it is closed."), shows("#open-none", "No device"), shows("#events", "your answer was taken back"))
	if !r.Blocked(t, "UDP", 3074, r.Host("console"), 3074) {
		t.Error("a packet arrives still")
	}
	if err := console.Add(t.Context(), game); err == nil {
		t.Error("the console is let, after the answer was taken back")
	}
	named(t, ctx)
}

// TestAnswerByKeyboard: what waits is answered without a mouse, and the focus is somewhere
// afterwards.
func TestAnswerByKeyboard(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), asks)
	console := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	if err := console.Add(t.Context(), game); err == nil {
		t.Fatal("the console was not refused")
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("#pending-list", "udp port 3074"), chromedp.Focus("#signout"),
		chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("o"), until("document.activeElement.value == 'once'"), // a time
		chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter), // "every port" cannot be chosen then
		shows("#approvals-list", "approved, once"), until("document.activeElement.id == 'open-title'"))
	if err := console.Add(t.Context(), game); err != nil {
		t.Errorf("the console asks again: %v", err)
	}
	run(t, ctx, shows("#approvals-list", "approved, once, which is used"))
}

// hostile are descriptions that would be more than texts where they were markup.
var hostile = []string{
	`<img src=x onerror="window.owned=1">`, `</td><script>window.owned=1</script>`, `"><svg/onload=window.owned=1>`, "\u202egnp.emag", `<b>bold</b> &amp; {{7*7}}`,
}

// TestHostileTexts: what clients call their mappings is shown as they wrote it, but for what
// turns letters around, and does nothing: those that are open, those that were refused, and in what has happened.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("#events-none", "Nothing since"))
	for i, text := range hostile {
		m := game
		m.External, m.Internal, m.Description = 6000+uint16(i), 6000+uint16(i), text
		if err := c.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		m.External, m.Internal = 22, 22
		if err := c.Add(t.Context(), m); err == nil {
			t.Fatal("22 is granted")
		}
	}
	for _, text := range hostile {
		text = strings.ReplaceAll(text, "\u202e", "\ufffd") // which would turn what stands beside it around
		run(t, ctx, shows("td", text+" (upnp)"), shows("#events", "("+text+")"))
	}
	run(t, ctx, shows("#refused-list strong", hostile[len(hostile)-1]))
	if n := value[int](t, ctx, "document.querySelectorAll('main img, main svg, main script, main b').length"); n > 0 {
		t.Errorf("%d elements were made of texts", n)
	}
	if value[bool](t, ctx, "'owned' in window") {
		t.Error("a text has run")
	}
	// The browser forbids it by itself, whatever becomes of the script.
	var said string
	run(t, ctx, chromedp.Evaluate(`(() => { try { document.body.innerHTML = '<b>'; return 'done' } catch (e) { return e.name } })()`, &said))
	if said != "TypeError" {
		t.Errorf("markup by a script: %s", said)
	}
}

// TestLinkOnce: a link signs in once; who has none sees nothing, and can paste the next.
// Who signs out is out.
func TestLinkOnce(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	p := testrig.ServePage(t, r.Daemon.Config)
	first, second := tab(t), tab(t)
	run(t, first, chromedp.Navigate(p.Link), shows("#facts", "203.0.113.5"))
	run(t, second, chromedp.Navigate(p.Link), shows("#news", "This link has been used"), shows("#signin", "Sign in"))
	if text := value[string](t, second, "document.body.innerText"); strings.Contains(text, "203.0.113.5") {
		t.Errorf("who is not signed in sees\n%s", text)
	}
	p.Another()
	run(t, second, chromedp.SendKeys("#word", p.Link+kb.Enter), shows("#facts", "203.0.113.5"))
	run(t, first, chromedp.Navigate(p.URL), shows("#facts", "203.0.113.5"))
	run(t, second, chromedp.Click("#signout"), shows("#signin", "Sign in"), chromedp.Navigate(p.URL), shows("#signin", "Sign in"))
	run(t, first, shows("#facts", "203.0.113.5"))
}

// TestDaemonGoes: the page says so, and goes on when it is back.
func TestDaemonGoes(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("#facts", "203.0.113.5"))
	if err := r.Daemon.HandOver(); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, shows("#banner", "The daemon does not answer: portcullis is not running here"))
	r.Restart(t)
	run(t, ctx, until("document.getElementById('banner').hidden"))
	if err := r.Point(t, "console", lab.IGD1, lab.WANIP1).Add(t.Context(), game); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, shows("td", "3074/udp"), shows("#events", "3074/udp opened"))
}

// TestByKeyboard: everything can be reached and done without a mouse, in the order in which it
// is seen; focus is visible, and stays where it is while the page is brought up to date.
func TestByKeyboard(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), game); err != nil {
		t.Fatal(err)
	}
	refused := game
	refused.Internal, refused.External = 22, 22
	if err := c.Add(t.Context(), refused); err == nil {
		t.Fatal("22 is granted")
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("td", "3074/udp"))
	run(t, ctx, chromedp.Evaluate("document.body.focus(), document.activeElement.blur()", nil))
	focused := func() string {
		t.Helper()
		run(t, ctx, chromedp.KeyEvent(kb.Tab))
		return value[string](t, ctx, "document.activeElement.textContent")
	}
	for _, want := range []string{"Skip to the content", "Sign out", "Close", "The rule that would allow it"} {
		if got := focused(); got != want {
			t.Fatalf("the focus is on %q, want %q", got, want)
		}
		if value[string](t, ctx, "getComputedStyle(document.activeElement).outlineStyle") != "solid" {
			t.Errorf("one does not see that the focus is on %q", want)
		}
	}
	run(t, ctx, chromedp.KeyEvent(" "), shows("pre", `internal_ports = ["22"]`))
	if got := focused(); !strings.HasPrefix(got, "[[rule]]") {
		t.Errorf("the focus is on %q", got)
	}
	if got := focused(); got != "Copy" {
		t.Errorf("the focus is on %q", got)
	}
	run(t, ctx, chromedp.KeyEvent(kb.Enter), shows("#news", ""), until("document.getElementById('news').textContent != ''"))
	// Another device comes before it, and what has the focus has it still, and is open.
	more := game
	more.Internal, more.External = 7000, 7000
	if err := c.Add(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, shows("td", "7000/udp"))
	if value[string](t, ctx, "document.activeElement.textContent") != "Copy" || !value[bool](t, ctx, "document.querySelector('details').open") {
		t.Error("the focus is lost when the page is brought up to date")
	}
	run(t, ctx, chromedp.Focus("td button"), chromedp.KeyEvent(kb.Enter), shows("td button", "Really close?"), chromedp.KeyEvent(kb.Enter),
		until("document.querySelectorAll('tbody tr').length == 1"))
	if value[bool](t, ctx, "document.activeElement == document.body") {
		t.Error("the focus is nowhere after what had it has gone")
	}
}

// TestScreenReader: the browser tells it of each control by a name, of the regions, the
// headings and the tables.
func TestScreenReader(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), game); err != nil {
		t.Fatal(err)
	}
	refused := game
	refused.Internal, refused.External = 22, 22
	if err := c.Add(t.Context(), refused); err == nil {
		t.Fatal("22 is granted")
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.URL), shows("#signin", "Sign in"))
	named(t, ctx)
	for _, width := range []int64{1100, 390} { // a table is one on a narrow screen as well
		run(t, ctx, chromedp.EmulateViewport(width, 844), chromedp.Navigate("about:blank"))
		p.Another()
		run(t, ctx, chromedp.Navigate(p.Link), shows("td", "3074/udp"), chromedp.Evaluate("document.querySelector('details').open = true", nil))
		seen := named(t, ctx)
		for role, want := range map[string]string{
			"banner": "", "main": "", "contentinfo": "", "region": "Open ports", "heading": "192.168.77.10", "table": "Open ports of 192.168.77.10",
			"columnheader": "Traffic", "row": "", "cell": "3074/udp", "button": "Close 3074/udp of 192.168.77.10", "status": "",
		} {
			if !seen[role+" "+want] && (want != "" || !seen[role]) {
				t.Errorf("%d: there is no %s %q", width, role, want)
			}
		}
	}
	if lang := value[string](t, ctx, "document.documentElement.lang"); lang != "en" {
		t.Errorf("the language is %q", lang)
	}
}

// named compares that each control has a name, and returns what there is: roles, and roles
// with names.
func named(t *testing.T, ctx context.Context) map[string]bool {
	t.Helper()
	var nodes []*accessibility.Node
	run(t, ctx, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		nodes, err = accessibility.GetFullAXTree().Do(ctx)
		return err
	}))
	seen, controls := map[string]bool{}, 0
	for _, n := range nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := text(n.Role), text(n.Name)
		seen[role], seen[role+" "+name] = true, true
		switch role {
		case "button", "link", "textbox", "combobox", "checkbox", "DisclosureTriangle", "table", "region", "heading", "columnheader":
			if controls++; name == "" {
				t.Errorf("a %s has no name", role)
			}
		}
	}
	if controls < 4 {
		t.Errorf("%d controls", controls)
	}
	return seen
}

func text(v *accessibility.Value) (s string) {
	if v != nil {
		s, _ = strings.CutPrefix(strings.TrimSuffix(string(v.Value), `"`), `"`)
	}
	return s
}

// TestPhone: on a narrow screen nothing stands beside it, and what is pressed is large enough
// for a thumb.
func TestPhone(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	c := r.Point(t, "console", lab.IGD1, lab.WANIP1)
	wide := game
	wide.Description = strings.Repeat("long", 30)
	if err := c.Add(t.Context(), wide); err != nil {
		t.Fatal(err)
	}
	wide.Internal, wide.External = 22, 22
	if err := c.Add(t.Context(), wide); err == nil {
		t.Fatal("22 is granted")
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile, chromedp.EmulateTouch), chromedp.Navigate(p.Link), shows("td", "3074/udp"),
		chromedp.Evaluate("document.querySelector('details').open = true", nil), shows("pre", "[[rule]]"))
	if at, window := value[int](t, ctx, "document.documentElement.scrollWidth"), value[int](t, ctx, "innerWidth"); at > window {
		t.Errorf("the page is %d wide, the screen %d", at, window)
	}
	if low := value[[]string](t, ctx, "[...document.querySelectorAll('button, summary')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.textContent)"); len(low) > 0 {
		t.Errorf("too low to be pressed: %q", low)
	}
}

// TestContrast: texts can be read, in light and in dark, by the rule of WCAG 2.2 section 1.4.3.
func TestContrast(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	if err := r.Point(t, "console", lab.IGD1, lab.WANIP1).Add(t.Context(), game); err != nil {
		t.Fatal(err)
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate(p.Link), shows("td", "3074/udp"))
	for _, scheme := range []string{"light", "dark"} {
		run(t, ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
		if bad := value[[]string](t, ctx, contrast); len(bad) > 0 {
			t.Errorf("%s: %q", scheme, bad)
		}
	}
	dark := value[string](t, ctx, "getComputedStyle(document.body).backgroundColor")
	if dark != "rgb(20, 24, 22)" {
		t.Errorf("in the dark the page is %s", dark)
	}
}

// contrast lists the elements with texts of which colour and background are too near to each
// other.
const contrast = `(() => {
	const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126*r + .7152*g + .0722*b };
	const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$|transparent/.test(c)) return c } return 'rgb(255,255,255)' };
	return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).flatMap(e => {
		const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x), r = (a + .05) / (b + .05);
		return r < 4.5 ? [e.tagName + ' ' + e.textContent.trim() + ' ' + r.toFixed(1)] : [];
	});
})()`

// awaited has what a promise comes to.
func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// TestFramed: no other site shows the page within its own.
func TestFramed(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.Navigate("data:text/html,<p>evil</p><iframe src="+p.URL+"></iframe>"), shows("p", "evil"),
		until("document.querySelector('iframe').contentDocument === null"))
	var failed string
	run(t, ctx, chromedp.Evaluate(fmt.Sprintf(`fetch(%q).then(a => 'read ' + a.status, e => e.name)`, p.URL+"v1/state"), &failed, awaited))
	if failed != "TypeError" {
		t.Errorf("another site reads the page: %s", failed)
	}
}

// TestHidden: a tab that nobody sees asks for nothing, and looks at once when it is seen again.
func TestHidden(t *testing.T) {
	t.Parallel()
	r := testrig.Start(t, testrig.Network(t, "console"), "")
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	const looks = "performance.getEntriesByName(location.origin + '/v1/state').length"
	run(t, ctx, chromedp.Navigate(p.Link), until(looks+" > 2"))
	see := func(hidden bool) {
		run(t, ctx, chromedp.Evaluate(fmt.Sprintf("Object.defineProperty(document, 'hidden', {value: %v, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))", hidden), nil))
	}
	see(true)
	var before, after int
	// The one that is under way may end; more than twice the time between two looks passes.
	run(t, ctx, chromedp.Evaluate("new Promise(done => setTimeout(() => done("+looks+"), 1000))", &before, awaited),
		chromedp.Evaluate("new Promise(done => setTimeout(() => done("+looks+"), 5000))", &after, awaited))
	if after != before {
		t.Errorf("%d looks, and %d while nobody sees the page", before, after-before)
	}
	see(false)
	run(t, ctx, until(fmt.Sprintf("%s > %d", looks, after+1)))
}

// TestScreenshot takes the picture of the README, where it is told to by the environment.
func TestScreenshot(t *testing.T) {
	to := os.Getenv("SCREENSHOT")
	if to == "" {
		return // make screenshot
	}
	names := filepath.Join(t.TempDir(), "leases")
	n := testrig.Network(t, "console", "nas", "camera")
	var leases string
	for _, host := range []string{"console", "nas", "camera"} {
		h := n.Host(host)
		leases += fmt.Sprintf("%d %s %s %s *\n", time.Now().Add(time.Hour).Unix(), h.MAC, h.Addr, host)
	}
	if err := os.WriteFile(names, []byte(leases), 0o600); err != nil {
		t.Fatal(err)
	}
	r := testrig.StartWith(t, n, strings.Replace(lab.Settings, "[lan]\n", fmt.Sprintf("[lan]\nleases = [%q]\n", names), 1)+asks+
		"[[rule]]\nname = \"games\"\naction = \"allow\"\nclients = [\"host:console\"]\n")
	p := testrig.ServePage(t, r.Daemon.Config)
	ctx := tab(t)
	run(t, ctx, chromedp.EmulateViewport(900, 1000), chromedp.Navigate(p.Link), shows("#facts", "203.0.113.5"))
	ask := func(host string, m lab.Mapping) { _ = r.Point(t, host, lab.IGD1, lab.WANIP1).Add(t.Context(), m) }
	ask("console", game)
	if !r.Passes(t, "UDP", 3074, r.Host("console"), 3074) {
		t.Fatal("no packet arrives")
	}
	ask("camera", lab.Mapping{Protocol: "TCP", External: 8080, Internal: 80, Lease: time.Hour, Description: "IPCamera"})
	ask("nas", lab.Mapping{Protocol: "TCP", External: 51413, Internal: 51413, Lease: time.Hour, Description: "Transmission"})
	var picture []byte
	run(t, ctx, shows("#pending-list", "Transmission"), shows("#refused-list", "IPCamera"), shows("td", "1 packet"),
		chromedp.Evaluate("document.querySelector('details').open = true", nil), chromedp.ActionFunc(func(ctx context.Context) (err error) {
			picture, err = screen.CaptureScreenshot().WithFormat(screen.CaptureScreenshotFormatWebp).WithQuality(80).Do(ctx)
			return err
		}))
	if err := os.WriteFile(to, picture, 0o644); err != nil { // #nosec G306 -- of the repository
		t.Fatal(err)
	}
}
