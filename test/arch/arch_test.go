// Package arch holds the program to its plan: which package may import which, and what
// each says of itself (ARCHITECTURE.md).
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "portcullis"

// pkg is one package of ours, as `go list -json` shows it.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var r pkg
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[r.ImportPath] = r
	}
}

func own(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// allowed lists, for each package, those of ours that it may import directly; what
// those import in turn is theirs to answer for.
var allowed = map[string][]string{
	"portmap":                  {},
	"policy":                   {"internal/special", "portmap"},
	"config":                   {"internal/slog", "firewall", "internal/nearest", "internal/special", "policy", "portmap", "internal/digest"},
	"soap":                     {"internal/xml1"},
	"internal/xml1":            {},
	"internal/datagram":        {"internal/slog", "internal/sockets", "internal/special"},
	"internal/sockets":         {},
	"internal/frames":          {"internal/datagram"},
	"internal/wall":            {"internal/slog", "internal/crew", "internal/datagram", "internal/frames", "internal/netif", "internal/sockets", "portmap"},
	"ssdp":                     {"internal/slog", "internal/datagram"},
	"pcp":                      {"internal/slog", "internal/datagram", "portmap"},
	"internal/http1":           {},
	"internal/slog":            {"internal/json"},
	"internal/json":            {},
	"internal/accounts":        {},
	"internal/digest":          {},
	"internal/program":         {},
	"internal/random":          {},
	"internal/crew":            {},
	"internal/httpd":           {"internal/slog", "internal/crew", "internal/http1", "internal/sockets"},
	"internal/gena":            {"internal/slog", "internal/http1", "internal/sockets", "internal/xml1", "internal/random"},
	"internal/netif":           {"internal/slog", "internal/sockets", "internal/special", "internal/enter"},
	"internal/special":         {},
	"internal/nearest":         {},
	"internal/cmdline":         {"internal/nearest"},
	"internal/background":      {"internal/sandbox"},
	"internal/incumbent":       {"internal/json", "config", "firewall", "policy", "portmap"},
	"internal/journal":         {"internal/json", "internal/slog", "internal/pace", "portmap", "internal/random"},
	"internal/dhcp":            {"internal/slog", "internal/inotify", "internal/pace", "portmap"},
	"internal/inotify":         {},
	"internal/pace":            {},
	"internal/leasefile":       {"internal/slog", "internal/inotify", "portmap"},
	"internal/refusals":        {"portmap"},
	"internal/approvals":       {"internal/json", "internal/slog", "internal/pace", "portmap"},
	"internal/hook":            {"internal/slog", "internal/sandbox"},
	"igd":                      {"internal/slog", "portmap", "soap", "internal/http1", "internal/httpd", "internal/gena", "internal/xml1", "internal/digest"},
	"internal/control":         {"internal/accounts", "internal/json", "internal/slog", "internal/http1", "internal/metrics", "portmap"},
	"internal/metrics":         {},
	"internal/web":             {"internal/json", "internal/control", "internal/http1", "internal/digest", "internal/random"},
	"internal/webprocess":      {"internal/json", "internal/control", "internal/sandbox", "internal/web", "internal/random"},
	"firewall":                 {"internal/slog", "portmap"},
	"firewall/flows":           {"internal/slog", "firewall", "internal/enter", "portmap"},
	"firewall/nft":             {"internal/slog", "firewall", "firewall/flows", "internal/enter", "internal/frames", "portmap"},
	"firewall/iptables":        {"internal/slog", "firewall", "firewall/nft", "internal/enter", "internal/inotify", "internal/program", "portmap"},
	"firewall/witness":         {"internal/frames", "firewall/nft"},
	"firewall/fwtest":          {"internal/slog", "firewall", "portmap"},
	"firewall/homenet":         {"internal/slog", "firewall", "portmap", "internal/netns/netnstest"},
	"internal/check":           {"internal/accounts", "internal/slog", "config", "firewall", "firewall/nft", "internal/leasefile", "internal/nearest", "internal/netif", "internal/wiring", "policy", "portmap"},
	"internal/doctor":          {"internal/slog", "config", "internal/check", "internal/control", "firewall", "firewall/iptables", "firewall/nft", "internal/wiring", "internal/netif", "internal/special", "internal/sockets", "internal/netns", "internal/program", "portmap", "internal/random"},
	"internal/lab":             {"internal/netns"},
	"internal/presence":        {"internal/slog", "internal/netif", "internal/pace", "portmap"},
	"internal/listeners":       {"internal/slog", "internal/netif"},
	"internal/gateway":         {"internal/slog", "firewall", "internal/netif", "internal/pace", "portmap"},
	"internal/restore":         {"internal/slog", "internal/inotify", "internal/journal", "internal/netif", "internal/pace", "portmap"},
	"internal/identify":        {"internal/slog", "internal/datagram", "internal/netif", "portmap"},
	"internal/reconcile":       {"internal/slog", "firewall", "internal/pace"},
	"internal/enter":           {},
	"internal/netns":           {"internal/enter", "internal/program"},
	"internal/netns/netnstest": {"internal/netns"},
	"internal/logging":         {"internal/slog", "config", "portmap"},
	"internal/sandbox":         {"internal/accounts"},
	"internal/wiring":          {"internal/slog", "config", "firewall", "firewall/iptables", "firewall/nft", "internal/netif", "policy", "portmap"},
	"internal/front": {
		"internal/slog",
		"igd", "internal/datagram", "internal/gena", "internal/httpd", "internal/identify", "internal/listeners", "internal/netif",
		"pcp", "portmap", "ssdp",
	},
	"internal/warden": {
		"internal/json", "internal/slog",
		"config", "firewall", "firewall/witness", "internal/approvals", "internal/control", "internal/datagram", "internal/dhcp", "internal/frames",
		"internal/gateway", "internal/hook", "internal/gena", "internal/httpd", "internal/journal", "internal/leasefile", "internal/logging", "internal/metrics", "internal/netif", "internal/presence", "internal/reconcile",
		"internal/refusals", "internal/restore", "internal/sandbox", "internal/sockets", "internal/special", "internal/wiring", "pcp", "policy", "portmap", "ssdp",
	},
	"internal/process":   {"internal/slog", "internal/front", "internal/netif", "internal/pace", "internal/sandbox", "internal/wall"},
	"internal/daemon":    {"internal/slog", "config", "internal/control", "internal/doctor", "internal/front", "internal/netif", "internal/pace", "internal/process", "internal/sandbox", "internal/wall", "internal/warden", "internal/wiring", "portmap", "internal/digest"},
	"cmd/portcullis":     {"internal/json", "internal/slog", "config", "firewall", "internal/background", "internal/check", "internal/cmdline", "internal/control", "internal/doctor", "internal/daemon", "internal/hook", "internal/incumbent", "internal/logging", "internal/process", "internal/sandbox", "internal/webprocess", "internal/wiring", "policy", "portmap", "internal/digest"},
	"cmd/portcullis-lab": {"internal/lab", "internal/netns"},
}

// TestArrows: all imports point towards portmap, no protocol's package imports another's or
// the firewall, neither half of the daemon the other, and only the tests everything. Every
// package has its line, and every line its package.
func TestArrows(t *testing.T) {
	all := packages(t)
	for name := range allowed {
		if _, there := all[module+"/"+name]; !there {
			t.Errorf("there is no package %s", name)
		}
	}
	for _, dep := range all[module+"/cmd/portcullis"].Deps {
		if strings.HasPrefix(dep, "crypto") {
			t.Errorf("the program imports %s: 0.14 MB come with each of them; internal/digest and internal/random do", dep)
		}
	}
	for path, r := range all {
		name := strings.TrimPrefix(path, module+"/")
		if !own(path) || strings.HasPrefix(name, "test/") {
			continue
		}
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s has no line in the table of imports", name)
			continue
		}
		for _, imp := range r.Imports {
			if own(imp) && !slices.Contains(may, strings.TrimPrefix(imp, module+"/")) {
				t.Errorf("%s imports %s, which its line does not allow", name, imp)
			}
		}
	}
}

// bans are packages that one of ours must not import directly.
var bans = []struct {
	of     []string
	banned []string
	why    string
}{
	{[]string{"portmap", "policy"}, []string{"os", "net", "net/http", "log", "log/slog", "os/exec"},
		"the vocabulary, the engine and the policy do no I/O"},
	{[]string{"soap", "internal/xml1"}, []string{"net", "os/exec"}, "a codec does no I/O"},
}

// bansEverywhere hold for the direct imports of every package but those named.
var bansEverywhere = []struct {
	banned string
	except []string
	why    string
}{
	{"os/exec", []string{"internal/lab", "cmd/portcullis-lab", "internal/netns/netnstest"}, "it is 0.1 MB with what it copies by; internal/program runs a program"},
	{module + "/internal/program", []string{"firewall/iptables", "internal/doctor", "internal/netns"}, "nothing a client sends may come near a program's start"},
	{"log", nil, "logs go through an injected slog.Logger"},
	{"log/slog", nil, "its default logger brings encoding/json; internal/slog writes the same lines"},
	{"encoding/json", []string{"internal/lab"}, "with log/slog it is 0.2 MB; internal/json writes the same and reads more strictly"},
	{"os/user", nil, "it looks for whoever runs the program first; internal/accounts reads the same files"},
	{"text/template", nil, "it looks up methods by name, which keeps all methods of the program alive"},
	{"html/template", nil, "it looks up methods by name, which keeps all methods of the program alive"},
	{"net/http", []string{"internal/lab"}, "it brings TLS, HTTP/2 and more tolerance than a guard can see; http1 reads one request a connection"},
	{"encoding/xml", []string{"internal/lab"}, "it brings reflection, and takes what a strict reader refuses; xml1 reads and writes XML"},
	{"expvar", nil, "it is a global"},
}

func TestBans(t *testing.T) {
	all := packages(t)
	for _, b := range bans {
		for _, name := range b.of {
			for _, dep := range all[module+"/"+name].Imports {
				if slices.Contains(b.banned, dep) {
					t.Errorf("%s imports %s: %s", name, dep, b.why)
				}
			}
		}
	}
	for path, r := range all {
		name := strings.TrimPrefix(path, module+"/")
		if !own(path) || strings.HasPrefix(name, "test/") {
			continue
		}
		for _, b := range bansEverywhere {
			if slices.Contains(r.Imports, b.banned) && !slices.Contains(b.except, name) {
				t.Errorf("%s imports %s: %s", name, b.banned, b.why)
			}
		}
	}
}

// names are what package net finds names with, or takes them.
var names = regexp.MustCompile(`\bnet\.(Dial|DialTimeout|Dialer|Listen|ListenConfig|ListenPacket|Lookup\w+|Resolve\w+|Resolver|DefaultResolver)\b`)

// TestNoNames: the program looks up no name, and has no resolver: internal/sockets/doc.go.
func TestNoNames(t *testing.T) { unused(t, names, "takes names; internal/sockets does not") }

// copies are what brings splice, sendfile and whatever else net and os have for it, 0.07 MB.
var copies = regexp.MustCompile(`\bio\.(Copy|CopyN|CopyBuffer)\b`)

// TestNoCopies: the program copies from nowhere to anywhere.
func TestNoCopies(t *testing.T) {
	unused(t, copies, "brings much that we have no use for; read what there is")
}

// unused reports what the program has of what it must not use.
func unused(t *testing.T, what *regexp.Regexp, why string) {
	t.Helper()
	for path, r := range packages(t) {
		name := strings.TrimPrefix(path, module+"/")
		if !own(path) || strings.HasPrefix(name, "test/") || slices.Contains([]string{"internal/lab", "internal/netns/netnstest", "firewall/homenet"}, name) {
			continue
		}
		for _, file := range r.GoFiles {
			text, err := os.ReadFile(filepath.Join(r.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				line, _, _ = strings.Cut(line, "//")
				if used := what.FindString(line); used != "" {
					t.Errorf("%s/%s:%d: %s %s", name, file, i+1, used, why)
				}
			}
		}
	}
}

// TestPure: whatever the vocabulary, the engine and the policy depend on, directly
// or by way of others, is of the standard library and speaks to nobody. (fmt brings os
// along, which they must not import directly.)
func TestPure(t *testing.T) {
	all := packages(t)
	for _, name := range []string{"portmap", "policy"} {
		for _, dep := range all[module+"/"+name].Deps {
			first, _, _ := strings.Cut(dep, "/")
			if strings.Contains(first, ".") || slices.Contains([]string{"net", "net/http", "log", "log/slog", "os/exec", "os/signal", "crypto/tls"}, dep) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}

// TestWall: whatever the half that parses the network depends on, directly or by way of
// others, and the wall before it, it does not have the means of the half that decides. The
// wall knows neither half, nor what either speaks. Neither can start a program.
func TestWall(t *testing.T) {
	all := packages(t)
	for _, name := range []string{"internal/front", "internal/wall"} {
		for _, dep := range all[module+"/"+name].Deps {
			dep = strings.TrimPrefix(dep, module+"/")
			if slices.Contains([]string{"config", "policy", "internal/journal", "internal/control", "internal/warden", "internal/approvals", "internal/hook"}, dep) ||
				strings.HasPrefix(dep, "firewall") {
				t.Errorf("%s depends on %s", name, dep)
			}
			if dep == "os/exec" || dep == "internal/program" {
				t.Errorf("%s depends on %s", name, dep)
			}
			if name == "internal/wall" && slices.Contains([]string{"internal/front", "igd", "pcp", "ssdp", "soap", "internal/httpd"}, dep) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}

// TestDocs: each doc.go says what its package owns, may import and
// never does.
func TestDocs(t *testing.T) {
	for path, r := range packages(t) {
		name := strings.TrimPrefix(path, module+"/")
		if !own(path) || strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "test/") {
			continue
		}
		doc, err := os.ReadFile(filepath.Join(r.Dir, "doc.go"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, word := range []string{"Owns:", "May import:", "Never:"} {
			if !bytes.Contains(doc, []byte(word)) {
				t.Errorf("%s/doc.go does not say %q", name, word)
			}
		}
	}
}

// packageRow and inRow find the packages in the first cell of a row of ARCHITECTURE.md.
var (
	packageRow = regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|")
	inRow      = regexp.MustCompile("`([^`]+)`")
)

// TestPackageTable: ARCHITECTURE.md says of each package what it owns, once.
func TestPackageTable(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, row := range packageRow.FindAllSubmatch(text, -1) {
		for _, name := range inRow.FindAllSubmatch(row[1], -1) {
			rows[string(name[1])]++
		}
	}
	for name := range allowed {
		if rows[name] != 1 {
			t.Errorf("%s is in %d rows", name, rows[name])
		}
		delete(rows, name)
	}
	delete(rows, "test/")
	for name := range rows {
		t.Errorf("there is no package %s", name)
	}
}

// TestPortmapKnowsNoProtocol: requests say what they mean, so that a new way to ask adds no
// branch. Which protocol asked is for claims and logs: their file, and the text form, are
// alone to name one.
func TestPortmapKnowsNoProtocol(t *testing.T) {
	r := packages(t)[module+"/portmap"]
	named := regexp.MustCompile(`\bVia(UPnP|NATPMP|PCP|Owner)\b`)
	for _, name := range r.GoFiles {
		text, err := os.ReadFile(filepath.Join(r.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if found := named.Find(text); found != nil && name != "client.go" && name != "text.go" {
			t.Errorf("portmap/%s names %s", name, found)
		}
	}
}

// logKey finds a key of a log line that has another name elsewhere.
var logKey = regexp.MustCompile(`\.(?:Debug|Info|Warn|Error|With)\([^\n]*(?:\n[^\n]*)?"(error|room|package)", `)

// TestLogKeys: one thing has one key in the log: "err" what went wrong, "subsystem" which
// server tells it.
func TestLogKeys(t *testing.T) {
	for path, r := range packages(t) {
		if !own(path) || strings.HasSuffix(path, "/internal/lab") {
			continue
		}
		for _, name := range r.GoFiles {
			text, err := os.ReadFile(filepath.Join(r.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range logKey.FindAllSubmatch(text, -1) {
				t.Errorf("%s/%s has the log key %q", path, name, m[1])
			}
		}
	}
}
