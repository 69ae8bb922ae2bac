package netif

import (
	"context"
	"time"
)

// listeningAge is how old an answer of ListeningCache may be.
const listeningAge = time.Second

// ListeningCache answers for Listening at each grant without a dump at each
// grant. It reads on demand, at most once a second, one reader at a time;
// whoever comes meanwhile waits for that reader's answer. Safe for concurrent
// use.
type ListeningCache struct {
	read func(context.Context) (Ports, error)

	turn  chan struct{} // holds one token; its holder may touch the fields below
	when  time.Time     // of the last answer; zero: never
	ports Ports
	err   error
}

// NewListeningCache makes a cache in front of read, usually Kernel.Listening.
func NewListeningCache(read func(context.Context) (Ports, error)) *ListeningCache {
	c := &ListeningCache{read: read, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// Get gives the listeners as they were at most a second ago. A failure is
// remembered as long as an answer, so that a kernel in trouble is not pressed;
// the caller that gets one must not grant. It returns the context's error when
// that ends first.
func (c *ListeningCache) Get(ctx context.Context) (Ports, error) {
	select {
	case <-ctx.Done():
		return Ports{}, ctx.Err()
	case <-c.turn:
	}
	defer func() { c.turn <- struct{}{} }()
	if !c.when.IsZero() && time.Since(c.when) < listeningAge {
		return c.ports, c.err
	}
	ports, err := c.read(ctx)
	if ctx.Err() != nil {
		return Ports{}, ctx.Err() // says nothing about the kernel: not remembered
	}
	c.when, c.ports, c.err = time.Now(), ports, err
	return ports, err
}
