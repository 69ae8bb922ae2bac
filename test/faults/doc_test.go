// Package faults shows, with the whole program on a network of namespaces, that
// after any fault the table the owner sees, what the client was promised and what
// the kernel does are the same within two seconds.
package faults

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"portcullis/internal/lab"
	testrig "portcullis/test/rig"
)

func TestMain(m *testing.M) { os.Exit(testrig.Main(m)) }

// soon is how long a test waits for what the gate does in a fraction of a second: how
// long it takes is measured by the benchmark, not here.
const soon = 30 * time.Second

// nft runs the nft program on the gateway with a ruleset on its input.
func nft(t *testing.T, r *testrig.Rig, ruleset string) {
	t.Helper()
	if out, err := tryNFT(r, ruleset); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, ruleset)
	}
}

func tryNFT(r *testrig.Rig, ruleset string) (string, error) {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(ruleset)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.Gateway.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// opened is a mapping of host a that packets from the Internet prove.
func opened(t *testing.T, r *testrig.Rig, port uint16) *lab.ControlPoint {
	t.Helper()
	c := r.Point(t, "a", lab.IGD1, lab.WANIP1)
	if err := c.Add(t.Context(), udp(port)); err != nil {
		t.Fatal(err)
	}
	if !r.Passes(t, "UDP", port, r.Host("a"), port) {
		t.Fatal("the mapping does not work to begin with")
	}
	return c
}

// writeConfig writes a configuration for a daemon that is not started.
func writeConfig(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "portcullis.toml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "%[1]s", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// joined is a socket at port 1900 of a host that hears searches.
func joined(h *lab.Host) (*net.UDPConn, error) {
	conn, err := h.ListenPacket("0.0.0.0:1900")
	if err != nil {
		return nil, err
	}
	l, err := h.Netlink().LinkByName(lab.HostPort)
	if err == nil {
		link := &net.Interface{Index: l.Attrs().Index, Name: lab.HostPort}
		err = ipv4.NewPacketConn(conn).JoinGroup(link, net.UDPAddrFromAddrPort(lab.Group4))
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
