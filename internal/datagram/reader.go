package datagram

import (
	"errors"
	"net"
	"time"
)

const (
	readAhead   = 16 // datagrams between socket and server
	readRetries = 9  // failed reads in a row that are borne
	readPause   = 100 * time.Millisecond
)

// received is a datagram. Its bytes are valid until it is released.
type received struct {
	Packet
	bytes []byte
	buf   []byte
}

// reader reads from a Conn for the one goroutine that serves it. It has a fixed
// number of buffers: when the server is behind, the kernel drops.
type reader struct {
	datagrams chan received // each must be given back with release
	failed    chan error    // the socket cannot be read any more; net.ErrClosed among others

	conn    Conn
	free    chan []byte
	stop    chan struct{} // closed by close
	stopped chan struct{} // closed by the reader
}

// newReader begins to read. Of a datagram longer than size, size+1 octets are
// given, which shows that it is.
func newReader(conn Conn, size int) *reader {
	r := &reader{
		conn:      conn,
		free:      make(chan []byte, readAhead),
		datagrams: make(chan received, readAhead),
		failed:    make(chan error, 1),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	for range readAhead {
		r.free <- make([]byte, size+1)
	}
	go r.run()
	return r
}

// release takes back the buffer of a datagram.
func (r *reader) release(d received) { r.free <- d.buf }

// close closes the Conn and returns when the reader's goroutine has ended. It is
// called once.
func (r *reader) close() error {
	close(r.stop)
	err := r.conn.Close()
	<-r.stopped
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *reader) run() {
	defer close(r.stopped)
	var buf []byte
	for failures := 0; ; {
		if buf == nil {
			select {
			case buf = <-r.free:
			case <-r.stop:
				return
			}
		}
		p, err := r.conn.Receive(buf)
		if err == nil {
			failures = 0
			r.datagrams <- received{p, buf[:p.Size], buf} // has room for all buffers there are
			buf = nil
			continue
		}
		if failures++; errors.Is(err, net.ErrClosed) || failures > readRetries {
			r.failed <- err
			return
		}
		select {
		case <-time.After(readPause):
		case <-r.stop:
			return
		}
	}
}
