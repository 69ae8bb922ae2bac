package openwrt

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What stands in for OpenWrt's build system, as far as the feed's Makefile uses it: targets
// that say what would be built and of what, and one that installs.
var buildSystem = map[string]string{
	"rules.mk": "INCLUDE_DIR := $(TOPDIR)/include\n",
	"include/package.mk": `PKG_BUILD_DIR = $(SOURCES)
define BuildPackage
$(eval $(Package/$(1)))
compile: ; $$(Build/Compile)
install: ; $$(call Package/$(1)/install,$(INTO))
said: ; @printf '%s\n' 'PROVIDES $(PROVIDES)' 'CONFLICTS $(CONFLICTS)' 'DEPENDS $(DEPENDS)' 'USERID $(USERID)' 'CONFFILES $(strip $(Package/$(1)/conffiles))'
endef
`,
	"feeds/packages/lang/golang/golang-package.mk": `GO_ARCH_DEPENDS := @(aarch64||x86_64)
GO_ARCH = $(GO_ARCH_$(ARCH))
GO_ARCH_x86_64 = amd64
GO_ARCH_mipsel = mipsle
GO_PKG_BUILD_BIN_DIR = $(BINARIES)
GO_PKG_TARGET_VARS = CGO_ENABLED=1
GO_PKG_INSTALL_ARGS = -trimpath -ldflags "all=-linkmode external" $(if $(filter 1,$(PKG_ASLR_PIE)),-buildmode pie)
define GoPackage/Build/Compile
	$(GO_PKG_TARGET_VARS) $(SHELL) -c 'echo "CGO_ENABLED=$$CGO_ENABLED"; printf "%s\n" "$$@"' install $(GO_PKG_INSTALL_ARGS) $(1) $(GO_PKG_BUILD_PKG)
endef
`,
}

// TestFeed: OpenWrt's build system builds with the flags of `make build` for the same processor,
// installs the files of our own packages, and says of the package what those say.
func TestFeed(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	sources, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(sources, "etc/openwrt/feed/Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	const feed = "feeds/packages/net/portcullis"
	files := map[string]string{feed + "/Makefile": string(text), "bin/portcullis": "the program"}
	for name, text := range buildSystem {
		files[name] = text
	}
	for name, text := range files {
		at := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("make", append([]string{"--silent", "--no-print-directory"}, args...)...)
		cmd.Dir = filepath.Join(top, feed)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	in := []string{"TOPDIR=" + top, "SOURCES=" + sources, "BINARIES=" + filepath.Join(top, "bin"), "INTO=" + filepath.Join(top, "root")}

	version := regexp.MustCompile(`(?m)^PKG_VERSION:=(.*)$`).FindSubmatch(text)
	for openwrt, goarch := range map[string]string{"x86_64": "amd64", "mipsel": "mipsle"} {
		ours := run("-C", sources, "-n", "build", "VERSION="+string(version[1]), "GOARCH="+goarch)
		recipe := regexp.MustCompile(`CGO_ENABLED=0 go build (.*) -o \S+ \./cmd/portcullis`).FindStringSubmatch(ours)
		if recipe == nil {
			t.Fatalf("make build is %s", ours)
		}
		quoted := exec.Command("sh", "-c", `printf "%s\n" `+recipe[1])
		flags, err := quoted.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(run(append(in, "compile", "ARCH="+openwrt)...), "\n"), "\n")
		want := strings.Split(strings.TrimSuffix(string(flags), "\n"), "\n") // -trimpath is what both have first
		want = slices.Concat([]string{"CGO_ENABLED=0", want[0], "-ldflags", "all=-linkmode external"}, want[1:], []string{"portcullis/cmd/portcullis"})
		if !slices.Equal(got, want) {
			t.Errorf("for %s it builds with\n%s\nwant\n%s", openwrt, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}

	said := run(append(in, "said")...)
	for _, line := range []string{"PROVIDES miniupnpd", "CONFLICTS miniupnpd-nftables miniupnpd-iptables", "USERID portcullis:portcullis",
		"DEPENDS @(aarch64||x86_64) +kmod-nf-conntrack-netlink +kmod-nft-nat", "CONFFILES /etc/config/upnpd /etc/portcullis/"} {
		if !strings.Contains(said, line+"\n") {
			t.Errorf("it does not say %q:\n%s", line, said)
		}
	}

	run(append(in, "install")...)
	golden, err := os.ReadFile(filepath.Join(sources, "packages/testdata/ipk.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\S+ root/root \./(\S+)$`).FindAllStringSubmatch(string(golden), -1) {
		if _, err := os.Stat(filepath.Join(top, "root", m[1])); err != nil {
			t.Error(err)
		}
	}
}
