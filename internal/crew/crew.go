package crew

import "sync"

// spare is how many goroutines of a Crew wait for more work, at most.
const spare = 4

// Crew is the goroutines of one sort of work. The zero value is ready.
type Crew struct {
	work sync.WaitGroup

	mu    sync.Mutex    // guards what follows
	idle  []chan func() // of those that wait
	ended bool          // nobody is to wait any more
}

// Go has f called by another goroutine. It never waits.
func (c *Crew) Go(f func()) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		next := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		next <- f // which has room
		return
	}
	c.mu.Unlock()
	c.work.Go(func() { c.run(f) })
}

func (c *Crew) run(f func()) {
	next := make(chan func(), 1)
	for f != nil {
		f()
		c.mu.Lock()
		if c.ended || len(c.idle) >= spare {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, next)
		c.mu.Unlock()
		f = <-next
	}
}

// Wait has the goroutines end that wait for work, and waits for the end of the others. Go
// may be called again when it has returned.
func (c *Crew) Wait() {
	c.mu.Lock()
	c.ended = true
	for _, next := range c.idle {
		next <- nil
	}
	c.idle = nil
	c.mu.Unlock()
	c.work.Wait()
	c.mu.Lock()
	c.ended = false
	c.mu.Unlock()
}
