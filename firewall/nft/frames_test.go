package nft_test

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
)

func frames(t *testing.T, n *netnstest.Space) *nft.Frames {
	t.Helper()
	f, err := nft.OpenFrames(ctx(t), n.FD(), 200, 5000, 1900, 5351)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFramesList: the table as a person sees it, and as nft must be able to load it
// again.
func TestFramesList(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	f := frames(t, n)
	if got := list(t, n, "ruleset"); got != "" {
		t.Errorf("opening leaves something in the kernel:\n%s", got)
	}
	if err := f.Follow(ctx(t), []string{"br-lan", "lan1"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Know(ctx(t), [][6]byte{{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	do(t, n, "add element inet portcullis_frames machines { 02:00:00:00:00:01 limit rate over 200/second burst 200 packets }")
	loaded := regexp.MustCompile(` expires [0-9dhms]+`)
	ruleset := loaded.ReplaceAllString(list(t, n, "ruleset"), "")
	golden(t, "frames.nft", ruleset)
	do(t, n, "flush ruleset\n"+ruleset)
	if diff := cmp.Diff(ruleset, loaded.ReplaceAllString(list(t, n, "ruleset"), "")); diff != "" {
		t.Errorf("nft loads another ruleset than it listed (-want +got):\n%s", diff)
	}
	if drift, err := f.Audit(ctx(t)); drift != "" || err != nil {
		t.Errorf("the audit of what nft has loaded says %q, %v", drift, err)
	}
	if err := f.Close(ctx(t)); err != nil {
		t.Error(err)
	}
	if got := list(t, n, "ruleset"); got != "" {
		t.Errorf("closing leaves something in the kernel:\n%s", got)
	}
}

// TestFramesAudit: what others do to the table is found and put right.
func TestFramesAudit(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	f := frames(t, n)
	if err := f.Follow(ctx(t), []string{"br-lan"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Know(ctx(t), [][6]byte{{2, 0, 0, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	whole := list(t, n, "ruleset")
	for _, harm := range []string{
		"flush ruleset",
		"delete table inet portcullis_frames",
		"flush chain inet portcullis_frames mark_frames",
		"flush set inet portcullis_frames lan_ifaces",
		"add element inet portcullis_frames lan_ifaces { wan0 }",
		"flush set inet portcullis_frames known",
		"add element inet portcullis_frames known { 02:00:00:00:00:03 }",
		"insert rule inet portcullis_frames mark_frames meta mark set 7",
		"flush chain inet portcullis_frames mark_frame",
		"add rule inet portcullis_frames mark_frames accept",
		"add table inet portcullis_frames { flags dormant; }",
		"flush ruleset\nadd table inet portcullis_frames",
		"flush ruleset\nadd table inet portcullis_frames\nadd chain inet portcullis_frames mark_frames",
	} {
		do(t, n, harm)
		if drift, err := f.Audit(ctx(t)); drift == "" || err != nil {
			t.Errorf("after %q: %q, %v", harm, drift, err)
		}
		if diff := cmp.Diff(whole, list(t, n, "ruleset")); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", harm, diff)
		}
		if drift, err := f.Audit(ctx(t)); drift != "" || err != nil {
			t.Errorf("after the repair: %q, %v", drift, err)
		}
	}
	if err := f.Follow(ctx(t), []string{"br-lan", "lan1"}); err != nil {
		t.Fatal(err)
	}
	if list(t, n, "ruleset") == whole {
		t.Error("another LAN is not followed")
	}
}

// TestFramesKnow: as many machines as there may be are written in one go, also when the
// table is written anew; those that are known no more are gone.
func TestFramesKnow(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	f := frames(t, n)
	many := make([][6]byte, nft.MaxKnown+1) // one is left out
	for i := range many {
		many[i] = [6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}
	}
	if err := f.Know(ctx(t), many); err != nil {
		t.Fatal(err)
	}
	for _, lans := range [][]string{{"br-lan"}, {"br-lan", "lan1"}} {
		if err := f.Follow(ctx(t), lans); err != nil {
			t.Fatal(err)
		}
		if drift, err := f.Audit(ctx(t)); drift != "" || err != nil {
			t.Errorf("%q, %v", drift, err)
		}
	}
	for _, some := range [][][6]byte{many[:nft.MaxKnown-1], many[7:8]} {
		if err := f.Know(ctx(t), some); err != nil {
			t.Fatal(err)
		}
		known := regexp.MustCompile(`02:00:00:[0-9a-f:]{8}`).FindAllString(list(t, n, "set inet portcullis_frames known"), -1)
		if len(known) != len(some) {
			t.Errorf("%d are known, want %d", len(known), len(some))
		}
	}
}

// TestFramesAreOurs: what a run that was killed has left does not pass for the owner's
// rules.
func TestFramesAreOurs(t *testing.T) {
	t.Parallel()
	n := netnstest.New(t, "gateway")
	if err := frames(t, n).Follow(ctx(t), []string{"br-lan"}); err != nil {
		t.Fatal(err)
	}
	b := unconfigured(t, n)
	t.Cleanup(func() { _ = b.Close(ctx(t), true) })
	if owned, err := b.Owned(ctx(t)); owned || err != nil {
		t.Errorf("the ruleset is owned: %v, %v", owned, err)
	}
}
