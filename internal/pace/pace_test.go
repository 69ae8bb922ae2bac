package pace_test

import (
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/pace"
)

// TestTogether: whoever begins when, all wake in the same moment, once a period.
func TestTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wakes := make(map[time.Time]int)
		for i := range 6 {
			time.Sleep(7 * time.Second)
			timer := time.NewTimer(pace.Until(pace.Minute << (i % 2)))
			time.Sleep(time.Duration(i)) // who computes is not who waits
			wakes[<-timer.C]++
		}
		for at := range wakes {
			if at.Second() != 0 || at.Nanosecond() != 0 {
				t.Errorf("woken at %v", at)
			}
		}
	})
}

// TestEarly: a timer that ends a little early is not followed by another one at once.
func TestEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(pace.Minute - time.Millisecond)
		if d := pace.Until(pace.Minute); d != pace.Minute+time.Millisecond {
			t.Errorf("the next look is in %v", d)
		}
		time.Sleep(time.Millisecond)
		if d := pace.Until(pace.Minute); d != pace.Minute {
			t.Errorf("the next look is in %v", d)
		}
	})
}
