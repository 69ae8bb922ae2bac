package doctor

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: who has seen nothing pass waits long, and who has not longer than that: by
// the slowest packet, within bounds.
func TestPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p patience
		want := func(what string, want time.Duration) {
			t.Helper()
			if got := p.now(); got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		want("at first", longest)
		for _, c := range []struct {
			took, want time.Duration
		}{
			{0, shortest}, {time.Millisecond, shortest}, {10 * time.Millisecond, 200 * time.Millisecond},
			{time.Millisecond, 200 * time.Millisecond}, {time.Second, longest},
		} {
			sent := time.Now()
			time.Sleep(c.took)
			p.passed(sent)
			want(c.took.String(), c.want)
		}
	})
}
