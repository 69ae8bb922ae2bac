package web

import (
	"testing"
	"time"
)

// TestSessions: they end by themselves, there are only so many, and a link that nobody uses
// is void after its time.
func TestSessions(t *testing.T) {
	t.Parallel()
	k := newKeys()
	now := time.Date(2026, 11, 30, 1, 0, 0, 0, time.UTC)
	begin := func() [2]string {
		t.Helper()
		k.offer(Hash("w"), now)
		cookie, key, ok := k.spend("w", now)
		if !ok {
			t.Fatal("a fresh link is refused")
		}
		return [2]string{cookie, key}
	}
	known := func(s [2]string) bool { return k.known(s[0], s[1], now) }
	if _, _, ok := k.spend("", now); ok {
		t.Error("signed in before there was a link")
	}
	k.offer(Hash("w"), now)
	if _, _, ok := k.spend("w", now.Add(linkTime)); ok {
		t.Error("an old link is taken")
	}
	idle, used := begin(), begin()
	for end := now.Add(idleTime); now.Before(end); now = now.Add(idleTime / 4) {
		if !known(used) {
			t.Fatal("a session ends that is used")
		}
	}
	if known(idle) {
		t.Error("a session that nobody uses goes on")
	}
	for end := now.Add(sessionTime); now.Before(end); now = now.Add(idleTime / 4) {
		known(used)
	}
	if known(used) {
		t.Error("a session goes on for ever")
	}
	first := begin()
	for range maxSessions - 1 {
		now = now.Add(time.Second)
		begin()
	}
	now = now.Add(time.Second)
	second := begin()
	if known(first) || !known(second) || len(k.sessions) != maxSessions {
		t.Errorf("%d sessions: the one least used is there: %v, the last: %v", len(k.sessions), known(first), known(second))
	}
	if known([2]string{second[0], second[0]}) || known([2]string{"", second[1]}) {
		t.Error("one secret is enough")
	}
}
