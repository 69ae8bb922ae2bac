// Package readme runs every command of the README and of the manuals, so that none of
// them lies.
package readme

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/config"
	"portcullis/internal/lab"
)

const root = "../.."

var (
	consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")
	tomlBlock    = regexp.MustCompile("(?s)```toml\n(.*?)```")
	literalBlock = regexp.MustCompile(`(?s)\n\.Bd -literal[^\n]*\n(.*?)\n\.Ed`)
	oneLiner     = regexp.MustCompile(`(?m)^(?:\.Dl |#.*   )(portcullis [^\n]*)$`)
	makeTarget   = regexp.MustCompile("(?:`|\\$ )make ([a-z-]+)")
	link         = regexp.MustCompile(`\]\(([^)]+)\)`)
)

func readme(t *testing.T) string {
	t.Helper()
	return file(t, "README.md")
}

// commands returns the README's commands in order, without prompt and comment.
func commands(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, block := range consoleBlock.FindAllStringSubmatch(readme(t), -1) {
		for _, line := range strings.Split(strings.TrimSpace(block[1]), "\n") {
			cmd, isCommand := strings.CutPrefix(line, "$ ")
			if !isCommand {
				t.Errorf("a line of a console block that is no command: %q", line)
				continue
			}
			cmd, _, _ = strings.Cut(cmd, "  #")
			all = append(all, strings.TrimSpace(cmd))
		}
	}
	return all
}

func file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// manuals are the files that an owner reads beside the README.
var manuals = []string{"etc/man/portcullis.8", "etc/man/portcullis.toml.5", "etc/portcullis.toml"}

// manualCommands are the commands that they show: after a prompt, or on a line of
// their own.
func manualCommands(t *testing.T) (all []string) {
	t.Helper()
	for _, name := range manuals {
		text := file(t, name)
		for _, block := range literalBlock.FindAllStringSubmatch(text, -1) {
			for _, line := range strings.Split(block[1], "\n") {
				if cmd, ok := strings.CutPrefix(line, "# "); ok {
					all = append(all, cmd)
				}
			}
		}
		for _, m := range oneLiner.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.Replace(m[1], "FILE", "etc/portcullis.toml", 1))
		}
	}
	if len(all) < 5 {
		t.Errorf("the manuals have the commands %q alone", all)
	}
	return all
}

// shell is a shell on the lab's gateway, with a /run and a /var/lib of its own,
// so that the commands can be run as they stand there.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

const prologue = `mount -t tmpfs none /run && mount -t tmpfs none /var/lib && sudo() { "$@"; }
`

func newShell(t *testing.T, h *lab.Host) *shell {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "sh")
	cmd.Dir = root
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s := &shell{t, in, bufio.NewReader(out)}
	if _, err := io.WriteString(in, prologue); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs one command and gives what it printed and its exit status.
func (s *shell) run(cmd string) (output, status string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, cmd+" 2>&1 </dev/null\necho \"status:$?\"\n"); err != nil {
		s.t.Fatal(err)
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: %v\n%s", cmd, err, output)
		}
		if status, ended := strings.CutPrefix(line, "status:"); ended {
			return output, strings.TrimSpace(status)
		}
		output += line
	}
}

// TestCommands runs them as they stand, in their order. The daemon runs on the
// gateway of a lab, where a console maps a port before the owner looks. As `make
// test` is running already, only its recipe is printed.
func TestCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root for mounts in a namespace of its own")
	}
	n, err := lab.New("console")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	sh := newShell(t, n.Gateway)
	seen := map[string]bool{}
	running := false
	for _, cmd := range commands(t) {
		seen[cmd] = true
		switch cmd {
		case "make test":
			cmd = "make -n test"
		case "sudo make install":
			cmd = "make -n install" // test/systemd runs these three, on a machine of their own
		case "sudo apt install ./portcullis_*_$(dpkg --print-architecture).deb", "sudo systemctl enable --now portcullis":
			continue
		case "sudo bin/portcullis run":
			sh.run("bin/portcullis run >/run/log 2>&1 & daemon=$!; until grep -q msg=ready /run/log; do kill -0 $daemon || break; done")
			running = true
			console(t, n)
			continue
		case "sudo bin/portcullis web":
			// It goes on until it is interrupted, as the daemon does.
			out, status := sh.run("bin/portcullis web >/run/page 2>&1 & page=$!; until grep -q '^http://127.0.0.1:8480/#' /run/page; do kill -0 $page || break; done; cat /run/page; kill -INT $page && wait $page")
			if status != "0" || !strings.HasPrefix(out, "http://127.0.0.1:8480/#") {
				t.Errorf("$ %s: exit %s\n%s", cmd, status, out)
			}
			continue
		}
		if out, status := sh.run(cmd); status != "0" {
			t.Errorf("$ %s: exit %s\n%s", cmd, status, out)
		}
	}
	console(t, n)
	for _, cmd := range manualCommands(t) {
		if out, status := sh.run(strings.Replace(cmd, "portcullis ", "bin/portcullis ", 1)); status != "0" {
			t.Errorf("# %s: exit %s\n%s", cmd, status, out)
		}
	}
	if !seen["make lab"] || !seen["make test"] || !running {
		t.Error("the README lacks make lab, make test or the daemon")
	}
	if out, status := sh.run("kill -INT $daemon; wait $daemon"); status != "0" {
		log, _ := sh.run("cat /run/log")
		t.Errorf("the daemon ended with %s\n%s\n%s", status, out, log)
	}
}

// console maps the port that the README's owner deletes.
func console(t *testing.T, n *lab.Network) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := lab.NewControlPoint(n.Host("console"))
	if err := c.Find(ctx, lab.IGD1, lab.WANIP1); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(ctx, lab.Mapping{External: 3074, Internal: 3074, Protocol: "UDP", Description: "Game", Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

// TestGoVersion: S7. The README says before its first command which Go it takes, as go.mod has
// it: Debian's own may be older, and says nothing that helps.
func TestGoVersion(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(file(t, "go.mod"))
	before, _, found := strings.Cut(readme(t), "```console")
	if m == nil || !found || !strings.Contains(before, "Go "+m[1]+" or later") {
		t.Errorf("go.mod has %q; the README begins\n%s", m, before)
	}
}

// TestMake: every target of the Makefile and of the documents is there. A recipe is
// printed, not run.
func TestMake(t *testing.T) {
	targets := map[string]bool{}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "docs/performance.md"} {
		for _, m := range makeTarget.FindAllStringSubmatch(file(t, name), -1) {
			targets[m[1]] = true
		}
	}
	for _, line := range strings.Split(file(t, "Makefile"), "\n") {
		if phony, ok := strings.CutPrefix(line, ".PHONY:"); ok {
			for _, name := range strings.Fields(phony) {
				targets[name] = true
			}
		}
	}
	if len(targets) < 12 {
		t.Errorf("only %v", targets)
	}
	for name := range targets {
		cmd := exec.Command("make", "-n", name)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "Nothing to be done") {
			t.Errorf("make %s: %v\n%s", name, err, out)
		}
	}
}

// TestConfiguration: each piece of TOML in the README and in the manual is a valid
// configuration.
func TestConfiguration(t *testing.T) {
	blocks := tomlBlock.FindAllStringSubmatch(readme(t), -1)
	if len(blocks) < 2 {
		t.Errorf("%d pieces of TOML", len(blocks))
	}
	manual := literalBlock.FindAllStringSubmatch(file(t, "etc/man/portcullis.toml.5"), -1)
	manual = slices.DeleteFunc(manual, func(b []string) bool { return !strings.HasPrefix(b[1], "[") }) // the list of ports
	if len(manual) == 0 {
		t.Error("the manual has no example")
	}
	for _, b := range append(blocks, manual...) {
		if _, err := config.Parse("example.toml", []byte(b[1])); err != nil {
			t.Errorf("%v in\n%s", err, b[1])
		}
	}
}

// TestNumber: how much faster than miniupnpd the README says, make bench has measured.
func TestNumber(t *testing.T) {
	t.Parallel()
	said := regexp.MustCompile(`With ([\d,]+) mappings a client is granted\s+another (\d+) times as fast as by miniupnpd`).FindStringSubmatch(readme(t))
	_, ratios, _ := strings.Cut(file(t, "docs/performance.md"), "portcullis / miniupnpd  at once")
	head, rows, _ := strings.Cut(ratios, "\n")
	row := regexp.MustCompile(`(?m)^ *AddPortMapping, new +1 +(.*)$`).FindStringSubmatch(rows)
	if said == nil || row == nil {
		t.Fatalf("the README says %q, the table has %q", said, row)
	}
	if i := slices.Index(strings.Fields(head), said[1]); i < 0 || strings.Fields(row[1])[i] != said[2] {
		t.Errorf("the README says %q, the table has %q", said[0], row[0])
	}
}

// TestInstalled: what the installed documents point at in the machine is installed.
func TestInstalled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("make", "--silent", "install", "DESTDIR="+dir, "PREFIX=/usr", "BIN=/bin/true")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	docs, err := filepath.Glob(filepath.Join(dir, "usr/share/doc/portcullis/docs/*.md"))
	if err != nil || len(docs) < 10 {
		t.Fatal(docs, err)
	}
	for _, doc := range docs {
		pointsAt(t, doc)
	}
}

// TestLinks: every file that the documents point at is there.
func TestLinks(t *testing.T) {
	docs, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, more...) {
		pointsAt(t, doc)
	}
}

// pointsAt wants each file to be there that a document points at.
func pointsAt(t *testing.T, doc string) {
	t.Helper()
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range link.FindAllStringSubmatch(string(text), -1) {
		name, _, _ := strings.Cut(m[1], "#")
		if strings.Contains(name, "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(doc), name)); err != nil {
			t.Errorf("%s points at %s: %v", filepath.Base(doc), m[1], err)
		}
	}
}
