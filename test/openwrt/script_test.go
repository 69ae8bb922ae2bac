package openwrt

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestStateLink: where the directory of the state is a link, what it leads to keeps its mode.
func TestStateLink(t *testing.T) {
	t.Parallel()
	r := newRouter(t, nil)
	r.write("etc/config/upnpd", on)
	r.write("etc/others/file", "")
	if err := errors.Join(os.MkdirAll(filepath.Join(r.root, "tmp/lib"), 0o755), os.Chmod(filepath.Join(r.root, "etc/others"), 0o755)); err != nil {
		t.Fatal(err)
	}
	r.link("/etc/others", "tmp/lib/portcullis")
	r.do("/etc/init.d/portcullis", "start")
	if is, err := os.Stat(filepath.Join(r.root, "etc/others")); err != nil || is.Mode().Perm() != 0o755 {
		t.Errorf("it is %v: %v", is, err)
	}
}

// TestNames: the script has no function by a name that OpenWrt's functions.sh has one of, which its
// own functions call.
func TestNames(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../etc/openwrt/portcullis.init")
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Fields("append config config_cb config_clear config_foreach config_get config_get_bool config_list_foreach config_load " +
		"config_set config_unset include list list_cb list_contains list_remove option option_cb package prepend reset_cb")
	found := regexp.MustCompile(`(?m)^(\w+)\(\) \{$`).FindAllStringSubmatch(string(text), -1)
	if len(found) < 10 {
		t.Errorf("%d functions", len(found))
	}
	for _, f := range found {
		if slices.Contains(theirs, f[1]) {
			t.Errorf("%s is OpenWrt's", f[1])
		}
	}
}
