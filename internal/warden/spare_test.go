package warden

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSpare: memory is given back once after work on many mappings, when few come, and nobody looks
// where there were few.
func TestSpare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		given := 0
		s := &spare{give: func() { given++ }}
		for second, c := range []struct{ changes, given int }{
			{spareAfter - 1, 0}, {0, 0}, {0, 0}, // too few
			{1, 0}, {0, 0}, {0, 1}, {0, 1}, {0, 1}, // once
			{spareAfter, 1}, {spareAfter, 1}, {spareAfter, 1}, {0, 1}, {1, 1}, {0, 1}, // not meanwhile
			{spareAfter - 1, 2}, {0, 2}, {0, 2}, {0, 2}, // it is counted anew
		} {
			for range c.changes {
				s.passed(1)
			}
			synctest.Wait()
			if given != c.given {
				t.Errorf("second %d: given back %d times, want %d", second, given, c.given)
			}
			time.Sleep(spareEvery/2 + 1) // who looks comes before the second change after
		}
	})
}
