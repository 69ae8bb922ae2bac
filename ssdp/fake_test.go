package ssdp_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portcullis/internal/datagram"
	"portcullis/ssdp"
)

// fakeConn is a socket in memory. Made inside a synctest bubble it lets time
// stand still.
type fakeConn struct {
	in     chan arrival
	closed chan struct{}
	onSend func(to netip.AddrPort) error // may be nil

	mu   sync.Mutex
	sent []sent
}

// arrival is what Receive gives next.
type arrival struct {
	packet datagram.Packet
	bytes  []byte
	err    error
}

// sent is one datagram that went out.
type sent struct {
	at   time.Time
	from netip.Addr
	to   netip.AddrPort
	text []byte
}

func newFakeConn() *fakeConn {
	return &fakeConn{in: make(chan arrival), closed: make(chan struct{})}
}

func (c *fakeConn) Receive(b []byte) (datagram.Packet, error) {
	select {
	case a := <-c.in:
		a.packet.Size = copy(b, a.bytes)
		return a.packet, a.err
	case <-c.closed:
		return datagram.Packet{}, net.ErrClosed
	}
}

func (c *fakeConn) Send(b []byte, from netip.Addr, to netip.AddrPort) error {
	if c.onSend != nil {
		if err := c.onSend(to); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, sent{time.Now(), from, to, append([]byte(nil), b...)})
	return nil
}

func (c *fakeConn) Close() error {
	close(c.closed)
	return nil
}

// take returns what was sent since the last call, once everybody waits.
func (c *fakeConn) take() []sent {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.sent
	c.sent = nil
	return out
}

// runner is a Server that runs on a fakeConn.
type runner struct {
	t      *testing.T
	conn   *fakeConn
	server *ssdp.Server
	cancel context.CancelFunc
	result chan error
}

// start runs a server in the bubble of the test. finish must be called.
func start(t *testing.T, cfg ssdp.Config) *runner {
	t.Helper()
	r := &runner{t: t, conn: newFakeConn(), result: make(chan error, 1)}
	var err error
	if r.server, err = ssdp.New(cfg, r.conn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.result <- r.server.Run(ctx) }()
	return r
}

// settled runs a server on the LAN and lets its first announcements pass.
func settled(t *testing.T, cfg ssdp.Config) *runner {
	t.Helper()
	r := start(t, cfg)
	r.server.SetAddresses([]netip.Addr{gateway}, []netip.Prefix{lan})
	pass(3 * time.Second)
	r.conn.take()
	return r
}

// finish stops the server; the bubble proves that no goroutine stays.
func (r *runner) finish() {
	r.t.Helper()
	r.cancel()
	if err := <-r.result; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

// from sends a datagram to the server: multicast on its interface, unless edit
// says otherwise.
func (r *runner) from(source netip.AddrPort, b []byte, edit ...func(*datagram.Packet)) {
	p := datagram.Packet{Source: source, Destination: ssdp.Group.Addr(), Ifindex: lanIndex}
	for _, e := range edit {
		e(&p)
	}
	r.conn.in <- arrival{packet: p, bytes: b}
}

// unicast is an edit for from.
func unicast(p *datagram.Packet) { p.Destination = gateway }

// pass lets time go by in the bubble.
func pass(d time.Duration) { <-time.After(d) }

// rows gives "target usn" of each message.
func rows(t *testing.T, all []sent) []string {
	t.Helper()
	var out []string
	for _, s := range all {
		out = append(out, read(t, s.text).row())
	}
	return out
}
