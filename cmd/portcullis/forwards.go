package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"portcullis/firewall"
	"portcullis/portmap"
)

// forwardsAge is how old our knowledge of the owner's own port forwards may be
// when a port is granted. Reading it costs a dump of the foreign rules, which a
// client must not be able to cause at will.
const forwardsAge = 2 * time.Second

// forwards remembers what the owner's rules forward.
type forwards struct {
	read func(context.Context) (*firewall.Forwards, error)

	mu   sync.Mutex // held while reading: who comes meanwhile waits for the answer
	at   time.Time
	last *firewall.Forwards
	err  error
}

// inUse says which of the owner's rules forwards a port already, "" for none.
func (f *forwards) inUse(ctx context.Context, tr portmap.Transport, port uint16) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() || time.Since(f.at) >= forwardsAge {
		f.last, f.err = f.read(ctx)
		f.at = time.Now()
	}
	if f.err != nil {
		return "", fmt.Errorf("read the owner's port forwards: %w", f.err)
	}
	if where, taken := f.last.Taken(tr, port); taken {
		return "the owner's own firewall forwards it: " + where, nil
	}
	return "", nil
}
