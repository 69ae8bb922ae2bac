package warden

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestToldAgain: whoever asks for the numbers without end has the daemon count for a twentieth of
// its time; what is old is counted anew.
func TestToldAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n numbersTold
		counts, takes := 0, 100*time.Millisecond
		count := func() []byte {
			time.Sleep(takes)
			counts++
			return fmt.Append(nil, counts)
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			n.get(count)
		}
		if counts < 28 || counts > 30 {
			t.Errorf("in a minute it counted %d times, each %v", counts, takes)
		}
		time.Sleep(toldFor * takes)
		takes = time.Minute
		if n.get(count); string(n.get(count)) != fmt.Sprint(counts) {
			t.Error("it tells something else than it counted")
		}
		time.Sleep(maxToldTo)
		if last := counts; string(n.get(count)) != fmt.Sprint(last+1) {
			t.Errorf("numbers are told that are older than %v", maxToldTo)
		}
	})
}
