package http1

import (
	"net"
	"slices"
	"sync"
)

// Doors counts the connections of a server that anybody can connect to. Where there is no
// room, the one whose request has been coming for longest makes it: whoever sends slowly
// holds nobody up. It is safe for concurrent use.
type Doors struct {
	Most int // connections

	mu      sync.Mutex
	reading []net.Conn        // whose request has not arrived; the oldest first; guarded by mu
	serving map[net.Conn]bool // whose request has; guarded by mu
}

// Enter reports whether there is room.
func (d *Doors) Enter(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.reading)+len(d.serving) >= d.Most {
		if len(d.reading) == 0 {
			return false
		}
		_ = d.reading[0].Close() // by which its goroutine ends
		d.reading = slices.Delete(d.reading, 0, 1)
	}
	d.reading = append(d.reading, conn)
	return true
}

// Arrived notes that the request is there, and the connection makes room for nobody any
// more. It reports whether it has not yet.
func (d *Doors) Arrived(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.reading, conn)
	if i < 0 {
		return false
	}
	d.reading = slices.Delete(d.reading, i, i+1)
	if d.serving == nil {
		d.serving = make(map[net.Conn]bool)
	}
	d.serving[conn] = true
	return true
}

// Leave closes a connection, whatever has become of it.
func (d *Doors) Leave(conn net.Conn) {
	_ = conn.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.serving, conn)
	if i := slices.Index(d.reading, conn); i >= 0 {
		d.reading = slices.Delete(d.reading, i, i+1)
	}
}
