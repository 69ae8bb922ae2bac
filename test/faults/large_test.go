package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portcullis/internal/control"
	"portcullis/internal/journal"
	"portcullis/internal/lab"
	"portcullis/internal/slog"
	"portcullis/policy"
	"portcullis/portmap"
	testrig "portcullis/test/rig"
)

const (
	manyMappings = 60_000
	manyEach     = 4      // of one host
	manyLow      = 30_000 // the first port
)

// many are mappings of hosts behind a router of the LAN, of which there are so many
// that the reserve of limits.mappings stops none.
func many() []portmap.Mapping {
	var all []portmap.Mapping
	now := time.Now()
	for n := 2 * manyLow; len(all) < manyMappings; n++ {
		port, transport := uint16(n/2), []portmap.Transport{portmap.TCP, portmap.UDP}[n%2]
		inside, _ := policy.TierOf(policy.Internal, transport, port)
		outside, _ := policy.TierOf(policy.External, transport, port)
		if inside != policy.Ordinary || outside != policy.Ordinary {
			continue
		}
		host := len(all)/manyEach + 1
		addr := netip.AddrFrom4([4]byte{10, 0, byte(host >> 8), byte(host)})
		all = append(all, portmap.Mapping{
			ID:           uint64(len(all) + 1),
			Client:       portmap.Client{Addr: addr, Interface: "br-lan", Via: portmap.ViaPCP},
			Transport:    transport,
			Internal:     netip.AddrPortFrom(addr, port),
			WAN:          "wan0",
			ExternalPort: port,
			Claims:       portmap.Vias(0).With(portmap.ViaPCP),
			Created:      now, Expires: now.Add(time.Hour),
			Description: fmt.Sprint("game ", len(all)),
		})
	}
	return all
}

// TestSixtyThousandMappings: L14. What a journal of 60,000 mappings holds is restored, and
// the owner's commands list all of it.
func TestSixtyThousandMappings(t *testing.T) {
	t.Parallel()
	r := testrig.StartWith(t, testrig.Network(t), strings.Replace(lab.Settings, "[wan]", "extra_prefixes = [\"10.0.0.0/16\"]\n[wan]", 1)+fmt.Sprintf("[limits]\nmappings = 65535\nmappings_per_client = %d\n", manyEach))
	if err := r.Daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	j, _, err := journal.Open(journal.Config{Dir: r.Daemon.State(), Log: slog.New(slog.DiscardHandler), MaxMappings: manyMappings})
	if err != nil {
		t.Fatal(err)
	}
	want := many()
	added := make([]portmap.Change, len(want))
	for i := range want {
		added[i] = portmap.Change{New: &want[i]}
	}
	if err := j.Record(t.Context(), added); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r.Restart(t)

	list := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), testrig.Exe, append([]string{"list", "--config", r.Daemon.Config}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("list %v: %v", args, err)
		}
		return out
	}
	if lines := bytes.Count(list(), []byte("\n")); lines != manyMappings+1 {
		t.Errorf("%d lines", lines)
	}
	var all []control.Mapping
	if err := json.Unmarshal(list("--json"), &all); err != nil || len(all) != manyMappings {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	for i, m := range all {
		w := want[i]
		if m.ID != w.ID || m.ExternalPort != w.ExternalPort || m.Protocol != w.Transport.String() || m.InternalIP != w.Internal.Addr().String() {
			t.Fatalf("place %d: %+v, want %+v", i, m, w)
		}
	}
}
