package doctor

import (
	"sync"
	"time"
)

// How long is waited for a packet. Most of what the doctor is asked about does not arrive,
// and each of it is tried several times before anybody is blamed.
const (
	longest  = 700 * time.Millisecond // while nothing has passed yet: the machine may be busy
	shortest = 70 * time.Millisecond
	slower   = 20 // times what the slowest packet took that has passed
)

// patience is how long is waited in one copy. The zero value has all of it. It is safe for
// concurrent use.
type patience struct {
	mu      sync.Mutex
	slowest time.Duration // guarded by mu; 0: nothing has passed yet
}

func (p *patience) now() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slowest == 0 {
		return longest
	}
	return min(max(shortest, slower*p.slowest), longest)
}

// passed notes that a packet has arrived that was sent then.
func (p *patience) passed(sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowest = max(p.slowest, time.Since(sent), 1)
}
