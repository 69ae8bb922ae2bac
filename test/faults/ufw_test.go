package faults

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	testrig "portcullis/test/rig"
)

// masqueradeByUFW is what ufw-framework(8) has its owner add to before.rules, with a
// port forward. With the
// flushes a reload does not add the rule once more; they take our jumps, too.
const masqueradeByUFW = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-F PREROUTING
-F POSTROUTING
-A PREROUTING -i wan0 -p udp --dport 7070 -j DNAT --to-destination 192.168.77.20:7070
-A POSTROUTING -o wan0 -j MASQUERADE
COMMIT
`

// defaultsOfUFW is /etc/default/ufw as it is installed.
const defaultsOfUFW = `IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
DEFAULT_APPLICATION_POLICY="SKIP"
MANAGE_BUILTINS=no
IPT_SYSCTL=/etc/ufw/sysctl.conf
IPT_MODULES=""
`

// onLegacy runs a command for which iptables is iptables-legacy, as it is where the
// machine's alternatives say so.
const onLegacy = `mount --bind "$(command -v xtables-legacy-multi)" "$(command -v xtables-nft-multi)" && exec "$@"`

// startUFW runs the ufw of this machine on the gateway, with the owner's files in a
// directory of the test's: ufw's own options take it there. flavour is that of
// iptables; defaults are added to /etc/default/ufw.
func startUFW(flavour, defaults string) func(*testing.T, *testrig.Rig) []reload {
	return func(t *testing.T, r *testrig.Rig) []reload {
		t.Helper()
		ufw := newUFW(t, r, flavour, defaults)
		ufw("allow in on br-lan to any port 1900,5351 proto udp")
		ufw("allow in on br-lan to any port 5000 proto tcp")
		ufw("route allow in on br-lan out on wan0")
		ufw("--force enable")
		return []reload{
			{"ufw reload", func(t *testing.T) { t.Helper(); ufw("reload") }},
			{"ufw disable, ufw enable", func(t *testing.T) { t.Helper(); ufw("disable"); ufw("--force enable") }},
		}
	}
}

// newUFW returns what calls ufw; it is not enabled.
func newUFW(t *testing.T, r *testrig.Rig, flavour, defaults string) func(args string) {
	t.Helper()
	cmd := []string{"ufw", "--rootdir=/", "--datadir=" + ufwFiles(t, defaults)}
	if flavour == "legacy" {
		if !legacyTables(t, r.Network) {
			t.Skip("this kernel has no legacy tables")
		}
		cmd = append([]string{"unshare", "--mount", "sh", "-c", onLegacy, "sh"}, cmd...)
	}
	return func(args string) {
		t.Helper()
		testrig.On(t, r.Gateway, cmd[0], append(slices.Clone(cmd[1:]), strings.Fields(args)...)...)
	}
}

// ufwFiles makes the files that the package installs, as it installs them.
func ufwFiles(t *testing.T, defaults string) string {
	t.Helper()
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc", "ufw")
	for _, d := range []string{filepath.Join(etc, "applications.d"), filepath.Join(dir, "etc/default"), filepath.Join(dir, "lib/ufw")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(file, content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "etc/default/ufw"), defaultsOfUFW+defaults)
	for _, name := range []string{
		"ufw.conf", "before.rules", "after.rules", "user.rules", "before6.rules", "after6.rules", "user6.rules",
	} {
		content, err := os.ReadFile(filepath.Join("/usr/share/ufw", name))
		if err != nil {
			t.Fatalf("%v (test/install brings what is missing)", err)
		}
		if name == "before.rules" {
			content = append(content, masqueradeByUFW...)
		}
		write(filepath.Join(etc, name), string(content))
	}
	return dir
}
