package crew

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// TestCrew: all work is done, whatever comes while other work is under way, and Wait leaves
// no goroutine behind.
func TestCrew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // which fails where a goroutine is left
		var c Crew
		var mu sync.Mutex
		done := 0
		for round := range 3 {
			for range 100 {
				c.Go(func() {
					mu.Lock()
					defer mu.Unlock()
					done++
				})
			}
			synctest.Wait()
			if mu.Lock(); done != 100*(round+1) {
				t.Errorf("%d of %d are done", done, 100*(round+1))
			}
			mu.Unlock()
			if held := len(c.idle); held == 0 || held > spare {
				t.Errorf("%d wait for more", held)
			}
		}
		c.Wait()
		c.Go(func() { done++ })
		c.Wait()
		if done != 301 {
			t.Errorf("%d are done after a Wait", done)
		}
	})
}

// TestCrewIsTheSame: work that comes when other work has ended is done by who did that.
func TestCrewIsTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c Crew
		defer c.Wait()
		before := runtime.NumGoroutine()
		for range 10 {
			c.Go(func() {})
			synctest.Wait()
			if now := len(c.idle); now != 1 {
				t.Fatalf("%d goroutines wait, of %d", now, runtime.NumGoroutine()-before)
			}
		}
	})
}

// TestCrewWaits: Wait returns when the last work has ended, and not before.
func TestCrewWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c Crew
		hold, ended := make(chan struct{}), make(chan struct{})
		c.Go(func() { <-hold })
		go func() {
			c.Wait()
			close(ended)
		}()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("it has not waited")
		default:
		}
		close(hold)
		<-ended
	})
}
