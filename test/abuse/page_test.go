package abuse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

// browser is one that does what a test tells it.
type browser struct {
	t           *testing.T
	page        *testrig.Page
	from        *lab.Host // nil: this machine
	cookie, key string
}

// ask sends a request with what browsers say of pages of ours; more are headers that say
// something else, "": that one is not sent.
func (b *browser) ask(method, path, body string, more map[string]string) (status int, text string, header http.Header) {
	b.t.Helper()
	ctx := b.t.Context()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(b.page.URL, "/")+path, bytes.NewBufferString(body))
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]string{"Sec-Fetch-Site": "same-origin", "Cookie": "portcullis=" + b.cookie, "X-Portcullis-Key": b.key}
	if method == http.MethodPost {
		all["Origin"], all["Content-Type"] = strings.TrimSuffix(b.page.URL, "/"), "application/json"
	}
	for k, v := range more {
		all[k] = v
	}
	for k, v := range all {
		switch {
		case k == "Host":
			r.Host = v
		case v != "":
			r.Header.Set(k, v)
		}
	}
	way := &http.Transport{DisableKeepAlives: true}
	if b.from != nil {
		way.DialContext = b.from.Dial
	}
	client := http.Client{Timeout: soon, Transport: way}
	answer, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.StatusCode, string(read), answer.Header
}

// signIn signs in by the link that was printed last, and returns the HTTP status.
func (b *browser) signIn() int {
	b.t.Helper()
	_, word, _ := strings.Cut(b.page.Link, "#")
	status, text, header := b.ask(http.MethodPost, "/v1/signin", fmt.Sprintf(`{"word":%q}`, word), nil)
	if status == http.StatusOK {
		var said struct{ Key string }
		if err := json.Unmarshal([]byte(text), &said); err != nil {
			b.t.Fatal(err)
		}
		b.key = said.Key
		b.cookie, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Set-Cookie"), "portcullis="), ";")
	}
	return status
}

// shown is what the page shows.
func (b *browser) shown() (s struct {
	Error    string
	Mappings []control.Mapping
}) {
	b.t.Helper()
	status, text, _ := b.ask(http.MethodGet, "/v1/state", "", nil)
	if err := json.Unmarshal([]byte(text), &s); status != http.StatusOK || err != nil {
		b.t.Fatalf("%d %s", status, text)
	}
	return s
}

// TestPageForeign (D6, D7): other sites, and programs of other users on the gateway, do not use
// the owner's page, and learn nothing by it.
func TestPageForeign(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	if err := r.v1(t, "a").Add(t.Context(), udp(6000, 6000)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, page: testrig.ServePage(t, r.Daemon.Config)}
	other := &browser{t: t, page: b.page}
	if status := b.signIn(); status != http.StatusOK {
		t.Fatalf("signing in: %d", status)
	}
	open := b.shown().Mappings
	if len(open) != 1 {
		t.Fatalf("it shows %+v", open)
	}
	wish := fmt.Sprintf(`{"id":%d}`, open[0].ID)
	before := r.World(t)
	for name, with := range map[string]map[string]string{
		"a name of its own for our address": {"Host": "evil.example:8480", "Origin": "http://evil.example:8480"},
		"from its own origin":               {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
		"from another port of this machine": {"Origin": "http://127.0.0.1:9", "Sec-Fetch-Site": "same-site"},
		"by a form":                         {"Content-Type": "application/x-www-form-urlencoded"},
		"by a form that looks like JSON":    {"Content-Type": "text/plain", "Origin": "null"},
		"with the cookie alone":             {"X-Portcullis-Key": ""},
		"with a key alone":                  {"Cookie": ""},
	} {
		for _, path := range []string{"/v1/close", "/v1/signout", "/v1/signin"} {
			if name == "with the cookie alone" && path == "/v1/signin" || name == "with a key alone" && path == "/v1/signin" {
				continue
			}
			status, text, header := b.ask(http.MethodPost, path, wish, with)
			if status != http.StatusForbidden && status != http.StatusUnsupportedMediaType || strings.Contains(text, "6000") {
				t.Errorf("%s, %s: %d %s", name, path, status, text)
			}
			if header.Get("X-Frame-Options") != "DENY" || !strings.Contains(header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s, %s: %v", name, path, header)
			}
		}
	}
	if status := other.signIn(); status != http.StatusForbidden {
		t.Errorf("by a link that was used: %d", status)
	}
	for _, path := range []string{"/v1/state", "/v1/close"} {
		if status, text, _ := other.ask(map[string]string{"/v1/state": http.MethodGet, "/v1/close": http.MethodPost}[path], path, wish, nil); status != http.StatusForbidden || strings.Contains(text, "6000") {
			t.Errorf("without a link, %s: %d %s", path, status, text)
		}
	}
	if status, _, _ := b.ask(http.MethodOptions, "/v1/close", "", map[string]string{"Origin": "https://evil.example"}); status != http.StatusMethodNotAllowed {
		t.Errorf("a page asks whether it may: %d", status)
	}
	r.Unchanged(t, before, "D6", "D7")
	if status, text, _ := b.ask(http.MethodPost, "/v1/close", wish, nil); status != http.StatusOK || len(r.List(t)) != 0 {
		t.Errorf("the owner closes it: %d %s", status, text)
	}
}

// pageUser is who the page is where root starts it.
const pageUser = 64997

// TestPageConfined (K11): what the kernel says of both processes of the page.
func TestPageConfined(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	p := testrig.ServePage(t, r.Daemon.Config)
	if said := p.Said(); said != "" && !strings.Contains(said, "Landlock") {
		t.Errorf("it says %s", said)
	}
	b := &browser{t: t, page: p}
	b.signIn()
	b.shown() // so that both have connected
	confined(t, p.Pid(), []string{"CAP_DAC_OVERRIDE"}, "1")
	page := pageOf(t, p)
	confined(t, page, nil, "1")
	if got, want := field(t, page, "Uid"), fmt.Sprintf("%[1]d\t%[1]d\t%[1]d\t%[1]d", pageUser); got != want {
		t.Errorf("the page is user %s, want %s", got, want)
	}
	if groups := strings.TrimSpace(field(t, page, "Groups")); groups != "" {
		t.Errorf("the page has the groups %s", groups)
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", page))
	if err != nil || len(open) < 5 {
		t.Fatalf("%d files, %v", len(open), err)
	}
	for _, name := range open {
		if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, "/") && to != os.DevNull && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			t.Errorf("the page has %s open: %s", name, to)
		}
	}
	for _, pid := range []int{p.Pid(), page} {
		if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid)); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("process %d: who has its memory: %v", pid, err)
		}
	}
}

// pageOf returns the process that browsers talk to.
func pageOf(t *testing.T, p *testrig.Page) (pid int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		if strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", p.Pid())) {
			_, _ = fmt.Sscan(filepath.Base(filepath.Dir(name)), &pid) // a number, by the pattern
			return pid
		}
	}
	t.Fatal("it has no child")
	return 0
}

// TestPageEnds: neither process outlives the other, and what has happened is said.
func TestPageEnds(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	gone := func(pid int) func() bool {
		return func() bool { return unix.Kill(pid, 0) == unix.ESRCH }
	}
	for by, status := range map[syscall.Signal]int{syscall.SIGTERM: 0, syscall.SIGINT: 0, syscall.SIGKILL: -1} {
		p := testrig.ServePage(t, r.Daemon.Config)
		page := pageOf(t, p)
		if err := p.End(by); (status == 0) != (err == nil) {
			t.Errorf("%v: %v", by, err)
		}
		testrig.Eventually(t, soon, "the page ends too", gone(page))
	}
	p := testrig.ServePage(t, r.Daemon.Config)
	if err := unix.Kill(pageOf(t, p), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Ended(); err == nil || !strings.Contains(p.Said(), "the page has ended: signal 9") {
		t.Errorf("%v: %s", err, p.Said())
	}
}

// TestPageOfTheGroup: whoever may use the control socket may start the page; who may not is told
// so. It needs no daemon to begin, and goes on when one comes.
func TestPageOfTheGroup(t *testing.T) {
	t.Parallel()
	group, err := user.LookupGroup("games")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, "group = \"games\"\n") // [control] is the last table
	for _, name := range []string{filepath.Dir(r.Daemon.Config), r.Daemon.Config} {
		if err := os.Chmod(name, 0o755); err != nil { // #nosec G302 -- others look into them
			t.Fatal(err)
		}
	}
	as := func(group string) *exec.Cmd {
		return exec.Command("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups="+group, testrig.Exe, "web", "--config", r.Daemon.Config, "--listen", "127.0.0.1:0")
	}
	if out, err := as("nogroup").CombinedOutput(); err == nil || !strings.Contains(string(out), "control.group") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("who is not of the group: %v: %s", err, out)
	}
	b := &browser{t: t, page: testrig.StartPage(t, as(group.Gid))}
	if status := b.signIn(); status != http.StatusOK {
		t.Fatalf("signing in: %d", status)
	}
	if shown := b.shown(); shown.Error != "" {
		t.Errorf("it shows %s", shown.Error)
	}
	confined(t, pageOf(t, b.page), nil, "1")
	if err := r.Daemon.HandOver(); err != nil {
		t.Fatal(err)
	}
	early := &browser{t: t, page: testrig.StartPage(t, as(group.Gid))}
	testrig.Eventually(t, soon, "it says that there is no daemon", func() bool {
		return strings.Contains(early.page.Said(), "portcullis is not running here")
	})
	early.signIn()
	for _, one := range []*browser{b, early} {
		testrig.Eventually(t, soon, "the page says that there is no daemon", func() bool {
			return strings.Contains(one.shown().Error, "portcullis is not running here")
		})
	}
	r.Restart(t)
	for _, one := range []*browser{b, early} {
		testrig.Eventually(t, soon, "the page goes on", func() bool { return one.shown().Error == "" })
	}
}

// TestPageAddress: an address that others reach takes a word, and one of the Internet is never
// served. A LAN reaches the page then, by its address and by the names that were given.
func TestPageAddress(t *testing.T) {
	t.Parallel()
	r := start(t, "")
	web := func(args ...string) *exec.Cmd {
		return exec.Command("nsenter", append([]string{"--net=" + r.Gateway.Path(), testrig.Exe, "web", "--config", r.Daemon.Config}, args...)...)
	}
	for at, want := range map[string]string{
		"0.0.0.0:8480": "never served to the Internet", "[::]:8480": "never served to the Internet", lab.GatewayWAN.String() + ":8480": "never served to the Internet",
		lab.GatewayLAN.String() + ":8480": "add --insecure", "8480": "is not an address and a port",
	} {
		out, err := web("--listen", at).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", at, err, out)
		}
	}
	p := testrig.StartPage(t, web("--listen", lab.GatewayLAN.String()+":8480", "--insecure", "--host", "gateway.lan"))
	if !strings.Contains(p.Said(), "whoever can read what passes on that network") {
		t.Errorf("it says %s", p.Said())
	}
	for host, want := range map[string]int{"192.168.77.1:8480": 200, "gateway.lan:8480": 200, "gateway.lan": 200, "evil.example:8480": 403} {
		b := &browser{t: t, page: p, from: r.Host("a")}
		got, _, _ := b.ask(http.MethodGet, "/", "", map[string]string{"Host": host})
		if got != want {
			t.Errorf("by the name %s: HTTP %d, want %d", host, got, want)
		}
	}
}
