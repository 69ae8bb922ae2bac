package identify

import (
	"testing"
	"testing/synctest"
	"time"
)

// K4: a flood of forged datagrams is three lines and one a minute, with the count of
// what was left out.
func TestReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r reporter
		lines, leftOut := 0, 0
		for range 2 * 60 * 100 {
			if n, now := r.allow(); now {
				lines++
				leftOut += n
			}
			time.Sleep(10 * time.Millisecond)
		}
		if lines != reportBurst+1 || leftOut != 60*100-reportBurst {
			t.Errorf("%d lines in two minutes, %d left out", lines, leftOut)
		}
	})
}
