package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"portcullis/internal/http1"
	"portcullis/internal/json"
)

// Client talks to a running daemon.
type Client struct {
	socket string
	dial   func(context.Context) (net.Conn, error)
	wait   time.Duration // for each part of an answer
}

// answerWait is more than an answer takes: the kernel accepts for a daemon that is stuck, and
// who asks it would never hear of that.
const answerWait = time.Minute

// maxAnswer bounds what a client reads: 65 535 mappings of well under 1 kB.
const maxAnswer = 64 << 20

// NewClient returns a client for a socket's path.
func NewClient(socket string) *Client {
	return NewClientBy(socket, func(context.Context) (net.Conn, error) { return Dial(socket) })
}

// NewClientBy returns a client for whom dial connects to the socket: a process that may not
// has another one do it.
func NewClientBy(socket string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{socket, dial, answerWait}
}

// Dial connects to the socket with this path. The kernel decides at once.
func Dial(socket string) (net.Conn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Refusal is the daemon's own no.
type Refusal struct{ Failure }

// Error returns the daemon's sentence.
func (r *Refusal) Error() string { return r.Failure.Error }

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http1.Get, "/v1/status", nil, &s)
}

// Effective asks for the configuration that holds.
func (c *Client) Effective(ctx context.Context) (Effective, error) {
	var e Effective
	return e, c.call(ctx, http1.Get, "/v1/configuration", nil, &e)
}

// Mappings asks for all mappings.
func (c *Client) Mappings(ctx context.Context) ([]Mapping, error) {
	var list []Mapping
	return list, c.call(ctx, http1.Get, "/v1/mappings", nil, &list)
}

// EachMapping asks for all mappings, and passes one after another to f, which may keep
// what it points to until it returns.
func (c *Client) EachMapping(ctx context.Context, f func(*Mapping)) error {
	return c.talk(ctx, http1.Get, "/v1/mappings", nil, func(body io.Reader) error { return eachMapping(body, f) })
}

// Add opens a port of a host by the owner's hand, and returns the mapping.
func (c *Client) Add(ctx context.Context, a Addition) (Mapping, error) {
	var m Mapping
	return m, c.call(ctx, http1.Post, "/v1/add", a, &m)
}

// Delete removes mappings, and returns what was removed.
func (c *Client) Delete(ctx context.Context, d Deletion) ([]Mapping, error) {
	var gone []Mapping
	return gone, c.call(ctx, http1.Post, "/v1/delete", d, &gone)
}

// Reload has the daemon read its configuration again, and returns what came of it. That takes
// as long as it takes, where the daemon is not stuck before.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	var done Reloaded
	if _, err := c.Status(ctx); err != nil {
		return done, err
	}
	return done, c.call(ctx, http1.Post, reloadPath, nil, &done)
}

// call sends a request, and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.talk(ctx, method, path, in, func(body io.Reader) error {
		return decodeAnswer(body, out)
	})
}

// decodeAnswer reads the one value that an answer is.
func decodeAnswer(body io.Reader, out any) error {
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// talk sends a request, and has the body of an answer read that is no refusal.
func (c *Client) talk(ctx context.Context, method, path string, in any, read func(io.Reader) error) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return c.explain(err)
	}
	defer conn.Close()
	if path != reloadPath && path != eventsPath {
		conn = awaited{conn, ctx, c.wait}
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() // what waits on conn gives up
	err = exchange(conn, method, path, body, read)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded):
		return &Stuck{c.socket, c.wait}
	}
	return errors.Join(ctx.Err(), err)
}

// awaited is a connection to a daemon that has so long for each part of its answer.
type awaited struct {
	net.Conn
	ctx  context.Context // of the one question
	wait time.Duration
}

func (a awaited) Read(b []byte) (int, error) {
	if err := a.SetReadDeadline(time.Now().Add(a.wait)); err != nil {
		return 0, err
	}
	if err := a.ctx.Err(); err != nil { // or the deadline of its end were undone
		return 0, err
	}
	return a.Conn.Read(b)
}

// Stuck is a daemon that has a connection, and does not answer.
type Stuck struct {
	socket string
	wait   time.Duration
}

// Error says what an owner can do.
func (s *Stuck) Error() string {
	return fmt.Sprintf("portcullis has not answered on %s for %s: it is stopped, or stuck; systemctl restart portcullis", s.socket, s.wait)
}

// exchange sends one request and reads its answer.
func exchange(conn net.Conn, method, path string, body []byte, read func(io.Reader) error) error {
	_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: portcullis\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	if err != nil {
		return err
	}
	answer, err := http1.ReadAnswer(bufio.NewReaderSize(conn, http1.MaxHead))
	if err != nil {
		return err
	}
	if answer.Status != http1.OK {
		var f Failure
		if err := decodeAnswer(answer.Body, &f); err != nil || f.Error == "" {
			return fmt.Errorf("the daemon replied with HTTP status %d", answer.Status)
		}
		return &Refusal{f}
	}
	return read(answer.Body)
}

// unreached is why there is no connection, in a sentence.
type unreached struct {
	sentence string
	cause    error
}

func (u *unreached) Error() string { return u.sentence }
func (u *unreached) Unwrap() error { return u.cause }

// explain says what an owner can do about a connection that fails.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return &unreached{fmt.Sprintf("portcullis is not running here (no answer on %s): systemctl start portcullis, or name its file with --config", c.socket), err}
	case errors.Is(err, syscall.EACCES):
		return &unreached{fmt.Sprintf("permission denied on %s; run as root, or join the group that control.group names", c.socket), err}
	}
	return err
}
