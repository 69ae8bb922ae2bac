package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Client talks to a running daemon.
type Client struct {
	socket string
}

// maxAnswer bounds what a client reads: 65 535 mappings of well under 1 kB.
const maxAnswer = 64 << 20

// NewClient returns a client for a socket's path.
func NewClient(socket string) *Client { return &Client{socket} }

// Refusal is the daemon's own no.
type Refusal struct{ Failure }

// Error returns the daemon's sentence.
func (r *Refusal) Error() string { return r.Failure.Error }

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Mappings asks for all mappings.
func (c *Client) Mappings(ctx context.Context) ([]Mapping, error) {
	var list []Mapping
	return list, c.call(ctx, http.MethodGet, "/v1/mappings", nil, &list)
}

// Delete removes mappings, and returns what was removed.
func (c *Client) Delete(ctx context.Context, d Deletion) ([]Mapping, error) {
	var gone []Mapping
	return gone, c.call(ctx, http.MethodPost, "/v1/delete", d, &gone)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body := new(bytes.Buffer)
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://portcullis"+path, body)
	if err != nil {
		return err
	}
	req.Close = true
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return c.explain(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() // what waits on conn gives up
	if err := exchange(conn, req, out); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// exchange sends one request and reads its answer. An http.Client does more than a
// local socket needs, for 0.3 MB.
func exchange(conn net.Conn, req *http.Request, out any) error {
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		var f Failure
		if err := json.NewDecoder(answer).Decode(&f); err != nil || f.Error == "" {
			return fmt.Errorf("the daemon replied with %s", resp.Status)
		}
		return &Refusal{f}
	}
	return json.NewDecoder(answer).Decode(out)
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no daemon is listening on %s; is `portcullis run` running with the same --config?", c.socket)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("permission denied on %s; run as root, or join the group that control.group names", c.socket)
	}
	return err
}
