package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/control"
	"portcullis/internal/slog"
	"portcullis/portmap"
)

// TestMain is also the child that asks for the status as another user.
func TestMain(m *testing.M) {
	if socket := os.Getenv("ASK"); socket != "" {
		_, err := control.NewClient(socket).Status(context.Background())
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// table is a Mapper over a fixed table.
type table struct {
	*portmap.Table
	asked  portmap.Selector
	wished []portmap.Request
	name   atomic.Value // a string: what the host is called now
	blind  atomic.Bool  // the packets cannot be counted
	broken atomic.Bool  // removing and naming panic
	query  control.Query

	mu        sync.Mutex
	followers map[chan portmap.Event]struct{}
}

// events is what the engine's watchers are.
func (t *table) events(ctx context.Context) <-chan portmap.Event {
	c := make(chan portmap.Event, 16)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.followers == nil {
		t.followers = map[chan portmap.Event]struct{}{}
	}
	t.followers[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.followers, c)
		close(c)
	})
	return c
}

func (t *table) tell(ev portmap.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.followers {
		c <- ev
	}
}

func (t *table) explain(_ context.Context, q control.Query) (control.Explained, error) {
	if q.Addr == netip.MustParseAddr("10.9.9.9") {
		return control.Explained{}, &portmap.Error{Reason: portmap.OffLink, Detail: "10.9.9.9 is in no network that is served"}
	}
	if q.Addr == netip.MustParseAddr("10.9.9.8") {
		return control.Explained{}, control.NotServed("NAT-PMP is off")
	}
	t.query = q
	return control.Explained{}, nil
}

var refused = []control.RefusedDevice{{
	Client: control.Asker{Address: "192.168.1.50", MAC: "02:00:00:00:00:05", Host: "console", Interface: "br-lan"}, LeftOut: 3,
	Refused: []control.Refused{{
		Time: "2026-11-30T01:00:00Z", Count: 14, Protocol: "tcp", Family: 4, ExternalPort: 8080, InternalIP: "192.168.1.50", InternalPort: 8080, Via: "upnp", Description: "game",
		Verdict: control.Verdict{Action: "deny", Reason: "privileged-port", Rule: "web", Why: "no", Add: "[[rule]]\n", Above: "web"},
	}},
}}

func (t *table) Snapshot() *portmap.Table { return t.Table }

func (t *table) Unmap(_ context.Context, s portmap.Selector) ([]portmap.Mapping, error) {
	if t.broken.Load() {
		panic("a test")
	}
	t.asked = s
	changes, err := t.PlanRemoval(time.Now(), s)
	var gone []portmap.Mapping
	for _, c := range changes {
		gone = append(gone, *c.Old)
	}
	return gone, err
}

var status = control.Status{
	Version: "1.2.3", Uptime: 60, Mappings: 1, Limit: 1024, Denied: 4,
	WAN:      control.WAN{Interface: "wan0", ExternalIP: "203.0.113.5", Up: true},
	LAN:      []control.LAN{{Interface: "br-lan", Prefixes: []string{"192.168.1.0/24"}}},
	Firewall: control.Firewall{Backend: "nftables", DriftRepaired: 2, Senders: "mark", Askers: true},
	Sandbox: control.Sandbox{Mode: "single", Capabilities: []string{"CAP_NET_ADMIN"}, NoNewPrivs: true, Seccomp: true, Landlock: 7, Missing: []string{}, Front: &control.Front{
		PID: 7, User: 64998, Capabilities: []string{}, NoNewPrivs: true, Seccomp: true, Ended: 1, LastEnd: "signal killed",
	}},
	Configuration: control.Configuration{File: "/etc/p.toml", SHA256: "ab", Since: "2026-11-30T01:00:00Z", Restart: []string{"upnp.http_port"}},
}

func oneMapping(t *testing.T) *portmap.Table {
	t.Helper()
	client := portmap.Client{Addr: netip.MustParseAddr("192.168.1.50"), MAC: portmap.MAC{2, 0, 0, 0, 0, 5}, Interface: "br-lan", Name: "as-asked", Via: portmap.ViaUPnP}
	now := time.Now()
	tab := portmap.NewTable()
	c, err := tab.Plan(now, portmap.Request{Client: client, Transport: portmap.UDP, Description: "game", ZeroIsEndless: true,
		Internal: netip.MustParseAddrPort("192.168.1.50:3074"), ExternalPort: 3075,
		Remotes: []portmap.Remote{{Prefix: netip.MustParsePrefix("198.51.100.9/32")}}}, portmap.Decision{Rule: "consoles"}, 10*time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.New.WAN = "wan0"
	return tab.Commit(c)
}

// serve starts a server in a directory that everybody may enter.
func serve(t *testing.T, group string) (socket string, m *table) {
	t.Helper()
	dir, err := os.MkdirTemp("", "portcullis-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m = &table{Table: oneMapping(t)}
	s, err := control.New(control.Config{
		Logger: slog.New(slog.DiscardHandler), Mapper: m, Group: group,
		Host: func(*portmap.Client) string {
			if m.broken.Load() {
				panic("a test")
			}
			name, _ := m.name.Load().(string)
			return name
		},
		Status:  func() control.Status { return status },
		Metrics: func(context.Context) []byte { return []byte("portcullis_up 1\n") },
		Running: func() []byte { return []byte("[lan]\ninterfaces = [\"br-lan\"]\n") },
		Explain: m.explain, Events: m.events, Refused: func(context.Context) []control.RefusedDevice { return refused },
		Reload: func(context.Context) (control.Reloaded, error) {
			if m.blind.Load() {
				return control.Reloaded{}, errors.New("p.toml:3: a mistake")
			}
			return control.Reloaded{File: "p.toml", Changed: []string{"rule"}, Restart: []string{}, Revoked: []control.Revoked{
				{Mapping: control.Mapping{ID: 9, Protocol: "udp"}, Reason: "rule-denied", Why: "not any more"},
			}}, nil
		},
		Traffic: func(_ context.Context, ids []uint64) (map[uint64]control.Traffic, error) {
			if m.blind.Load() {
				return nil, errors.New("the kernel takes too long")
			}
			all := make(map[uint64]control.Traffic)
			for _, id := range ids {
				all[id] = control.Traffic{Packets: id + 8, Bytes: 1200}
			}
			return all, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "control.sock")
	l, err := control.Listen(socket, group)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve ended with %v", err)
		}
		if _, err := os.Stat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return socket, m
}

// raw sends one request and gives status and body.
func raw(t *testing.T, socket, method, path, body string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestListWithoutCounters: L14. A list whose packets cannot be counted is a list, and says
// so.
func TestListWithoutCounters(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	list, err := control.NewClient(socket).Mappings(t.Context())
	if err != nil || len(list) != 1 || list[0].Uncounted || list[0].Packets != 9 {
		t.Errorf("with counters: %+v, %v", list, err)
	}
	m.blind.Store(true)
	list, err = control.NewClient(socket).Mappings(t.Context())
	if err != nil || len(list) != 1 || !list[0].Uncounted || list[0].ExternalPort != 3075 {
		t.Errorf("without: %+v, %v", list, err)
	}
}

// TestShapes: the JSON that outside tools rely on, key by key.
func TestShapes(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	_, got := raw(t, socket, "GET", "/v1/status", "")
	want := `{"version":"1.2.3","uptime":60,"wan":{"interface":"wan0","external_ip":"203.0.113.5","private":false,"up":true},` +
		`"lan":[{"interface":"br-lan","prefixes":["192.168.1.0/24"]}],"mappings":1,"pinholes":0,"mappings_limit":1024,"denied":4,"pending":0,"last_refused":null,` +
		`"firewall":{"backend":"nftables","drift_repaired":2,"senders":"mark","askers":true},` +
		`"sandbox":{"mode":"single","user":0,"capabilities":["CAP_NET_ADMIN"],"no_new_privs":true,"seccomp":true,"landlock":7,"dumpable":false,"missing":[],"front":{"pid":7,"user":64998,"capabilities":[],"no_new_privs":true,"seccomp":true,"unknown":"","ended":1,"last_end":"signal killed"}},` +
		`"configuration":{"file":"/etc/p.toml","sha256":"ab","since":"2026-11-30T01:00:00Z","restart":["upnp.http_port"]}}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	_, text := raw(t, socket, "GET", "/v1/mappings", "")
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(list[0]["created"])); err != nil {
		t.Error(err)
	}
	delete(list[0], "created")
	wantList := map[string]any{
		"id": 1.0, "protocol": "udp", "family": 4.0, "external_port": 3075.0, "internal_ip": "192.168.1.50", "internal_port": 3074.0,
		"remote": "198.51.100.9", "client_mac": "02:00:00:00:00:05", "client_host": "as-asked", "via": "upnp", "description": "game",
		"rule": "consoles", "wan": "wan0", "enabled": true, "expires_in": 600.0, "endless": true, "suspended": false, "packets": 9.0, "bytes": 1200.0,
	}
	if diff := cmp.Diff(wantList, list[0]); diff != "" {
		t.Errorf("mapping (-want +got):\n%s", diff)
	}
	m.name.Store("console-b")
	if _, text := raw(t, socket, "GET", "/v1/mappings", ""); !strings.Contains(text, `"client_host":"console-b"`) {
		t.Errorf("the name of today is not in %s", text)
	}
}

// TestMetrics: a listener for the metrics has them for everybody, and nothing else; by the
// socket they are for who may talk.
func TestMetrics(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, "")
	if code, text := raw(t, socket, "GET", "/metrics", ""); code != 200 || text != "portcullis_up 1\n" {
		t.Errorf("by the socket: %d %s", code, text)
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	open := control.NewMetrics(control.Config{Logger: slog.New(slog.DiscardHandler), Metrics: func(context.Context) []byte { return []byte("portcullis_up 1\n") }})
	ended := make(chan error)
	go func() { ended <- open.Serve(ctx, l) }()
	for path, want := range map[string]int{"/metrics": 200, "/v1/status": 404, "/v1/mappings": 404, "/": 404} {
		if code, _ := raw(t, filepath.Join(dir, "open"), "GET", path, ""); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	for _, path := range []string{"/metrics", "/v1/delete", "/v1/reload"} {
		if code, text := raw(t, filepath.Join(dir, "open"), "POST", path, `{"all":true}`); code < 400 {
			t.Errorf("POST %s: %d %s", path, code, text)
		}
	}
	stop()
	<-ended
}

// TestReload: a reload says what changed and what it closed; one that fails says the mistake.
func TestReload(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	_, text := raw(t, socket, "POST", "/v1/reload", "")
	for _, want := range []string{`{"file":"p.toml","changed":["rule"],"restart":[],"revoked":[{"id":9,"protocol":"udp",`, `"reason":"rule-denied","why":"not any more"}]}`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	if code, _ := raw(t, socket, "GET", "/v1/reload", ""); code != 405 {
		t.Errorf("a GET reloads: %d", code)
	}
	m.blind.Store(true)
	code, text := raw(t, socket, "POST", "/v1/reload", "")
	if want := `{"reason":"bad-configuration","error":"p.toml:3: a mistake"}` + "\n"; code != 409 || text != want {
		t.Errorf("%d %s, want %s", code, text, want)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	client := control.NewClient(socket)
	for _, c := range []struct {
		body   string
		status int
		reason string
	}{
		{`{"id":1}`, 200, ""},
		{`{"protocol":"udp","port":3075}`, 200, ""},
		{`{"all":true}`, 200, ""},
		{`{"id":9}`, 404, "no-such-mapping"},
		{`{"protocol":"tcp","port":3075}`, 404, "no-such-mapping"},
		{`{"protocol":"icmp","port":3075}`, 400, "bad-request"},
		{`{"protocol":"udp"}`, 400, "bad-request"},
		{`{"id":1,"all":true}`, 400, "bad-request"},
		{`{}`, 400, "bad-request"},
		{`{"everything":true}`, 400, "bad-request"},
		{`{"id":-1}`, 400, "bad-request"},
		{`{"port":70000}`, 400, "bad-request"},
		{`not json`, 400, "bad-request"},
		{`{"protocol":"` + strings.Repeat("x", 10000) + `"}`, 400, "bad-request"},
	} {
		code, text := raw(t, socket, "POST", "/v1/delete", c.body)
		var f control.Failure
		if code != 200 {
			if err := json.Unmarshal([]byte(text), &f); err != nil || f.Error == "" {
				t.Errorf("%.60s: %v in %s", c.body, err, text)
			}
		}
		if code != c.status || f.Reason != c.reason {
			t.Errorf("%.60s: %d %q, want %d %q", c.body, code, f.Reason, c.status, c.reason)
		}
	}
	if _, err := client.Delete(t.Context(), control.Deletion{ID: 1}); err != nil || m.asked.Client.Via != portmap.ViaOwner || !m.asked.Anybody {
		t.Errorf("asked as %v, %v", m.asked.Client.Via, err)
	}
	for _, c := range [][2]string{{"GET", "/v1/delete"}, {"POST", "/v1/status"}, {"GET", "/v2/status"}, {"GET", "/"}} {
		if code, _ := raw(t, socket, c[0], c[1], ""); code != 404 && code != 405 {
			t.Errorf("%s %s: %d", c[0], c[1], code)
		}
	}
}

// TestPanic: a request that makes a handler panic is answered, and the next one served.
func TestPanic(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	m.broken.Store(true)
	if code, text := raw(t, socket, "POST", "/v1/delete", `{"id":1}`); code != 500 || !strings.Contains(text, `"error":`) {
		t.Errorf("answered %d %s", code, text)
	}
	if list, err := control.NewClient(socket).Mappings(t.Context()); err == nil {
		t.Errorf("a list that cannot be made has %d mappings", len(list))
	}
	m.broken.Store(false)
	if code, text := raw(t, socket, "POST", "/v1/delete", `{"id":1}`); code != 200 {
		t.Errorf("then %d %s", code, text)
	}
}

// TestPeers: who may talk is decided by the kernel's word for who is there.
func TestPeers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to become somebody else")
		}
		t.Skip("needs root to become somebody else")
	}
	program := filepath.Join(t.TempDir(), "ask")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(program); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(socket string, who *syscall.Credential) string {
		cmd := exec.Command(program)
		cmd.Env = []string{"ASK=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		return strings.TrimSpace(out.String())
	}
	const nobody, operator = 65534, 37 // Debian's group "operator"
	open, _ := serve(t, "operator")
	closed, _ := serve(t, "")
	if err := os.Chmod(closed, 0o666); err != nil { // the mode must not be what keeps them out
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		socket string
		who    *syscall.Credential
		may    bool
	}{
		"root":                  {closed, &syscall.Credential{}, true},
		"somebody":              {closed, &syscall.Credential{Uid: nobody, Gid: nobody}, false},
		"member without group":  {closed, &syscall.Credential{Uid: nobody, Gid: operator}, false},
		"member":                {open, &syscall.Credential{Uid: nobody, Gid: operator}, true},
		"member by supplement":  {open, &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{operator}}, true},
		"member of another one": {open, &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{38}}, false},
	} {
		answer := ask(c.socket, c.who)
		if c.may != (answer == "<nil>") || !c.may && !strings.Contains(answer, "control.group") {
			t.Errorf("%s: %s", name, answer)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "control.sock")
	first, err := control.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := control.Listen(path, ""); err == nil || !strings.Contains(err.Error(), "another portcullis") {
		t.Errorf("a live socket: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as a crash leaves it
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := control.Listen(path, "")
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	second.Close()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(plain, ""); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a plain file: %v", err)
	}
	if text, err := os.ReadFile(plain); err != nil || string(text) != "precious" {
		t.Error("the file was touched")
	}
	if _, err := control.Listen(filepath.Join(dir, "x"), "no-such-group"); err == nil {
		t.Error("a group that does not exist")
	}
}

// TestDeleteCounts: what is said of a mapping that was closed is what had gone through it,
// which nobody can ask for afterwards.
func TestDeleteCounts(t *testing.T) {
	t.Parallel()
	socket, m := serve(t, "")
	gone, err := control.NewClient(socket).Delete(t.Context(), control.Deletion{ID: 1})
	if err != nil || len(gone) != 1 || gone[0].Packets != 9 || gone[0].Bytes != 1200 || gone[0].Uncounted {
		t.Errorf("closed %+v, %v", gone, err)
	}
	m.blind.Store(true)
	gone, err = control.NewClient(socket).Delete(t.Context(), control.Deletion{ID: 1})
	if err != nil || len(gone) != 1 || !gone[0].Uncounted {
		t.Errorf("without counters: closed %+v, %v", gone, err)
	}
}
