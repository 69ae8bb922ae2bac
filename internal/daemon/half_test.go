package daemon

import (
	"bytes"
	"strings"
	"testing"

	"portcullis/config"
	"portcullis/internal/netif"
	"portcullis/internal/slog"
)

// TestUUID: it is the owner's, one made of a MAC address, the same each time and another for
// another address, or the gateway's own.
func TestUUID(t *testing.T) {
	t.Parallel()
	const own, given = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "0f0e0d0c-0b0a-4908-8706-050403020100"
	of := func(mac byte, want config.UUID) (string, string) {
		var log bytes.Buffer
		s := netif.State{Links: []netif.Link{{Name: "br-lan", MAC: [6]byte{2, 0, 0, 0, 0, mac}}, {Name: "ppp0"}}}
		return uuidOf(slog.New(slog.NewTextHandler(&log, nil)), want, s, own), log.String()
	}
	for want, is := range map[config.UUID]string{"": own, given: given, "mac:ppp0": own, "mac:eth7": own} {
		if got, log := of(1, want); got != is || (log != "") != (is == own && want != "") {
			t.Errorf("%q: %s, want %s; logged %q", want, got, is, log)
		}
	}
	first, _ := of(1, "mac:br-lan")
	again, _ := of(1, "mac:br-lan")
	other, log := of(2, "mac:br-lan")
	var u config.UUID
	if first != again || first == other || first == own || u.UnmarshalText([]byte(first)) != nil || first[14] != '8' || log != "" {
		t.Errorf("%s, again %s, of another address %s; logged %q", first, again, other, log)
	}
}

// TestFewTasks: who may have too few processes and threads is told before the runtime ends.
func TestFewTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  config.SandboxMode
		limit int
		by    string
		warns bool
	}{
		{config.SandboxSplit, 0, "", false},
		{config.SandboxSplit, 2, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSplit, 47, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSplit, 48, "/sys/fs/cgroup/x/pids.max", false},
		{config.SandboxSingle, 19, "/sys/fs/cgroup/x/pids.max", true},
		{config.SandboxSingle, 47, "/sys/fs/cgroup/x/pids.max", false},
	} {
		if few := fewTasks(c.mode, c.limit, c.by); (few != "") != c.warns || c.warns && !strings.Contains(few, "x/pids.max allows") {
			t.Errorf("%+v: %q", c, few)
		}
	}
}
