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

// Datagram is one that was read. Its bytes are valid until it is released.
type Datagram struct {
	Packet
	Bytes []byte
	buf   []byte
}

// Reader reads from a Conn for the one goroutine that serves it. It has a fixed
// number of buffers: when the server is behind, the kernel drops.
type Reader struct {
	C      <-chan Datagram // each must be given back with Release
	Failed <-chan error    // the socket cannot be read any more; net.ErrClosed among others

	conn      Conn
	free      chan []byte
	datagrams chan Datagram
	failed    chan error
	stop      chan struct{} // closed by Close
	stopped   chan struct{} // closed by the reader
}

// NewReader begins to read. Of a datagram longer than size, size+1 octets are
// given, which shows that it is.
func NewReader(conn Conn, size int) *Reader {
	r := &Reader{
		conn:      conn,
		free:      make(chan []byte, readAhead),
		datagrams: make(chan Datagram, readAhead),
		failed:    make(chan error, 1),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	r.C, r.Failed = r.datagrams, r.failed
	for range readAhead {
		r.free <- make([]byte, size+1)
	}
	go r.run()
	return r
}

// Release gives back the buffer of a datagram.
func (r *Reader) Release(d Datagram) { r.free <- d.buf }

// Close closes the Conn and returns when the reader's goroutine has ended. It is
// called once.
func (r *Reader) Close() error {
	close(r.stop)
	err := r.conn.Close()
	<-r.stopped
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *Reader) run() {
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
			r.datagrams <- Datagram{p, buf[:p.Size], buf} // has room for all buffers there are
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
