package httpd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"portcullis/internal/httpd"
	"portcullis/internal/slog"
)

// gateAddr is where the server in memory says it listens.
var gateAddr = netip.MustParseAddrPort("192.168.1.1:5000")

// wire is one end of a TCP connection in memory: two pipes, so that each
// direction can be closed alone.
type wire struct {
	net.Conn          // what is read
	out      net.Conn // what is written
	local    netip.AddrPort
	remote   netip.AddrPort
}

// newWire makes a connection from a client to a server.
func newWire(client, server netip.AddrPort) (clientEnd, serverEnd *wire) {
	up, up2 := net.Pipe()
	down, down2 := net.Pipe()
	return &wire{down2, up, client, server}, &wire{up2, down, server, client}
}

func (w *wire) Write(b []byte) (int, error) { return w.out.Write(b) }
func (w *wire) CloseWrite() error           { return w.out.Close() }
func (w *wire) Close() error                { return errors.Join(w.Conn.Close(), w.out.Close()) }

func (w *wire) SetDeadline(t time.Time) error {
	return errors.Join(w.Conn.SetReadDeadline(t), w.out.SetWriteDeadline(t))
}
func (w *wire) SetWriteDeadline(t time.Time) error { return w.out.SetWriteDeadline(t) }

func (w *wire) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(w.local) }
func (w *wire) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(w.remote) }

// memory is a listener whose connections are made by dial.
type memory struct {
	addr    netip.AddrPort
	waiting chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func listenInMemory(addr netip.AddrPort) *memory {
	return &memory{addr: addr, waiting: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.waiting:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memory) Addr() net.Addr { return net.TCPAddrFromAddrPort(m.addr) }

// dial connects from an address; nil when the listener is closed.
func (m *memory) dial(from string) *wire {
	client, server := newWire(netip.MustParseAddrPort(from), m.addr)
	select {
	case m.waiting <- server:
		return client
	case <-m.closed:
		return nil
	}
}

// running is a server in memory.
type running struct {
	*memory
	server *httpd.Server
	stop   context.CancelFunc
	ended  chan error
}

// start runs a server in memory, for tests in a synctest bubble. It must be
// ended with stop, and its end awaited.
func start(t testing.TB, cfg httpd.Config) *running {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := httpd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{memory: listenInMemory(gateAddr), server: s, ended: make(chan error, 1)}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.ended <- s.Serve(ctx, r.memory) }()
	return r
}

// end stops the server and waits until it is gone.
func (r *running) end(t testing.TB) {
	t.Helper()
	r.stop()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve ended with %v", err)
	}
}

// send writes in the background, as far as the server reads.
func (w *wire) send(request string) {
	go func() { _, _ = io.WriteString(w, request) }()
}
