package homenet

import (
	"strings"
	"testing"
	"time"

	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// Damage is what another program does to the rules, and what an audit says of it.
type Damage struct{ Name, Script, Want string }

// Drift: what other programs do to the rules is found and put right, and a mapping
// works then.
func Drift(t *testing.T, fw Firewall, all []Damage) {
	h := New(t, fw)
	game := h.Alice.UDP(Alice + ":6000")
	h.Open("udp 5000", Alice+":6000")
	if drift, err := h.Backend.Audit(Context(t), true); drift != "" || err != nil {
		t.Fatalf("Audit of what is whole: %q, %v", drift, err)
	}
	for _, d := range all {
		h.Do(d.Script)
		drift, err := h.Backend.Audit(Context(t), true)
		if err != nil || !strings.Contains(drift, d.Want) {
			t.Errorf("%s: Audit says %q, %v; want %q", d.Name, drift, err, d.Want)
		}
		if drift, err := h.Backend.Audit(Context(t), true); drift != "" || err != nil {
			t.Errorf("%s: after the repair: %q, %v", d.Name, drift, err)
		}
		h.Passes(game, PeerX, WAN+":5000")
	}
	if n := h.Backend.Repaired(); n != uint64(len(all)) {
		t.Errorf("repaired %d times, want %d", n, len(all))
	}
}

// OutboundTimeout: the kernel's own word on flows that a host began.
func OutboundTimeout(t *testing.T, fw Firewall) {
	n := netnstest.New(t, "gateway")
	b := fw.Open(t, n)
	Start(t, b, Facts()) // conntrack is there once there are rules that need it
	for _, tc := range []struct {
		transport portmap.Transport
		file      string
		seconds   string
		want      time.Duration
	}{
		{portmap.UDP, "net/netfilter/nf_conntrack_udp_timeout", "37", 37 * time.Second},
		{portmap.TCP, "net/netfilter/nf_conntrack_tcp_timeout_established", "7440", 7440 * time.Second},
	} {
		n.Sysctl(tc.file, tc.seconds)
		if got, err := b.OutboundTimeout(tc.transport); got != tc.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", tc.transport, got, err, tc.want)
		}
	}
	if got, err := b.OutboundTimeout(1); err == nil {
		t.Errorf("another protocol: %v", got)
	}
}
