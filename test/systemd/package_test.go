package systemd

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"portcullis/internal/lab"
	"portcullis/internal/netns/netnstest"
	testrig "portcullis/test/rig"
)

// packaged has `make packages` build a version for this processor, and returns the files
// whose names match, on the machine.
func (m *machine) packaged(version, name string) string {
	m.t.Helper()
	dir := m.t.TempDir()
	out, err := exec.Command("make", "-C", "../..", "packages", "ARCHS="+runtime.GOARCH, "VERSION="+version, "DIST="+dir).CombinedOutput()
	if err != nil {
		m.t.Fatalf("make packages: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, name))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("%s: %q, %v", name, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		m.t.Fatal(err)
	}
	at := "/packages/" + version + "/" + filepath.Base(found[0])
	m.write(at, string(text))
	return filepath.Dir(at)
}

// commands returns those of a section of docs/install.md, one slice for each block.
func commands(t *testing.T, title string) (blocks [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+title+"\n")
	if !found {
		t.Fatalf("docs/install.md has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(section, -1) {
		var lines []string
		for line := range strings.Lines(block[1]) {
			lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		}
		blocks = append(blocks, lines)
	}
	return blocks
}

// in runs commands of a document in a directory of the machine.
func (m *machine) in(dir string, lines ...string) string {
	m.t.Helper()
	var out string
	for _, line := range lines {
		out += m.run("sh", "-c", `sudo() { "$@"; }; exec </dev/null; cd `+dir+` && `+line)
	}
	return out
}

// left is what the machine has of us: files, and what is in the kernel.
func (m *machine) left() string {
	m.t.Helper()
	return m.run("sh", "-c", `find /etc /usr /var /run -name '*portcullis*' -not -path '/var/lib/dpkg/*' | sort
nft list ruleset | grep portcullis || true`)
}

// TestDebian: the package is installed beside nothing that conflicts, opens nothing until it
// is enabled, keeps mappings and connections over an upgrade, and leaves nothing.
func TestDebian(t *testing.T) {
	t.Parallel()
	netnstest.NeedProgram(t, "dpkg-deb")
	n := testrig.Network(t, "a")
	m := boot(t, n)
	first, second := m.packaged("0.0.1", "*.deb"), m.packaged("0.0.2", "*.deb")
	doc := commands(t, "Debian")
	if len(doc) != 2 || len(doc[0]) != 2 || len(doc[1]) != 1 {
		t.Fatalf("the document has %q", doc)
	}
	if readme, err := os.ReadFile("../../README.md"); err != nil || !strings.Contains(string(readme), "```console\n$ "+strings.Join(doc[0], "\n$ ")+"\n```") {
		t.Errorf("the README does not set it up by %q, %v", doc[0], err)
	}
	install, enable, purge := doc[0][0], doc[0][1], strings.Replace(doc[1][0], "purge", "purge --yes", 1)
	m.conflicts(first)
	before := m.left()

	m.in(first, install)
	if state, _ := m.try("systemctl", "is-enabled", "portcullis"); strings.TrimSpace(state) != "disabled" {
		t.Errorf("after the installation it is %s", state)
	}
	if m.show("ActiveState") != "inactive" || strings.Contains(m.run("nft", "list", "tables"), "portcullis") {
		t.Error("the installation has started it")
	}
	m.write(configuration, settings)
	m.in(first, enable)
	m.confined()
	m.quiet()
	a := n.Host("a")
	testrig.On(t, a, "upnpc", "-e", "a game", "-a", a.Addr.String(), "6000", "6000", "TCP", "3600")
	list := m.list()
	flow := connect(t, n)
	m.run("systemctl", "reload", "portcullis")
	m.kept(list, flow, "a reload")
	m.run("systemctl", "restart", "portcullis")
	m.kept(list, flow, "a restart")

	pid := m.show("MainPID")
	m.in(second, install)
	if v := m.status().Version; v != "0.0.2" || m.show("MainPID") == pid {
		t.Errorf("after the upgrade %s runs", v)
	}
	m.kept(list, flow, "an upgrade")
	if text := m.run("cat", configuration); text != settings {
		t.Errorf("after the upgrade the configuration is\n%s", text)
	}

	// A daemon that died has left its rules, and removing the package takes them, too.
	m.write(override, "[Service]\nRestart=no\n")
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "kill", "--signal=SIGKILL", "portcullis")
	testrig.Eventually(t, soon, "it has ended", func() bool { return m.show("ActiveState") == "failed" })
	if !strings.Contains(m.run("nft", "list", "ruleset"), "portcullis_forward") {
		t.Error("a daemon that died has left nothing to remove")
	}
	m.run("apt", "remove", "--yes", "portcullis")
	if rules := m.run("nft", "list", "ruleset"); strings.Contains(rules, "portcullis") {
		t.Errorf("the package has left\n%s", rules)
	}
	if err := netnstest.Say(flow, "over", time.Second); err == nil {
		t.Error("a connection goes on after the removal")
	}
	m.run("test", "-e", configuration)
	m.in(second, install)
	m.run("systemctl", "is-enabled", "portcullis")
	if m.show("ActiveState") == "active" {
		t.Error("installing it again has started what did not run")
	}
	m.in(second, purge)
	m.run("rm", "-r", filepath.Dir(override)) // the owner's
	if after := m.left(); after != before {
		t.Errorf("before\n%s\nafter the purge\n%s", before, after)
	}
	m.run("id", "portcullis")
}

// conflicts wants the package not to be installed beside miniupnpd. What counts is the
// name, so a package of that name stands in for it.
func (m *machine) conflicts(dir string) {
	m.t.Helper()
	for _, name := range []string{"miniupnpd", "miniupnpd-nftables", "miniupnpd-iptables"} {
		_, _ = m.try("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--purge", "--force-depends", name) // where it is installed
	}
	m.write("/packages/miniupnpd/DEBIAN/control", "Package: miniupnpd-nftables\nVersion: 2.3.1-1\nArchitecture: all\nMaintainer: nobody\nDescription: a name\n")
	m.run("sh", "-c", "cd /packages && dpkg-deb --build miniupnpd miniupnpd.deb && dpkg --install miniupnpd.deb")
	out, err := m.try("sh", "-c", "dpkg --install "+dir+"/*.deb")
	if err == nil || !strings.Contains(out, "portcullis conflicts with miniupnpd-nftables") {
		m.t.Errorf("beside miniupnpd: %v\n%s", err, out)
	}
	m.run("dpkg", "--purge", "miniupnpd-nftables")
}

// TestUninstall: `make uninstall` takes away what `make install` has brought, the owner's
// configuration excepted.
func TestUninstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, target := range []string{"install", "uninstall"} {
		out, err := exec.Command("make", "-C", "../..", target, "DESTDIR="+dir, "BIN="+testrig.Exe).CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		var files []string
		if err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, strings.TrimPrefix(name, dir))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if installed := len(files) > 12; installed != (target == "install") || !installed && !slices.Equal(files, []string{configuration}) {
			t.Errorf("after make %s there are %q", target, files)
		}
	}
}

// TestTarball: what docs/install.md says for other distributions.
func TestTarball(t *testing.T) {
	t.Parallel()
	n, err := lab.New("a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	m := boot(t, n)
	dir := m.packaged("0.0.3", "*.tar.gz")
	doc := commands(t, "Any Linux with systemd")
	if len(doc) != 2 {
		t.Fatalf("the document has %q", doc)
	}
	before := m.left()
	here := func(lines []string) (all []string) {
		for _, line := range lines {
			all = append(all, strings.ReplaceAll(line, "amd64", runtime.GOARCH))
		}
		return all
	}
	m.in(dir, here(doc[0])...)
	m.run("systemctl", "enable", "--now", "portcullis")
	m.confined()
	m.maps(n)
	m.in(dir, here(doc[1])...)
	if after := m.left(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}
