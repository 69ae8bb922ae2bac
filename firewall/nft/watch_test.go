package nft_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"portcullis/firewall"
	"portcullis/firewall/homenet"
	"portcullis/firewall/nft"
	"portcullis/internal/netns/netnstest"
	"portcullis/portmap"
)

// TestWatch: what other programs do to the ruleset is told, with who did it and
// whether our table was touched; what we do ourselves is not, by the socket that it
// went through, also when that is another one, or by the thread that did it.
func TestWatch(t *testing.T) {
	t.Parallel()
	t.Run("by the socket", func(t *testing.T) {
		t.Parallel()
		n := netnstest.New(t, "watched")
		b := open(t, n)
		b.DisownThreads()
		testWatch(t, n, b, b.Reopen)
	})
	t.Run("by the thread", func(t *testing.T) {
		t.Parallel()
		// It is known as long as it lives: that of a test beside this one may end at
		// any time.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		n := netnstest.New(t, "watched")
		b := open(t, n)
		b.DisownSocket()
		testWatch(t, n, b, func() {})
	})
}

func testWatch(t *testing.T, n *netnstest.Space, b *nft.Backend, before func()) {
	one, two := homenet.Mapping(1, "udp 5000", homenet.Alice+":6000"), homenet.Mapping(2, "udp 5001", homenet.Alice+":6001")
	if err := b.Replace(ctx(t), []portmap.Mapping{one}); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(t.Context())
	defer stop()
	told := make(chan firewall.Intrusion, 16)
	ended := make(chan error, 1)
	go func() { ended <- b.Watch(watching, func(i firewall.Intrusion) { told <- i }) }()
	next := func(what string) firewall.Intrusion {
		t.Helper()
		select {
		case i := <-told:
			return i
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not told", what)
			return firewall.Intrusion{}
		}
	}
	if i := next("the start"); !i.Ours {
		t.Errorf("at the start: %+v", i)
	}
	for _, c := range []struct {
		script string
		ours   bool
	}{
		{"add table inet other", false},
		{"add chain inet other forward", false},
		{"add table ip portcullis", false},
		{"flush map inet portcullis mapped", true},
		{"flush ruleset", true},
	} {
		before()
		if err := b.Apply(ctx(t), []portmap.Mapping{two}, nil); err != nil {
			t.Fatal(err)
		}
		do(t, n, c.script)
		if i := next(c.script); i.Program != "nft" || i.Ours != c.ours {
			t.Errorf("%s: told %+v, want ours %v", c.script, i, c.ours)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}
