package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/web"
)

// daemon is a control.Client whose daemon says what a test wants.
type daemon struct {
	mu       sync.Mutex
	err      error
	mappings int
	asked    int // how often for the status
	deleted  []uint64
	said     []string
	// asksNobody is a daemon of a version before the owner was asked.
	asksNobody bool
	events     chan control.Event
}

func (d *daemon) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *daemon) Status(context.Context) (control.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return control.Status{Version: "1.2.3", Limit: 1024}, d.err
}

func (d *daemon) EachMapping(_ context.Context, f func(*control.Mapping)) error {
	for i := range d.mappings {
		f(&control.Mapping{ID: uint64(i + 1), Description: "<b>"})
	}
	return nil
}

func (d *daemon) Refused(context.Context) ([]control.RefusedDevice, error) {
	return []control.RefusedDevice{}, nil
}

func (d *daemon) Events(ctx context.Context, f func(control.Event) error) error {
	for {
		select {
		case e := <-d.events:
			if err := f(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *daemon) Delete(_ context.Context, what control.Deletion) ([]control.Mapping, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	if what.ID == 0 || what.All {
		return nil, &control.Refusal{Failure: control.Failure{Reason: "no-such-mapping", Error: "there is none"}}
	}
	d.deleted = append(d.deleted, what.ID)
	return []control.Mapping{{ID: what.ID}}, nil
}

func (d *daemon) Pending(context.Context) ([]control.Pending, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asksNobody {
		return nil, &control.Refusal{Failure: control.Failure{Reason: "not-found", Error: "there is no such path"}}
	}
	return []control.Pending{{ID: 5, InternalPort: 8080}}, d.err
}

func (d *daemon) Approvals(context.Context) ([]control.Approval, error) {
	return []control.Approval{{ID: 3}}, nil
}

func (d *daemon) Approve(_ context.Context, a control.Answer) (control.Approval, error) {
	d.set(func() { d.said = append(d.said, fmt.Sprint("approve ", a.ID, a.For, a.Device)) })
	return control.Approval{ID: a.ID}, nil
}

func (d *daemon) Deny(_ context.Context, a control.Answer) (control.Approval, error) {
	d.set(func() { d.said = append(d.said, fmt.Sprint("deny ", a.ID, a.For, a.Device)) })
	return control.Approval{ID: a.ID}, nil
}

func (d *daemon) Revoke(_ context.Context, id uint64) (control.Withdrawn, error) {
	d.set(func() { d.said = append(d.said, fmt.Sprint("revoke ", id)) })
	return control.Withdrawn{}, nil
}

// site is a page that is served.
type site struct {
	t      *testing.T
	daemon *daemon
	server *web.Server
	addr   string
}

const word = "a word"

func serve(t *testing.T) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, daemon: &daemon{mappings: 2, events: make(chan control.Event)}, addr: l.Addr().String()}
	s.server = web.New(web.Config{Owner: s.daemon, Hosts: []string{s.addr, "gateway.lan"}, Loopback: true})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
	s.server.Link(web.Hash(word))
	return s
}

// ask sends a request as it stands there, with the length of its body, and returns the
// answer.
func (s *site) ask(head []string, body string) (*http.Response, string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	_, _ = fmt.Fprintf(conn, "%s\r\nContent-Length: %d\r\n\r\n%s", strings.Join(head, "\r\n"), len(body), body) // it may be refused before
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(head[0])[0]})
	if err != nil {
		return nil, ""
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer, string(text)
}

// keys are the two secrets of a session.
type keys struct{ cookie, key string }

// get is what the page itself sends to read.
func (s *site) get(path string, k keys) []string {
	return []string{"GET " + path + " HTTP/1.1", "Host: " + s.addr, "Sec-Fetch-Site: same-origin", "Cookie: other=1; portcullis=" + k.cookie, "X-Portcullis-Key: " + k.key}
}

// posted is a request of the page that changes something.
func (s *site) posted(path string, k keys) []string {
	head := append(s.get(path, k), "Origin: http://"+s.addr, "Content-Type: application/json")
	head[0] = "POST " + path + " HTTP/1.1"
	return head
}

// signIn spends a word.
func (s *site) signIn(word string) (keys, *http.Response, string) {
	s.t.Helper()
	answer, text := s.ask(s.posted("/v1/signin", keys{}), fmt.Sprintf(`{"word":%q}`, word))
	var k keys
	if answer == nil || answer.StatusCode != http.StatusOK {
		return k, answer, text
	}
	var said struct{ Key string }
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		s.t.Fatal(err)
	}
	k.key = said.Key
	for _, c := range answer.Cookies() {
		if c.Name != "portcullis" || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
			s.t.Errorf("the cookie is %v", c)
		}
		k.cookie = c.Value
	}
	return k, answer, text
}

// without returns a head without the line that begins so, and with others.
func without(head []string, line string, more ...string) (all []string) {
	for _, l := range head {
		if !strings.HasPrefix(l, line) {
			all = append(all, l)
		}
	}
	return append(all, more...)
}

// TestStrangers: who is not a page of ours, signed in, is told and changed nothing.
func TestStrangers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	k, answer, text := s.signIn(word)
	if k.cookie == "" || k.key == "" || len(k.key) < 32 {
		t.Fatalf("signing in: %v %s", answer, text)
	}
	close, state := slices.Clip(s.posted("/v1/close", k)), slices.Clip(s.get("/v1/state", k))
	for name, c := range map[string]struct {
		head []string
		body string
		code int
	}{
		"another name":                 {without(state, "Host:", "Host: evil.example:8480"), "", 403},
		"the address without the port": {without(state, "Host:", "Host: 127.0.0.1"), "", 403},
		"no name":                      {without(state, "Host:"), "", 403},
		"a name for the files":         {without(s.get("/", keys{}), "Host:", "Host: evil.example"), "", 403},
		"another site asks":            {without(state, "Sec-Fetch-Site:", "Sec-Fetch-Site: cross-site"), "", 403},
		"another port of ours asks":    {without(state, "Sec-Fetch-Site:", "Sec-Fetch-Site: same-site"), "", 403},
		"typed into the browser":       {without(state, "Sec-Fetch-Site:", "Sec-Fetch-Site: none"), "", 403},
		"another origin":               {without(close, "Origin:", "Origin: http://evil.example"), `{"id":1}`, 403},
		"another port's origin":        {without(close, "Origin:", "Origin: http://127.0.0.1:1"), `{"id":1}`, 403},
		"no origin":                    {without(close, "Origin:"), `{"id":1}`, 403},
		"a null origin":                {without(close, "Origin:", "Origin: null"), `{"id":1}`, 403},
		"an origin that only reads":    {append(state, "Origin: http://evil.example"), "", 403},
		"a form":                       {without(close, "Content-Type:", "Content-Type: application/x-www-form-urlencoded"), `{"id":1}`, 415},
		"text":                         {without(close, "Content-Type:", "Content-Type: text/plain"), `{"id":1}`, 415},
		"no cookie":                    {without(close, "Cookie:"), `{"id":1}`, 403},
		"no key":                       {without(close, "X-Portcullis-Key:"), `{"id":1}`, 403},
		"no cookie, to read":           {without(state, "Cookie:"), "", 403},
		"no key, to read":              {without(state, "X-Portcullis-Key:"), "", 403},
		"the key as the cookie":        {s.posted("/v1/close", keys{k.key, k.cookie}), `{"id":1}`, 403},
		"by reading":                   {s.get("/v1/close", k), "", 405},
		"to be written":                {s.posted("/v1/state", k), "{}", 405},
		"no such path":                 {s.get("/v1/delete", k), "", 404},
		"a path that is cleaned":       {s.get("//v1/state", k), "", 404},
		"a long body":                  {close, `{"id":1}` + strings.Repeat(" ", 5000), 413},
		"a body without a length":      {append(close, "Transfer-Encoding: chunked"), `0` + "\r\n\r\n", 413},
		"a long head":                  {append(close, "Cookie: a="+strings.Repeat("x", 9000)), `{"id":1}`, 431},
		"nonsense":                     {close, `{"id":`, 400},
		"two wishes":                   {close, `{"id":1}{"id":2}`, 400},
		"a wish we do not know":        {close, `{"all":true}`, 400},
		"an answer without a session":  {s.posted("/v1/approve", keys{}), `{"id":5}`, 403},
		"an answer we do not know":     {s.posted("/v1/approve", k), `{"id":5,"forever":true}`, 400},
		"an answer by reading":         {s.get("/v1/deny", k), "", 405},
		"taken back from elsewhere":    {without(s.posted("/v1/revoke", k), "Origin:"), `{"id":5}`, 403},
	} {
		t.Run(name, func(t *testing.T) {
			answer, text := s.ask(c.head, c.body)
			if answer == nil || answer.StatusCode != c.code {
				t.Fatalf("%v %s, want %d", answer, text, c.code)
			}
			var f control.Failure
			if err := json.Unmarshal([]byte(text), &f); err != nil || f.Error == "" || strings.Contains(text, "1.2.3") {
				t.Errorf("it says %s", text)
			}
			guarded(t, answer)
		})
	}
	if len(s.daemon.deleted) > 0 || len(s.daemon.said) > 0 {
		t.Errorf("deleted: %v, said %q", s.daemon.deleted, s.daemon.said)
	}
	for _, head := range [][]string{
		state, without(state, "Sec-Fetch-Site:"), without(state, "Host:", "Host: GATEWAY.lan"), without(state, "Cookie:", "Cookie: portcullis="+k.cookie),
		without(state, "Cookie:", "Cookie: portcullis=planted; portcullis="+k.cookie), // by a service on another port, for /v1
	} {
		if answer, text := s.ask(head, ""); answer == nil || answer.StatusCode != 200 || !strings.Contains(text, `"1.2.3"`) {
			t.Errorf("%q: %v %s", head, answer, text)
		}
	}
	proxied := without(close, "Origin:", "Origin: https://gateway.lan")
	if answer, text := s.ask(without(proxied, "Host:", "Host: gateway.lan"), `{"id":7}`); answer.StatusCode != 200 || len(s.daemon.deleted) != 1 {
		t.Errorf("by way of a proxy: %v %s", answer, text)
	}
}

// guarded compares what every answer says to browsers.
func guarded(t *testing.T, answer *http.Response) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
			"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
	} {
		if got := strings.Join(answer.Header.Values(name), ","); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// markup is what would make a text markup or script, or load what is not ours.
var markup = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|<script>|\son[a-z]+="|\sstyle=|//[a-z]+\.[a-z]`)

const svgName = "http://www.w3.org/2000/svg"

// TestFiles: the page is there for everybody, small, and runs nothing but its own script.
func TestFiles(t *testing.T) {
	t.Parallel()
	s := serve(t)
	size := 0
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		answer, text := s.ask([]string{"GET " + path + " HTTP/1.1", "Host: " + s.addr, "Sec-Fetch-Site: none"}, "")
		if answer == nil || answer.StatusCode != 200 || answer.Header.Get("Content-Type") != kind {
			t.Fatalf("%s: %v", path, answer)
		}
		guarded(t, answer)
		size += len(text)
		if bad := markup.FindString(strings.Replace(text, svgName, "", 1)); bad != "" {
			t.Errorf("%s has %q", path, bad)
		}
		head, none := s.ask([]string{"HEAD " + path + " HTTP/1.1", "Host: " + s.addr}, "")
		if head == nil || head.StatusCode != 200 || none != "" {
			t.Errorf("HEAD %s: %v %q", path, head, none)
		}
	}
	if size > 60<<10 {
		t.Errorf("the page has %d octets", size)
	}
}

// TestLink: a word is good once, and the next one makes it void; guessing is bounded.
func TestLink(t *testing.T) {
	t.Parallel()
	s := serve(t)
	if _, answer, text := s.signIn("wrong"); answer.StatusCode != 403 || !strings.Contains(text, `"link"`) {
		t.Errorf("a wrong word: %v %s", answer, text)
	}
	first, _, _ := s.signIn(word)
	if _, answer, text := s.signIn(word); answer.StatusCode != 403 {
		t.Errorf("a second time: %v %s", answer, text)
	}
	s.server.Link(web.Hash("one"))
	s.server.Link(web.Hash("two"))
	if _, answer, text := s.signIn("one"); answer.StatusCode != 403 {
		t.Errorf("one that another has followed: %v %s", answer, text)
	}
	second, _, _ := s.signIn("two")
	for _, k := range []keys{first, second} {
		if answer, text := s.ask(s.get("/v1/state", k), ""); answer.StatusCode != 200 {
			t.Errorf("%v %s", answer, text)
		}
	}
	if answer, text := s.ask(s.get("/v1/state", keys{first.cookie, second.key}), ""); answer.StatusCode != 403 {
		t.Errorf("secrets of two sessions: %v %s", answer, text)
	}
	if answer, text := s.ask(s.posted("/v1/signout", first), "{}"); answer.StatusCode != 200 || !strings.Contains(answer.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signing out: %v %s", answer, text)
	}
	if answer, _ := s.ask(s.get("/v1/state", first), ""); answer.StatusCode != 403 {
		t.Errorf("signed out: %v", answer)
	}
	tries := 0
	for ; tries < 100; tries++ {
		if _, answer, _ := s.signIn("guess"); answer.StatusCode == 503 {
			break
		}
	}
	if tries == 100 {
		t.Error("whoever guesses may do so for ever")
	}
	s.server.Link(web.Hash("three"))
	if _, answer, text := s.signIn("three"); answer.StatusCode != 200 {
		t.Errorf("whoever guesses keeps out who has the link: %v %s", answer, text)
	}
}

// TestSlowBrowsers: connections over which nothing comes keep nobody out, and are closed.
func TestSlowBrowsers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var slow []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n")
		slow = append(slow, conn)
	}
	if answer, _ := s.ask(s.get("/", keys{}), ""); answer == nil || answer.StatusCode != 200 {
		t.Fatalf("beside them: %v", answer)
	}
	for _, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a slow one: %v", err)
		}
	}
}

// TestShown: what a browser is told is bounded, shared, asked anew after a change, and says
// that the daemon does not answer.
func TestShown(t *testing.T) {
	t.Parallel()
	s := serve(t)
	k, _, _ := s.signIn(word)
	look := func() (shown web.Shown) {
		t.Helper()
		answer, text := s.ask(s.get("/v1/state", k), "")
		if answer.StatusCode != 200 || strings.ContainsAny(text, "<>") {
			t.Fatalf("%v %s", answer, text)
		}
		if err := json.Unmarshal([]byte(text), &shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	eventually := func(what string, ok func(web.Shown) bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; {
			shown := look()
			if ok(shown) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, shown)
			}
		}
	}
	s.daemon.set(func() { s.daemon.mappings = 600 })
	if shown := look(); len(shown.Mappings) != 500 || shown.LeftOut != 100 || shown.Status.Limit != 1024 || shown.Wait < 2000 || shown.Error != "" {
		t.Errorf("%d mappings, and %d others; %+v", len(shown.Mappings), shown.LeftOut, shown.Status)
	}
	for i := range 150 {
		s.daemon.events <- control.Event{Time: fmt.Sprint(i), Event: "granted"}
		s.daemon.events <- control.Event{Event: "renewed"}
	}
	eventually("the last hundred events", func(shown web.Shown) bool {
		return len(shown.Events) == 100 && shown.Events[0].Time == "149" && shown.Events[99].Time == "50"
	})
	s.daemon.set(func() { s.daemon.asked = 0 })
	begun := time.Now()
	for range 20 {
		look()
	}
	if most := int(time.Since(begun)/time.Second) + 2; s.daemon.asked > most {
		t.Errorf("asked %d times, want at most %d", s.daemon.asked, most)
	}
	if answer, text := s.ask(s.posted("/v1/close", k), `{"id":7}`); answer.StatusCode != 200 || len(s.daemon.deleted) != 1 {
		t.Errorf("closing: %v %s", answer, text)
	}
	before := s.daemon.asked
	if look(); s.daemon.asked != before+1 {
		t.Error("what was shown before a change is shown after it")
	}
	if answer, text := s.ask(s.posted("/v1/close", k), `{"id":0}`); answer.StatusCode != 409 || !strings.Contains(text, "there is none") {
		t.Errorf("what the daemon refuses: %v %s", answer, text)
	}
	s.daemon.set(func() { s.daemon.err = syscall.ECONNREFUSED })
	eventually("that the daemon has gone", func(shown web.Shown) bool {
		return strings.Contains(shown.Error, "refused") && shown.Status == nil && len(shown.Events) == 100
	})
	if answer, text := s.ask(s.posted("/v1/close", k), `{"id":7}`); answer.StatusCode != 503 || !strings.Contains(text, "refused") {
		t.Errorf("closing without a daemon: %v %s", answer, text)
	}
	s.daemon.set(func() { s.daemon.err = nil })
	eventually("that it is back", func(shown web.Shown) bool { return shown.Status != nil })
}

// TestAnswers: what the owner says on the page the daemon is told; one that asks nobody has no
// such part of the page, and the others all the same.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	k, _, _ := s.signIn(word)
	for _, c := range []struct{ path, body, want string }{
		{"/v1/approve", `{"id":5,"for":"2h","device":false}`, "approve 52hfalse"},
		{"/v1/approve", `{"id":6,"for":"","device":true}`, "approve 6true"},
		{"/v1/deny", `{"id":7,"device":true}`, "deny 7true"},
		{"/v1/revoke", `{"id":8}`, "revoke 8"},
	} {
		if answer, text := s.ask(s.posted(c.path, k), c.body); answer.StatusCode != 200 || s.daemon.said[len(s.daemon.said)-1] != c.want {
			t.Errorf("%s %s: %v %s, the daemon was told %q", c.path, c.body, answer, text, s.daemon.said)
		}
	}
	look := func() (shown web.Shown) {
		t.Helper()
		_, text := s.ask(s.get("/v1/state", k), "")
		if err := json.Unmarshal([]byte(text), &shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	if shown := look(); len(shown.Pending) != 1 || shown.Pending[0].ID != 5 || len(shown.Approvals) != 1 {
		t.Errorf("it shows %+v", shown)
	}
	s.daemon.set(func() { s.daemon.asksNobody = true })
	_, _ = s.ask(s.posted("/v1/revoke", k), `{"id":8}`) // so that the daemon is asked anew
	if shown := look(); shown.Error != "" || shown.Pending != nil || shown.Approvals != nil || len(shown.Mappings) != 2 {
		t.Errorf("of a daemon that asks nobody it shows %+v", shown)
	}
}
