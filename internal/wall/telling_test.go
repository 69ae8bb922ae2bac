package wall

import (
	"testing"
	"testing/synctest"
	"time"

	"portcullis/portmap"
)

// TestEventsGathered: what one client does again and again is told at once, and then once in
// a while; the last of it, too.
func TestEventsGathered(t *testing.T) {
	t.Parallel()
	const changes, each = 1000, gatherTime / 10
	synctest.Test(t, func(t *testing.T) {
		told, last := 0, time.Time{}
		events, gone := make(chan portmap.Event), make(chan error)
		s := &teller{send: func(e *Event) error {
			if e.Type == portmap.Renewed {
				told, last = told+1, time.Now()
			}
			return nil
		}}
		go func() { gone <- s.run(events) }()
		var changed time.Time
		for i := range changes {
			events <- portmap.Event{Type: portmap.Renewed, Mapping: shownOne}
			changed = time.Now()
			if synctest.Wait(); i == 0 && told != 1 {
				t.Error("the first is not told at once")
			}
			time.Sleep(each)
		}
		events <- portmap.Event{Type: portmap.Deleted, Mapping: shownOne}
		time.Sleep(gatherTime)
		if told > changes/5 || last.Before(changed) {
			t.Errorf("%d changes were told %d times, the last %v before it", changes, told, changed.Sub(last))
		}
		before := told
		time.Sleep(time.Minute)
		if told != before {
			t.Error("told of what has not changed")
		}
		close(events)
		if err := <-gone; err != nil {
			t.Error(err)
		}
	})
}
