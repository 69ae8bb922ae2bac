// Package systemd tests the unit: what systemd thinks of it, and that the daemon works
// under it, on a gateway that systemd has booted.
package systemd

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portcullis/internal/control"
	"portcullis/internal/lab"
	"portcullis/internal/netns/netnstest"
	testrig "portcullis/test/rig"
)

func TestMain(m *testing.M) { os.Exit(testrig.Main(m)) }

// soon is how long a test waits for what must happen.
const soon = 15 * time.Second

// TestExposure: systemd's own verdict on the units, in tenths.
func TestExposure(t *testing.T) {
	t.Parallel()
	netnstest.NeedProgram(t, "systemd-analyze")
	for unit, most := range map[string]string{"portcullis.service": "15", "portcullis-web.service": "15", "portcullis-cleanup.service": "35"} {
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+most, "../../etc/systemd/"+unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// settings is the owner's configuration: the gateway's own firewall drops what it does not
// know, and members of a group use the commands. upnpc takes an address of the
// documentation's, which the lab has, for that of a second NAT.
const settings = `[wan]
external_ip = "11.22.33.44"
[firewall]
accept_chain = "` + lab.FirewallChain + `"
[control]
group = "portcullis"
[metrics]
listen = "127.0.0.1:9180"
`

// installed boots a gateway and runs the README's commands, which install the service and
// start it.
func installed(t *testing.T, n *lab.Network) *machine {
	t.Helper()
	m := boot(t, n)
	for _, cmd := range readmeCommands(t) {
		if strings.Contains(cmd, "systemctl enable") {
			m.write(configuration, settings)
			m.write("/run/systemd/timesync/synchronized", "") // as systemd-timesyncd does
		}
		m.run("sh", "-c", `sudo() { "$@"; }; cd `+source+` && `+cmd)
	}
	return m
}

// readmeCommands returns those of the README that install the service.
func readmeCommands(t *testing.T) (cmds []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"make install", "systemctl"} {
		for _, match := range regexp.MustCompile(`(?m)^\$ (sudo `+word+`\b.*)$`).FindAllStringSubmatch(string(text), -1) {
			cmds = append(cmds, match[1])
		}
	}
	if len(cmds) != 2 {
		t.Fatalf("the README installs the service by %q", cmds)
	}
	return cmds
}

// TestService: the service as it is installed is confined, serves real clients and its
// owner, and keeps mappings and connections over a restart and a crash. A stop leaves
// nothing.
func TestService(t *testing.T) {
	t.Parallel()
	n := testrig.Network(t, "a")
	m := installed(t, n)
	m.confined()
	m.quiet()
	m.owned()
	// Front and warden are one user here, who is kept on the LANs: but for these answers.
	metrics := m.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "bash", "-c",
		`exec 3<>/dev/tcp/127.0.0.1/9180; printf 'GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9180\r\n\r\n' >&3; cat <&3`)
	if !strings.HasPrefix(metrics, "HTTP/1.1 200 OK\r\n") || !strings.Contains(metrics, "\nportcullis_mappings_limit 1024\n") {
		t.Errorf("the metrics are %s", metrics)
	}
	if !m.synced() {
		t.Error("the word of systemd-timesyncd does not count")
	}

	a := n.Host("a")
	testrig.On(t, a, "upnpc", "-e", "a game", "-a", a.Addr.String(), "6000", "6000", "TCP", "3600")
	testrig.On(t, a, "natpmpc", "-a", "6001", "6001", "udp", "3600")
	before := m.list()
	if len(before) != 2 || before[0].Via != "upnp" || before[1].Via != "natpmp" {
		t.Fatalf("the list is %+v", before)
	}
	flow := connect(t, n)
	m.priorities(a)
	m.page(n)

	pid := m.show("MainPID")
	m.write(configuration, settings+"[lease]\nmax = \"30m\"\n")
	m.run("systemctl", "reload", "portcullis")
	m.write(configuration, settings+"[lease]\nmax = 30\n")
	if out, err := m.try("systemctl", "reload", "portcullis"); err == nil {
		t.Errorf("a file with a mistake is reloaded: %s", out)
	}
	m.write(configuration, settings)
	shorter := m.list()
	if len(shorter) != 2 || shorter[0].ExpiresIn > 30*60 || m.show("MainPID") != pid || m.show("ActiveState") != "active" {
		t.Errorf("after a reload the list is %+v", shorter)
	}
	if line := m.show("StatusText"); !strings.HasPrefix(line, "serving br-lan; WAN ") {
		t.Errorf("its status is %q", line)
	}
	before = shorter
	m.run("systemctl", "restart", "portcullis")
	if m.show("MainPID") == pid {
		t.Error("the daemon was not started anew")
	}
	m.kept(before, flow, "a restart")
	m.confined()

	m.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", "portcullis")
	testrig.Eventually(t, soon, "systemd starts it again", func() bool {
		return m.show("NRestarts") == "1" && m.show("ActiveState") == "active"
	})
	m.kept(before, flow, "a crash")

	m.run("systemctl", "stop", "portcullis")
	if err := netnstest.Say(flow, "over", time.Second); err == nil {
		t.Error("a connection goes on after the stop")
	}
	tables, err := n.Tables()
	if err != nil || slices.ContainsFunc(tables, func(name string) bool { return strings.Contains(name, "portcullis") }) {
		t.Errorf("after the stop: %q, %v", tables, err)
	}
	if left := m.processes(); len(left) > 0 {
		t.Errorf("after the stop there is %q", left)
	}
	m.gone(n)
}

// gone stops the service while its daemon is dead, and while it hangs: nothing of it is left,
// unless the owner has said that a stop keeps it.
func (m *machine) gone(n *lab.Network) {
	m.t.Helper()
	left := func() bool {
		tables, err := n.Tables()
		return err != nil || slices.ContainsFunc(tables, func(name string) bool { return strings.Contains(name, "portcullis") })
	}
	m.write("/run/systemd/system/portcullis.service.d/test.conf", "[Service]\nRestartSec=1h\nTimeoutStopSec=2s\n")
	m.run("systemctl", "daemon-reload")
	for _, c := range []struct{ signal, settings string }{
		{"SIGKILL", settings},
		{"SIGUSR2", settings}, // a handover, with nobody to take it
		{"SIGSTOP", settings},
		{"SIGKILL", strings.Replace(settings, "[firewall]\n", "[firewall]\nkeep_on_stop = true\n", 1)},
	} {
		m.write(configuration, c.settings)
		m.run("systemctl", "start", "portcullis")
		if !left() {
			m.t.Fatal("there is nothing in the kernel")
		}
		m.run("systemctl", "kill", "--kill-whom=main", "--signal="+c.signal, "portcullis")
		if c.signal == "SIGKILL" {
			testrig.Eventually(m.t, soon, "systemd waits", func() bool { return m.show("SubState") == "auto-restart" })
			if !left() {
				m.t.Error("a crash closes what was open")
			}
		}
		m.run("systemctl", "stop", "portcullis")
		testrig.Eventually(m.t, soon, "the other unit ends", func() bool {
			state, _ := m.try("systemctl", "is-active", "portcullis-cleanup") // it fails for what is not active
			return strings.TrimSpace(state) == "inactive"
		})
		if kept := strings.Contains(c.settings, "keep_on_stop"); left() != kept {
			m.t.Errorf("a stop after %s, kept %v: there is something: %v", c.signal, kept, !kept)
		}
	}
}

// priorities wants the journal to know what is a warning, and to have one time a line.
func (m *machine) priorities(a *lab.Host) {
	m.t.Helper()
	testrig.On(m.t, a, "sh", "-c", "upnpc -e shell -a "+a.Addr.String()+" 22 22 TCP 3600 || true")
	journal := func(args ...string) string {
		return m.run(append([]string{"journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID=" + m.show("InvocationID")}, args...)...)
	}
	var warnings string
	testrig.Eventually(m.t, soon, "journalctl -p warning has the refusal", func() bool {
		warnings = journal("-p", "warning")
		return strings.Contains(warnings, `msg="request refused"`)
	})
	if strings.Contains(warnings, "level=INFO") {
		m.t.Errorf("among the warnings there is\n%s", warnings)
	}
	if all := journal(); !strings.Contains(all, "level=INFO msg=ready") || strings.Contains(all, "time=") || strings.Contains(all, "<6>") {
		m.t.Errorf("the journal has\n%s", all)
	}
}

// page wants the owner's page to be served under its own unit, by a link from the journal, to
// be told by the daemon, and to be gone at the end.
func (m *machine) page(n *lab.Network) {
	m.t.Helper()
	journal := func() string {
		return m.run("journalctl", "--no-pager", "--output=cat", "--unit=portcullis-web")
	}
	defer func() {
		if m.t.Failed() {
			m.t.Logf("the journal of the page:\n%s", journal())
		}
	}()
	links := regexp.MustCompile(`(?m)^http://127\.0\.0\.1:8480/#(\S+)$`)
	printed := func(want int) (word string) {
		testrig.Eventually(m.t, soon, "the journal has a link", func() bool {
			all := links.FindAllStringSubmatch(journal(), -1)
			if len(all) == want {
				word = all[want-1][1]
			}
			return word != ""
		})
		return word
	}
	client := http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.Gateway.Dial}}
	ask := func(method, path, body string, header http.Header) (*http.Response, string) {
		m.t.Helper()
		r, err := http.NewRequestWithContext(m.t.Context(), method, "http://127.0.0.1:8480"+path, strings.NewReader(body))
		if err != nil {
			m.t.Fatal(err)
		}
		r.Header = header
		answer, err := client.Do(r)
		if err != nil {
			m.t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			m.t.Fatal(err)
		}
		return answer, string(text)
	}
	m.run("systemctl", "start", "portcullis-web")
	printed(1)
	m.run("systemctl", "reload", "portcullis-web")
	word := printed(2)
	doc, err := os.ReadFile("../../docs/systemd.md")
	if err != nil {
		m.t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^# (journalctl -u portcullis-web .*)$`).FindSubmatch(doc)
	if line == nil || m.run(strings.Fields(string(line[1]))...) != "http://127.0.0.1:8480/#"+word+"\n" {
		m.t.Errorf("by the document, %q, the link is not found", line)
	}
	answer, text := ask(http.MethodPost, "/v1/signin", `{"word":"`+word+`"}`, http.Header{"Content-Type": {"application/json"}, "Origin": {"http://127.0.0.1:8480"}})
	var said struct{ Key string }
	if err := json.Unmarshal([]byte(text), &said); err != nil || answer.StatusCode != http.StatusOK {
		m.t.Fatalf("signing in: %s %s", answer.Status, text)
	}
	_, text = ask(http.MethodGet, "/v1/state", "", http.Header{"X-Portcullis-Key": {said.Key}, "Cookie": {strings.Split(answer.Header.Get("Set-Cookie"), ";")[0]}})
	if !strings.Contains(text, `"error":""`) || !strings.Contains(text, `"description":"a game"`) {
		m.t.Errorf("it shows %s", text)
	}
	m.run("systemctl", "stop", "portcullis-web")
	if log := journal(); strings.Contains(log, "incomplete") || !strings.Contains(m.run("systemctl", "show", "--property=Result", "portcullis-web"), "success") {
		m.t.Errorf("its journal has\n%s", log)
	}
}

// connect opens a connection from the Internet to an echo behind the mapping.
func connect(t *testing.T, n *lab.Network) net.Conn {
	t.Helper()
	l, err := n.Host("a").Listen("0.0.0.0:6000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	out, err := n.Internet.Dial(t.Context(), "tcp", net.JoinHostPort(lab.GatewayWAN.String(), "6000"))
	if err != nil {
		t.Fatalf("the mapping leads nowhere: %v", err)
	}
	t.Cleanup(func() { out.Close() })
	if err := netnstest.Say(out, "before", soon); err != nil {
		t.Fatal(err)
	}
	return out
}

// kept wants the list to be the same, and the connection to go on.
func (m *machine) kept(before []control.Mapping, flow net.Conn, after string) {
	m.t.Helper()
	same := func(a, b control.Mapping) bool {
		return a.ID == b.ID && a.ExternalPort == b.ExternalPort && a.InternalIP == b.InternalIP && a.Via == b.Via
	}
	if now := m.list(); !slices.EqualFunc(before, now, same) {
		m.t.Errorf("before %s: %+v\nafter: %+v", after, before, now)
	}
	if err := netnstest.Say(flow, after, soon); err != nil {
		m.t.Errorf("the connection is broken after %s: %v", after, err)
	}
}

// show returns a property of the service.
func (m *machine) show(property string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "--value", "--property="+property, "portcullis"))
}

// list returns the owner's view.
func (m *machine) list() (list []control.Mapping) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.run("portcullis", "list", "--json")), &list); err != nil {
		m.t.Fatal(err)
	}
	return list
}

// status returns what the daemon says of itself.
func (m *machine) status() (s control.Status) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.run("portcullis", "status", "--json")), &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// quiet wants a log without warnings, and the sandbox.
func (m *machine) quiet() {
	m.t.Helper()
	log := m.run("journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+m.show("InvocationID"))
	if loud := regexp.MustCompile(`(?m)^.*level=(?:WARN|ERROR).*$`).FindAllString(log, -1); len(loud) > 0 || !strings.Contains(log, "msg=ready") {
		m.t.Errorf("the log says %q", loud)
	}
	m.sandboxed()
}

// sandboxed wants a sandbox that lacks nothing, as the daemon says itself.
func (m *machine) sandboxed() {
	m.t.Helper()
	x := m.status().Sandbox
	if !x.Seccomp || !x.NoNewPrivs || x.Dumpable || len(x.Missing) > 0 || !slices.Equal(x.Capabilities, []string{"CAP_NET_ADMIN"}) {
		m.t.Errorf("status: %+v", x)
	}
	if f := x.Front; f == nil || f.Unknown != "" || !f.Seccomp || !f.NoNewPrivs || len(f.Capabilities) > 0 || f.User != x.User {
		m.t.Errorf("the front is %+v", f)
	}
}

// owned tries the commands as root, as a member of the group, and as somebody else; what
// the daemon keeps is its own.
func (m *machine) owned() {
	m.t.Helper()
	m.run("portcullis", "list")
	m.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=portcullis", "portcullis", "list")
	out, err := m.try("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "portcullis", "list")
	if err == nil || !strings.Contains(out, "permission denied") {
		m.t.Errorf("anybody lists: %v\n%s", err, out)
	}
	const want = "portcullis portcullis 700\nportcullis portcullis 755\nportcullis portcullis 660\n"
	if got := m.run("stat", "--format=%U %G %a", "/var/lib/portcullis", "/run/portcullis", "/run/portcullis/control.sock"); got != want {
		m.t.Errorf("the directories are\n%swant\n%s", got, want)
	}
}

// confined reads what the kernel says of every thread of every process of the service:
// nothing but CAP_NET_ADMIN, which one process has. The other, where the daemon is two, has
// nothing.
func (m *machine) confined() {
	m.t.Helper()
	user := strings.TrimSpace(m.run("id", "--user", "portcullis"))
	want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "Uid": strings.TrimSpace(strings.Repeat(user+"\t", 4))}
	for _, dir := range m.processes() {
		threads, err := filepath.Glob(dir + "/task/*/status")
		if err != nil {
			m.t.Fatal(err)
		}
		for _, name := range threads {
			status := read(name)
			for key, value := range want {
				if len(status) > 0 && status[key] != value {
					m.t.Errorf("%s: %s is %q, not %q", name, key, status[key], value)
				}
			}
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
				if got := status[set]; got != netAdmin && strings.Trim(got, "0") != "" {
					m.t.Errorf("%s: %s is %q", name, set, got)
				}
			}
		}
	}
	mode := m.status().Sandbox.Mode
	halves := map[string][]int{"single": {1, 0}, "split": {1, 1}}[mode]
	testrig.Eventually(m.t, soon, "the processes are those of mode "+mode+", one with CAP_NET_ADMIN", func() bool {
		with, without := m.halves()
		return slices.Equal([]int{with, without}, halves)
	})
}

// netAdmin is a set of capabilities.
var netAdmin = fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN)

// halves counts the processes that run our program, with CAP_NET_ADMIN and without any; a
// program of iptables is one of them until it is loaded.
func (m *machine) halves() (with, without int) {
	m.t.Helper()
	for _, dir := range m.processes() {
		exe, _ := os.Readlink(dir + "/exe")
		if filepath.Base(exe) != "portcullis" {
			continue
		}
		switch read(dir + "/status")["CapEff"] {
		case netAdmin:
			with++
		case strings.Repeat("0", len(netAdmin)):
			without++
		}
	}
	return with, without
}

// read returns a status of /proc by its keys, nil of what has ended.
func read(name string) map[string]string {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	return status
}
