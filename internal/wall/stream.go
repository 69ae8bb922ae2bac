package wall

import (
	"context"
	"time"

	"portcullis/portmap"
)

// eventBuffer is how many events may wait for who reads them.
const eventBuffer = 256

// stream is what Events returns: who does not keep up finds a Resync.
type stream struct {
	c      chan portmap.Event // with room for one more than eventBuffer
	missed bool
}

func (s *stream) end() { close(s.c) }

// offer never waits. Client.mu is held.
func (s *stream) offer(ev portmap.Event) {
	switch full := len(s.c) >= eventBuffer; {
	case !full:
		s.missed = false
		s.c <- ev
	case !s.missed:
		s.missed = true
		s.c <- portmap.Event{Time: ev.Time, Type: portmap.Resync}
	}
}

// Events implements front.Warden.
func (c *Client) Events(ctx context.Context) <-chan portmap.Event {
	s := &stream{c: make(chan portmap.Event, eventBuffer+1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams == nil { // the wall is broken
		s.end()
		return s.c
	}
	c.streams[s] = struct{}{}
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, there := c.streams[s]; there {
			delete(c.streams, s)
			s.end()
		}
	})
	return s.c
}

func (c *Client) event(b *Event) {
	ev := portmap.Event{Time: time.Now(), Type: b.Type, Mapping: portmap.Mapping{
		Kind:   b.Kind,
		Client: portmap.Client{Interface: b.Client.Interface, Addr: b.Client.Addr, MAC: b.Client.MAC},
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		s.offer(ev)
	}
}
