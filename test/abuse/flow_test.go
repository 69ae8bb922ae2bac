package abuse

import (
	"io"
	"net"
	"testing"
	"time"

	"portcullis/internal/lab"
)

// flow is a connection from the Internet through a mapped TCP port, to who echoes.
type flow struct {
	conn   net.Conn
	number byte
}

// openFlow maps a TCP port and opens a flow through it.
func openFlow(t *testing.T, r *rig, host string, c *lab.ControlPoint, port uint16) *flow {
	t.Helper()
	if err := c.Add(t.Context(), tcp(port, port, "")); err != nil {
		t.Fatal(err)
	}
	return r.flow(t, host, port)
}

// flow opens one through a port that is mapped.
func (r *rig) flow(t *testing.T, host string, port uint16) *flow {
	t.Helper()
	l, err := r.Host(host).Listen(hostPort(r.Host(host).Addr, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	conn, err := r.Internet.Dial(t.Context(), "tcp4", hostPort(lab.GatewayWAN, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &flow{conn: conn}
	if !f.alive() {
		t.Fatal("the flow never worked")
	}
	return f
}

// alive reports whether bytes pass. A busy machine, or a segment that is sent again,
// takes its time.
func (f *flow) alive() bool { return f.passes(soon) }

// dead reports whether nothing passes for a while: longer than a machine that is busy
// takes for an echo.
func (f *flow) dead() bool { return !f.passes(time.Second) }

// passes reports whether the echo of a byte comes in time.
func (f *flow) passes(within time.Duration) bool {
	if err := f.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return false
	}
	f.number++
	if _, err := f.conn.Write([]byte{f.number}); err != nil {
		return false
	}
	for buf := make([]byte, 1); ; { // what is late echoes an earlier byte
		if _, err := f.conn.Read(buf); err != nil || buf[0] == f.number {
			return err == nil
		}
	}
}
