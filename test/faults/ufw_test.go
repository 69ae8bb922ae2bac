package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portcullis/lab"
	testrig "portcullis/test/rig"
)

// inOwnFiles runs a program where what it writes is its own: $0 has copies of the
// machine's files, in a mount namespace that ends with the program.
const inOwnFiles = `mount --bind "$0/ufw" /etc/ufw && mount --bind "$0/default" /etc/default/ufw &&
mount -t tmpfs none /run && exec "$@"`

// byUFW sets ufw up as a gateway has it: what the WAN begins is dropped, the LAN may
// go out and may talk to the gateway.
func byUFW(t *testing.T, n *lab.Network) func() {
	t.Helper()
	dir := t.TempDir()
	copyTree(t, "/etc/ufw", filepath.Join(dir, "ufw"))
	copyFile(t, "/etc/default/ufw", filepath.Join(dir, "default"))
	// Its translation stands in the rules that it leaves to the owner.
	rules := filepath.Join(dir, "ufw", "before.rules")
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	masquerade := "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT\n"
	if err := os.WriteFile(rules, append([]byte(masquerade), text...), 0o640); err != nil {
		t.Fatal(err)
	}
	ufw := func(command string) {
		t.Helper()
		testrig.On(t, n.Gateway, "unshare", append([]string{"--mount", "--propagation", "private",
			"sh", "-c", inOwnFiles, dir, "ufw"}, strings.Fields(command)...)...)
	}
	for _, command := range []string{
		"default deny incoming", "default deny routed", "route allow in on br-lan out on wan0", "allow in on br-lan", "--force enable",
	} {
		ufw(command)
	}
	return func() {
		t.Helper()
		ufw("reload")
		ufw("disable")
		ufw("--force enable")
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatalf("%v (test/install brings what is missing)", err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
